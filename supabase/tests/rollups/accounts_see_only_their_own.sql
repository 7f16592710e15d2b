begin;
\ir ../helpers.psql
\ir recount.psql
select plan(16);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
select tests.ingest(:'alice', tests.mixed(:'trader', 1, 20)) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.mixed(:'foreign_trader', 1, 40)) ->> 'accepted' as foreign_stored \gset

create function tests.counted(account_id uuid, resolution text)
returns bigint
language sql
as $$
  select coalesce(sum((rollup ->> 'signals')::bigint), 0)
  from jsonb_array_elements(tests.rollups(
    counted.account_id, format('resolution => %L,', counted.resolution))) as rollup
$$;

select is(tests.counted(:'alice', resolution), 20::bigint, 'not rolled up: alice sees hers')
from unnest(array['1m', '1h']) as resolution;
select is(tests.counted(:'bob', resolution), 40::bigint, 'not rolled up: bob sees his')
from unnest(array['1m', '1h']) as resolution;
select tests.roll_up() as merged \gset
select is(tests.counted(:'alice', '1h'), 20::bigint, 'rolled up: alice sees hers');
select is(tests.counted(:'bob', '1h'), 40::bigint, 'rolled up: bob sees his');
select is(
  tests.rollups(:'alice', format('traders => array[%L]::uuid[],', :'foreign_trader')), '[]',
  'asking for the trader of another account finds nothing');

select is(
  tests.ask(:'alice', 'select count(distinct account_no) from private.rollups'), '1',
  'rollups: one account');
select is(
  tests.ask(:'alice', 'select count(*) from private.rollup_heads'), '1',
  'rollup_heads: one account');
select is(
  tests.ask(:'alice', 'select count(*) from private.rollups', 'signals:write'), '0',
  'none without the scope');
select is(
  tests.refusal(:'alice', 'select public.query_rollups()', 'signals:write'),
  'PT403 insufficient_scope', 'which query_rollups says');
select is(
  tests.refusal(null, 'select public.query_rollups()'), 'PT401 unauthorized', 'nor without a user');
select is(
  tests.refusal(null, 'select public.query_rollups()', null, 'anon'), '42501', 'nor as anon');

-- Relaxed to true, a policy must leak: else the above would prove nothing.
alter policy members_read_own_rollups on private.rollups using (true);
select cmp_ok(
  tests.ask(:'alice', 'select count(distinct account_no) from private.rollups')::integer,
  '>', 1, 'relaxed, members_read_own_rollups leaks');
alter policy members_read_own_rollup_head on private.rollup_heads using (true);
select cmp_ok(
  tests.ask(:'alice', 'select count(*) from private.rollup_heads')::integer,
  '>', 1, 'relaxed, members_read_own_rollup_head leaks');
select is(
  tests.counted(:'alice', '1h'), 20::bigint, 'and query_rollups asks for its own account anyway');

select * from finish();
rollback;
