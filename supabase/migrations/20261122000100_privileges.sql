-- Three schemas and no rights by default.
-- public is the API only; private holds tables and job bodies. Every later grant is written out.
-- Must never break: a new function or table is reachable by no client role until a migration says so.

create schema if not exists private;

comment on schema private is 'Tables, partitions and function bodies. Not exposed through the Data API.';

revoke all on schema private from public;
revoke create on schema public from public;

alter default privileges for role postgres revoke execute on functions from public;
alter default privileges for role postgres in schema public
  revoke all on tables from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  revoke all on functions from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  revoke all on sequences from anon, authenticated, service_role;

-- USAGE lets the thin functions of public call their bodies; it gives no table.
grant usage on schema private to authenticated, service_role;
