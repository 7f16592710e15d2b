begin;
\ir ../helpers.psql
select plan(14);

-- A job with three pieces of work of 10 rows, that can be told to fail.
create table tests.work (left_over integer, fails boolean);
insert into tests.work values (3, false);
create function private.rehearsal_step()
returns bigint
language plpgsql
as $$
declare
  v_work tests.work;
begin
  update tests.work set left_over = left_over - 1 where left_over > 0 returning * into v_work;
  if v_work.fails then
    raise exception 'no more paper';
  end if;
  return coalesce(10 * (v_work.left_over is not null)::integer, 0);
end
$$;
insert into private.jobs (job, schedule, late_after) values ('rehearsal', '0 4 * * *', '1 day');

create function tests.health()
returns text
language sql
as $$
  select concat_ws(' ', ok, hint) from public.operations_health where name = 'job_rehearsal'
$$;
create function tests.run(budget interval default '50 seconds')
returns text
language plpgsql
as $$
declare
  v_run bigint := private.start_run('rehearsal');
begin
  while private.run_step(v_run, run.budget) loop
    null;
  end loop;
  perform private.end_run(v_run);
  return (
    select concat_ws(' ', steps, rows, error, case when finished_at is null then 'unfinished' end)
    from private.job_runs where run_no = v_run);
end
$$;

select is(tests.health(), 'f has not run', 'a job that never ran is not well');
select is(tests.run(), '4 30', 'a run goes on until nothing is left to do');
select is(tests.health(), 't', 'then the job is well');
select is(tests.run(), '1 0', 'the next has nothing to do');
update tests.work set left_over = 3;
select is(tests.run('0 seconds'), '1 10', 'a run ends when its budget is spent');
select is(tests.run('0 seconds'), '1 10', 'and the next goes on from there');

update tests.work set fails = true;
select is(tests.run(), '0 0 P0001 no more paper', 'a step that fails ends the run, with the error');
select is((select left_over from tests.work), 1, 'what it did is undone');
select is(tests.health(), 't P0001 no more paper', 'the job is well until it is late');
update private.job_runs set finished_at = finished_at - interval '2 days' where job = 'rehearsal';
select is(tests.health(), 'f P0001 no more paper', 'and then it is not');
update tests.work set fails = false;
select is(tests.run(), '2 10', 'the next run does what failed');

select private.start_run('rehearsal') as killed \gset
select private.end_run(:killed) \g /dev/null
select tests.run() \g /dev/null
select is(
  (select error from private.job_runs where run_no = :killed), 'interrupted',
  'a run that was killed is written down as such by the next');
select throws_ok(
  'select private.start_run(''encore'')', '22023', 'Cannot run ''encore'': there is no such job.',
  'only the jobs of the list run');

update private.job_runs set started_at = started_at - interval '8 days' where job = 'rehearsal';
select private.retention_step() \g /dev/null
set local search_path = public, extensions;
select is_empty(
  'select from private.job_runs where job = ''rehearsal''', 'runs are forgotten after 7 days');

select * from finish();
rollback;
