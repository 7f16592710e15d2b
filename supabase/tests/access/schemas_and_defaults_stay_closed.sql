begin;
\ir ../helpers.psql
select plan(6);

select is_empty(
  $$
    select schema, role
    from unnest(array['public', 'private']) as schema
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    where has_schema_privilege(role, schema, 'create')
  $$,
  'no client role may create anything');
select ok(
  not has_schema_privilege('anon', 'private', 'usage'), 'anon does not even see schema private');

create table public.added (id integer);
create table private.added (id integer);
create function public.added() returns integer language sql as 'select 1';
create function private.added() returns integer language sql as 'select 1';

select is_empty(
  $$
    select relation, role
    from unnest(array['public.added', 'private.added']) as relation
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    where has_table_privilege(role, relation, 'select, insert, update, delete, truncate')
  $$,
  'a new table is reachable by no client role');
select is_empty(
  $$
    select function, role
    from unnest(array['public.added()', 'private.added()']) as function
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    where has_function_privilege(role, function, 'execute')
  $$,
  'a new function is executable by no client role');
select is(
  tests.refusal(null, 'select public.my_account()', null, 'anon'), '42501',
  'anon is refused by the database itself');
select is(
  (select reloptions from pg_class where oid = 'public.signals'::regclass),
  array['security_invoker=true'], 'the view asks with the rights of its caller');

select * from finish();
rollback;
