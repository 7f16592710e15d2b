begin;
\ir ../helpers.psql
select plan(4);

select results_eq(
  $$
    select schedule, command, active from cron.job
    where command like '%private.%' order by jobid
  $$,
  $$values ('7 * * * *', 'select private.maintain_partitions()', true)$$,
  'one active job keeps the partitions, every hour');
select is(
  (select jobname from cron.job where command like '%private.%'), 'signals-partitions',
  'it has a name');

select cron.schedule('signals-partitions', '7 * * * *', 'select private.maintain_partitions()')
\g /dev/null
select is(
  (select count(*)::integer from cron.job where jobname = 'signals-partitions'), 1,
  'scheduling it again changes it in place');
select command from cron.job where jobname = 'signals-partitions' \gset
:command \g /dev/null
-- pg_partman leaves search_path as the function has it, which is empty.
set local search_path = public, extensions;
select pass('what it runs works');

select * from finish();
rollback;
