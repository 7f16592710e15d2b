-- What a hosted Supabase project has before our first migration, as far as this product can see it.
-- Run once, by supabase_admin (the bootstrap superuser), in a fresh cluster's database `postgres`.
-- Sources and differences: local_stack/README.md.

\set ON_ERROR_STOP on
set client_min_messages = warning;

begin;

-- Roles -------------------------------------------------------------------------------------------

create role postgres
  login createrole createdb replication bypassrls password 'postgres';
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
create role authenticator login noinherit password 'postgres';
create role supabase_auth_admin login noinherit createrole password 'postgres';
create role supabase_realtime_admin nologin noinherit;
create role supabase_read_only_user login bypassrls password 'postgres';
create role dashboard_user nologin createrole createdb replication;
alter role supabase_admin password 'postgres';

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, authenticator to postgres with admin option;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres with admin option;
grant pg_create_subscription to postgres;
grant pg_read_all_data to supabase_read_only_user;
grant anon, authenticated, service_role to supabase_realtime_admin;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, auth, extensions;
alter role supabase_auth_admin set search_path = auth;
alter role supabase_auth_admin set idle_in_transaction_session_timeout = '60s';
-- The stack's own work (tailing, partitions) is not bound by the project's limit below.
alter role supabase_admin set statement_timeout = 0;
alter database postgres owner to postgres;
alter database postgres set statement_timeout = '2min';

-- Hosted (supautils) lets `postgres` set these for a role or a database without being superuser.
grant set on parameter
  deadlock_timeout, log_lock_waits, log_min_duration_statement, log_statement, log_temp_files,
  session_replication_role, track_functions, track_io_timing, wal_compression,
  pg_stat_statements.max, pg_stat_statements.save, pg_stat_statements.track,
  pg_stat_statements.track_planning, pg_stat_statements.track_utility,
  pgaudit.log, pgaudit.log_catalog, pgaudit.log_client, pgaudit.log_level, pgaudit.log_relation,
  pgaudit.log_rows, pgaudit.log_statement, pgaudit.log_statement_once, pgaudit.role
  to postgres;

-- Schema public: no automatic grants to the API roles (auto_expose_new_tables = false) ---------------

grant usage on schema public to postgres, anon, authenticated, service_role;

-- Extensions --------------------------------------------------------------------------------------

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role, dashboard_user;
create extension pgcrypto with schema extensions;
create extension "uuid-ossp" with schema extensions;
create extension pg_stat_statements with schema extensions;

-- Ours: what hosted does outside the database, or with extensions that Debian does not package.
create schema local_stack;
revoke all on schema local_stack from public;

-- As hosted: `postgres` reads cron.job but changes it only through pg_cron's functions.
create function local_stack.grant_cron_access()
returns event_trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if not exists (
    select from pg_event_trigger_ddl_commands() as command
    where command.object_type = 'extension' and command.object_identity = 'pg_cron'
  ) then
    return;
  end if;
  -- pg_cron works as its extension's owner, which hosted makes supabase_admin. There is no
  -- `alter extension … owner`, so the catalogs are told.
  update pg_catalog.pg_extension
  set extowner = 'supabase_admin'::regrole
  where extname = 'pg_cron';
  update pg_catalog.pg_shdepend
  set refobjid = 'supabase_admin'::regrole
  where classid = 'pg_catalog.pg_extension'::regclass and deptype = 'o'
    and objid = (select oid from pg_catalog.pg_extension where extname = 'pg_cron');
  grant usage on schema cron to postgres with grant option;
  grant execute on all functions in schema cron to postgres with grant option;
  grant usage, select on all sequences in schema cron to postgres;
  revoke all on cron.job, cron.job_run_details from postgres, public;
  grant select on cron.job to postgres with grant option;
  grant select, insert, update, delete, truncate, references, maintain
    on cron.job_run_details to postgres with grant option;
end
$$;
comment on function local_stack.grant_cron_access is
  'Give postgres the rights on pg_cron that hosted Supabase gives after create extension.';

create event trigger local_stack_cron_access on ddl_command_end
  when tag in ('CREATE EXTENSION')
  execute function local_stack.grant_cron_access();

-- Auth (the columns of Supabase Auth that matter here) --------------------------------------------

create schema auth;
grant usage on schema auth to anon, authenticated, service_role, postgres, dashboard_user;
grant all on schema auth to supabase_auth_admin;
set local role supabase_auth_admin;

create table auth.users (
  instance_id uuid,
  id uuid primary key,
  aud varchar(255),
  role varchar(255),
  email varchar(255),
  encrypted_password varchar(255),
  email_confirmed_at timestamptz,
  invited_at timestamptz,
  confirmation_token varchar(255),
  confirmation_sent_at timestamptz,
  recovery_token varchar(255),
  recovery_sent_at timestamptz,
  email_change varchar(255),
  email_change_sent_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_super_admin boolean,
  created_at timestamptz,
  updated_at timestamptz,
  phone text unique,
  phone_confirmed_at timestamptz,
  confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
  banned_until timestamptz,
  is_sso_user boolean not null default false,
  deleted_at timestamptz,
  is_anonymous boolean not null default false
);
create unique index users_email_partial_key on auth.users (email) where not is_sso_user;
create index users_instance_id_email_idx on auth.users (instance_id, lower(email));

create table auth.identities (
  provider_id text not null,
  user_id uuid not null references auth.users (id) on delete cascade,
  identity_data jsonb not null,
  provider text not null,
  last_sign_in_at timestamptz,
  created_at timestamptz,
  updated_at timestamptz,
  email text generated always as (lower(identity_data ->> 'email')) stored,
  id uuid primary key default gen_random_uuid(),
  unique (provider_id, provider)
);
create index identities_user_id_idx on auth.identities (user_id);

create table auth.sessions (
  id uuid primary key,
  user_id uuid not null references auth.users (id) on delete cascade,
  created_at timestamptz,
  updated_at timestamptz,
  factor_id uuid,
  aal text,
  not_after timestamptz,
  refreshed_at timestamp,
  user_agent text,
  ip inet,
  tag text
);
create index sessions_user_id_idx on auth.sessions (user_id);

create table auth.mfa_factors (
  id uuid primary key,
  user_id uuid not null references auth.users (id) on delete cascade,
  status text not null,
  created_at timestamptz,
  updated_at timestamptz
);
create index mfa_factors_user_id_idx on auth.mfa_factors (user_id);

create table auth.refresh_tokens (
  instance_id uuid,
  id bigserial primary key,
  token varchar(255) unique,
  user_id varchar(255),
  revoked boolean,
  created_at timestamptz,
  updated_at timestamptz,
  parent varchar(255),
  session_id uuid references auth.sessions (id) on delete cascade
);
create index refresh_tokens_session_id_revoked_idx on auth.refresh_tokens (session_id, revoked);
create index refresh_tokens_parent_idx on auth.refresh_tokens (parent);

alter table auth.users enable row level security;
alter table auth.identities enable row level security;
alter table auth.sessions enable row level security;
alter table auth.mfa_factors enable row level security;
alter table auth.refresh_tokens enable row level security;

create function auth.jwt() returns jsonb
language sql stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;
comment on function auth.jwt is 'The claims of the caller''s token.';

create function auth.uid() returns uuid
language sql stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$;
comment on function auth.uid is 'The id of the signed-in user, null when there is none.';

create function auth.role() returns text
language sql stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$$;
comment on function auth.role is 'Deprecated by Supabase: write `to authenticated` in the policy.';

create function auth.email() returns text
language sql stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
  )::text
$$;
comment on function auth.email is 'Deprecated by Supabase: use auth.jwt() ->> ''email''.';

grant all on all tables in schema auth to postgres, dashboard_user;
grant all on all sequences in schema auth to postgres, dashboard_user;
reset role;

-- Realtime (supabase/realtime's tenant schema) -----------------------------------------------------

create schema realtime;
grant usage on schema realtime to postgres with grant option;
grant usage on schema realtime
  to anon, authenticated, service_role, dashboard_user, supabase_realtime_admin;

create table realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);
create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
  where extension = 'broadcast' and private is true;
alter table realtime.messages owner to supabase_realtime_admin;
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;
grant all on realtime.messages to postgres, dashboard_user;
grant select, insert on realtime.messages to postgres with grant option;

create function realtime.topic() returns text
language sql stable
as $$ select nullif(current_setting('realtime.topic', true), '')::text $$;

create function realtime.send(
  payload jsonb, event text, topic text, private boolean default true
) returns void
language plpgsql
as $$
declare
  generated_id uuid;
  final_payload jsonb;
begin
  begin
    generated_id := gen_random_uuid();
    if payload ? 'id' then
      final_payload := payload;
    else
      final_payload := jsonb_set(payload, '{id}', to_jsonb(generated_id));
    end if;
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (id, payload, event, topic, private, extension)
    values (generated_id, final_payload, event, topic, private, 'broadcast');
  exception when others then
    raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end
$$;

create function realtime.send_binary(
  payload bytea, event text, topic text, private boolean default true
) returns void
language plpgsql
as $$
begin
  begin
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (binary_payload, event, topic, private, extension)
    values (payload, event, topic, private, 'broadcast');
  exception when others then
    raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end
$$;

create function realtime.broadcast_changes(
  topic_name text, event_name text, operation text, table_name text, table_schema text,
  new record, old record, level text default 'ROW'
) returns void
language plpgsql
as $$
declare
  row_data jsonb := '{}'::jsonb;
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  if operation not in ('INSERT', 'UPDATE', 'DELETE') then
    raise exception 'Unexpected operation type: %', operation;
  end if;
  row_data := jsonb_build_object(
    'old_record', old, 'record', new,
    'operation', operation, 'table', table_name, 'schema', table_schema
  );
  perform realtime.send(row_data, event_name, topic_name);
exception when others then
  raise exception 'Failed to process the row: %', sqlerrm;
end
$$;

alter function realtime.topic() owner to supabase_realtime_admin;
alter function realtime.send(jsonb, text, text, boolean) owner to supabase_realtime_admin;
alter function realtime.send_binary(bytea, text, text, boolean) owner to supabase_realtime_admin;
alter function realtime.broadcast_changes(text, text, text, text, text, record, record, text)
  owner to supabase_realtime_admin;
grant execute on all functions in schema realtime to postgres, dashboard_user;

create publication supabase_realtime_messages_publication for table realtime.messages;
create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;

-- On hosted the Realtime server does this, at its first client and every few hours.
create function local_stack.maintain_realtime_messages()
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_today date := (now() at time zone 'utc')::date;
  v_day date;
  v_name text;
  v_changed integer := 0;
begin
  perform pg_advisory_xact_lock(hashtextextended('local_stack.maintain_realtime_messages', 0));
  for v_day in select v_today + g from generate_series(-1, 3) as g loop
    v_name := format('messages_%s', to_char(v_day, 'YYYY_MM_DD'));
    continue when to_regclass(format('realtime.%I', v_name)) is not null;
    execute format(
      'create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
      v_name, v_day, v_day + 1
    );
    execute format('alter table realtime.%I owner to supabase_realtime_admin', v_name);
    v_changed := v_changed + 1;
  end loop;
  for v_name in
    select c.relname
    from pg_catalog.pg_inherits as i
    join pg_catalog.pg_class as c on c.oid = i.inhrelid
    where i.inhparent = 'realtime.messages'::regclass
      and to_date(substr(c.relname, 10), 'YYYY_MM_DD')
        < ((now() at time zone 'utc') - interval '72 hours')::date
  loop
    execute format('drop table realtime.%I', v_name);
    v_changed := v_changed + 1;
  end loop;
  return v_changed;
end
$$;
comment on function local_stack.maintain_realtime_messages is
  'Make the partitions of realtime.messages from yesterday to today + 3; drop those past 72 hours.';
revoke all on function local_stack.maintain_realtime_messages() from public;

-- Hosted (supautils.policy_grants) lets `postgres` manage policies on realtime.messages, and nothing
-- else in that schema. Here it inherits the owner's rights, and the triggers below refuse the rest.
grant supabase_realtime_admin to postgres with inherit true, set false;

create function local_stack.keep_realtime_closed()
returns event_trigger
language plpgsql
set search_path = ''
as $$
declare
  v_identity text;
begin
  if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
    return;
  end if;
  if tg_event = 'sql_drop' then
    select object_identity into v_identity
    from pg_event_trigger_dropped_objects()
    where object_type <> 'policy' and original
      and (schema_name = 'realtime' or object_identity ~ ' on realtime\.');
  else
    select object_identity into v_identity
    from pg_event_trigger_ddl_commands()
    where object_type <> 'policy'
      and (schema_name = 'realtime' or object_identity ~ ' on realtime\.');
  end if;
  if v_identity is not null then
    raise exception 'must be owner of %', v_identity using errcode = 'insufficient_privilege';
  end if;
end
$$;
comment on function local_stack.keep_realtime_closed is
  'Refuse every change in schema realtime but policies, as hosted Supabase does since July 2026.';

create event trigger local_stack_realtime_closed on ddl_command_end
  execute function local_stack.keep_realtime_closed();
create event trigger local_stack_realtime_kept on sql_drop
  execute function local_stack.keep_realtime_closed();

-- PostgREST learns of a changed schema as on hosted (pgrst_ddl_watch and pgrst_drop_watch) ---------

create function local_stack.tell_rest_api()
returns event_trigger
language plpgsql
set search_path = ''
as $$ begin notify pgrst, 'reload schema'; end $$;

create event trigger pgrst_ddl_watch on ddl_command_end
  execute function local_stack.tell_rest_api();
create event trigger pgrst_drop_watch on sql_drop
  execute function local_stack.tell_rest_api();

commit;

select local_stack.maintain_realtime_messages();
