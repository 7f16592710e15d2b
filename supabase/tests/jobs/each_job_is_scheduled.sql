begin;
\ir ../helpers.psql
select plan(5);

select results_eq(
  'select jobname, schedule, command, active from cron.job where command like ''%private.%''
    order by jobname collate "C"',
  'select ''signals-'' || job, schedule, private.job_command(job), true from private.jobs
    order by job collate "C"',
  'every job is scheduled under its name');
select is_empty(
  $$
    select job from private.jobs
    where to_regprocedure(format('private.%I()', job || '_step')) is null
  $$,
  'every job has its step');
select is_empty(
  $$
    select step.oid::regprocedure from pg_proc as step
    where pronamespace = 'private'::regnamespace and proname like '%\_step' and pronargs = 0
      and prorettype <> 'bigint'::regtype
  $$,
  'which says how much it got done');
select is_empty(
  $$
    select step.oid::regprocedure from pg_proc as step
    where pronamespace = 'private'::regnamespace and proname like '%\_step' and pronargs = 0
      and replace(proname, '_step', '') not in (select job from private.jobs)
  $$,
  'and every step has its job');

select cron.schedule('signals-' || job, schedule, private.job_command(job)) from private.jobs
\g /dev/null
select is(
  (select count(*) from cron.job where jobname like 'signals-%'),
  (select count(*) from private.jobs),
  'scheduling them again changes them in place');

select * from finish();
rollback;
