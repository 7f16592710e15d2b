begin;
\ir ../helpers.psql
select plan(17);

-- 50,000 signals over 5 days: a quarter ES, the confidence from 0 to 0.999 in a fixed shuffle.
select tests.account() as alice \gset
select tests.trader(:'alice', 'one') as one, tests.trader(:'alice', 'two') as two \gset
insert into private.signals (
  generated_at, seq, confidence, price, account_no, trader_no, timeframe, action, symbol)
select
  now() - interval '5 days' + seq * interval '5 days' / 50000, seq, seq * 7919 % 1000 / 1000.0,
  seq, trader.account_no, trader.trader_no, 6, 1 + seq / 10 % 2,
  case when seq / 2 % 4 = 0 then 'ES' else 'NQ' end
from generate_series(1, 50000) as seq
inner join private.traders as trader
  on trader.trader_id = (array[:'one', :'two']::uuid[])[1 + seq % 2];
update private.accounts set last_seq = 50000 where account_id = :'alice';

create function tests.counted(
  account_id uuid,
  filter text
)
returns jsonb
language sql
as $$
  select tests.ask(
    counted.account_id, format('select public.count_signals(%s)', counted.filter))
$$;

select is(
  tests.counted(:'alice', filter) -> 'exact', 'false', 'is not counted one by one: ' || filter)
from unnest(array['', 'exact => false', 'symbols => array[''ES'']', 'after_seq => 100']) as filter;
select is(
  abs((tests.counted(:'alice', filter) ->> 'count')::numeric - expected) <= 0.05 * expected,
  true, 'is estimated well: ' || filter)
from (values
  ('', 50000), ('symbols => array[''ES'']', 12500), ('min_confidence => 0.8', 10000),
  ('"from" => now() - interval ''4 days'', min_confidence => 0.5', 20000),
  ('after_seq => 10000', 40000)
) as question (filter, expected);
select is(
  tests.counted(:'alice', '"from" => now() - interval ''1 day'', min_confidence => 0.5'),
  '{"count": 5000, "exact": true}', 'what is little is counted');

select is(
  tests.counted(:'alice', 'exact => true, min_confidence => 0.8'),
  '{"count": 10000, "exact": true}', 'an exact count may take longer');
create or replace function private.most_signals_counted(exactly boolean)
returns integer
language sql
immutable
set search_path = ''
as 'select 20000';
select is(
  tests.refusal(:'alice', 'select public.count_signals(exact => true, min_confidence => 0.8)'),
  'PT400 query_too_wide', 'but not for ever');

select tests.ask(:'alice', 'select public.signal_facets()') as facets \gset
select is(:'facets'::jsonb -> 'exact', 'false', 'facets are estimated rather than refused');
select is(
  (
    select jsonb_agg(facet -> 'value')
    from jsonb_array_elements((:'facets'::jsonb) -> 'symbols') as facet
  ), '["NQ", "ES"]', 'the most frequent first');

-- Rollups are read up to a limit, too.
select private.add_rollups(array(
  select added
  from private.rollups_of(array(
    select signal from private.signals as signal
    where signal.account_no = tests.account_no(:'alice')
      and signal.generated_at >= date_trunc('day', now(), 'utc') - interval '3 days'
      and signal.generated_at < date_trunc('day', now(), 'utc') - interval '71 hours'), '1d') as added))
\g /dev/null
create or replace function private.most_rollups_counted()
returns integer
language sql
immutable
set search_path = ''
as 'select 1';
select is(
  tests.refusal(:'alice', 'select public.latest_signals("from" => now() - interval ''6 days'')'),
  'PT400 query_too_wide', 'so that the latest may be too many');
select is(
  tests.refusal(:'alice', format(
    'select public.latest_signals(array[%L]::uuid[], array[''ES''], "from" => now() - interval ''6 days'')',
    :'two')),
  'no error', 'those of other traders and symbols do not count');
select is(
  tests.ask(:'alice', 'select public.latest_signals()') ->> 'since' > tests.iso(now() - interval '6 days'),
  true, 'by default they are looked for as far back as can be read');

select * from finish();
rollback;
