begin;
\ir ../helpers.psql
select plan(6);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'alice', 'other') as other,
  tests.trader(:'bob') as foreign_trader \gset

select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(
    tests.signal(:'foreign_trader'), tests.signal(gen_random_uuid()), tests.signal(:'trader')))),
  array['0 unknown_trader', '1 unknown_trader'],
  'the trader of another account is as unknown as one that does not exist');
select tests.ask(:'alice', format('select public.archive_trader(%L)', :'trader')) as archived \gset
select is(
  tests.refused(tests.ingest(:'alice', tests.signals(:'trader', 1) || tests.signals(:'other', 1))),
  array['0 unknown_trader'], 'an archived trader takes no more signals');
select is(
  tests.ask(:'alice', 'select count(*) from public.signals'), '2', 'its history stays');
select is(
  tests.refused(tests.ingest(gen_random_uuid(), tests.signals(:'trader', 1))),
  array['0 unknown_trader'], 'a new account has no trader');
select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(tests.signal(:'trader')))),
  array['0 unknown_trader'], 'nor is the stored signal of an archived trader a duplicate');
select is(
  (select count(*)::integer from private.signals inner join private.traders using (trader_no)
    where trader_id = :'foreign_trader'), 0, 'bob''s trader got nothing');

select * from finish();
rollback;
