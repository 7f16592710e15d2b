begin;
\ir ../helpers.psql
\ir packing.psql
select plan(13);

select date_trunc('day', now(), 'utc') + interval '12 hours' as noon \gset
select tests.set_clock(:'noon') \g /dev/null
select tests.account('pro') as alice, tests.account('pro') as bob \gset
select tests.trader(:'alice') as a_trader, tests.trader(:'bob') as b_trader \gset
select tests.ingest(:'alice', tests.signals(:'a_trader', 3)) ->> 'accepted' as stored \gset
select tests.ingest(:'bob', tests.signals(:'b_trader', 5)) ->> 'accepted' as stored \gset
select tests.set_clock(:'noon'::timestamptz + interval '3 days') \g /dev/null
select tests.run('pack_step') > 0 as packed \gset

create function tests.seen(account_id uuid)
returns integer[]
language sql
as $$
  select array[
    tests.ask(account_id, 'select coalesce(sum(signals), 0) from private.segments')::integer,
    tests.ask(account_id, 'select count(*) from private.stored_signals')::integer,
    tests.ask(account_id, 'select count(*) from public.signals')::integer]
$$;

select is(tests.seen(:'alice'), array[3, 3, 3], 'alice sees her own packed signals');
select is(tests.seen(:'bob'), array[5, 5, 5], 'bob sees his');
select is(tests.seen(gen_random_uuid()), array[0, 0, 0], 'a stranger sees none');
select is(tests.seen(null), array[0, 0, 0], 'nor does a token without a user');
select is(
  tests.ask(:'alice', format(
    'select count(*) from private.signals_by_seq(%s, 1, 100)', tests.account_no(:'bob'))),
  '0', 'alice finds none of bob''s by seq');
select is(
  tests.ask(:'alice', format(
    'select count(*) from private.signals_by_time(%s, ''-infinity'', ''infinity'')',
    tests.account_no(:'bob'))),
  '0', 'nor by time');
select is(
  tests.ask(:'alice', 'select count(*) from public.signals', 'signals:write'), '0',
  'a token that may only write reads none');
select is(
  tests.ask(
    null, 'select to_json(count(*) >= 8) from public.signals', null, 'service_role'), 'true',
  'service_role sees all');

select is_empty(
  $$
    select tree.relid::regclass, role
    from pg_partition_tree('private.segments') as tree
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    inner join pg_class as class on class.oid = tree.relid
    where tree.level > 0 and (
      has_table_privilege(role, tree.relid, 'select,insert,update,delete,truncate')
      or not class.relrowsecurity)
  $$,
  'no role reaches a partition, and each is closed to whoever did');
select is(
  tests.refusal(:'alice', 'select count(*) from private.segments_pro'), '42501',
  'asking one is refused');
select is(
  tests.refusal(:'alice', 'select private.pack_step()'), '42501', 'no client packs');

alter policy members_read_own_segments on private.segments using (true);
select cmp_ok((tests.seen(:'alice'))[1], '>=', 8, 'relaxed, the policy leaks');
drop policy members_read_own_segments on private.segments;
select is(tests.seen(:'alice'), array[0, 0, 0], 'without it, no segment is seen');

select * from finish();
rollback;
