-- What may a machine's token do? Each function of the API has one answer, and this test finds the
-- functions that have none, or that forget to ask, in the catalogue: nobody has to think of it.
begin;
\ir ../helpers.psql
select plan(6);

create temporary table decided (function text, scope text) on commit drop;
insert into decided
values
('account_head', 'signals:read'),
('account_usage', 'signals:read'),
('advance_signals', 'signals:write'),
('archive_trader', 'traders:manage'),
('audit_head', 'signals:read'),
('co_occurrence', 'signals:read'),
('correlations', 'signals:read'),
('count_signals', 'signals:read'),
('create_api_key', 'keys:manage'),
('create_trader', 'signals:write'),
('export_range', 'signals:read'),
('export_signals', 'signals:read'),
('heat_map', 'signals:read'),
('ingest_signals', 'signals:write'),
('latest_signals', 'signals:read'),
('list_api_keys', 'keys:manage'),
('list_traders', 'signals:read'),
('my_account', 'signals:read'),
('query_events', 'signals:read'),
('query_rollups', 'signals:read'),
('query_signals', 'signals:read'),
('rename_trader', 'signals:write'),
('revoke_api_key', 'keys:manage'),
('rolling_statistics', 'signals:read'),
('signal_facets', 'signals:read'),
('time_buckets', 'signals:read'),
('verify_audit', 'signals:read');

-- Calls each function with nulls: who may call comes before what was asked for.
create temporary table calls on commit drop as
select
  routine.proname::text as function,
  format('select %s(%s)', routine.oid::regproc, (
    select string_agg(format('null::%s', format_type(type, null)), ', ' order by place)
    from unnest(routine.proargtypes::oid[]) with ordinality as argument (type, place)
  )) as query
from pg_proc as routine
where routine.pronamespace = 'public'::regnamespace
  and has_function_privilege('authenticated', routine.oid, 'execute');

select tests.account() as alice \gset

select set_eq(
  'select function from calls', 'select function from decided',
  'each function that a signed-in user may call has a scope');

select is_empty(
  format(
    $$
      select query, scope, refusal
      from calls
      cross join unnest(array['', 'signals', 'openid email']) as scope
      cross join lateral tests.refusal(%L, query, scope) as refusal
      where refusal <> 'PT403 insufficient_scope'
    $$,
    :'alice'),
  'each refuses a token that has scopes, but not one of ours');

select is_empty(
  format(
    $$
      select query, other.scope, refusal
      from calls
      inner join decided using (function)
      cross join unnest(array[
        'signals:read', 'signals:write', 'keys:manage', 'traders:manage'
      ]) as other (scope)
      cross join lateral tests.refusal(%L, query, other.scope) as refusal
      where (refusal <> 'PT403 insufficient_scope') <> (other.scope = decided.scope)
    $$,
    :'alice'),
  'each asks for its scope and for no other');

select is_empty(
  format(
    $$
      select query, refusal from calls
      cross join lateral tests.refusal(%L, query, 'signals:read signals:write', 'authenticated',
        gen_random_uuid()) as refusal
      where refusal <> 'PT401 unauthorized'
    $$,
    :'alice'),
  'each refuses a token of an API key that is no more');

select ok(
  not private.api_key_scopes() && array['keys:manage', 'traders:manage'],
  'no API key may manage API keys, nor end a trader for good');

-- Views and live channels have policies in place of a first line: each must ask for a scope too.
select set_eq(
  $$
    select format('%s %s', tablename, policyname) from pg_policies
    where schemaname in ('private', 'audit', 'realtime')
      and qual !~ 'private\.(has_scope|caller_account_no)\(''signals:read''::text\)'
  $$,
  array['tiers members_read_tiers', 'retention members_read_retention'],
  'each policy asks for signals:read, but for tables that say the same to everyone');

select * from finish();
rollback;
