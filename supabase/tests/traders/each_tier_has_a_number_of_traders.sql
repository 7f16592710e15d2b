begin;
\ir ../helpers.psql
select plan(8);

select tests.account('free') as alice \gset
select tests.trader(:'alice', 'trader ' || number) from generate_series(1, 9) as number \g /dev/null

select is(
  tests.refusal(:'alice', 'select public.create_trader(''trader 10'')'), 'no error',
  'a free account may have ten traders');
select is(
  tests.refusal(:'alice', 'select public.create_trader(''trader 11'')'),
  'PT403 trader_limit_reached', 'but not eleven');
select is(
  tests.refusal(:'alice', 'select public.create_trader(''trader 10'')'), 'no error',
  'at the limit an existing trader is still found');
select tests.ask(:'alice', format(
  'select public.archive_trader(%L)', tests.trader(:'alice', 'trader 1'))) as archived \gset
select is(
  tests.refusal(:'alice', 'select public.create_trader(''trader 11'')'), 'no error',
  'an archived trader makes room');
select is(
  tests.refusal(:'alice', 'select public.create_trader(''trader 12'')'),
  'PT403 trader_limit_reached', 'for one');
select is(
  jsonb_array_length(tests.ask(:'alice', 'select public.list_traders()')), 10,
  'ten are listed');
select private.set_account_tier(:'alice', 'pro') is null as raised \gset
select is(
  tests.refusal(:'alice', 'select public.create_trader(''trader 12'')'), 'no error',
  'a higher tier has room for more');
select results_eq(
  'select tier, traders from private.tiers order by traders',
  $$values ('free', 10), ('pro', 100), ('elite', 10000)$$, 'the limits of the tiers');

select * from finish();
rollback;
