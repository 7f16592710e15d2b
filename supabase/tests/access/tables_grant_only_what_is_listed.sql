begin;
\ir ../helpers.psql
select plan(5);

-- Every table and view of ours but the partitions: what each client role may do to it.
create temporary table listed (relation text, role text, verbs text) on commit drop;
insert into listed (relation, role, verbs)
select relation, role, case when relation in (
  'public.signals', 'private.signals', 'private.segments', 'private.stored_signals',
  'private.accounts', 'private.traders', 'private.tiers',
  'private.rollups', 'private.rollup_heads',
  'public.signal_events', 'private.signal_events'
) and role <> 'anon'
  or relation = 'private.retention' and role <> 'anon'
  or relation = 'private.exportable_signals' and role = 'authenticated'
  or relation = 'public.operations_health' and role = 'service_role' then 'select' else '' end
from unnest(array[
  'private.segments', 'private.stored_signals', 'private.days', 'private.account_passes',
  'private.exportable_signals',
  'public.operations_health', 'private.jobs', 'private.job_runs', 'private.retention',
  'private.partition_sets', 'private.partitions',
  'public.signal_events', 'private.signal_events', 'private.advances', 'private.transitions',
  'private.expiries', 'private.expiry_progress',
  'private.live_settings', 'private.live_state',
  'private.pending_broadcasts', 'private.canary_runs',
  'private.rollups', 'private.rollup_heads',
  'public.signals', 'private.accounts', 'private.api_keys', 'private.batches', 'private.item_codes',
  'private.signals', 'private.tiers', 'private.traders'
]) as relation
cross join unnest(array['anon', 'authenticated', 'service_role']) as role;

create temporary view actual as
select
  schema.nspname || '.' || relation.relname as relation,
  role,
  array_to_string(array(
    select verb
    from unnest(array[
      'select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger', 'maintain'
    ]) as verb
    where has_table_privilege(role, relation.oid, verb)
      or case when verb in ('select', 'insert', 'update', 'references')
        then has_any_column_privilege(role, relation.oid, verb) else false end
  ), ',') as verbs,
  relation.relispartition,
  relation.relrowsecurity,
  relation.relkind
from pg_class as relation
inner join pg_namespace as schema on schema.oid = relation.relnamespace
cross join unnest(array['anon', 'authenticated', 'service_role']) as role
where schema.nspname in ('public', 'private') and relation.relkind in ('r', 'p', 'v', 'm', 'f');

select set_eq(
  'select relation, role, verbs from actual where not relispartition',
  'select relation, role, verbs from listed',
  'every table and view grants each role what is listed and nothing else');

select cmp_ok(
  (select count(distinct relation)::integer from actual where relispartition), '>=', 13,
  'the daily partitions and the default one are looked at');

select is_empty(
  $$select relation, role, verbs from actual where relispartition and verbs <> ''$$,
  'no client role may do anything to a partition, the default one included');

select is_empty(
  $$
    select relation from actual
    where relkind in ('r', 'p') and not relispartition and not relrowsecurity
  $$,
  'row-level security is on for every table');

select is_empty(
  $$
    select sequence.relname, role
    from pg_class as sequence
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    where sequence.relkind = 'S'
      and sequence.relnamespace in ('public'::regnamespace, 'private'::regnamespace)
      and has_sequence_privilege(role, sequence.oid, 'usage, select, update')
  $$,
  'no client role may use a sequence');

select * from finish();
rollback;
