begin;
\ir ../helpers.psql
\ir recount.psql
select plan(32);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
select tests.ingest(:'alice', tests.mixed(:'trader', 1, 5)) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.mixed(:'foreign_trader', 1, 5)) ->> 'accepted' as foreign_stored \gset
select tests.ask(:'alice', 'select public.query_rollups(page_size => 2)') ->> 'next_cursor'
  as minutes,
  tests.ask(:'bob', 'select public.query_rollups(page_size => 2)') ->> 'next_cursor'
  as foreign \gset

create function tests.cursor(
  resolution text,
  bucket text,
  trader_id text,
  symbol text,
  timeframe text
)
returns text
language sql
as $$
  select translate(encode(convert_to(
    concat_ws(' ', resolution, bucket, trader_id, symbol, timeframe), 'UTF8'), 'base64'), e'\n', '')
$$;

-- Who may not ask is told so, whatever was asked.
select is(
  tests.refusal(account_id, format('select public.query_rollups(%s)', question)),
  'PT401 unauthorized', 'nobody learns what is wrong with ' || question)
from (values
  (null, 'page_size => 0'), (null::uuid, 'resolution => ''5m''')
) as attempt (account_id, question);

select is(
  tests.refusal(:'alice', format('select public.query_rollups(%s)', question)), verdict, question)
from (values
  ('page_size => 1000', 'no error'),
  ('page_size => 0', 'PT400 invalid_filter'),
  ('page_size => 1001', 'PT400 invalid_filter'),
  ('resolution => ''1d''', 'no error'),
  ('resolution => null', 'PT400 invalid_filter'),
  ('resolution => ''5m''', 'PT400 invalid_filter'),
  ('resolution => ''''', 'PT400 invalid_filter'),
  ('resolution => ''1M''', 'PT400 invalid_filter'),
  ('traders => array_fill(gen_random_uuid(), array[100])', 'no error'),
  ('traders => array_fill(gen_random_uuid(), array[101])', 'PT400 invalid_filter'),
  ('symbols => array_fill(''A''::text, array[101])', 'PT400 invalid_filter'),
  ('timeframes => array_fill(''1m''::text, array[101])', 'PT400 invalid_filter'),
  ('timeframes => array[''no such'', null]', 'no error')
) as attempt (question, verdict);

select is(
  tests.refusal(:'alice', format('select public.query_rollups(%scursor => %L)', more, cursor)),
  verdict, why)
from (values
  ('', :'minutes', 'no error', 'a cursor that was returned'),
  ('page_size => 3, ', :'minutes', 'no error', 'with another page size'),
  ('resolution => ''1h'', ', :'minutes', 'PT400 invalid_cursor', 'a cursor of another resolution'),
  ('', :'foreign', 'PT400 invalid_cursor', 'a cursor of another account'),
  ('', '', 'PT400 invalid_cursor', 'an empty cursor'),
  ('', 'x', 'PT400 invalid_cursor', 'a cursor of one letter'),
  ('', '!!!!', 'PT400 invalid_cursor', 'a cursor outside of the alphabet'),
  ('', '_____w', 'PT400 invalid_cursor', 'a cursor of bytes that are no text'),
  ('', left(:'minutes', 20), 'PT400 invalid_cursor', 'a cursor cut short'),
  ('', repeat('A', 100000), 'PT400 invalid_cursor', 'a very long cursor'),
  ('', tests.cursor('1m', '1', :'trader', 'A', '1m'), 'no error', 'one made by hand'),
  ('', tests.cursor('1m', '9999999999999999', :'trader', 'A', '1m'), 'no error',
    'a cursor of the far future'),
  ('', tests.cursor('1m', '99999999999999999999', :'trader', 'A', '1m'), 'PT400 invalid_cursor',
    'a cursor beyond every time'),
  ('', tests.cursor('1m', '-1', :'trader', 'A', '1m'), 'PT400 invalid_cursor',
    'a cursor below zero'),
  ('', tests.cursor('1m', '1', repeat('-', 36), 'A', '1m'), 'PT400 invalid_cursor',
    'a cursor without a trader'),
  ('', tests.cursor('1m', '1', :'trader', 'A', '7m'), 'PT400 invalid_cursor',
    'a cursor of no timeframe'),
  ('', :'minutes' || 'AAAA', 'PT400 invalid_cursor', 'a cursor that goes on')
) as attempt (more, cursor, verdict, why);

select * from finish();
rollback;
