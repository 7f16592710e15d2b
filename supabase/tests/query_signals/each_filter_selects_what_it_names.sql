begin;
\ir ../helpers.psql
select plan(56);

select tests.account() as alice \gset
select tests.trader(:'alice', 'one') as one, tests.trader(:'alice', 'two') as two \gset

-- Every combination of two traders, three symbols, three timeframes and four actions, in a fixed
-- shuffle: 72 signals 10 minutes apart, the price telling the place.
create temporary table world on commit drop as
select
  number, trader_id, symbol, timeframe, action, confidence,
  date_trunc('hour', now()) - number * interval '10 minutes' as generated_at
from (
  select
    (row_number() over (
      order by md5(concat(symbol, timeframe, action, trader_id = :'one'))
    ))::integer as number,
    *
  from unnest(array[:'one', :'two']::uuid[]) as trader_id
  cross join unnest(array['BTC', 'ETH', 'SOL']) as symbol
  cross join unnest(array['1m', '1h', '1M']) as timeframe
  cross join unnest(array['enter_long', 'exit_long', 'enter_short', 'exit_short']) as action
) as combination
cross join lateral (select (number % 11) / 10.0 as confidence) as level;
-- What the tags of a signal can be: none, a list, or something that is no list of tags.
create temporary table marks on commit drop as
select number, nullif((array[
  'null', '{}', '{"tags": ["a"]}', '{"tags": ["a", "b", 1]}', '{"tags": "a"}', '{"tags": {"a": 1}}',
  '{"tags": [["a"], null]}'
])[number % 7 + 1], 'null')::jsonb as metadata
from world;

select tests.ingest(:'alice', (
  select jsonb_agg(tests.signal(trader_id, jsonb_build_object(
    'symbol', symbol, 'timeframe', timeframe, 'action', action, 'price', number,
    'confidence', confidence, 'generated_at', tests.iso(generated_at), 'metadata', metadata
  )) order by md5(number::text))
  from world inner join marks using (number))) ->> 'accepted' as stored \gset
select is(:'stored'::text, '72', 'all are stored');

-- The filter as an argument of query_signals, and the same as a condition on the table above.
create temporary table filters (argument text, condition text) on commit drop;
insert into filters
select format(argument, :'one', :'two', date_trunc('hour', now())),
  format(condition, :'one', :'two', date_trunc('hour', now()))
from (values
  ('traders => null', 'true'),
  ('traders => array[%1$L]::uuid[]', 'trader_id = %1$L'),
  ('traders => array[%1$L, %2$L]::uuid[]', 'true'),
  ('traders => ''{}''', 'false'),
  ('traders => array[gen_random_uuid()]', 'false'),
  ('symbols => array[''ETH'']', 'symbol = ''ETH'''),
  ('symbols => array[''ETH'', ''SOL'', ''ETH'']', 'symbol in (''ETH'', ''SOL'')'),
  ('symbols => array[''eth'']', 'false'),
  ('symbol_prefix => ''E''', 'symbol = ''ETH'''),
  ('symbol_prefix => ''SOL''', 'symbol = ''SOL'''),
  ('symbol_prefix => ''SOLE''', 'false'),
  ('symbol_prefix => ''e''', 'false'),
  ('symbol_prefix => ''S'', symbols => array[''SOL'', ''BTC'']', 'symbol = ''SOL'''),
  ('symbol_prefix => ''S'', symbols => array[''BTC'']', 'false'),
  ('tags => array[''a'']', 'number %% 7 in (2, 3)'),
  ('tags => array[''b'', ''c'']', 'number %% 7 = 3'),
  ('tags => array[''1'', null]', 'false'),
  ('tags => ''{}''', 'false'),
  ('max_confidence => 0.7', 'confidence <= 0.7'),
  ('max_confidence => -1', 'false'),
  ('min_confidence => 0.3, max_confidence => 0.3', 'confidence = 0.3'),
  ('min_price => 70', 'number >= 70'),
  ('max_price => 3', 'number <= 3'),
  ('min_price => 5, max_price => 4', 'false'),
  ('statuses => array[''generated'']', 'true'),
  ('statuses => array[''closed'', ''archived'']', 'false'),
  ('statuses => ''{}''', 'false'),
  ('timeframes => array[''1M'']', 'timeframe = ''1M'''),
  ('timeframes => array[''1m'', ''1h'']', 'timeframe in (''1m'', ''1h'')'),
  ('timeframes => array[''nonsense'']', 'false'),
  ('actions => array[''exit_short'']', 'action = ''exit_short'''),
  ('actions => array[''enter_long'', ''enter_short'']', 'action like ''enter%%'''),
  ('min_confidence => 0.7', 'confidence >= 0.7'),
  ('min_confidence => 1', 'confidence >= 1'),
  ('min_confidence => 2', 'false'),
  ('"from" => %3$L::timestamptz - interval ''1 hour''', 'number <= 6'),
  ('"to" => %3$L::timestamptz - interval ''1 hour''', 'number > 6'),
  ('"from" => %3$L::timestamptz - interval ''2 hours'',
    "to" => %3$L::timestamptz - interval ''1 hour''',
    'number between 7 and 12'),
  ('"from" => %3$L::timestamptz - interval ''59 minutes 59.999999 seconds''', 'number <= 5'),
  ('"from" => now(), "to" => now() - interval ''1 day''', 'false'),
  ('"from" => ''-infinity'', "to" => ''infinity''', 'true'),
  ('symbols => array[''BTC''], actions => array[''exit_long''], timeframes => array[''1h''],
    traders => array[%2$L]::uuid[], min_confidence => 0',
    'symbol = ''BTC'' and action = ''exit_long'' and timeframe = ''1h'' and trader_id = %2$L'),
  ('min_confidence => 0.5, "to" => %3$L::timestamptz - interval ''3 hours''',
    'confidence >= 0.5 and number > 18')
) as filter (argument, condition);

create function tests.expected(condition text)
returns text[]
language plpgsql
as $$
declare
  v_numbers text[];
begin
  execute 'select coalesce(array_agg(number::text order by generated_at desc), ''{}'') from world '
    'where ' || expected.condition into v_numbers;
  return v_numbers;
end
$$;

select is(
  tests.pluck(
    tests.ask(:'alice', format('select public.query_signals(%s) -> ''signals''', argument)),
    'price'),
  tests.expected(condition), 'newest first: ' || argument)
from filters;

-- The same set by seq.
select is_empty(
  format($$
    select argument
    from filters
    where tests.pluck(tests.ask(%L, format(
        'select public.query_signals(%%s, sort => ''seq'') -> ''signals''', argument)), 'price')
      <> (select coalesce(array_agg(number::text order by md5(number::text)), '{}')
        from world where number::text = any(tests.expected(condition)))
  $$, :'alice'),
  'by seq every filter selects the same');
select is_empty(
  format($$
    select argument, sort
    from filters
    cross join unnest(private.sorts()) as sort
    where array(select unnest(tests.pluck(tests.ask(%L, format(
        'select public.query_signals(%%s, sort => %%L) -> ''signals''', argument, sort)), 'price'))
        order by 1)
      <> array(select unnest(tests.expected(condition)) order by 1)
  $$, :'alice'),
  'and in every order');

create function tests.numbers(filter text)
returns text[]
language sql
as $$
  select tests.pluck(tests.ask(current_setting('tests.alice')::uuid,
    format('select public.query_signals(%s) -> ''signals''', numbers.filter)), 'seq')
$$;
select set_config('tests.alice', :'alice', true) \g /dev/null

select is(tests.numbers('after_seq => 70'), array['71', '72'], 'after_seq is exclusive, by seq');
select is(
  tests.numbers('after_seq => 0, page_size => 3'), array['1', '2', '3'], 'and begins at the first');
select is(tests.numbers('after_seq => 72'), '{}', 'after the last there is nothing');
select is(
  tests.numbers('after_seq => 69, until_seq => 71'), array['70', '71'], 'until_seq is inclusive');
select is(
  (select array_agg(seq order by seq::integer)
    from unnest(tests.numbers('until_seq => 2')) as seq),
  array['1', '2'], 'until_seq filters the newest, too');
select is(tests.numbers('until_seq => -1'), '{}', 'a negative one leaves nothing');
select is(tests.numbers('after_seq => -5, page_size => 1'), array['1'], 'a negative one is as 0');
select is(
  (select array_agg(seq order by seq::integer)
    from unnest(tests.numbers('after_seq => 69, sort => ''newest''')) as seq),
  array['70', '71', '72'], 'after_seq filters the newest, too');
select is(
  array_length(tests.numbers('page_size => null'), 1), 72, 'null is the default page_size');
select is(
  tests.ask(:'alice', 'select public.query_signals(after_seq => 70, symbols => array[''none''])'),
  '{"signals": [], "next_cursor": null, "last_seq": 72}',
  'last_seq is the account''s, whatever the filter');

select * from finish();
rollback;
