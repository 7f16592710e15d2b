begin;
\ir ../helpers.psql
\ir recount.psql
select plan(19);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'alice', 'other') as other,
  tests.trader(:'bob') as foreign_trader \gset
select tests.set_clock(date_trunc('day', now(), 'UTC') + interval '1:30') \g /dev/null

-- Rolled up: some. Not yet: some of the same buckets, some of others.
select tests.ingest(:'alice', tests.mixed(:'trader', 1, 200)) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.mixed(:'foreign_trader', 1, 100)) ->> 'accepted' as other_stored \gset
select tests.roll_up() as merged \gset
select tests.ingest(:'alice', tests.mixed(:'other', 50, 250)) ->> 'accepted' as stored,
  tests.ingest(:'alice', tests.mixed(:'trader', 150, 300)) ->> 'duplicate' as duplicate \gset

select is(:'duplicate'::text, '51', 'some signals came before');
select is(
  tests.first_difference(
    tests.rollups(:'alice', format('resolution => %L, page_size => 7,', resolution)),
    tests.recount(:'alice', resolution)),
  null, 'before the job: ' || resolution)
from unnest(array['1m', '1h', '1d']) as resolution;
select is(
  tests.first_difference(
    tests.rollups(:'bob', format('resolution => %L,', resolution)),
    tests.recount(:'bob', resolution)),
  null, 'with nothing new: ' || resolution)
from unnest(array['1m', '1h', '1d']) as resolution;
select is(
  tests.ask(:'alice', 'select public.query_rollups()') -> 'last_seq',
  (select to_jsonb(last_seq) from private.accounts where account_id = :'alice'),
  'last_seq is that of the account');

select tests.roll_up() as merged \gset
select is(:merged, 301, 'the job merges each new signal once');
select is(
  tests.first_difference(
    tests.rollups(:'alice', format('resolution => %L,', resolution)),
    tests.recount(:'alice', resolution)),
  null, 'after the job: ' || resolution)
from unnest(array['1m', '1h', '1d']) as resolution;
select is_empty(
  format('select * from private.rollup_differences(%s)', tests.account_no(account_id)),
  'what is stored equals a recount')
from unnest(array[:'alice', :'bob']::uuid[]) as account_id;

-- Without the job nothing is stored, and the answer is the same.
select tests.account() as carol \gset
select tests.trader(:'carol') as trader \gset
select tests.ingest(:'carol', tests.mixed(:'trader', 1, 90)) ->> 'accepted' as stored \gset
select is(
  tests.first_difference(
    tests.rollups(:'carol', format('resolution => %L,', resolution)),
    tests.recount(:'carol', resolution)),
  null, 'without the job: ' || resolution)
from unnest(array['1m', '1h', '1d']) as resolution;
select is(
  tests.rollups(:'carol'), tests.rollups(:'carol', 'resolution => ''1m'','),
  'minutes are what one gets without asking');
select is(tests.rollups(tests.account()), '[]', 'who stored nothing has no rollups');

select * from finish();
rollback;
