begin;
\ir ../helpers.psql
\ir api_keys.psql
select plan(21);

select tests.member() as alice \gset

create function tests.creating(name text, scopes text, expires_at text default null)
returns text
language sql
as $$
  select tests.refusal(
    current_setting('tests.alice')::uuid,
    format('select public.create_api_key(%L, %L, %L)', name, scopes, expires_at))
$$;
select set_config('tests.alice', :'alice', true) is not null as told \gset

select is(tests.creating(name, '{signals:read}'), 'PT400 invalid_request', format('named %L', name))
from unnest(array[null, '', ' worker', 'worker ', e'wor\nker', repeat('x', 65)]) as name;
select is(tests.creating(repeat('é', 64), '{signals:read}'), 'no error', 'a name of 64 characters');

select is(tests.creating('worker', scopes), 'PT400 invalid_request', format('scopes %s', scopes))
from unnest(array[
  null, '{}', '{signals:read,keys:manage}', '{signals}', '{NULL}', '{"signals:read signals:write"}'
]) as scopes;

select is(
  tests.creating('worker', '{signals:read}', private.clock()::text), 'PT400 invalid_request',
  'a key that has expired already');
select is(
  tests.creating('worker', '{signals:read}', forever), 'PT400 invalid_request',
  forever || ' is no end')
from unnest(array['infinity', '-infinity']) as forever;
select throws_ok(
  'update private.api_keys set expires_at = ''infinity''', '23514', null,
  'nor does the table take it');
select is(
  tests.creating('worker', '{signals:read}', (private.clock() + interval '1 second')::text),
  'no error', 'a key with a second to live');

-- Two are there; the twentieth is the last.
select count(tests.create_key(:'alice')) as made from generate_series(3, 19) \gset
select is(tests.creating('the last', '{signals:read}'), 'no error', 'an account has 20 keys');
select is(
  tests.creating('one more', '{signals:read}'), 'PT403 api_key_limit_reached', 'and no more');

update private.api_keys as api_key
set
  created_at = private.clock() - interval '92 days',
  revoked_at = private.clock() - interval '91 days'
where api_key.name = 'the last';
select tests.create_key(:'alice') is not null as made \gset
select is_empty(
  $$select from private.api_keys where name = 'the last'$$,
  'a revoked key makes room, and is forgotten after 90 days');

select * from finish();
rollback;
