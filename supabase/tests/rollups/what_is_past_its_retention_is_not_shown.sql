begin;
\ir ../helpers.psql
\ir recount.psql
select plan(14);

select tests.account('free') as alice, tests.account('elite') as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
update private.retention set keep = null where tier = 'free' and data = '1d';

create function tests.old(trader_id uuid)
returns jsonb
language sql
as $$
  select jsonb_agg(tests.signal(old.trader_id, jsonb_build_object(
    'generated_at', tests.iso(now() - back::interval))))
  from unnest(array['0', '6 days 23 hours']) as back
$$;
select tests.ingest(:'alice', tests.old(:'trader')) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.old(:'foreign_trader')) ->> 'accepted' as foreign_stored \gset
select tests.roll_up() as merged \gset

select is(
  jsonb_array_length(tests.rollups(:'alice', format('resolution => %L,', resolution))), 2,
  'at first all are shown: ' || resolution)
from unnest(array['1m', '1h', '1d']) as resolution;

-- A month later the older hour is past 30 days, for what is stored and for what is not yet.
select tests.set_clock(now() + interval '24 days') \g /dev/null
select is(
  jsonb_array_length(tests.rollups(:'alice', format('resolution => %L,', resolution))), left_over,
  'a month later: ' || resolution)
from (values ('1m', 2), ('1h', 1), ('1d', 2)) as each (resolution, left_over);
select is_empty(
  format('select * from private.rollup_differences(%s)', tests.account_no(account_id)),
  'which a recount leaves out too')
from unnest(array[:'alice', :'bob']::uuid[]) as account_id;

select tests.set_clock(now() + interval '2 years') \g /dev/null
select is(
  jsonb_array_length(tests.rollups(:'alice', 'resolution => ''1d'',')), 2,
  'null keeps days for ever, for the tier that has it');
select is(
  jsonb_array_length(tests.rollups(:'bob', 'resolution => ''1d'',')), 0,
  'and for no other');

-- What was imported is as old as it likes: it is stored where it is kept, in partitions of its own.
select tests.set_clock(now()) \g /dev/null
select tests.account('elite') as carol \gset
select tests.trader(:'carol') as trader \gset
update private.retention set keep = '1000 days' where data = '1d';
insert into private.signals (
  generated_at, seq, confidence, price, account_no, trader_no, timeframe, action, symbol)
select
  now() - days * interval '1 day', place, 0.5, 100, trader.account_no, trader.trader_no, 6, 1, 'A'
from private.traders as trader
cross join unnest(array[1001, 999, 20, 0]) with ordinality as each (days, place)
where trader.trader_id = :'trader';
update private.accounts set last_seq = 4 where account_id = :'carol';

create function tests.counted(account_id uuid)
returns integer[]
language sql
as $$
  select array_agg(jsonb_array_length(tests.rollups(
    counted.account_id, format('resolution => %L,', resolution))) order by resolution)
  from unnest(array['1d', '1h', '1m']) as resolution
$$;
select is(
  tests.counted(:'carol'), array[3, 2, 4],
  'days, hours and minutes (which are there as long as the signals) before the job');
select tests.roll_up() as merged \gset
-- pg_partman leaves search_path as the function has it, which is empty.
set local search_path = public, extensions;
select is(tests.counted(:'carol'), array[3, 2, 4], 'and after it');
select is(
  (select count(*) from private.rollups
    where account_no = tests.account_no(:'carol')),
  5::bigint, 'what no tier keeps is not stored');
select is_empty(
  $$
    select tableoid::regclass from private.rollups
    where tableoid::regclass::text like '%default'
  $$, 'and all has its partition');

select * from finish();
rollback;
