begin;
\ir ../helpers.psql
select plan(2);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 1)) ->> 'accepted' as stored \gset

-- At any microsecond from 1970 to 2106, later than which an export does not make the id that signal_id
-- makes.
insert into private.signals (
  generated_at, seq, confidence, price, account_no, trader_no, timeframe, action, symbol)
select
  timestamptz 'epoch'
  + (hashint8extended(number, 0) & 9007199254740991) % 4294967296000000 * interval '1 microsecond',
  number, 0.5, 1, trader.account_no, trader.trader_no, 6, 1, 'ES'
from private.traders as trader
cross join generate_series(2, 2000) as number
where trader.trader_id = :'trader';
update private.accounts set last_seq = 2000 where account_id = :'alice';

create temporary view exported as
select line::jsonb as line
from regexp_split_to_table(
  rtrim(tests.ask(current_setting('tests.alice')::uuid,
    'select to_jsonb(convert_from(public.export_signals(''ndjson'', 0, 2000), ''UTF8''))') #>> '{}',
  e'\n'), e'\n') as line;
select set_config('tests.alice', :'alice', true) \g /dev/null

select is((select count(*)::integer from exported), 2000, 'every signal is exported');
select is(
  (select count(*)::integer from exported
    where (line ->> 'signal_id')::uuid <> private.signal_id(
      :'alice', :'trader', line ->> 'symbol', line ->> 'timeframe',
      (line ->> 'generated_at')::timestamptz)),
  0, 'with the id that signal_id makes');

select * from finish();
rollback;
