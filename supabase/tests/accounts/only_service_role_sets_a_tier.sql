begin;
\ir ../helpers.psql
select plan(9);

select tests.account('free') as alice, gen_random_uuid() as newcomer \gset
select format('select null from public.set_account_tier(%L, ''elite'')', :'alice') as raise \gset

select is(tests.refusal(:'alice', :'raise'), '42501', 'an account cannot raise itself');
select is(tests.refusal(null, :'raise', null, 'anon'), '42501', 'nor can anon');
select is(
  tests.refusal(:'alice', format(
    'select null from private.set_account_tier(%L, ''elite'')', :'alice')),
  '42501', 'nor by calling the body');
select is(
  (select tier from private.accounts where account_id = :'alice'), 'free', 'it is still free');

select is(tests.refusal(null, :'raise', null, 'service_role'), 'no error', 'service_role can');
select is(
  tests.refusal(null, format(
    'select null from public.set_account_tier(%L, ''pro'')', :'newcomer'), null, 'service_role'),
  'no error', 'before the first use, too');
select is(
  tests.refusal(null, format(
    'select null from public.set_account_tier(%L, ''gold'')', :'alice'), null, 'service_role'),
  'PT400 invalid_request', 'a tier that does not exist is refused');

-- tests.refusal keeps what worked.
select is(
  (select tier from private.accounts where account_id = :'alice'), 'elite', 'alice is elite now');
select is(
  tests.ask(:'newcomer', 'select public.my_account()') -> 'day' ->> 'limit', '10000',
  'the newcomer has the allowance of pro');

select * from finish();
rollback;
