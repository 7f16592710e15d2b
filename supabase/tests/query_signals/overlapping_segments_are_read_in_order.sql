-- Segments that overlap in time and in seq, in which signals of the same time are spread over all.
begin;
\ir ../helpers.psql
select plan(3);
select tests.pause_jobs() \g /dev/null

select date_trunc('day', now(), 'utc') - interval '2 days' as day \gset
select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
-- 24 signals, six at each of four times, of which each segment below holds some.
select tests.ingest(:'alice', jsonb_agg(tests.signal(:'trader', jsonb_build_object(
  'symbol', 'S' || n,
  'generated_at', tests.iso(:'day'::timestamptz + (n * 7 % 24 / 6) * interval '1 second'),
  'confidence', 0.5 + n % 4 / 10.0, 'price', n,
  'metadata', case n % 3 when 0 then '{"tags": ["a"]}' when 1 then '{"tags": ["b"]}' end::jsonb
  )) order by n)) ->> 'accepted' as stored
from generate_series(1, 24) as n \gset

-- The answers while all are in the table: each page size, both orders, and what prunes segments.
create temporary table answers on commit drop as
select filter.text as filter, tests.pages(:'alice', filter.text) as signals
from (
  select format('page_size => %s', page_size)
  from unnest(array[1, 2, 3, 5, 8, 13]) as page_size
  union all
  select format('after_seq => %s, page_size => %s', page_size - 1, page_size)
  from unnest(array[1, 2, 3, 5, 8, 13]) as page_size
  union all
  select filter || ', page_size => 4'
  from unnest(array[
    'symbol_prefix => ''S1''', 'symbol_prefix => ''S4''', 'symbol_prefix => ''S2'', min_price => 20',
    'min_price => 24', 'min_price => 10', 'max_price => 1', 'max_price => 5', 'tags => array[''a'']',
    'max_confidence => 0.5', 'max_confidence => 0.6, tags => array[''a'', ''b'']',
    'min_confidence => 0.7, sort => ''-seq'''
  ]) as filter
  union all
  select format('sort => %L, page_size => %s', sort, page_size)
  from unnest(private.sorts()) as sort, unnest(array[1, 3, 8]) as page_size
  union all
  select format(
    'sort => ''oldest'', %s "to" => %L, page_size => 2',
    start, :'day'::timestamptz + at * interval '1 second')
  from generate_series(1, 4) as at, unnest(array['', 'until_seq => 20,', 'min_price => 1,']) as start
  union all
  select format(
    '%s "from" => %L, min_confidence => 0.7, page_size => 4',
    start, :'day'::timestamptz + at * interval '1 second')
  from generate_series(0, 3) as at,
    unnest(array['', 'after_seq => 2,', 'after_seq => 4,']) as start
) as filter (text);

-- Packs every fourth of them, as the job does.
create function tests.pack(
  account_id uuid,
  remainder integer
)
returns bigint
language plpgsql
as $$
declare
  v_signals private.signals[];
begin
  update private.accounts as account set packed_until = now()
  where account.account_id = pack.account_id;
  with taken as (
    delete from private.signals as signal
    where signal.account_no = tests.account_no(pack.account_id)
      and signal.seq % 4 = pack.remainder
    returning signal
  )
  select array_agg(taken.signal) into v_signals from taken;
  return private.store_segments(v_signals);
end
$$;

select is(
  (select sum(jsonb_array_length(answers.signals)) from answers), 1158::bigint,
  'every question has an answer');

-- Of the newest time, two stay in the table with four packed beside them.
update private.accounts set packed_until = :'day'::timestamptz + interval '3 seconds'
where account_id = :'alice';
select tests.pack(:'alice', remainder) from unnest(array[0, 1, 3]) as remainder \g /dev/null
select is_empty(
  format(
    'select filter from answers where tests.pages(%L, filter) <> signals', :'alice'),
  'with three of four packed, the answers are the same');

select tests.pack(:'alice', 2) \g /dev/null
select is_empty(
  format(
    'select filter from answers where tests.pages(%L, filter) <> signals', :'alice'),
  'and when all are packed');

select * from finish();
rollback;
