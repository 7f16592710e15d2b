begin;
\ir ../helpers.psql
select plan(9);

select gen_random_uuid() as alice, gen_random_uuid() as bob \gset

select is(
  tests.ask(:'alice', 'select public.my_account()'),
  jsonb_build_object(
    'account_id', :'alice', 'tier', 'free', 'last_seq', 0,
    'day', '{"used": 0, "limit": 100}'::jsonb, 'minute', '{"used": 0, "limit": null}'::jsonb),
  'before its first use an account is free and empty');
select is(
  tests.ask(:'alice', 'select public.query_signals()'),
  '{"signals": [], "next_cursor": null, "last_seq": 0}', 'and has no signals');
select is(tests.ask(:'alice', 'select public.list_traders()'), '[]', 'nor traders');
select is_empty(
  format('select from private.accounts where account_id = %L', :'alice'),
  'reading makes no account');

select is(
  tests.ingest(:'alice', '[]') - 'request_id',
  '{"accepted": 0, "duplicate": 0, "rejected": 0, "first_seq": null, "last_seq": null,
    "items": []}',
  'an empty batch is answered');
select is(
  (select tier || ' ' || last_seq from private.accounts where account_id = :'alice'), 'free 0',
  'the first batch makes the account, of the free tier');
select ok(tests.trader(:'bob') is not null, 'so does the first trader');
select is(
  (select count(*)::integer from private.accounts where account_id = :'bob'), 1,
  'which belongs to the new account');
select is_empty(
  format('select from auth.users where id in (%L, %L)', :'alice', :'bob'),
  'and nothing is made in auth');

select * from finish();
rollback;
