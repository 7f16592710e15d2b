begin;
\ir ../helpers.psql
select plan(58);

select tests.account('pro') as alice \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 1)) ->> 'accepted' as stored \gset

create temporary table calls (query text, scope text) on commit drop;
insert into calls
values
('select public.my_account()', 'signals:read'),
('select public.list_traders()', 'signals:read'),
('select public.query_signals()', 'signals:read'),
('select public.query_events()', 'signals:read'),
('select public.advance_signals(gen_random_uuid(), ''[]'')', 'signals:write'),
('select public.create_trader(''scoped'')', 'signals:write'),
(format('select public.rename_trader(%L, ''renamed'')', :'trader'), 'signals:write'),
(format('select public.archive_trader(%L)', :'trader'), 'traders:manage'),
('select public.ingest_signals(gen_random_uuid(), ''[]'')', 'signals:write');

select is(
  tests.refusal(:'alice', query, scope), 'no error', query || ' with just its scope')
from calls;
select is(
  tests.refusal(:'alice', query, 'openid ' || scope || ' email'), 'no error',
  query || ' with its scope among others')
from calls;
select is(
  tests.refusal(:'alice', query, case scope
    when 'signals:read' then 'signals:write' else 'signals:read' end),
  'PT403 insufficient_scope', query || ' with the other scope only')
from calls;
select is(
  tests.refusal(:'alice', query, ''), 'PT403 insufficient_scope', query || ' with an empty scope')
from calls;
select is(
  tests.refusal(:'alice', query, scope || 'x ' || upper(scope)), 'PT403 insufficient_scope',
  query || ' with a scope that only looks like it')
from calls;
select is(
  tests.refusal(null, query), 'PT401 unauthorized', query || ' without a user')
from calls;

select is(
  tests.ask(:'alice', 'select count(*) from public.signals'), '1',
  'the view shows the signals to a token without a scope');
select is(
  tests.ask(:'alice', 'select count(*) from public.signals', 'signals:read'), '1',
  'and to one that may read');
select is(
  tests.ask(:'alice', 'select count(*) from public.signals', 'signals:write'), '0',
  'but shows nothing to one that may only write');
select is(
  tests.ask(:'alice', 'select count(*) from private.traders', 'signals:write'), '0',
  'nor are its traders shown');

select * from finish();
rollback;
