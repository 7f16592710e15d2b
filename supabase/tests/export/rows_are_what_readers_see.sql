begin;
\ir ../helpers.psql
select plan(17);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as other \gset
select jsonb_agg(
    tests.signal(:'trader', fields || jsonb_build_object('generated_at', tests.iso(
      date_trunc('second', private.clock()) - interval '1 hour' + number * interval '1 second')))
    order by number) as signals
from (values
  (1, '{"symbol": "=A1"}'::jsonb),
  (2, '{"symbol": "+1"}'),
  (3, '{"symbol": "-1"}'),
  (4, '{"symbol": "@x"}'),
  (5, '{"symbol": "A=B", "confidence": 0.1, "price": -1e-7, "stop_loss": 0.30000000000000004}'),
  (6, '{"metadata": {"note": "a \"quoted\" word,\r\nand a line", "n": [1, null]}}'),
  (7, '{"take_profit": 1e15, "metadata": {"tags": ["late", "scalp"]}}')
) as each (number, fields) \gset
select tests.ingest(:'alice', :'signals') ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.signals(:'other', 3)) ->> 'accepted' as theirs \gset
select tests.advance(
  :'alice', jsonb_build_array(tests.change(:'signals'::jsonb -> 2, 'cancelled'))) \g /dev/null

create function tests.exported(format text, options text default '')
returns text[]
language sql
as $$
  select array(
    select line
    from regexp_split_to_table(rtrim(tests.ask(
      current_setting('tests.alice')::uuid,
      pg_catalog.format(
        'select to_jsonb(convert_from(public.export_signals(%L, 0, 1000%s), ''UTF8''))',
        exported.format, exported.options)) #>> '{}', e'\r\n'), e'\r?\n') as line)
$$;
select set_config('tests.alice', :'alice', true) \g /dev/null

select is(
  to_jsonb(tests.exported('ndjson')::jsonb[]),
  (select jsonb_agg(signal - 'status' - 'outcome' order by place)
    from jsonb_array_elements(tests.ask(
      :'alice', 'select public.query_signals(sort => ''seq'') -> ''signals'''))
    with ordinality as each (signal, place)),
  'a line of NDJSON is a signal as query_signals shows it, without what came of it');
select is(
  (select array_agg(key order by place)
    from json_object_keys((tests.exported('ndjson'))[1]::json) with ordinality as each (key, place)),
  string_to_array(rtrim(private.csv_header(), e'\r\n'), ','),
  'in the order of the columns of CSV');
select is(
  array(select split_part(line, ',', 4) from unnest(tests.exported('csv')) as line),
  array['''=A1', '''+1', '''-1', '''@x', 'A=B', 'BTC/USD', 'BTC/USD'],
  'what a spreadsheet would take for a formula begins with an apostrophe');
select is(
  array(select split_part(line, ',', 4)
    from unnest(tests.exported('csv', ', for_spreadsheets => false')) as line),
  array['=A1', '+1', '-1', '@x', 'A=B', 'BTC/USD', 'BTC/USD'],
  'and is left alone if that is wanted');
select matches(
  (tests.exported('csv'))[5], ',0\.1,-1e-07,0\.30000000000000004,,,$',
  'numbers are written with all their digits, and nothing as nothing');
select matches(
  (tests.exported('csv'))[6],
  '^[^"]*,"\{""n"": \[1, null\], ""note"": ""a \\""quoted\\"" word,\\r\\nand a line""\}"$',
  'metadata is quoted, and no line break is in a line');
select is(
  cardinality(tests.exported('csv', ', traders => array[' || quote_literal(:'other') || '::uuid]')),
  1, 'of another account there is no line');
select is(
  to_jsonb(array(
    select json_value::jsonb -> 'seq' from unnest(tests.exported('ndjson', filter)) as json_value)),
  seqs, 'a filter selects what it names:' || filter)
from (values
  (', symbols => array[''=A1'', ''A=B'', ''NONE'']', '[1, 5]'::jsonb),
  (', symbols => array[''=A1'', ''A=B''], symbol_prefix => ''A''', '[5]'),
  (', symbol_prefix => ''BTC/'', "from" => ' || quote_literal(:'signals'::jsonb #>> '{6,generated_at}'),
    '[7]'),
  (', max_confidence => 0.1', '[5]'),
  (', min_price => -1, max_price => 0', '[5]'),
  (', tags => array[''scalp'', ''none'']', '[7]'),
  (', statuses => array[''cancelled'', ''closed'']', '[3]'),
  (', statuses => array[''generated''], max_confidence => 0.75', '[1, 2, 4, 5, 6, 7]')
) as attempt (filter, seqs);
select is(
  tests.ask(:'alice', format(
    'select public.export_range(%L, %L)::jsonb',
    :'signals'::jsonb #>> '{2,generated_at}', :'signals'::jsonb #>> '{5,generated_at}')),
  '{"after_seq": 2, "until_seq": 5, "last_seq": 7}',
  'export_range finds the seqs of a span of time');
create or replace function private.most_signals_located()
returns integer
language sql
immutable
set search_path = ''
as 'select 2';
select is(
  tests.ask(:'alice', format(
    'select public.export_range(%L, %L)::jsonb',
    :'signals'::jsonb #>> '{2,generated_at}', :'signals'::jsonb #>> '{5,generated_at}')),
  '{"after_seq": 0, "until_seq": 7, "last_seq": 7}',
  'of a span with more signals than are looked at it tells wider ends');

select * from finish();
rollback;
