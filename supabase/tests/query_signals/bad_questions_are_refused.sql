begin;
\ir ../helpers.psql
select plan(38);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 5)) ->> 'accepted' as stored \gset
select tests.ask(:'alice', 'select public.query_signals(page_size => 2)') ->> 'next_cursor'
  as newest, tests.ask(:'alice', 'select public.query_signals(page_size => 2, sort => ''seq'')')
  ->> 'next_cursor' as by_seq \gset

-- Who may not ask is told so, whatever was asked.
select is(
  tests.refusal(account_id, 'select public.query_signals(page_size => 0)', scope), verdict, why)
from (values
  (null, null, 'PT401 unauthorized', 'nobody learns which page sizes there are'),
  (:'alice'::uuid, 'signals:write', 'PT403 insufficient_scope', 'nor does who may not read')
) as attempt (account_id, scope, verdict, why);

select is(
  tests.refusal(:'alice', format('select public.query_signals(%s)', question)), verdict, question)
from (values
  ('page_size => 1', 'no error'),
  ('page_size => 1000', 'no error'),
  ('page_size => 0', 'PT400 invalid_filter'),
  ('page_size => -1', 'PT400 invalid_filter'),
  ('page_size => 1001', 'PT400 invalid_filter'),
  ('sort => ''newest''', 'no error'),
  ('sort => ''oldest''', 'PT400 invalid_filter'),
  ('sort => ''seq; drop table private.signals''', 'PT400 invalid_filter'),
  ('sort => ''''', 'PT400 invalid_filter'),
  ('traders => array_fill(gen_random_uuid(), array[100])', 'no error'),
  ('traders => array_fill(gen_random_uuid(), array[101])', 'PT400 invalid_filter'),
  ('symbols => array_fill(''A''::text, array[100])', 'no error'),
  ('symbols => array_fill(''A''::text, array[101])', 'PT400 invalid_filter'),
  ('timeframes => array_fill(''1m''::text, array[101])', 'PT400 invalid_filter'),
  ('actions => array_fill(''x''::text, array[101])', 'PT400 invalid_filter'),
  ('symbols => array_fill(''A''::text, array[11, 11])', 'PT400 invalid_filter')
) as attempt (question, verdict);

select is(
  tests.refusal(:'alice', format('select public.query_signals(%scursor => %L)', sort, cursor)),
  verdict, why)
from (values
  ('', :'newest', 'no error', 'a cursor that was returned'),
  ('sort => ''seq'', ', :'by_seq', 'no error', 'a cursor by seq'),
  ('after_seq => 0, ', :'by_seq', 'no error', 'which goes with after_seq'),
  ('sort => ''seq'', ', :'newest', 'PT400 invalid_cursor', 'a cursor of the other sort'),
  ('', :'by_seq', 'PT400 invalid_cursor', 'and the other way round'),
  ('', '', 'PT400 invalid_cursor', 'an empty cursor'),
  ('', 'x', 'PT400 invalid_cursor', 'a cursor of one letter'),
  ('', '!!!!', 'PT400 invalid_cursor', 'a cursor outside of the alphabet'),
  ('', '_____w', 'PT400 invalid_cursor', 'a cursor of bytes that are no text'),
  ('', left(:'newest', -1), 'PT400 invalid_cursor', 'a cursor cut short'),
  ('', :'newest' || 'AAAA', 'PT400 invalid_cursor', 'a cursor that goes on'),
  ('', 'ü' || :'newest', 'PT400 invalid_cursor', 'a cursor with another letter'),
  ('', repeat('A', 100000), 'PT400 invalid_cursor', 'a very long cursor'),
  ('', encode('newest 1 1 1', 'base64'), 'PT400 invalid_cursor', 'a cursor of more parts'),
  ('', encode('newest -1 1', 'base64'), 'PT400 invalid_cursor', 'a cursor below zero'),
  ('', encode('newest 1 9999999999999999999', 'base64'), 'PT400 invalid_cursor',
    'a cursor beyond every number'),
  ('', encode('newest 9999999999999999 1', 'base64'), 'no error', 'a cursor of the far future'),
  ('', encode('oldest 1 1', 'base64'), 'PT400 invalid_cursor', 'a cursor of no sort')
) as attempt (sort, cursor, verdict, why);

select is(
  tests.ask(:'bob', format('select public.query_signals(cursor => %L) -> ''signals''', :'newest')),
  '[]', 'the cursor of another account opens nothing');
select is(
  tests.pluck(tests.ask(:'alice', format(
    'select public.query_signals(cursor => %L) -> ''signals''',
    translate(encode(convert_to('newest ' || (extract(epoch from now()) * 1000000)::bigint
      || ' 0', 'UTF8'), 'base64'), e'\n', ''))), 'seq'),
  array['1', '2', '3', '4', '5'], 'a cursor made by hand shows what is one''s own');

select * from finish();
rollback;
