begin;
\ir ../helpers.psql
select plan(8);
select tests.pause_jobs() \g /dev/null

create function tests.lacking()
returns setof text
language sql
as $$
  select partition_set.parent || ' ' || day
  from private.partition_sets as partition_set
  cross join generate_series(
    private.clock() - partition_set.behind, private.clock() + partition_set.ahead,
    interval '1 day') as day
  where not exists (
    select from private.partitions as made
    where made.parent = partition_set.parent and made.starts <= day and day < made.ends)
$$;

create function tests.make_all()
returns bigint
language plpgsql
as $$
declare
  v_made bigint := 0;
begin
  while private.partitions_step() = 1 loop
    v_made := v_made + 1;
  end loop;
  return v_made;
end
$$;
-- This database may be from before midnight: the job of the day since then is done here.
select tests.make_all() as made \gset
set local search_path = public, extensions;

select is_empty(
  $$
    select class.oid::regclass
    from pg_partitioned_table as partitioned
    inner join pg_class as class on class.oid = partitioned.partrelid
    where partitioned.partstrat = 'r' and class.relowner = 'postgres'::regrole
      and class.oid::regclass::text not in (
      select parent from private.partition_sets)
  $$,
  'every table that is cut by time is a set');
select is_empty(
  'select tests.lacking()', 'each has partitions from behind the clock to ahead of it');
select is_empty(
  $$
    select parent, partition from private.partitions as made
    inner join private.partition_sets using (parent)
    where starts <> date_trunc(every, starts, 'UTC')
      or ends <> starts at time zone 'UTC' at time zone 'UTC' + ('1 ' || every)::interval
  $$,
  'each is one day, week, month or year in UTC');
select is_empty(
  $$
    select parent from private.partition_sets
    where (
      select count(*) from private.partitions as made
      where made.parent = partition_sets.parent and starts is null) <> 1
  $$,
  'each set has one default partition');
select is_empty(
  $$
    select partition from private.partitions
    inner join pg_class on pg_class.oid = partition
    where not relrowsecurity or relacl is not null
  $$,
  'no partition is open to anyone: row-level security is on, and nobody has a grant');

-- A quarter later, and with the session in another time zone.
set local timezone = 'Asia/Kathmandu';
select tests.set_clock(private.clock() + interval '100 days') \g /dev/null
select tests.make_all() as made \gset
-- pg_partman leaves search_path as the function has it, which is empty.
set local search_path = public, extensions;
select ok(:made > 100, 'after a long silence the job makes what was missed, one in each step');
select is_empty('select tests.lacking()', 'and nothing is lacking then');
select tests.make_all() as made \gset
set local search_path = public, extensions;
select is(:made, 0, 'with all in place it has nothing to do');

select * from finish();
rollback;
