begin;
\ir ../helpers.psql
select plan(6);

select tests.account('pro') as alice \gset
select tests.trader(:'alice') as trader \gset
select date_trunc('day', now(), 'UTC') + interval '10 hours 30 seconds' as now \gset
select tests.set_clock(:'now') is null as stopped \gset

select tests.ingest(:'alice', tests.signals(:'trader', 7)) ->> 'accepted' as stored \gset
select is(
  tests.ask(:'alice', 'select public.my_account()'),
  jsonb_build_object(
    'account_id', :'alice', 'tier', 'pro', 'last_seq', 7,
    'day', '{"used": 7, "limit": 10000}'::jsonb, 'minute', '{"used": 7, "limit": 1000}'::jsonb),
  'after seven signals');

select tests.set_clock(:'now'::timestamptz + interval '30 seconds') is null as next_minute \gset
select is(
  tests.ask(:'alice', 'select public.my_account()') -> 'minute' ->> 'used', '0',
  'a new minute begins at 0 without a write');
select is(
  tests.ask(:'alice', 'select public.my_account()') -> 'day' ->> 'used', '7',
  'while the day goes on');

select tests.set_clock(:'now'::timestamptz + interval '14 hours') is null as next_day \gset
select is(
  tests.ask(:'alice', 'select public.my_account()') -> 'day' ->> 'used', '0',
  'a new day begins at 0 without a write');
select is(
  tests.ask(:'alice', 'select public.my_account()') ->> 'last_seq', '7', 'last_seq stays');

select private.set_account_tier(:'alice', 'elite') is null as raised \gset
select is(
  (answer -> 'day' -> 'limit') || (answer -> 'minute' -> 'limit'), '[null, null]',
  'an unlimited allowance is null')
from tests.ask(:'alice', 'select public.my_account()') as answer;

select * from finish();
rollback;
