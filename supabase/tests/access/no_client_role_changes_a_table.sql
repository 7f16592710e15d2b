begin;
\ir ../helpers.psql
select plan(6);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select count(*) as stored from (select tests.ingest(:'alice', tests.signals(:'trader', 2))) \gset

-- Every relation of ours, partitions included, times every verb that changes something.
create temporary table attempts on commit drop as
select
  relation.oid::regclass::text as relation,
  relation.relkind,
  attempt.verb,
  format(
    attempt.statement, relation.oid::regclass, (
      select quote_ident(attname) from pg_attribute
      where attrelid = relation.oid and attnum > 0 and attidentity = ''
      order by attnum limit 1)
  ) as statement
from pg_class as relation
cross join (
  values
  ('insert', 'insert into %1$s default values'),
  ('update', 'update %1$s set %2$s = %2$s'),
  ('delete', 'delete from %1$s'),
  ('truncate', 'truncate %1$s')
) as attempt (verb, statement)
where relation.relnamespace in ('public'::regnamespace, 'private'::regnamespace)
  and relation.relkind in ('r', 'p', 'v');

select cmp_ok(
  (select count(*)::integer from attempts), '>=', 4 * 20, 'seven tables and their partitions');

select is_empty(
  format($$
    select relation, verb, role, tests.refusal(%L, statement, null, role) as refusal
    from attempts
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    where relkind <> 'v' and tests.refusal(%1$L, statement, null, role) <> '42501'
  $$, :'alice'),
  'no client role may insert into, update, delete from or truncate a table');

select is_empty(
  format($$
    select relation, verb, role
    from attempts
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    where relkind = 'v' and tests.refusal(%L, statement, null, role) = 'no error'
  $$, :'alice'),
  'nor change anything through a view');

select is_empty(
  format($$
    select relation.oid::regclass, role
    from pg_class as relation
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    where relation.relispartition and relation.relkind = 'r'
      and relation.relnamespace = 'private'::regnamespace
      and tests.refusal(
        %L, format('select count(*) from %%s', relation.oid::regclass), null, role) <> '42501'
  $$, :'alice'),
  'no client role may read a partition');

select is_empty(
  format($$
    select relation.oid::regclass
    from pg_class as relation
    where relation.relnamespace in ('public'::regnamespace, 'private'::regnamespace)
      and relation.relkind in ('r', 'p', 'v')
      and tests.refusal(
        %L, format('select count(*) from %%s', relation.oid::regclass), null, 'anon') <> '42501'
  $$, :'alice'),
  'anon may read nothing at all');

select is(
  tests.ask(:'alice', 'select count(*) from public.signals'), '2',
  'after all these attempts the signals are still there');

select * from finish();
rollback;
