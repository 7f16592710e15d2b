begin;
\ir ../helpers.psql
select plan(12);

select tests.account('free') as alice, tests.account('free') as bob \gset
select tests.ask(:'alice', 'select public.create_trader(''Momentum'', true)') as created \gset

select is(
  :'created'::jsonb - 'trader_id' - 'created_at',
  '{"name": "Momentum", "own_channel": true, "archived_at": null}', 'the trader as it was asked');
select is(
  tests.ask(:'alice', 'select public.create_trader(''Momentum'')'), :'created'::jsonb,
  'the same name finds the same trader, unchanged');
select isnt(
  tests.trader(:'alice', 'momentum')::text, :'created'::jsonb ->> 'trader_id',
  'names differ by case');
select isnt(
  tests.trader(:'bob', 'Momentum')::text, :'created'::jsonb ->> 'trader_id',
  'two accounts may use one name');

select tests.ask(:'alice', format(
  'select public.archive_trader(%L)', :'created'::jsonb ->> 'trader_id')) as archived \gset
select isnt(
  tests.trader(:'alice', 'Momentum')::text, :'created'::jsonb ->> 'trader_id',
  'the name of an archived trader makes a new one');

select is(
  tests.refusal(:'alice', format('select public.create_trader(%L)', name)), verdict, why)
from (values
  (null, 'PT400 invalid_request', 'a name is required'),
  ('', 'PT400 invalid_request', 'an empty name is refused'),
  (' padded', 'PT400 invalid_request', 'a space at an end is refused'),
  (e'two\nlines', 'PT400 invalid_request', 'a control character is refused'),
  (repeat('é', 65), 'PT400 invalid_request', '65 characters are refused'),
  (repeat('é', 64), 'no error', '64 characters are allowed, whatever their bytes'),
  ('a b', 'no error', 'a space inside is allowed')
) as attempt (name, verdict, why);

select * from finish();
rollback;
