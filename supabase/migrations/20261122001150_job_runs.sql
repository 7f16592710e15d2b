-- How jobs run: step by step, each step in its own short transaction, with a row for every run.
-- One lock a job, so that a second run returns at once; an error ends the run and is written down.
-- Must never break: a job may be killed anywhere and run again, so a step does all of its work or none.

create table private.jobs (
  job text primary key,
  schedule text not null,
  late_after interval not null,
  constraint late_after_is_positive check (late_after > interval '0')
);

comment on table private.jobs is
'The jobs. Each is the function private.<job>_step(), which does a bounded piece of work in one
transaction and returns how many rows it got done; 0 means that nothing is left to do now.';
comment on column private.jobs.schedule is
'When it runs, as cron writes it, or every so many seconds.';
comment on column private.jobs.late_after is
'How long after its last good run the job is in trouble: operations_health says so.';

insert into private.jobs (job, schedule, late_after)
values
('partitions', '7-59/10 * * * *', '3 hours'),
('pack', '* * * * *', '15 minutes'),
('merge', '3-59/5 * * * *', '1 hour'),
('reclaim', '4-59/5 * * * *', '1 hour'),
('rollup', '30 seconds', '5 minutes'),
('expiry', '30 seconds', '5 minutes'),
('retention', '*/10 * * * *', '2 hours');

create table private.job_runs (
  run_no bigint generated always as identity primary key,
  job text not null references private.jobs (job),
  started_at timestamptz not null,
  finished_at timestamptz,
  steps integer not null default 0,
  rows bigint not null default 0,
  error text
);

create index job_runs_job_idx on private.job_runs (job, run_no);

comment on table private.job_runs is
'One row a run, kept for 7 days. The times are the machine''s, whatever private.clock() says.';
comment on column private.job_runs.finished_at is
'Null while it runs. A run that was killed is ended by the next one, with the error interrupted.';

create function private.start_run(job text)
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_run_no bigint;
begin
  if not exists (select from private.jobs as known where known.job = start_run.job) then
    raise exception using
      errcode = 'invalid_parameter_value',
      message = format('Cannot run %L: there is no such job.', start_run.job),
      hint = 'private.jobs lists them.';
  end if;
  if not pg_try_advisory_lock(hashtext('private.jobs'), hashtext(start_run.job)) then
    return null;
  end if;
  -- Whoever holds the lock knows that no other run of the job is alive.
  update private.job_runs as killed
  set finished_at = clock_timestamp(), error = 'interrupted'
  where killed.job = start_run.job and killed.finished_at is null;
  insert into private.job_runs (job, started_at) values (start_run.job, clock_timestamp())
  returning run_no into v_run_no;
  return v_run_no;
end
$$;

comment on function private.start_run is
'Takes the lock of the job for this session and writes the row of its run; null when another session
runs the job.';

create function private.run_step(
  run_no bigint,
  budget interval
)
returns boolean
language plpgsql
strict
set search_path = ''
as $$
declare
  v_run private.job_runs;
  v_rows bigint;
  v_error text;
  v_finished boolean;
begin
  select run.* into strict v_run from private.job_runs as run where run.run_no = run_step.run_no;
  begin
    execute format('select private.%I()', v_run.job || '_step') into strict v_rows;
  exception
    -- What a step did is undone when it fails, and other jobs go on.
    when query_canceled or others then
      v_error := concat_ws(' ', sqlstate, sqlerrm);
  end;
  v_finished := v_error is not null or v_rows = 0
    or clock_timestamp() >= v_run.started_at + run_step.budget;
  update private.job_runs as run
  set
    steps = run.steps + (v_error is null)::integer,
    rows = run.rows + coalesce(v_rows, 0),
    error = v_error,
    finished_at = case when v_finished then clock_timestamp() end
  where run.run_no = run_step.run_no;
  return not v_finished;
end
$$;

comment on function private.run_step is
'Does the next step of a run and writes it down; false when nothing is left to do, the budget is
spent or the step failed.';

create function private.end_run(run_no bigint)
returns boolean
language sql
strict
set search_path = ''
as $$
  select pg_advisory_unlock(hashtext('private.jobs'), hashtext(run.job))
  from private.job_runs as run
  where run.run_no = end_run.run_no
$$;

comment on function private.end_run is 'Gives the lock of the job back.';

-- A DO statement, since it commits between steps: a procedure that commits can have no search_path
-- of its own, and the Supabase advisor warns of every routine without one.
create function private.job_command(
  job text,
  budget interval default '50 seconds'
)
returns text
language sql
immutable
set search_path = ''
as $$
  select format($command$do $job$
declare
  v_run_no bigint := private.start_run(%L);
begin
  commit;
  while private.run_step(v_run_no, %L) loop
    commit;
  end loop;
  commit;
  perform private.end_run(v_run_no);
end
$job$
$command$, job_command.job, job_command.budget)
$$;

comment on function private.job_command is
'The statement that runs a job: each step in a transaction of its own, until nothing is left to do,
the budget is spent or a step fails. Does nothing while another session runs the job. By hand, in
psql: select private.job_command(''pack'') \gexec';

create function private.forget_runs()
returns bigint
language sql
set search_path = ''
as $$
  with forgotten as (
    delete from private.job_runs as run
    where run.run_no in (
      select old.run_no
      from private.job_runs as old
      where old.started_at < clock_timestamp() - interval '7 days'
      order by old.run_no
      limit 10000)
    returning run.run_no
  )
  select count(*) from forgotten
$$;

comment on function private.forget_runs is
'Deletes up to 10,000 rows of runs more than 7 days ago.';

alter table private.jobs enable row level security;
alter table private.job_runs enable row level security;
