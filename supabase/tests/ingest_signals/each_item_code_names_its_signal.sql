begin;
\ir ../helpers.psql
select plan(5);

select tests.account('pro') as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
select tests.set_clock(date_trunc('minute', now()) + interval '30 seconds') is null as stopped \gset
update private.accounts set
  day_started = (private.clock() at time zone 'utc')::date, day_used = 9993,
  minute_started = date_trunc('minute', private.clock()), minute_used = 994
where account_id = :'alice';

-- What to send at each place of the batch and the code that it must get; null for accepted. Of the
-- minute 6 are left and of the day 7, so of eight good signals one is rate_limited, one over quota.
create temporary table sent (index integer, code text, signal jsonb) on commit drop;
insert into sent (index, code, signal)
select
  (row_number() over () - 1)::integer,
  code,
  coalesce(whole, tests.signal(:'trader', changes || jsonb_build_object(
    'generated_at', coalesce(
      changes -> 'generated_at',
      to_jsonb(tests.iso(private.clock() - row_number() over () * interval '1 second'))))))
from (values
  (null, '{}'::jsonb, null::jsonb),
  ('invalid_signal', null, '"text"'),
  ('invalid_signal', null, '[]'),
  ('invalid_signal', null, 'null'),
  ('unknown_field', '{"colour": 1}', null),
  ('invalid_trader_id', '{"trader_id": "nobody"}', null),
  (null, '{"confidence": 1}', null),
  ('invalid_symbol', '{"symbol": ""}', null),
  ('invalid_timeframe', '{"timeframe": "7m"}', null),
  ('invalid_generated_at', '{"generated_at": "yesterday"}', null),
  ('invalid_action', '{"action": "buy"}', null),
  (null, '{"symbol": "ETH"}', null),
  ('invalid_confidence', '{"confidence": 1.5}', null),
  ('invalid_price', '{"price": "64000"}', null),
  ('invalid_stop_loss', '{"stop_loss": "x"}', null),
  ('invalid_take_profit', '{"take_profit": true}', null),
  ('invalid_valid_until', '{"valid_until": "2000-01-01T00:00:00Z"}', null),
  ('invalid_metadata', '{"metadata": []}', null),
  (null, '{"metadata": {}}', null),
  ('stale', '{"generated_at": "2001-01-01T00:00:00Z"}', null),
  ('in_future', '{"generated_at": "2999-01-01T00:00:00Z"}', null),
  ('unknown_trader', jsonb_build_object('trader_id', :'foreign_trader'), null),
  (null, '{"generated_at": "now"}', null),
  ('duplicate', '{"generated_at": "now", "price": 1}', null),
  (null, '{}', null),
  ('rate_limited', '{}', null),
  ('quota_exceeded', '{}', null)
) as line (code, changes, whole);
update sent set signal = signal || jsonb_build_object('generated_at', tests.iso(private.clock()))
where signal ->> 'generated_at' = 'now';

select tests.ingest(
  :'alice', (select jsonb_agg(signal order by index) from sent)) as verdict \gset

select results_eq(
  format($$
    select (item ->> 'index')::integer, item ->> 'code', item ->> 'message'
    from jsonb_array_elements(%L::jsonb -> 'items') as item
  $$, :'verdict'),
  $$
    select sent.index, sent.code, item_code.message
    from sent
    inner join private.item_codes as item_code on item_code.code = sent.code
    order by sent.index
  $$,
  'each refused signal has its index, its code and the message of the code, in order');
select is(
  (select array_agg(distinct code order by code) from sent where code is not null),
  -- The others are codes of advance_signals (tests/lifecycle).
  (select array_agg(code order by code) from private.item_codes
    where code not in ('invalid_change', 'unknown_signal', 'duplicate_change')
      and code !~ '^invalid_(status|transition|occurred_at|entry_price|exit_price|close_reason|return|fees|reason)$'),
  'every code of ingest_signals was produced');
select is(
  :'verdict'::jsonb - array['request_id', 'items'],
  '{"accepted": 6, "duplicate": 1, "rejected": 20, "first_seq": 1, "last_seq": 6}',
  'the good ones are stored');
select is(
  tests.pluck(
    tests.ask(:'alice', 'select public.query_signals(sort => ''seq'') -> ''signals'''), 'price'),
  array_fill('64000.5'::text, array[6]), 'of two equal keys the first one counts');
select is(
  (select minute_used || ' ' || day_used from private.accounts where account_id = :'alice'),
  '1000 9999', 'and only what was stored is counted');

select * from finish();
rollback;
