begin;
\ir ../helpers.psql
select plan(7);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 150)) ->> 'accepted' as stored \gset

select is(
  jsonb_array_length(tests.ask(:'alice', 'select public.query_signals()') -> 'signals'), 100,
  'a page has 100 signals when nothing is said');
select is(
  (select array_agg(key order by place) from json_object_keys((
    select value -> 'signals' -> 0
    from (select set_config('request.jwt.claims',
      json_build_object('sub', :'alice', 'role', 'authenticated')::text, true)) as claims,
      lateral (select public.query_signals() as value offset 0) as answer
  )) with ordinality as each (key, place)),
  array['signal_id', 'seq', 'trader_id', 'symbol', 'timeframe', 'generated_at', 'action',
    'confidence', 'price', 'stop_loss', 'take_profit', 'valid_until', 'metadata', 'status',
    'outcome'],
  'a signal has these fields, and not the account''s id');
select is(
  (select array_agg(key order by place) from json_object_keys((
    select value -> 'signals' -> 0
    from (select set_config('request.jwt.claims',
      json_build_object('sub', :'alice', 'role', 'authenticated')::text, true)) as claims,
      lateral (
        select public.query_signals(fields => array['outcome', 'price', 'status', 'price']) as value
        offset 0
      ) as answer
  )) with ordinality as each (key, place)),
  array['seq', 'price', 'status', 'outcome'], 'or the fields that are asked for, and seq');
select is(
  tests.ask(:'alice', 'select public.query_signals(fields => ''{}'', page_size => 2, after_seq => 7)')
    -> 'signals', '[{"seq": 8}, {"seq": 9}]', 'at least that');
select is_empty(
  format(
    $$
      select field
      from unnest(private.signal_fields()) as field
      cross join lateral (
        select tests.pluck(tests.ask(%L, format(
          'select public.query_signals(fields => array[%%L]) -> ''signals''', field)), field) as told
      ) as part
      where told <> tests.pluck(tests.ask(%L, 'select public.query_signals() -> ''signals'''), field)
    $$,
    :'alice', :'alice'),
  'each field says the same by itself');
select is_empty(
  $$select from pg_proc where proname = 'query_signals' and provolatile <> 's'$$,
  'query_signals is stable: its page and last_seq come from one snapshot');
select matches(
  tests.ask(:'alice', 'select public.query_signals(page_size => 1)') #>> '{signals,0,generated_at}',
  '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00$', 'times are in UTC');

select * from finish();
rollback;
