begin;
\ir ../helpers.psql
select plan(9);
-- A warning is expected below.
set local client_min_messages = error;

select tests.account() as alice \gset
select tests.trader(:'alice', 'loud', true) as trader \gset
select tests.signals(:'trader', 45) as signals \gset
select tests.ingest(:'alice', :'signals') ->> 'accepted' as stored \gset

create function tests.told(account_id uuid)
returns setof jsonb
language sql
as $$
  select payload - 'id' from realtime.messages
  where event = 'signals_advanced' and topic = 'account:' || told.account_id || ':signals'
  order by (payload ->> 'first_seq')::bigint
$$;

create function tests.analyzed(account_id uuid, signals jsonb, first integer, last integer)
returns jsonb
language sql
as $$
  select tests.advance(analyzed.account_id, jsonb_agg(tests.change(signal, 'analyzed') order by place))
  from jsonb_array_elements(analyzed.signals) with ordinality as each (signal, place)
  where place between analyzed.first and analyzed.last
$$;

select tests.analyzed(:'alice', :'signals', 1, 20) ->> 'accepted' as first,
  tests.analyzed(:'alice', :'signals', 21, 41) ->> 'accepted' as second \gset
select is(
  (select array_agg(payload - array['broadcast_at', 'changes']) from tests.told(:'alice') as payload),
  array['{"first_seq": 1, "last_seq": 20, "count": 20}'::jsonb,
    '{"first_seq": 21, "last_seq": 41, "count": 21}'], 'each request is one broadcast');
select is(
  (select array_agg(jsonb_array_length(payload -> 'changes')) from tests.told(:'alice') as payload),
  array[20, null], 'up to 20 changes are carried, more are not');
select is(
  (select payload -> 'changes' from tests.told(:'alice') as payload limit 1),
  tests.ask(:'alice', 'select public.query_events(0, 20)') -> 'events',
  'as query_events gives them');
select is(
  (select count(*)::integer from realtime.messages
    where event = 'signals_advanced' and topic like '%' || :'trader' || '%'), 0,
  'a trader''s own channel tells of signals only');
select is(
  (select bool_and(private and extension = 'broadcast') from realtime.messages
    where event = 'signals_advanced'), true, 'the broadcast is private');

select tests.analyzed(:'alice', :'signals', 1, 41) ->> 'duplicate' as repeated \gset
select is((select count(*)::integer from tests.told(:'alice')), 2, 'duplicates are not told');

savepoint whole;
create or replace function private.events_told(
  account private.accounts, first_seq bigint, last_seq bigint)
returns jsonb
language plpgsql
as 'begin raise exception ''planted''; end';
select is(
  tests.analyzed(:'alice', :'signals', 42, 43) - array['request_id', 'items'],
  '{"accepted": 2, "duplicate": 0, "rejected": 0, "first_seq": 42, "last_seq": 43}',
  'a broadcast that cannot be made does not fail the request');
select is((select count(*)::integer from tests.told(:'alice')), 2, 'and nothing is told');
rollback to savepoint whole;

select tests.analyzed(:'alice', :'signals', 44, 45) ->> 'accepted' as third \gset
select is((select count(*)::integer from tests.told(:'alice')), 3, 'the next request is told');

select * from finish();
rollback;
