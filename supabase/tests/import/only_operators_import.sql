begin;
\ir ../helpers.psql
select plan(3);

select tests.account() as alice \gset
select format('select private.import_signals(%L, gen_random_uuid(), ''[]'')', :'alice') as call \gset

select is(
  tests.refusal(:'alice', :'call', as_role => role), '42501',
  role || ' cannot import')
from unnest(array['anon', 'authenticated', 'service_role']) as role;

select * from finish();
rollback;
