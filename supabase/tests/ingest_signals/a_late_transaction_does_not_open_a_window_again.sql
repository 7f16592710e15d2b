-- The clock is that of the transaction's begin. One that began before midnight can come to the
-- account's lock after one that began later: the counters must not go back.
begin;
\ir ../helpers.psql
select plan(6);

select tests.account('free') as free, tests.account('pro') as pro \gset
select tests.trader(:'free') as free_trader, tests.trader(:'pro') as pro_trader \gset
select date_trunc('day', now(), 'UTC') as midnight \gset

select tests.set_clock(:'midnight'::timestamptz + interval '1 second') is null as next_day \gset
select tests.ingest(:'free', tests.signals(:'free_trader', 100)) ->> 'accepted' as free_used,
  tests.ingest(:'pro', tests.signals(:'pro_trader', 1000)) ->> 'accepted' as pro_used \gset
select tests.set_clock(:'midnight'::timestamptz - interval '1 second') is null as late \gset
select is(
  tests.refused(tests.ingest(:'free', tests.signals(:'free_trader', 1, 5000))),
  array['0 quota_exceeded'], 'what began yesterday counts for the day that is used up');
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 1, 5000))),
  array['0 rate_limited'], 'and for the minute');
select is(
  (select minute_started from private.accounts where account_id = :'pro'), :'midnight'::timestamptz,
  'the minute stays open');

select tests.set_clock(:'midnight'::timestamptz + interval '2 seconds') is null as next_day \gset
select is(
  tests.refused(tests.ingest(:'free', tests.signals(:'free_trader', 1, 9000))),
  array['0 quota_exceeded'], 'after it the day is still used up');
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 1, 9000))),
  array['0 rate_limited'], 'and so is the minute');
select tests.set_clock(:'midnight'::timestamptz + interval '1 minute') is null as next_minute \gset
select is(
  tests.refused(tests.ingest(:'pro', tests.signals(:'pro_trader', 1, 9000))), '{}',
  'the next minute begins anew');

select * from finish();
rollback;
