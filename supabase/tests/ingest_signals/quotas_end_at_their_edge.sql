begin;
\ir ../helpers.psql
select plan(24);

select tests.account('free') as free, tests.account('free') as slow, tests.account('pro') as pro,
  tests.account('elite') as elite \gset
select tests.trader(:'free') as free_trader, tests.trader(:'slow') as slow_trader,
  tests.trader(:'pro') as pro_trader, tests.trader(:'elite') as elite_trader \gset
-- A time zone in which the day is another one for half of each day.
set local timezone = 'Pacific/Auckland';
select date_trunc('day', now(), 'UTC') as midnight \gset
select tests.set_clock(:'midnight'::timestamptz - interval '10 seconds') is null as stopped \gset

create function tests.used(account_id uuid)
returns text
language sql
as $$
  select concat_ws(' ', answer -> 'day' ->> 'used', answer -> 'minute' ->> 'used')
  from tests.ask(used.account_id, 'select public.my_account()') as answer
$$;

-- Free: 100 a day.
select is(
  tests.refused(tests.ingest(:'free', tests.signals(:'free_trader', 101))),
  array['100 quota_exceeded'], 'free: the 101st of one batch is over the quota');
select is(tests.used(:'free'), '100 100', 'which is used up');
select is(
  tests.refused(tests.ingest(:'slow', tests.signals(:'slow_trader', 99))), '{}',
  'free: 99 are within');
select is(
  tests.refused(tests.ingest(:'slow', tests.signals(:'slow_trader', 2, 100))),
  array['1 quota_exceeded'], 'free: across batches the 100th is within, the 101st is not');
select is(
  tests.refused(tests.ingest(
    :'slow', tests.signals(:'slow_trader', 1) || '[1]' || tests.signals(:'slow_trader', 1, 102))),
  array['0 duplicate', '1 invalid_signal', '2 quota_exceeded'],
  'over the quota, a duplicate is still a duplicate and a bad signal bad');
select is(tests.used(:'slow'), '100 100', 'what was refused is not counted');

select tests.set_clock(:'midnight'::timestamptz - interval '1 microsecond') is null as late \gset
select is(
  tests.refused(tests.ingest(:'free', tests.signals(:'free_trader', 1, 500))),
  array['0 quota_exceeded'], 'the day (UTC) lasts until midnight');
select tests.set_clock(:'midnight') is null as next_day \gset
select is(
  tests.refused(tests.ingest(:'free', tests.signals(:'free_trader', 1, 500))), '{}',
  'and begins anew at 00:00 UTC');
select is(tests.used(:'free'), '1 1', 'with the counters from 0');
select is(
  (select day_started::text from private.accounts where account_id = :'free'),
  to_char(:'midnight'::timestamptz at time zone 'UTC', 'YYYY-MM-DD'), 'of that UTC day');

-- Duplicates and refused signals use nothing.
select is(
  tests.refused(tests.ingest(:'free',
    tests.signals(:'free_trader', 1, 500) || '[{}, {}]' || tests.signals(:'free_trader', 99, 600))),
  array['0 duplicate', '1 invalid_trader_id', '2 invalid_trader_id'],
  'free: duplicates and bad signals leave all of the quota');
select is(tests.used(:'free'), '100 100', 'to those that are stored');

-- Pro: 1,000 a minute and 10,000 a day.
select tests.set_clock(:'midnight'::timestamptz + interval '59.999999 seconds') is null as late
\gset
select tests.ingest(:'pro', tests.signals(:'pro_trader', 1001)) as pro_verdict \gset
select is(
  tests.refused(:'pro_verdict'), array['1000 rate_limited'], 'pro: the 1,001st of a minute');
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 1, 1001))),
  array['0 rate_limited'], 'pro: nor in a later batch of the minute');
select tests.set_clock(:'midnight'::timestamptz + interval '60 seconds') is null as next_minute
\gset
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 1, 1062))), '{}',
  'pro: the next minute begins anew');
select is(tests.used(:'pro'), '1001 1', 'while the day goes on');

update private.accounts set day_used = 9998 where account_id = :'pro';
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 3, 2000))),
  array['2 quota_exceeded'], 'pro: 10,000 a day');
update private.accounts set minute_used = 1000 where account_id = :'pro';
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 1, 3000))),
  array['0 quota_exceeded'], 'with both used up, the day is named: waiting a minute will not help');
update private.accounts set day_used = 9998, minute_used = 999 where account_id = :'pro';
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 3, 4000))),
  array['1 rate_limited', '2 quota_exceeded'], 'each signal is told what stops it');

select private.set_account_tier(:'pro', 'elite') is null as raised \gset
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 1, 4001))), '{}',
  'a higher tier counts at once');
select private.set_account_tier(:'pro', 'free') is null as lowered \gset
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 1, 6000))),
  array['0 quota_exceeded'], 'and so does a lower one');

-- Elite: no limit.
update private.accounts set day_used = 2000000, minute_used = 1000000 where account_id = :'elite';
select is(
  tests.refused(tests.ingest(:'elite', tests.signals(:'elite_trader', 1200))), '{}',
  'elite: any number');
select is(tests.used(:'elite'), '1200 1200', 'which is counted all the same');

select results_eq(
  'select tier, signals_per_day, signals_per_minute from private.tiers order by traders',
  $$values ('free', 100, null), ('pro', 10000, 1000), ('elite', null::integer, null::integer)$$,
  'the limits of the tiers');

select * from finish();
rollback;
