-- Keys stay in the table for 90 days after they end: making and revoking them in turn must not fill it.
begin;
\ir ../helpers.psql
\ir api_keys.psql
select plan(6);

select tests.member() as alice, tests.member() as bob \gset
create function tests.creating(account_id uuid)
returns text
language sql
as $$
  select tests.refusal(account_id, 'select public.create_api_key(''worker'', ''{signals:read}'')')
$$;

-- As if 49 had been made and revoked.
insert into private.api_keys (
  account_no, name, scopes, key_hash, hint, created_at, revoked_at
)
select
  tests.account_no(:'alice'), 'revoked', '{signals:read}', sha256(number::text::bytea), 'hint',
  private.clock() - interval '1 hour', private.clock()
from generate_series(1, 49) as number;

select is(tests.creating(:'alice'), 'no error', 'an account makes 50 keys in a day');
select is(tests.creating(:'alice'), 'PT403 api_key_limit_reached', 'and no more');
select is(tests.creating(:'bob'), 'no error', 'which are not those of another account');
select is(
  tests.refusal(:'alice', format('select public.revoke_api_key(%L)', key_id)), 'no error',
  'revoking one')
from private.api_keys where revoked_at is null and account_no = tests.account_no(:'alice');
select is(tests.creating(:'alice'), 'PT403 api_key_limit_reached', 'makes no room for another');
select tests.set_clock(private.clock() + interval '23 hours') \gset
select is(tests.creating(:'alice'), 'no error', 'a day after the first it may go on');

select * from finish();
rollback;
