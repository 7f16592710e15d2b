-- An access token lives an hour, a key for ever: whoever gets hold of the one must not get the other.
begin;
\ir ../helpers.psql
\ir api_keys.psql
select plan(11);

select tests.member() as alice, tests.member() as bob, tests.account() as nobody \gset
create function tests.creating(account_id uuid)
returns text
language sql
as $$
  select tests.refusal(account_id, 'select public.create_api_key(''worker'', ''{signals:read}'')')
$$;

select is(tests.creating(:'alice'), 'no error', 'whoever is signed in makes a key');
select is(
  tests.creating(:'nobody'), 'PT401 unauthorized', 'a token that names no session does not');

-- How a session ends.
update auth.sessions set not_after = private.clock() where id = :'alice';
select is(tests.creating(:'alice'), 'PT401 unauthorized', 'nor one whose session has ended');
update auth.sessions set not_after = private.clock() + interval '1 second' where id = :'alice';
select is(tests.creating(:'alice'), 'no error', 'one that ends later does');
update auth.sessions set user_id = :'bob' where id = :'alice';
select is(
  tests.creating(:'alice'), 'PT401 unauthorized', 'a session of another user does not count');
update auth.sessions set user_id = :'alice' where id = :'alice';

-- Whoever has a second factor must have shown it.
insert into auth.mfa_factors (id, user_id, status)
values (gen_random_uuid(), :'alice', 'unverified');
select is(tests.creating(:'alice'), 'no error', 'a factor that was never confirmed is none');
update auth.mfa_factors set status = 'verified' where user_id = :'alice';
select is(
  tests.creating(:'alice'), 'PT401 unauthorized', 'a password alone is not enough beside a factor');
update auth.sessions set aal = 'aal2' where id = :'alice';
select is(tests.creating(:'alice'), 'no error', 'with the factor it is');

delete from auth.sessions where id = :'alice';
select is(tests.creating(:'alice'), 'PT401 unauthorized', 'whoever has signed out makes no key');

-- Not even a token that says that it may.
select tests.create_key(:'bob') ->> 'key_id' as key_id \gset
select is(
  tests.refusal(
    :'bob', 'select public.create_api_key(''worker'', ''{signals:read}'')', 'keys:manage',
    'authenticated', :'key_id'),
  'PT401 unauthorized', 'the token of a key makes no key');
select is(
  tests.ask(:'bob', 'select public.list_api_keys()') #>> '{0,key_id}', :'key_id',
  'there is the one that bob made');

select * from finish();
rollback;
