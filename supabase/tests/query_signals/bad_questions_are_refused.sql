begin;
\ir ../helpers.psql
select plan(81);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 5)) ->> 'accepted' as stored \gset
-- So that what was packed is asked, too.
update private.accounts set packed_until = now() where account_id = :'alice';
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
  ('sort => ''time''', 'PT400 invalid_filter'),
  ('sort => ''-newest''', 'PT400 invalid_filter'),
  ('sort => ''seq; drop table private.signals''', 'PT400 invalid_filter'),
  ('sort => ''''', 'PT400 invalid_filter'),
  ('traders => array_fill(gen_random_uuid(), array[100])', 'no error'),
  ('traders => array_fill(gen_random_uuid(), array[101])', 'PT400 invalid_filter'),
  ('symbols => array_fill(''A''::text, array[100])', 'no error'),
  ('symbols => array_fill(''A''::text, array[101])', 'PT400 invalid_filter'),
  ('timeframes => array_fill(''1m''::text, array[101])', 'PT400 invalid_filter'),
  ('actions => array_fill(''x''::text, array[101])', 'PT400 invalid_filter'),
  ('statuses => array_fill(''x''::text, array[101])', 'PT400 invalid_filter'),
  ('tags => array_fill(''x''::text, array[100])', 'no error'),
  ('tags => array_fill(''x''::text, array[101])', 'PT400 invalid_filter'),
  ('symbols => array_fill(''A''::text, array[11, 11])', 'PT400 invalid_filter'),
  ('symbol_prefix => ''''', 'PT400 invalid_filter'),
  ('symbol_prefix => ''A%''', 'PT400 invalid_filter'),
  ('symbol_prefix => repeat(''A'', 32)', 'no error'),
  ('symbol_prefix => repeat(''A'', 33)', 'PT400 invalid_filter'),
  ('min_confidence => ''nan'', max_price => ''-infinity''', 'no error'),
  ('"from" => ''4713-01-01 bc'', "to" => ''294276-12-31''', 'no error'),
  ('after_seq => 9223372036854775807, until_seq => -9223372036854775808', 'no error'),
  ('fields => array[''price'', ''status'']', 'no error'),
  ('fields => array[''price'', ''account_id'']', 'PT400 invalid_filter'),
  ('fields => array[null]::text[]', 'PT400 invalid_filter')
) as attempt (question, verdict);

-- Each order has cursors of its own, and each filter.
create temporary table returned on commit drop as
select sort, tests.ask(:'alice', format(
  'select public.query_signals(page_size => 2, sort => %L)', sort)) ->> 'next_cursor' as cursor
from unnest(private.sorts()) as sort;
select is_empty(
  format(
    $$
      select asked.sort, returned.sort, refusal
      from returned
      cross join unnest(private.sorts()) as asked (sort)
      cross join lateral tests.refusal(%L, format(
        'select public.query_signals(sort => %%L, cursor => %%L)', asked.sort, returned.cursor)
      ) as refusal
      where refusal <> case
        when returned.sort = asked.sort then 'no error' else 'PT400 invalid_cursor' end
    $$,
    :'alice'),
  'a cursor goes with the order that it was returned for, and with no other');
select is(
  tests.refusal(:'alice', format(
    'select public.query_signals(page_size => 5, fields => array[''seq''], cursor => %L%s)',
    :'newest', other)),
  verdict, 'a cursor with another filter: ' || other)
from (values
  ('', 'no error'),
  (', symbols => null, after_seq => 0, sort => ''newest''', 'no error'),
  (format(', traders => array[%L]::uuid[]', :'trader'), 'PT400 invalid_cursor'),
  (', symbols => array[''BTC/USD'']', 'PT400 invalid_cursor'),
  (', symbol_prefix => ''B''', 'PT400 invalid_cursor'),
  (', timeframes => array[''1m'']', 'PT400 invalid_cursor'),
  (', actions => array[''enter_long'']', 'PT400 invalid_cursor'),
  (', statuses => array[''generated'']', 'PT400 invalid_cursor'),
  (', tags => array[''x'']', 'PT400 invalid_cursor'),
  (', min_confidence => 0', 'PT400 invalid_cursor'),
  (', max_confidence => 1', 'PT400 invalid_cursor'),
  (', min_price => 0', 'PT400 invalid_cursor'),
  (', max_price => 1e9', 'PT400 invalid_cursor'),
  (', "from" => now() - interval ''1 day''', 'PT400 invalid_cursor'),
  (', "to" => now() + interval ''1 day''', 'PT400 invalid_cursor'),
  (', after_seq => 1, sort => ''newest''', 'PT400 invalid_cursor'),
  (', until_seq => 5', 'PT400 invalid_cursor')
) as attempt (other, verdict);
select is(
  tests.ask(:'alice', $$select to_json(private.read_filter(symbols => array['A', 'B', null]))$$),
  tests.ask(:'alice', $$select to_json(private.read_filter(symbols => array['B', 'A', 'A']))$$),
  'a filter that asks for the same is the same');

select is(
  tests.refusal(:'alice', format('select public.query_signals(%scursor => %L)', sort, cursor)),
  verdict, why)
from (values
  ('', :'newest', 'no error', 'a cursor that was returned'),
  ('sort => ''seq'', ', :'by_seq', 'no error', 'a cursor by seq'),
  ('after_seq => 0, ', :'by_seq', 'no error', 'which goes with after_seq'),
  ('', '', 'PT400 invalid_cursor', 'an empty cursor'),
  ('', 'x', 'PT400 invalid_cursor', 'a cursor of one letter'),
  ('', '!!!!', 'PT400 invalid_cursor', 'a cursor outside of the alphabet'),
  ('', '_____w', 'PT400 invalid_cursor', 'a cursor of bytes that are no text'),
  ('', left(:'newest', -1), 'PT400 invalid_cursor', 'a cursor cut short'),
  ('', :'newest' || 'AAAA', 'PT400 invalid_cursor', 'a cursor that goes on'),
  ('', 'ü' || :'newest', 'PT400 invalid_cursor', 'a cursor with another letter'),
  ('', repeat('A', 100000), 'PT400 invalid_cursor', 'a very long cursor')
) as attempt (sort, cursor, verdict, why);

-- Made by hand, with the hash that it needs.
create function tests.forged(words text)
returns text
language sql
as $$
  select private.sealed_cursor(forged.words, (
    tests.ask(current_setting('tests.alice')::uuid,
      'select to_json((private.read_filter()).digest)'))::bigint)
$$;
select set_config('tests.alice', :'alice', true) \g /dev/null
select is(
  tests.refusal(:'alice', format('select public.query_signals(sort => %L, cursor => %L)',
    split_part(words, ' ', 1), tests.forged(words))), verdict, words)
from (values
  ('newest 1 1', 'no error'),
  ('newest 9999999999999999 999999999999999999', 'no error'),
  ('newest 1 1 1', 'PT400 invalid_cursor'),
  ('newest -1 1', 'PT400 invalid_cursor'),
  ('newest 1 9999999999999999999', 'PT400 invalid_cursor'),
  ('newest 1', 'PT400 invalid_cursor'),
  ('oldest 1 0', 'no error'),
  ('seq 1 999999999999999999', 'no error'),
  ('-seq 1 0', 'no error'),
  ('confidence 1 1 1e-7', 'no error'),
  ('confidence 1 1 nan', 'no error'),
  ('confidence 1 1', 'PT400 invalid_cursor'),
  ('-confidence 1 1 1e999', 'PT400 invalid_cursor'),
  ('-confidence 1 1 x', 'PT400 invalid_cursor'),
  ('symbol 1 1 ~~~', 'no error'),
  ('symbol 1 1', 'PT400 invalid_cursor'),
  ('-symbol 1 1 ü', 'PT400 invalid_cursor')
) as attempt (words, verdict);
select is(
  tests.refusal(:'alice', format('select public.query_signals(cursor => %L)',
    tests.forged('seq 1 1'))), 'PT400 invalid_cursor', 'a forged cursor of another order');
select is_empty(
  format(
    $$
      select place, letter
      from generate_series(1, length(%2$L)) as place
      cross join unnest(array['A', '0', '_', '=', '/']) as letter
      cross join lateral overlay(%2$L placing letter from place) as cursor
      where cursor <> %2$L
        and tests.refusal(%1$L, format('select public.query_signals(cursor => %%L)', cursor))
          <> 'PT400 invalid_cursor'
    $$,
    :'alice', :'newest'),
  'a cursor with any letter changed');

select is(
  tests.ask(:'bob', format('select public.query_signals(cursor => %L) -> ''signals''', :'newest')),
  '[]', 'the cursor of another account opens nothing');
select * from finish();
rollback;
