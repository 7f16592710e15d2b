begin;
\ir ../helpers.psql
select plan(3);

-- Auth gives a third party that a user let in a token with client_id, and without scope.
create function tests.may(claims jsonb)
returns boolean
language plpgsql
as $$
begin
  perform set_config('request.jwt.claims', may.claims::text, true);
  return private.has_scope('signals:read') or private.has_scope('keys:manage');
end
$$;

select tests.account() as alice \gset
select ok(
  tests.may(jsonb_build_object('sub', :'alice', 'role', 'authenticated')),
  'a signed-in user may do all');
select ok(
  not tests.may(jsonb_build_object('sub', :'alice', 'role', 'authenticated', 'client_id', 'app')),
  'a third party that the user let in may not');
select ok(
  tests.may(jsonb_build_object(
    'sub', :'alice', 'role', 'authenticated', 'client_id', 'app', 'scope', 'signals:read')),
  'unless its token names the scope');

select * from finish();
rollback;
