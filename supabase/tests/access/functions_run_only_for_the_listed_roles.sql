begin;
\ir ../helpers.psql
select plan(3);

-- Every function of ours, and which client roles may execute it. A new function fails here until
-- it is listed.
create temporary table listed (function text, roles text) on commit drop;
insert into listed (function, roles)
values
('public.archive_trader(uuid)', 'authenticated'),
('public.create_trader(text,boolean)', 'authenticated'),
('public.ingest_signals(uuid,jsonb)', 'authenticated'),
('public.list_traders(boolean)', 'authenticated'),
('public.my_account()', 'authenticated'),
(
  'public.query_signals(uuid[],text[],text[],text[],double precision,timestamp with time zone,'
  'timestamp with time zone,bigint,text,text,integer)', 'authenticated'
),
('public.rename_trader(uuid,text)', 'authenticated'),
('public.set_account_tier(uuid,text)', 'service_role'),
('private.actions()', 'authenticated,service_role'),
('private.broadcast_batch()', ''),
('private.broadcast_payload(uuid,private.batches)', ''),
('private.caller_account_no(text)', 'authenticated'),
('private.caller_id(text)', 'authenticated,service_role'),
('private.change_trader(uuid,text,boolean)', 'authenticated'),
('private.clock()', 'authenticated,service_role'),
('private.create_trader(text,boolean)', 'authenticated'),
('private.decode_cursor(text,text)', 'authenticated'),
('private.encode_cursor(text,timestamp with time zone,bigint)', 'authenticated'),
('private.has_scope(text)', 'authenticated,service_role'),
('private.ingest_signals(uuid,jsonb)', 'authenticated'),
('private.lock_account(uuid)', ''),
('private.maintain_partitions()', ''),
('private.opened_windows(private.accounts)', ''),
('private.parse_signals(uuid,jsonb)', ''),
('private.read_signals(uuid,jsonb,boolean)', ''),
(
  'private.query_signals(uuid[],text[],text[],text[],double precision,timestamp with time zone,'
  'timestamp with time zone,bigint,text,text,integer)', 'authenticated'
),
('private.raise_error(integer,text,text,text)', 'authenticated,service_role'),
('private.read_signals(uuid,jsonb,boolean)', ''),
('private.replayed_verdict(integer,uuid,bigint)', ''),
('private.require_batch(uuid,jsonb)', ''),
('private.require_query(integer,text,integer)', 'authenticated'),
('private.require_trader_name(text)', 'authenticated'),
('private.set_account_tier(uuid,text)', 'service_role'),
('private.store_all(private.accounts,private.candidate[])', ''),
('private.store_batch(private.accounts,uuid,bigint,private.candidate[])', ''),
('private.store_signals(private.accounts,private.candidate[],bigint,bigint)', ''),
('private.timeframes()', 'authenticated,service_role'),
('private.timestamp_shapes()', ''),
('private.trader_json(private.traders)', 'authenticated');

create temporary view actual as
select
  format('%I.%I(%s)', schema.nspname, routine.proname, (
    select string_agg(format_type(type, null), ',' order by place)
    from unnest(routine.proargtypes::oid[]) with ordinality as argument (type, place)
  )) as function,
  array_to_string(array(
    select role from unnest(array['anon', 'authenticated', 'service_role']) as role
    where has_function_privilege(role, routine.oid, 'execute')
  ), ',') as roles,
  routine.prosecdef
from pg_proc as routine
inner join pg_namespace as schema on schema.oid = routine.pronamespace
where schema.nspname in ('public', 'private');

select set_eq(
  'select function, roles from actual', 'select function, roles from listed',
  'every function of public and private is executable by the listed roles and no other');

select is_empty(
  $$
    select routine.oid::regprocedure
    from pg_proc as routine
    cross join aclexplode(coalesce(routine.proacl, acldefault('f', routine.proowner))) as granted
    where routine.pronamespace in ('public'::regnamespace, 'private'::regnamespace)
      and granted.grantee = 0
  $$,
  'no function is granted to PUBLIC');

select is_empty(
  $$
    select routine.oid::regprocedure
    from pg_proc as routine
    where routine.pronamespace in ('public'::regnamespace, 'private'::regnamespace)
      and not 'search_path=""' = any(coalesce(routine.proconfig, '{}'))
  $$,
  'every function has an empty search_path');

select * from finish();
rollback;
