begin;
\ir ../helpers.psql
\ir packing.psql
select plan(10);

select tests.account('pro') as alice \gset
create temporary table plain on commit drop as
select
  (timestamptz '2026-03-28 20:00+00' + n * interval '1 hour 1 microsecond')::timestamptz
    as generated_at,
  (n * 7919 % 100 + 1)::bigint as seq,
  (n / 100.0)::double precision as confidence, (1.1 * n - 20)::double precision as price,
  null::double precision as stop_loss, nullif(n, 50)::double precision as take_profit,
  case when n % 3 > 0 then
    timestamptz '2026-03-28 20:00+00' + n * interval '1 hour 1 microsecond'
      + n * n * interval '3 hours 1 microsecond' end as valid_until,
  tests.account_no(:'alice') as account_no, 10 - n % 3 as trader_no,
  (n % 5 + 1)::smallint as timeframe,
  (n % 4 + 1)::smallint as action, (chr(97 + n % 20) || 'B') collate "C" as symbol,
  case when n = 9 then '{"n": 9}'::jsonb end as metadata
from generate_series(0, 99) as n;

select is(
  private.store_segments(array(
    select row(plain.*)::private.signals from plain order by plain.seq)), 100::bigint,
  'it tells how many were packed');
select is(tests.differences(:'alice'), 0::bigint, 'all that is packed is unpacked');
set local timezone = 'Europe/Berlin';
select is(
  tests.differences(:'alice'), 0::bigint, 'also where a day has 23 hours while signals are valid');

create temporary view packed as
select segment.* from private.segments as segment
where segment.account_no = tests.account_no(current_setting('tests.alice')::uuid);
select set_config('tests.alice', :'alice', true) \g /dev/null
select results_eq(
  $$
    select
      signals, first_generated_at, last_generated_at, first_seq, last_seq, confidence_min,
      confidence_max, round(confidence_sum::numeric, 6), price_min, price_max,
      round(price_sum::numeric, 6), price_first, price_last, trader_nos, symbols::text, timeframes,
      actions, tier, merged
    from packed order by first_generated_at
  $$,
  $$
    select
      count(*)::integer, min(generated_at), max(generated_at), min(seq), max(seq), min(confidence),
      max(confidence), round(sum(confidence)::numeric, 6), min(price), max(price),
      round(sum(price)::numeric, 6), (array_agg(price order by generated_at))[1],
      (array_agg(price order by generated_at desc))[1], array_agg(distinct trader_no),
      array_agg(distinct symbol)::text, array_agg(distinct timeframe),
      array_agg(distinct action), 'pro', false
    from plain group by date_trunc('month', generated_at, 'utc') order by 2
  $$,
  'one segment a month (UTC), with what its signals come to');
select is(
  (select array_agg(stop_loss_values is null) from packed), array[true, true],
  'a field that no signal has is not stored');
select ok(
  (
    select bool_and(generated_at_values = array(
      select value from unnest(generated_at_values) as value order by value)) from packed),
  'the signals are in the order of time');
select throws_ok(
  $$
    select private.store_segments(array(
      select jsonb_populate_record(signal, '{"account_no": -1}')
      from plain, jsonb_populate_record(null::private.signals, to_jsonb(plain)) as signal))
  $$, '23514', null, 'signals of no account are refused rather than lost');

set local timezone = 'UTC';
delete from plain;
delete from private.segments where account_no = tests.account_no(:'alice');
insert into plain
select
  timestamptz '2026-03-01' + n * interval '1 second', n, 0.5, n, null, null, null,
  tests.account_no(:'alice'), 1, 1, 1, 'A',
  case when n > 5000 then jsonb_build_object('text', repeat(md5(n::text), 60)) end
from generate_series(1, 6000) as n;
select is(
  private.store_segments(
    array(select row(plain.*)::private.signals from plain where seq <= 5000), 'free', true),
  5000::bigint, 'many are packed at once');
select results_eq(
  $$select signals, tier, merged from packed$$, $$values (5000, 'free', true)$$,
  'into segments of about the size, under the tier given');
select private.store_segments(
  array(select row(plain.*)::private.signals from plain where seq > 5000), 'free', true
) \g /dev/null
select cmp_ok(
  (select max(signals) from packed where first_seq > 5000), '<=', 600,
  'fewer when they carry much metadata');

select * from finish();
rollback;
