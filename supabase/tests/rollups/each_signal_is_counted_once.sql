begin;
\ir ../helpers.psql
\ir recount.psql
select plan(17);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader, tests.account_no(:'alice') as account_no \gset
select tests.roll_up() as others \gset
select tests.set_clock(date_trunc('day', now(), 'UTC') + interval '12:30:40') \g /dev/null

create function tests.at(
  trader_id uuid,
  clock text,
  action text,
  confidence double precision,
  price double precision
)
returns jsonb
language sql
as $$
  select tests.signal(at.trader_id, jsonb_build_object(
    'generated_at', tests.iso(date_trunc('day', now(), 'UTC') + at.clock::interval),
    'action', at.action, 'confidence', at.confidence, 'price', at.price))
$$;

select tests.ingest(:'alice', jsonb_build_array(
  tests.at(:'trader', '12:30:20', 'exit_long', 0.5, 104),
  tests.at(:'trader', '12:30:00', 'enter_long', 0.25, 100),
  tests.at(:'trader', '12:30:30', 'enter_long', 0.75, 99),
  tests.at(:'trader', '12:29:59.999999', 'enter_short', 1, 70)
)) ->> 'accepted' as stored \gset
select private.rollup_step() as merged \gset
select private.rollup_step() as left_over \gset

select is(:merged, 4, 'a step tells how many signals it merged');
select is(:left_over, 0, 'and 0 when all are in');
select set_config('tests.day', to_char(now() at time zone 'utc', 'YYYY-MM-DD'), true) \g /dev/null
select is(
  tests.rollups(:'alice', 'resolution => ''1m'',') -> 0,
  jsonb_build_object(
    'bucket', current_setting('tests.day') || 'T12:30:00+00:00', 'trader_id', :'trader',
    'symbol', 'BTC/USD', 'timeframe', '1m', 'signals', 3,
    'enter_long', 2, 'exit_long', 1, 'enter_short', 0, 'exit_short', 0,
    'first_generated_at', current_setting('tests.day') || 'T12:30:00+00:00',
    'last_generated_at', current_setting('tests.day') || 'T12:30:30+00:00',
    'confidence_min', 0.25, 'confidence_max', 0.75, 'confidence_avg', 0.5,
    'confidence_stddev', 0.25,
    'price_first', 100, 'price_last', 99, 'price_min', 99, 'price_max', 104, 'price_avg', 101,
    'price_stddev', 2.6457513110645907),
  'a rollup of a minute');
select is(
  tests.pluck(tests.rollups(:'alice', 'resolution => ''1m'','), 'signals'), array['3', '1'],
  'a microsecond earlier belongs to the minute before');
select is(
  tests.rollups(:'alice', 'resolution => ''1m'',') -> 1 -> 'price_stddev', 'null',
  'one signal has no deviation');
select is(
  tests.pluck(tests.rollups(:'alice', format('resolution => %L,', resolution)), 'bucket'),
  array[current_setting('tests.day') || bucket], 'the bucket of ' || resolution)
from (values ('1h', 'T12:00:00+00:00'), ('1d', 'T00:00:00+00:00')) as each (resolution, bucket);

-- Late: earlier than the first, later than the last, and in a minute that had none.
select tests.ingest(:'alice', jsonb_build_array(
  tests.at(:'trader', '12:30:35', 'exit_short', 1, 120),
  tests.at(:'trader', '12:29:01', 'exit_short', 0, 60),
  tests.at(:'trader', '00:00:00', 'exit_short', 0, 50)
)) ->> 'accepted' as stored \gset
select is(private.rollup_step(), 3::bigint, 'late signals are merged too');
select is(
  tests.pluck(tests.rollups(:'alice', 'resolution => ''1m'','), field), wanted,
  'late signals change ' || field)
from (values
  ('signals', array['4', '2', '1']), ('price_first', array['100', '60', '50']),
  ('price_last', array['120', '70', '50']), ('exit_short', array['1', '1', '1'])
) as each (field, wanted);
select is(
  tests.first_difference(
    tests.rollups(:'alice', format('resolution => %L,', resolution)),
    tests.recount(:'alice', resolution)),
  null, 'all equal a recount: ' || resolution)
from unnest(array['1m', '1h', '1d']) as resolution;

select is_empty(
  format('select * from private.rollup_differences(%s)', :account_no), 'no difference is found');
update private.rollups set price_last = price_last + 1
where account_no = :account_no and resolution = '1h' and price_last = 120;
select is(
  (select array_agg(resolution) from private.rollup_differences(:account_no)), array['1h'],
  'a changed rollup is found');

select * from finish();
rollback;
