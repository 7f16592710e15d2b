begin;
\ir ../helpers.psql
select plan(38);

select tests.account('pro') as alice, tests.account('pro') as bob \gset
select tests.trader(:'alice', 'a') as a_trader, tests.trader(:'bob', 'b') as b_trader \gset
select tests.ingest(:'alice', tests.signals(:'a_trader', 3)) as a_verdict,
  tests.ingest(:'bob', tests.signals(:'b_trader', 5)) as b_verdict \gset

select is(:'a_verdict'::jsonb ->> 'accepted', '3', 'alice stored three signals');
select is(:'b_verdict'::jsonb ->> 'accepted', '5', 'bob stored five signals');

select tests.advance(:'alice', jsonb_build_array(
    tests.change(tests.signals(:'a_trader', 1) -> 0, 'analyzed'))) ->> 'accepted' as a_advanced,
  tests.advance(:'bob', jsonb_build_array(
    tests.change(tests.signals(:'b_trader', 1) -> 0, 'analyzed'),
    tests.change(tests.signals(:'b_trader', 1) -> 0, 'executed'))) ->> 'accepted' as b_advanced \gset

-- What each of them sees by selecting: own rows, all of them, and nothing else.
create temporary table reads (query text, alice text, bob text) on commit drop;
insert into reads
values
('select count(*) from public.signals', '3', '5'),
('select count(*) from private.signals', '3', '5'),
('select count(*) from public.signal_events', '1', '2'),
('select count(*) from private.signal_events', '1', '2'),
('select jsonb_agg(distinct account_id) from public.signals',
  '["' || :'alice' || '"]', '["' || :'bob' || '"]'),
('select jsonb_agg(account_id) from private.accounts',
  '["' || :'alice' || '"]', '["' || :'bob' || '"]'),
('select jsonb_agg(trader_id) from private.traders',
  '["' || :'a_trader' || '"]', '["' || :'b_trader' || '"]'),
('select public.my_account() -> ''account_id''', '"' || :'alice' || '"', '"' || :'bob' || '"'),
('select jsonb_path_query_array(public.list_traders()::jsonb, ''$[*].name'')', '["a"]', '["b"]'),
('select jsonb_array_length((public.query_events() -> ''events'')::jsonb)', '1', '2'),
('select jsonb_array_length((public.query_signals() -> ''signals'')::jsonb)', '3', '5'),
('select public.count_signals() -> ''count''', '3', '5'),
('select public.signal_facets() -> ''actions'' -> 0 -> ''count''', '3', '5'),
('select public.latest_signals() -> ''signals'' -> 0 -> ''trader_id''',
  '"' || :'a_trader' || '"', '"' || :'b_trader' || '"');

select is(tests.ask(:'alice', query)::text, alice, 'alice: ' || query) from reads;
select is(tests.ask(:'bob', query)::text, bob, 'bob: ' || query) from reads;

select is(
  tests.ask(:'alice', format(
    'select (public.query_signals(traders => array[%L]::uuid[]) -> ''signals'')', :'b_trader')),
  '[]', 'asking for the trader of another account finds nothing');
select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(tests.signal(:'b_trader')))),
  array['0 unknown_trader'], 'the trader of another account takes no signal');
select is(
  tests.refusal(:'alice', format('select public.rename_trader(%L, ''mine'')', :'b_trader')),
  'PT404 not_found', 'nor can it be renamed');
select is(
  tests.refusal(:'alice', format('select public.archive_trader(%L)', :'b_trader')),
  'PT404 not_found', 'nor archived');
select is(
  tests.ask(null, 'select count(distinct account_id) from public.signals', null, 'service_role'),
  (select to_jsonb(count(distinct account_no)) from private.stored_signals),
  'service_role sees the signals of every account');
select is(
  tests.ask(gen_random_uuid(), 'select count(*) from public.signals'), '0',
  'an account that stored nothing sees nothing');
select is(
  tests.ask(null, 'select count(*) from public.signals'), '0',
  'a token without a user sees nothing');
select is(
  tests.ask(:'alice', 'select count(*) from private.accounts where true', 'signals:write'),
  '0', 'a token that may not read does not even see its account');

select * from finish();
rollback;
