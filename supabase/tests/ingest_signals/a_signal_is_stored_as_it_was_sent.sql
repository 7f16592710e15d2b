begin;
\ir ../helpers.psql
select plan(9);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select date_trunc('second', now()) - interval '1 hour' as at \gset

select jsonb_build_object(
  'trader_id', :'trader', 'symbol', 'BTC/USD:PERP', 'timeframe', '15m',
  'generated_at', tests.iso(:'at'), 'action', 'exit_short', 'confidence', 0.123456789012345,
  'price', -37.63, 'stop_loss', 1e15, 'take_profit', 0,
  'valid_until', tests.iso(:'at'::timestamptz + interval '1 microsecond'),
  'metadata', '{"rsi": 71.5, "note": "ü \"quoted\" \\ \u0001", "list": [1, null, {}]}'::jsonb
) as full \gset
select tests.signal(:'trader', '{"metadata": null, "stop_loss": null, "valid_until": null}')
  as bare \gset

select is(
  tests.ingest(:'alice', jsonb_build_array(:'full'::jsonb, :'bare'::jsonb)) - 'request_id',
  '{"accepted": 2, "duplicate": 0, "rejected": 0, "first_seq": 1, "last_seq": 2, "items": []}',
  'both are accepted');

select tests.ask(:'alice', 'select public.query_signals(sort => ''seq'') -> ''signals''')
  as read \gset
select is(
  (:'read'::jsonb -> 0) - array['signal_id', 'seq', 'generated_at', 'valid_until', 'status', 'outcome'],
  :'full'::jsonb - array['generated_at', 'valid_until'], 'every value comes back');
select is(
  (:'read'::jsonb -> 0 ->> 'generated_at')::timestamptz, :'at'::timestamptz,
  'generated_at, to the microsecond');
select is(
  (:'read'::jsonb -> 0 ->> 'valid_until')::timestamptz,
  :'at'::timestamptz + interval '1 microsecond', 'valid_until, to the microsecond');
select is(
  (:'read'::jsonb -> 1) - array['signal_id', 'seq', 'generated_at', 'status', 'outcome'],
  (:'bare'::jsonb - 'generated_at') || '{"take_profit": null}', 'what is left out is null');

-- The id, computed by another way than the view's: pgcrypto and text.
create function tests.signal_id(
  account_id uuid, trader_id uuid, symbol text, timeframe text, micros text
)
returns uuid
language sql
as $$
  select overlay(overlay(hash placing '8' from 13) placing
    substr('89ab', ('x' || substr(hash, 17, 1))::bit(4)::integer % 4 + 1, 1) from 17)::uuid
  from (
    select substr(encode(extensions.digest(
      array_to_string(array[account_id::text, trader_id::text, symbol, timeframe, micros], e'\n'),
      'sha256'), 'hex'), 1, 32) as hash
  )
$$;
select is(
  (:'read'::jsonb -> 0 ->> 'signal_id')::uuid,
  tests.signal_id(
    :'alice', :'trader', 'BTC/USD:PERP', '15m', (extract(epoch from :'at'::timestamptz)::bigint
      * 1000000)::text),
  'signal_id is the hash of the natural key');
select is(
  tests.signal_id(
    '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', 'BTC/USD',
    '1h', '1763812800123456'),
  '1934fbe9-4ca9-8281-abcf-35b2cd9793c5', 'a known id');

select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(
    :'full'::jsonb || jsonb_build_object('trader_id', upper(:'trader'))))),
  array['0 duplicate'], 'trader_id is the same in upper case');
select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(:'full'::jsonb || jsonb_build_object(
    'generated_at', to_char(:'at'::timestamptz at time zone 'utc' + interval '5 hours 30 minutes',
      'YYYY-MM-DD"T"HH24:MI:SS"+05:30"'))))),
  array['0 duplicate'], 'generated_at is the same time with another offset');

select * from finish();
rollback;
