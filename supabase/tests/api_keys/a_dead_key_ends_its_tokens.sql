begin;
\ir ../helpers.psql
\ir api_keys.psql
select plan(21);

select tests.member() as alice, tests.member() as bob \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 1)) ->> 'accepted' as stored \gset
select tests.create_key(:'alice', '{signals:read}') as key \gset
select :'key'::jsonb ->> 'api_key' as api_key, :'key'::jsonb ->> 'key_id' as key_id \gset

-- Asks with a token of the key.
create function tests.as_key(query text, scope text default 'signals:read')
returns text
language sql
as $$
  select tests.refusal(
    current_setting('tests.alice')::uuid, query, scope, 'authenticated',
    current_setting('tests.key_id')::uuid)
$$;
create function tests.rows_of_key(relation text)
returns integer
language sql
as $$
  select tests.ask(
    current_setting('tests.alice')::uuid, 'select count(*) from ' || relation, 'signals:read',
    'authenticated', current_setting('tests.key_id')::uuid)::integer
$$;
select
  set_config('tests.alice', :'alice', true) is not null as told,
  set_config('tests.key_id', :'key_id', true) is not null as told_too \gset

select is(tests.as_key('select public.query_signals()'), 'no error', 'a key with the scope may read');
select is(
  tests.as_key('select public.ingest_signals(gen_random_uuid(), ''[]'')'),
  'PT403 insufficient_scope', 'but not write');
select is(
  tests.as_key('select public.query_signals()', null), 'PT403 insufficient_scope',
  'a token of a key that names no scope may do nothing');
select is(tests.rows_of_key('public.signals'), 1, 'views show it what functions do');

-- Whose key it is.
select is(
  tests.refusal(:'bob', format('select public.revoke_api_key(%L)', :'key_id')), 'PT404 not_found',
  'another account cannot revoke it');
select is(tests.as_key('select public.query_signals()'), 'no error', 'so it lives');

select tests.ask(:'alice', format('select public.revoke_api_key(%L)', :'key_id')) as revoked \gset
select is(
  (:'revoked'::jsonb ->> 'revoked_at')::timestamptz, private.clock(), 'its own account can');
select tests.set_clock(now() + interval '1 hour') \gset
select is(
  tests.ask(:'alice', format('select public.revoke_api_key(%L)', :'key_id')), :'revoked'::jsonb,
  'and again, which changes nothing');

select is(
  tests.refusal(null, tests.exchange(:'api_key'), null, 'service_role'), 'PT401 invalid_api_key',
  'a revoked key is exchanged no more');
select is(
  tests.as_key('select public.query_signals()'), 'PT401 unauthorized',
  'and a token that was made of it before ends with it');
select is(tests.rows_of_key(relation), 0, relation || ' shows it nothing')
from unnest(array['public.signals', 'private.traders', 'private.accounts']) as relation;
select is(tests.ask(:'alice', 'select public.list_api_keys()'), '[]', 'the list has live keys');
select is(
  jsonb_array_length(tests.ask(:'alice', 'select public.list_api_keys(true)')), 1,
  'and dead ones when asked');

-- An end that was set in advance is as good.
select tests.create_key(:'alice', '{signals:read}', private.clock() + interval '1 minute')
  ->> 'key_id' as short_key_id \gset
select set_config('tests.key_id', :'short_key_id', true) is not null as told \gset
select is(tests.as_key('select public.query_signals()'), 'no error', 'a key that expires may read');
select tests.set_clock(now() + interval '1 hour 1 minute') \gset
select is(
  tests.as_key('select public.query_signals()'), 'PT401 unauthorized', 'until it has expired');

-- A user who may not sign in has no keys either.
select tests.create_key(:'alice') ->> 'api_key' as api_key \gset
update auth.users set banned_until = private.clock() + interval '1 day' where id = :'alice';
select is(
  tests.refusal(null, tests.exchange(:'api_key'), null, 'service_role'), 'PT401 invalid_api_key',
  'the key of a user who is banned is not exchanged');
update auth.users set banned_until = private.clock() where id = :'alice';
select is(
  tests.refusal(null, tests.exchange(:'api_key'), null, 'service_role'), 'no error',
  'until the ban is over');
update auth.users set deleted_at = private.clock() where id = :'alice';
select is(
  tests.refusal(null, tests.exchange(:'api_key'), null, 'service_role'), 'PT401 invalid_api_key',
  'nor is that of a user who was deleted');
delete from auth.users where id = :'alice';
select is(
  tests.refusal(null, tests.exchange(:'api_key'), null, 'service_role'), 'PT401 invalid_api_key',
  'without a trace or with one');

select * from finish();
rollback;
