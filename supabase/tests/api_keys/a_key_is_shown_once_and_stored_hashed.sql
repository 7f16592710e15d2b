begin;
\ir ../helpers.psql
\ir api_keys.psql
select plan(11);

select tests.member() as alice \gset
select tests.create_key(:'alice', '{signals:write,signals:read,signals:write}') as key \gset
select :'key'::jsonb ->> 'api_key' as api_key, :'key'::jsonb ->> 'key_id' as key_id \gset

select matches(
  (:'api_key')::text, '^sgk_' || replace(:'alice', '-', '') || '_[0-9a-f]{64}$',
  'a key names its account and then nothing but chance');
select is(
  :'key'::jsonb - array['api_key', 'key_id', 'created_at', 'hint'],
  '{"name": "worker", "scopes": ["signals:read", "signals:write"], "expires_at": null,
    "revoked_at": null, "last_used_at": null}',
  'it is shown with what it may do');
select is(:'key'::jsonb ->> 'hint', right(:'api_key', 4), 'and with a hint');

select is_empty(
  format(
    $$select from private.api_keys as stored where stored::text like '%%' || %L || '%%'$$,
    right(:'api_key', 64)),
  'the key is stored nowhere');
select is(
  (select key_hash from private.api_keys where key_id = :'key_id'),
  sha256(convert_to(:'api_key', 'UTF8')), 'its hash is');
select is(
  tests.ask(:'alice', 'select public.list_api_keys()'),
  jsonb_build_array(:'key'::jsonb - 'api_key'), 'the list has the rest of it');
select is(
  tests.refusal(:'alice', 'select from private.api_keys'), '42501',
  'not even its owner reads the table');
select is(
  tests.refusal(null, 'select from private.api_keys', null, 'service_role'), '42501',
  'nor does an operator by the API');

select isnt(
  tests.create_key(:'alice') ->> 'api_key', :'api_key', 'another key is another');
select is(
  jsonb_array_length(tests.ask(:'alice', 'select public.list_api_keys()')), 2, 'beside the first');
select is(
  tests.ask(tests.member(), 'select public.list_api_keys()'), '[]',
  'another account sees neither');

select * from finish();
rollback;
