begin;
\ir ../helpers.psql
select plan(14);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
set local timezone = 'UTC';
select tests.pause_jobs() \g /dev/null

-- Nothing has made partitions for weeks: the clock is far ahead of them.
select tests.set_clock(date_trunc('day', private.clock(), 'UTC') + interval '30 days 12 hours')
\g /dev/null
select private.clock() as now \gset
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 3)) ->> 'accepted', '3',
  'a signal that is too early for its partition is stored all the same');
select is(private.default_partition_rows('private.signals'), 3::bigint, 'in the DEFAULT partition');
select results_eq(
  $$select value, ok, hint like '%private.signals%' from public.operations_health
    where name = 'rows_in_default_partitions'$$,
  $$select sum(private.default_partition_rows(parent))::numeric, false, true
    from private.partition_sets$$,
  'which operations_health tells');

select throws_ok(
  format(
    'select private.ensure_partitions(%L, %L, %L)', 'private.signals', :'now', :'now'),
  '23514', null, 'while they are there, their partition cannot be made');
set local search_path = public, extensions;
create function tests.make_all()
returns void
language plpgsql
as $$
begin
  while private.partitions_step() = 1 loop
    null;
  end loop;
end
$$;
select tests.make_all() \g /dev/null
set local search_path = public, extensions;
select results_eq(
  $$select count(*) filter (where starts <= private.clock() and ends > private.clock()),
      max(ends) > private.clock() + interval '7 days'
    from private.partitions where parent = 'private.signals'$$,
  $$values (0::bigint, true)$$,
  'the job makes all others, and leaves that one out');

select is(
  private.adopt_default_partition('private.signals')::text,
  'private.signals_p' || to_char(private.clock(), 'YYYYMMDD'),
  'an operator makes the DEFAULT partition that of the day');
select is(
  (select count(*)::integer from public.signals where account_id = :'alice'), 3,
  'no signal is lost');
select is(
  (select count(distinct tableoid) from private.signals
    where generated_at > private.clock() - interval '1 hour'), 1::bigint,
  'they are in one partition');
select is(private.default_partition_rows('private.signals'), 0::bigint, 'the new DEFAULT is empty');
select is_empty(
  $$
    select partition from private.partitions
    inner join pg_class on pg_class.oid = partition
    where not relrowsecurity or relacl is not null
  $$,
  'and closed');
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 4)) ->> 'duplicate', '3',
  'a repeat is a duplicate as before');
select is(
  private.adopt_default_partition('private.signals'), null,
  'without rows there is nothing to adopt');

-- Days whose rows are there together are told apart by moving them: what is packed is a day.
select tests.set_clock(:'now'::timestamptz + interval '100 days') \g /dev/null
select tests.ingest(:'alice', tests.signals(:'trader', 3)) \g /dev/null
select tests.set_clock(:'now'::timestamptz + interval '101 days') \g /dev/null
select tests.ingest(:'alice', tests.signals(:'trader', 3)) \g /dev/null
select throws_like(
  'select private.adopt_default_partition(''private.signals'')', '%several days%',
  'several days are not made one partition');

-- No link of the audit may be deleted and written anew, so months of them are.
select private.adopt_default_partition('audit.links') as links \gset
set local search_path = public, extensions;
select throws_ok(
  format('truncate %s', :'links'), '42501', null,
  'the links of the audit are adopted, and still refuse to be emptied');

select * from finish();
rollback;
