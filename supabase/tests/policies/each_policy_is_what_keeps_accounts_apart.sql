-- Relaxed to true, a policy must leak: else the tests of isolation would prove nothing.
begin;
\ir ../helpers.psql
select plan(18);

select tests.account('pro') as alice, tests.account('pro') as bob \gset
select tests.trader(:'bob') as trader \gset
select tests.ingest(:'bob', tests.signals(:'trader', 2)) ->> 'accepted' as stored \gset

select set_eq(
  $$
    select concat_ws(' ', tablename, policyname, cmd, array_to_string(roles, ','))
    from pg_policies where schemaname in ('private', 'audit')
  $$,
  array[
    'accounts members_read_own_account SELECT authenticated',
    'links members_read_own_links SELECT authenticated',
    'retention members_read_retention SELECT authenticated',
    'rollup_heads members_read_own_rollup_head SELECT authenticated',
    'rollups members_read_own_rollups SELECT authenticated',
    'segments members_read_own_segments SELECT authenticated',
    'signal_events members_read_own_events SELECT authenticated',
    'signals members_read_own_signals SELECT authenticated',
    'tiers members_read_tiers SELECT authenticated',
    'traders members_read_own_traders SELECT authenticated'
  ],
  'these are all policies: one a table, for select, for authenticated');

create function tests.foreign_rows(relation text, namespace text default 'private')
returns integer
language sql
as $$
  select tests.ask(current_setting('tests.alice')::uuid, format(
    'select count(*) from %I.%I', foreign_rows.namespace, foreign_rows.relation))::integer
$$;
select set_config('tests.alice', :'alice', true) is not null as told \gset

select is(tests.foreign_rows('accounts'), 1, 'accounts: alice sees her own');
select is(tests.foreign_rows('traders'), 0, 'traders: alice sees none of bob''s');
select is(tests.foreign_rows('signals'), 0, 'signals: alice sees none of bob''s');
select is(tests.foreign_rows('links', 'audit'), 0, 'links: alice sees none of bob''s');

alter policy members_read_own_account on private.accounts using (true);
select cmp_ok(tests.foreign_rows('accounts'), '>', 1, 'relaxed, members_read_own_account leaks');
alter policy members_read_own_traders on private.traders using (true);
select cmp_ok(tests.foreign_rows('traders'), '>', 0, 'relaxed, members_read_own_traders leaks');
alter policy members_read_own_signals on private.signals using (true);
select cmp_ok(tests.foreign_rows('signals'), '>', 1, 'relaxed, members_read_own_signals leaks');
alter policy members_read_own_links on audit.links using (true);
select cmp_ok(
  tests.foreign_rows('links', 'audit'), '>', 0, 'relaxed, members_read_own_links leaks');
select cmp_ok(
  tests.ask(:'alice', 'select count(*) from public.signals')::integer, '>', 1,
  'with all of them relaxed the view leaks');
select cmp_ok(
  jsonb_array_length(tests.ask(:'alice', format(
    'select public.query_signals(traders => array[%L]::uuid[])', :'trader')) -> 'signals'),
  '=', 2, 'and so does query_signals');

alter policy members_read_own_account on private.accounts using (account_id = (select auth.uid()));
select is(
  tests.ask(:'alice', 'select count(*) from public.signals'), '0',
  'the policy of accounts alone keeps the view closed');

drop policy members_read_own_account on private.accounts;
select is(tests.foreign_rows('accounts'), 0, 'without its policy, accounts shows nothing');
drop policy members_read_own_traders on private.traders;
select is(tests.foreign_rows('traders'), 0, 'without its policy, traders shows nothing');
drop policy members_read_own_signals on private.signals;
select is(tests.foreign_rows('signals'), 0, 'without its policy, signals shows nothing');
drop policy members_read_own_links on audit.links;
select is(tests.foreign_rows('links', 'audit'), 0, 'without its policy, links shows nothing');
drop policy members_read_retention on private.retention;
select is(tests.foreign_rows('retention'), 0, 'without its policy, retention shows nothing');
drop policy members_read_tiers on private.tiers;
select is(
  tests.ask(:'alice', 'select public.my_account()'), null,
  'without members_read_tiers, my_account cannot tell the limits');

select * from finish();
rollback;
