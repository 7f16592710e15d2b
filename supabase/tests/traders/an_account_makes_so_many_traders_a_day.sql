-- Archived traders stay for ever: making and archiving them in turn must not fill the table.
begin;
\ir ../helpers.psql
select plan(6);

select tests.account('free') as alice, tests.account('free') as bob \gset
create function tests.creating(account_id uuid, name text)
returns text
language sql
as $$ select tests.refusal(account_id, format('select public.create_trader(%L)', name)) $$;

-- As if 19 had been made and archived.
insert into private.traders (account_no, name, created_at, archived_at)
select
  tests.account_no(:'alice'), 'archived', private.clock() - interval '1 hour', private.clock()
from generate_series(1, 19);

select is(
  tests.creating(:'alice', 'last'), 'no error',
  'an account makes twice as many traders in a day as it may have');
select is(tests.creating(:'alice', 'more'), 'PT403 trader_limit_reached', 'and no more');
select is(tests.creating(:'alice', 'last'), 'no error', 'those that are there are still found');
select is(
  tests.creating(:'bob', 'more'), 'no error', 'which are not those of another account');
select tests.ask(:'alice', format(
  'select public.archive_trader(%L)', tests.trader(:'alice', 'last'))) \g /dev/null
select is(
  tests.creating(:'alice', 'more'), 'PT403 trader_limit_reached',
  'archiving one makes no room for another');
select tests.set_clock(private.clock() + interval '23 hours') \gset
select is(tests.creating(:'alice', 'more'), 'no error', 'a day after the first it may go on');

select * from finish();
rollback;
