begin;
\ir ../helpers.psql
select plan(15);

select tests.account() as alice \gset
select tests.trader(:'alice', 'first') as first, tests.trader(:'alice', 'second') as second \gset

select is(
  tests.ask(:'alice', format('select public.rename_trader(%L, ''renamed'')', :'first')) ->> 'name',
  'renamed', 'a trader gets a new name');
select is(
  tests.ask(:'alice', format('select public.rename_trader(%L, ''renamed'')', :'first')) ->> 'name',
  'renamed', 'its own name is no conflict');
select is(
  tests.refusal(:'alice', format('select public.rename_trader(%L, ''second'')', :'first')),
  'PT409 trader_name_taken', 'the name of another active trader is');
select is(
  tests.refusal(:'alice', format('select public.rename_trader(%L, '''')', :'first')),
  'PT400 invalid_request', 'a bad name is refused');
select is(
  tests.refusal(:'alice', format('select public.rename_trader(%L, null)', :'first')),
  'PT400 invalid_request', 'no name is refused');
select is(
  tests.refusal(:'alice', 'select public.rename_trader(gen_random_uuid(), ''x'')'),
  'PT404 not_found', 'an unknown trader is not found');
select is(
  tests.refusal(:'alice', 'select public.archive_trader(null)'),
  'PT404 not_found', 'nor is none');

select tests.ask(:'alice', format('select public.archive_trader(%L)', :'second')) as archived \gset
select isnt(:'archived'::jsonb ->> 'archived_at', null, 'an archived trader tells since when');
select tests.set_clock(now() + interval '5 minutes') is null as later \gset
select is(
  tests.ask(:'alice', format('select public.archive_trader(%L)', :'second')),
  :'archived'::jsonb, 'archiving twice changes nothing');
select is(
  tests.ask(:'alice', format('select public.rename_trader(%L, ''second'')', :'first')) ->> 'name',
  'second', 'the name of an archived trader is free');
select is(
  tests.ask(:'alice', format('select public.rename_trader(%L, ''old second'')', :'second'))
    ->> 'name', 'old second', 'an archived trader can be renamed');

select is(
  tests.pluck(tests.ask(:'alice', 'select public.list_traders()'), 'name'), array['second'],
  'archived traders are not listed');
select is(
  tests.pluck(tests.ask(:'alice', 'select public.list_traders(true)'), 'name'),
  array['second', 'old second'], 'unless asked for, oldest first');
select is(
  tests.pluck(tests.ask(:'alice', 'select public.list_traders(null)'), 'name'), array['second'],
  'null is as false');
select throws_ok(
  format('update private.traders set name = '' padded'' where trader_id = %L', :'first'),
  '23514', null, 'the table itself refuses a bad name');

select * from finish();
rollback;
