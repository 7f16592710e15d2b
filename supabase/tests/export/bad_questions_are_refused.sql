begin;
\ir ../helpers.psql
select plan(21);

select tests.account() as alice \gset

select is(
  tests.refusal(account_id, call, scope), verdict, coalesce(account_id::text, 'nobody') || ' ' || call)
from (values
  (null, null, 'select public.export_signals(null, 0, 99999)', 'PT401 unauthorized'),
  (null, null, 'select public.export_range()', 'PT401 unauthorized'),
  (:'alice'::uuid, 'signals:write', 'select public.export_signals(''csv'', 0, 1)',
    'PT403 insufficient_scope'),
  (:'alice'::uuid, 'signals:write', 'select public.export_range()', 'PT403 insufficient_scope')
) as attempt (account_id, scope, call, verdict);

create function tests.exported(arguments text)
returns text
language sql
as $$
  select format(
    'select to_jsonb(convert_from(public.export_signals(%s), ''UTF8''))', exported.arguments)
$$;

select is(tests.refusal(:'alice', tests.exported(arguments)), verdict, arguments)
from (values
  ('''csv'', 0, 0', 'no error'),
  ('''ndjson'', 0, 5000', 'no error'),
  ('''csv'', 9007199254740993, 9007199254740993', 'no error'),
  ('''csv'', 0, 5001', 'PT400 invalid_filter'),
  ('''csv'', -1, 5', 'PT400 invalid_filter'),
  ('''csv'', 5, 4', 'PT400 invalid_filter'),
  ('''csv'', null, 4', 'PT400 invalid_filter'),
  ('''csv'', 0, null', 'PT400 invalid_filter'),
  ('''xlsx'', 0, 5', 'PT400 invalid_filter'),
  ('null, 0, 5', 'PT400 invalid_filter'),
  ('''csv'', -9223372036854775808, 9223372036854775807', 'PT400 invalid_filter'),
  ('''csv'', 0, 5, symbols => array_fill(''A''::text, array[101])', 'PT400 invalid_filter')
) as attempt (arguments, verdict);

select is(
  tests.ask(:'alice', tests.exported('''csv'', 0, 10')), '""', 'who has no signal gets no line');
select is(
  tests.ask(:'alice', 'select public.export_range()::jsonb'),
  '{"after_seq": 0, "until_seq": 0, "last_seq": 0}', 'and an empty range');
select is(
  tests.ask(:'alice', tests.exported('''csv'', 0, 10, with_header => true')) #>> '{}',
  private.csv_header(), 'but a header, if wanted');
select is(
  tests.ask(:'alice', tests.exported('''ndjson'', 0, 10, with_header => true')) #>> '{}', '',
  'which NDJSON has not');
select is(
  (select count(*)::integer from pg_proc
    where pronamespace = 'public'::regnamespace and provolatile = 's'
      and proname in ('export_signals', 'export_range')), 2,
  'both are stable: a piece is made in one snapshot, and GET may ask for it');

select * from finish();
rollback;
