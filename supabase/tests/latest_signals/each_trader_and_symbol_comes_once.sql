begin;
\ir ../helpers.psql
\ir ../packing/packing.psql
\ir ../counts/counts.psql
select plan(18);

select date_trunc('day', now(), 'utc') + interval '12 hours' as noon \gset
select tests.set_clock(:'noon') \g /dev/null
select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as one, tests.trader(:'alice', 'two') as two,
  tests.trader(:'bob') as b_trader \gset
select array_agg(:'noon'::timestamptz - n * interval '5 hours 17 minutes') as some,
  array_agg(:'noon'::timestamptz - n * interval '5 hours 30 minutes') as others
from generate_series(0, 30) as n \gset
select tests.ingest(:'alice', tests.signals_at(:'one', :'some')) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.signals_at(:'b_trader', :'some')) ->> 'accepted' as other_stored \gset
-- Two of a day: of one action the latest is not the latest of all.
select tests.ingest(:'alice', (
  select jsonb_agg(tests.signal(:'one', jsonb_build_object(
    'symbol', 'Z', 'action', action,
    'generated_at', tests.iso(:'noon'::timestamptz - hours * interval '1 hour'))))
  from (values (3, 'exit_long'), (2, 'enter_long')) as each (hours, action)
)) ->> 'accepted' as stored \gset

-- Pages of latest_signals, joined.
create function tests.latest(
  account_id uuid,
  filter text,
  page_size integer default 3
)
returns jsonb
language plpgsql
as $$
declare
  v_page jsonb;
  v_joined jsonb := '[]';
  v_cursor text;
begin
  for v_number in 1..1000 loop
    v_page := tests.ask(latest.account_id, format(
      'select public.latest_signals(%s page_size => %s, cursor => %L)',
      latest.filter, latest.page_size, v_cursor));
    v_joined := v_joined || (v_page -> 'signals');
    v_cursor := v_page ->> 'next_cursor';
    exit when v_cursor is null;
  end loop;
  return v_joined;
end
$$;

create temporary table filters (argument text, condition text) on commit drop;
insert into filters
select
  format(argument, :'one', :'noon'::timestamptz - interval '50 hours'),
  format(condition, :'one', :'noon'::timestamptz - interval '50 hours')
from (values
  ('', 'true'),
  ('traders => array[%1$L]::uuid[],', 'trader_id = %1$L'),
  ('symbols => array[''ES'', ''A''],', 'symbol in (''ES'', ''A'')'),
  ('symbol_prefix => ''E'', timeframes => array[''1h''],',
    'symbol like ''E%%'' and timeframe = ''1h'''),
  ('actions => array[''exit_long''],', 'action = ''exit_long'''),
  ('actions => array[''exit_long'', ''enter_short''], "from" => %2$L,',
    'action in (''exit_long'', ''enter_short'') and generated_at >= %2$L'),
  ('"from" => %2$L,', 'generated_at >= %2$L'),
  ('symbols => ''{}'',', 'false')
) as filter (argument, condition);

-- The newest of each pair in `plain`, by other means.
create function tests.newest_of_plain(condition text)
returns text[]
language plpgsql
as $$
declare
  v_seqs text[];
begin
  execute format(
    'select coalesce(array_agg(seq::text order by symbol collate "C", trader_no), ''{}'') from ('
    'select distinct on (symbol, trader_no) seq, symbol, trader_no from plain '
    'inner join private.traders using (trader_id) where %s '
    'order by symbol, trader_no, generated_at desc, seq desc) as newest',
    newest_of_plain.condition)
  into v_seqs;
  return v_seqs;
end
$$;

create function tests.all_are_found(
  account_id uuid,
  moment text
)
returns setof text
language plpgsql
as $$
begin
  drop table if exists plain;
  create temporary table plain on commit drop as
  select * from tests.plain_signals(all_are_found.account_id);
  return next is_empty(
    format(
      'select * from (select argument, tests.pluck(tests.latest(%L, argument), ''seq'') as answer, '
      'tests.newest_of_plain(condition) as expected from filters) as each '
      'where answer is distinct from expected', all_are_found.account_id),
    moment || ': the newest of each trader and symbol');
end
$$;

select tests.all_are_found(:'alice', 'hot');
select is(tests.run('rollup_step') > 0, true, 'the job sums up what is there');
select tests.all_are_found(:'alice', 'summed up');
select tests.ingest(:'alice', tests.signals_at(:'two', :'others')) ->> 'accepted' as stored \gset
select tests.all_are_found(:'alice', 'half of it summed up');
create or replace function private.counted_at_once()
returns integer
language sql
immutable
set search_path = ''
as 'select 2';
select tests.all_are_found(:'alice', 'half of it summed up, two by two');
select is(tests.run('rollup_step') > 0, true, 'the job sums up the rest');
select tests.all_are_found(:'alice', 'all summed up');

select tests.set_clock(:'noon'::timestamptz + interval '2 days') \g /dev/null
select is(tests.run('pack_step') > 0, true, 'two days later all is packed');
select tests.all_are_found(:'alice', 'packed, two by two');

select is(
  jsonb_array_length(tests.latest(:'bob', '')), 5, 'nobody sees the latest of others');
select is(
  tests.ask(:'alice', 'select public.latest_signals(page_size => 1000)') -> 'last_seq', '64',
  'last_seq is the account''s');
select is(
  tests.ask(gen_random_uuid(), 'select public.latest_signals()') - 'since',
  '{"signals": [], "next_cursor": null, "last_seq": 0}', 'who has stored nothing has no latest');

-- What arrives between two pages moves nothing: each pair is once in the pages joined.
select tests.ask(:'alice', 'select public.latest_signals(page_size => 4)') as first \gset
select tests.ingest(:'alice', jsonb_build_array(
  tests.signal(:'two', '{"symbol": "A"}'), tests.signal(:'one', '{"symbol": "ES"}'))) ->> 'accepted'
  as stored \gset
select is(
  (
    select array_agg(distinct signal ->> 'symbol' || (signal ->> 'trader_id'))
    from jsonb_array_elements(
      (:'first'::jsonb -> 'signals') || (tests.ask(:'alice', format(
        'select public.latest_signals(cursor => %L)', :'first'::jsonb ->> 'next_cursor'))
        -> 'signals')) as signal
    having count(*) = 11
  ) is not null, true, 'eleven pairs, each once');

-- A cursor is for its own filters, and as it was.
select is(
  tests.refusal(:'alice', format('select public.latest_signals(%s cursor => %L)', filter, cursor)),
  verdict, why)
from (select :'first'::jsonb ->> 'next_cursor' as next_cursor) as page
cross join lateral (values
  ('', next_cursor, 'no error', 'its own filters'),
  ('symbols => array[''ES''],', next_cursor, 'PT400 invalid_cursor', 'other filters'),
  ('', left(next_cursor, -1), 'PT400 invalid_cursor', 'cut'),
  ('', 'bmV3ZXN0IDEgMQ', 'PT400 invalid_cursor', 'of another function')
) as attempt (filter, cursor, verdict, why);
select is(
  tests.refusal(:'alice', 'select public.latest_signals("from" => now() - interval ''2 years'')'),
  'PT400 query_too_wide', 'so far back nothing is summed up');

select * from finish();
rollback;
