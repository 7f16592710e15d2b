-- Partitions for what an import brings are made outside partitions_step, which closes all at its end.
begin;
\ir ../helpers.psql
select plan(3);
select tests.pause_jobs() \g /dev/null

select is(
  private.ensure_partitions('private.segments_elite', '2019-03-05 00:00Z', '2019-04-05 00:00Z'), 2,
  'months that an import needs are made');
select is(
  private.ensure_partitions('audit.links', '2019-03-05 00:00Z', '2019-03-05 00:00Z'), 1,
  'and one of the audit');

select is_empty(
  $$
    select made.partition from private.partitions as made
    inner join pg_class as class on class.oid = made.partition
    where made.starts < '2020-01-01' and not class.relrowsecurity
  $$,
  'they have row-level security of their own');

select * from finish();
rollback;
