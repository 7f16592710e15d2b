begin;
\ir ../helpers.psql
select plan(9);

create temporary view days as
select
  child.oid::regclass::text as name,
  (regexp_match(bound, 'FROM \(''([^'']+)''\)'))[1]::timestamptz as starts,
  (regexp_match(bound, 'TO \(''([^'']+)''\)'))[1]::timestamptz as ends
from pg_inherits
inner join pg_class as child on child.oid = inhrelid
cross join pg_get_expr(child.relpartbound, child.oid) as bound
where inhparent = 'private.signals'::regclass;

select is_empty(
  $$
    select day
    from generate_series(
      date_trunc('day', now(), 'UTC') - interval '8 days',
      date_trunc('day', now(), 'UTC') + interval '3 days', interval '1 day') as day
    where not exists (
      select from days where starts = day and ends = day + interval '1 day')
  $$,
  'every day from 8 back to 3 ahead has its partition, from midnight UTC to midnight UTC');
select is(
  (select count(*)::integer from days where starts is null), 1, 'there is one default partition');
select is_empty('select from private.signals_default', 'which is empty');
select is(
  (select infinite_time_partitions from partman.part_config
    where parent_table = 'private.signals'), true,
  'partitions are made even when no signals come');
select is(
  (select retention from partman.part_config where parent_table = 'private.signals'), null,
  'and none is dropped');

-- pg_partman leaves search_path as the function has it, which is empty.
select private.maintain_partitions() as settled \gset
select private.maintain_partitions() as made \gset
set local search_path = public, extensions;
select is(:made, 0, 'with all in place maintenance has nothing to do');

-- Two days ahead get lost; the next maintenance makes them.
select count(*) as before from days \gset
do $$
declare
  v_name text;
begin
  for v_name in select name from days where starts is not null order by starts desc limit 2 loop
    execute 'drop table ' || v_name;
  end loop;
end
$$;
select private.maintain_partitions() as made \gset
select private.maintain_partitions() as made_again \gset
set local search_path = public, extensions;
select is(:made, 2, 'it makes those that are missing and says how many');
select is(:made_again, 0, 'a second run makes none');
select is((select count(*) from days), :before::bigint, 'all are there again');

select * from finish();
rollback;
