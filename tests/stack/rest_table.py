"""A table and functions of the REST tests' own, made over a direct connection, then dropped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2

SCHEMA_SQL = """
create table public.rest_items (
  id integer primary key,
  name text unique,
  n integer,
  price numeric(10, 2),
  ok boolean,
  tags text[],
  data jsonb,
  at timestamptz
);
insert into public.rest_items
select
  g,
  'item ' || g,
  nullif(g % 7, 0),
  g * 1.5,
  case g % 3 when 0 then true when 1 then false end,
  array['t' || g % 4, 'all'],
  jsonb_build_object('a', g, 'b', jsonb_build_array('z', g), 'c d', 'x,"y"'),
  timestamptz '2026-01-01 00:00+00' + g * interval '1 hour'
from generate_series(1, 40) as g;
alter table public.rest_items enable row level security;
create policy everyone on public.rest_items to authenticated, service_role using (true);
grant select, insert, update, delete on public.rest_items to authenticated, service_role;

create table public.rest_private (id integer primary key);

create function public.rest_add(a integer, b integer default 10) returns integer
language sql immutable as $$ select a + b $$;
create function public.rest_whoami() returns jsonb language sql stable as $$
  select jsonb_build_object(
    'role', current_user, 'uid', auth.uid(),
    'method', current_setting('request.method'), 'path', current_setting('request.path'),
    'header', current_setting('request.headers')::json ->> 'x-custom',
    'timeout', current_setting('statement_timeout'),
    'read_only', current_setting('transaction_read_only')
  )
$$;
create function public.rest_from(low integer) returns setof public.rest_items
language sql stable as $$ select * from public.rest_items where id >= low order by id $$;
create function public.rest_one(wanted integer) returns public.rest_items
language sql stable as $$ select * from public.rest_items where id = wanted $$;
create function public.rest_numbers(upto integer) returns setof integer
language sql stable as $$ select generate_series(1, upto) $$;
create function public.rest_nothing() returns void language sql as $$ select $$;
create function public.rest_whole(jsonb) returns jsonb language sql immutable as $$ select $1 $$;
create function public.rest_sum(variadic numbers integer[]) returns bigint
language sql immutable as $$ select sum(n) from unnest(numbers) as n $$;
create function public.rest_twice(a integer) returns integer
language sql immutable as $$ select 2 * a $$;
create function public.rest_twice(a text) returns text
language sql immutable as $$ select a || a $$;
create function public.rest_write() returns void
language sql as $$ insert into public.rest_items (id) values (9000) $$;
create function public.rest_sleep(seconds float8) returns void
language sql as $$ select pg_sleep(seconds) $$;
create function public.rest_fail(code text) returns void language plpgsql as $$
begin
  raise exception using errcode = code, message = 'made to fail', detail = 'why', hint = 'how';
end
$$;
create function public.rest_teapot() returns text language plpgsql as $$
begin
  perform set_config('response.status', '418', true);
  perform set_config('response.headers', '[{"x-made-by": "sql"}]', true);
  return 'short and stout';
end
$$;
"""
DROP_SQL = """
drop table if exists public.rest_items, public.rest_private cascade;
do $$
declare
  v_function record;
begin
  for v_function in
    select oid::regprocedure as signature from pg_proc
    where pronamespace = 'public'::regnamespace and proname like 'rest\\_%'
  loop
    execute 'drop function ' || v_function.signature;
  end loop;
end
$$;
notify pgrst, 'reload schema';
"""
GRANT_SQL = """
do $$
declare
  v_function record;
begin
  for v_function in
    select oid::regprocedure as signature from pg_proc
    where pronamespace = 'public'::regnamespace and proname like 'rest\\_%'
  loop
    execute 'grant execute on function ' || v_function.signature
      || ' to anon, authenticated, service_role';
  end loop;
end
$$;
notify pgrst, 'reload schema';
"""


@dataclass(frozen=True, slots=True)
class Item:
    """A row of `rest_items` as the properties see it."""

    id: int
    name: str | None
    n: int | None
    ok: bool | None


ITEMS = [Item(g, f"item {g}", g % 7 or None, {0: True, 1: False}.get(g % 3)) for g in range(1, 41)]


def run_sql(database_url: str, sql: str) -> None:
    """Run statements as `postgres`, who is no superuser."""
    with contextlib.closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)


@contextlib.contextmanager
def rest_schema(database_url: str) -> Iterator[None]:
    """Hold the tables and functions of the REST tests."""
    run_sql(database_url, DROP_SQL)
    run_sql(database_url, SCHEMA_SQL + GRANT_SQL)
    try:
        yield
    finally:
        run_sql(database_url, DROP_SQL)
