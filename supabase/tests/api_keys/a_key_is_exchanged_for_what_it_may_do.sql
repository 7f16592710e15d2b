begin;
\ir ../helpers.psql
\ir api_keys.psql
select plan(19);

select tests.member() as alice \gset
select tests.create_key(:'alice', '{signals:write,signals:read}') as key \gset
select :'key'::jsonb ->> 'api_key' as api_key, :'key'::jsonb ->> 'key_id' as key_id \gset
select tests.exchange(:'api_key') as exchange \gset

select is(
  tests.ask(null, :'exchange', null, 'service_role'),
  jsonb_build_object(
    'account_id', :'alice', 'key_id', :'key_id', 'scope', 'signals:read signals:write',
    'expires_in', 900),
  'an exchange tells account, scope and the seconds of a token');
select is(
  (select last_used_at from private.api_keys where key_id = :'key_id'), private.clock(),
  'and is written down');

select is(tests.refusal(:'alice', :'exchange'), '42501', 'a user cannot exchange a key');
select is(
  tests.refusal(:'alice', :'exchange', 'signals:read', 'authenticated', :'key_id'), '42501',
  'nor can a key');
select is(tests.refusal(null, :'exchange', null, 'anon'), '42501', 'nor can anybody');

-- The hash decides, all of it and nothing else.
create function tests.exchanging(api_key text)
returns text
language sql
as $$ select tests.refusal(null, tests.exchange(api_key), null, 'service_role') $$;

select is(tests.exchanging(wrong), 'PT401 invalid_api_key', format('not exchanged: %L', wrong))
from unnest(array[
  '', left(:'api_key', -1), upper(:'api_key'), :'api_key' || ' ',
  left(:'api_key', -1) || translate(right(:'api_key', 1), '0123456789abcdef', '123456789abcdef0'),
  overlay(:'api_key' placing repeat('0', 32) from 5)
]) as wrong;
select is(
  tests.refusal(
    null, format('select public.exchange_api_key(%L)', hash), null, 'service_role'),
  'PT401 invalid_api_key', 'half a hash is none')
from (
  select encode(substring(key_hash for 16), 'hex') as hash
  from private.api_keys where key_id = :'key_id'
) as half;

-- Once a second; 60 at once. One was used above.
select is(
  (
    select count(tests.ask(null, :'exchange', null, 'service_role'))
    from generate_series(2, 60)),
  59::bigint, '60 exchanges at once');
select is(
  tests.exchanging(:'api_key'), 'PT429 too_many_requests', 'the next one has to wait');
select tests.set_clock(now() + interval '1 second') \gset
select is(tests.exchanging(:'api_key'), 'no error', 'a second');
select is(
  tests.exchanging(:'api_key'), 'PT429 too_many_requests', 'and one more the next second');
select tests.create_key(:'alice') ->> 'api_key' as other_key \gset
select is(tests.exchanging(:'other_key'), 'no error', 'another key does not wait');

-- A key that ends, ends its tokens.
select tests.create_key(:'alice', expires_at => private.clock() + interval '2.5 seconds')
  ->> 'api_key' as short_key \gset
select is(
  tests.ask(null, tests.exchange(:'short_key'), null, 'service_role') -> 'expires_in', '3',
  'a token does not outlive its key by a second');
select tests.set_clock(now() + interval '4 seconds') \gset
select is(
  tests.exchanging(:'short_key'), 'PT401 invalid_api_key', 'an expired key is not exchanged');

select * from finish();
rollback;
