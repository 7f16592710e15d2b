"""What the exposed schemas hold: functions and relations, read from the catalog and kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg

from local_stack.rest_pool import Begin, Pool

MIN_RELOAD_INTERVAL_SECONDS = 0.1
# An empty path makes the catalog's type names complete: `private.mood`, `extensions.citext`.
_CATALOG_READ = Begin(read_only=True, settings={"role": "none", "search_path": ""})


@dataclass(frozen=True, slots=True)
class Argument:
    name: str
    type: str
    required: bool
    variadic: bool


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function as the catalog had it; equal only to itself, so that it can key a cache."""

    schema: str
    name: str
    arguments: tuple[Argument, ...]
    volatile: bool
    returns_set: bool
    returns_void: bool
    columns: Mapping[str, str] | None
    """Column name → type of a function that returns rows; None if it returns plain values."""
    settings: Mapping[str, str]
    media_type: str | None = None
    """The media type that its result is, when it returns a domain with such a name."""


@dataclass(frozen=True, slots=True)
class Relation:
    schema: str
    name: str
    columns: Mapping[str, str]
    primary_key: tuple[str, ...]
    writable: bool


@dataclass(frozen=True, slots=True)
class Schema:
    functions: Mapping[tuple[str, str], tuple[Function, ...]] = field(default_factory=dict)
    relations: Mapping[tuple[str, str], Relation] = field(default_factory=dict)
    role_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class SchemaCache:
    """The current `Schema`; it is read again on `notify pgrst` and when something is not found."""

    def __init__(self, pool: Pool, dsn: str, schemas: tuple[str, ...]) -> None:
        self._pool = pool
        self._dsn = dsn
        self._schemas = schemas
        self._schema: Schema | None = None
        self._generation = 0
        self._loaded_at = 0.0
        self._lock = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._listener = asyncio.create_task(self._listen(), name="schema-cache-listener")

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener

    async def current(self) -> Schema:
        """Return the schema, reading it first if it is unknown or was invalidated."""
        schema = self._schema
        if schema is not None:
            return schema
        async with self._lock:
            while self._schema is None:
                await self._load()
            return self._schema

    async def reload(self, seen: Schema) -> Schema:
        """Return a schema newer than `seen`, but do not read the catalog for every miss."""
        recent = time.monotonic() - self._loaded_at < MIN_RELOAD_INTERVAL_SECONDS
        if self._schema is seen and not recent:
            self.invalidate()
        return await self.current()

    def invalidate(self) -> None:
        self._generation += 1
        self._schema = None

    async def _load(self) -> None:
        generation = self._generation
        async with self._pool.transaction(_CATALOG_READ) as connection:
            functions = await connection.fetch(_FUNCTIONS_SQL, list(self._schemas))
            relations = await connection.fetch(_RELATIONS_SQL, list(self._schemas))
            roles = await connection.fetch(_ROLE_SETTINGS_SQL)
        if generation == self._generation:
            self._schema = Schema(
                _group(functions),
                {(row["schema"], row["name"]): _relation(row) for row in relations},
                {row["rolname"]: _settings(row["settings"]) for row in roles},
            )
            self._loaded_at = time.monotonic()

    async def _listen(self) -> None:
        """Hold one connection that listens; when it is lost, distrust the cache and try again."""
        while True:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
                connection = await asyncpg.connect(self._dsn, timeout=5)
                closed = asyncio.Event()
                connection.add_termination_listener(lambda _, closed=closed: closed.set())
                try:
                    await connection.add_listener("pgrst", lambda *_: self.invalidate())
                    self.invalidate()
                    await closed.wait()
                finally:
                    connection.terminate()
            self.invalidate()
            await asyncio.sleep(0.5)


def _group(rows: list[asyncpg.Record]) -> dict[tuple[str, str], tuple[Function, ...]]:
    functions: dict[tuple[str, str], tuple[Function, ...]] = {}
    for row in rows:
        key = (row["schema"], row["name"])
        functions[key] = (*functions.get(key, ()), _function(row))
    return functions


def _function(row: asyncpg.Record) -> Function:
    types: list[str] = row["argument_types"]
    modes = row["modes"] or ["i"] * len(types)
    names = row["names"] or [""] * len(modes)
    inputs = [name for name, mode in zip(names, modes, strict=True) if mode in "ibv"]
    first_default = len(types) - row["defaults"]
    arguments = tuple(
        Argument(name, type_, position < first_default, False)
        for position, (name, type_) in enumerate(zip(inputs, types, strict=True))
    )
    if row["variadic"]:
        last = arguments[-1]
        arguments = (*arguments[:-1], Argument(last.name, last.type, False, True))
    return Function(
        schema=row["schema"],
        name=row["name"],
        arguments=arguments,
        volatile=row["volatile"],
        returns_set=row["returns_set"],
        returns_void=row["returns_void"],
        columns=_output_columns(row, names, modes),
        settings=_settings(row["settings"]),
        media_type=row["media_type"],
    )


def _output_columns(
    row: asyncpg.Record, names: list[str], modes: list[str]
) -> dict[str, str] | None:
    if row["column_names"] is not None:
        return dict(zip(row["column_names"], row["column_types"], strict=True))
    if not set(modes) & set("tbo"):
        return None
    everything = zip(names, modes, row["all_types"], strict=True)
    return {name: type_ for name, mode, type_ in everything if mode in "tbo"}


def _relation(row: asyncpg.Record) -> Relation:
    return Relation(
        schema=row["schema"],
        name=row["name"],
        columns=dict(zip(row["column_names"], row["column_types"], strict=True)),
        primary_key=tuple(row["primary_key"]),
        writable=row["writable"],
    )


def _settings(entries: list[str] | None) -> dict[str, str]:
    """Turn `name=value` entries into a mapping of those that a transaction is given."""
    hoisted = {"statement_timeout", "lock_timeout"}
    pairs = (entry.partition("=") for entry in entries or ())
    return {name: value for name, _, value in pairs if name in hoisted}


_FUNCTIONS_SQL = """
select
  n.nspname as schema,
  p.proname as name,
  p.proargnames as names,
  p.proargmodes::text[] as modes,
  p.pronargdefaults as defaults,
  p.provariadic <> 0 as variadic,
  p.provolatile = 'v' as volatile,
  p.proretset as returns_set,
  p.prorettype = 'void'::regtype as returns_void,
  p.proconfig as settings,
  case when t.typtype = 'd' and t.typname like '%/%' then t.typname end as media_type,
  array(
    select format_type(a.type, -1) from unnest(p.proargtypes) with ordinality as a (type, position)
    order by a.position
  ) as argument_types,
  array(
    select format_type(a.type, -1)
    from unnest(p.proallargtypes) with ordinality as a (type, position)
    order by a.position
  ) as all_types,
  c.column_names,
  c.column_types
from pg_catalog.pg_proc as p
join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
join pg_catalog.pg_type as t on t.oid = p.prorettype
left join pg_catalog.pg_type as b on b.oid = t.typbasetype
left join lateral (
  select
    array_agg(a.attname::text order by a.attnum) as column_names,
    array_agg(format_type(a.atttypid, -1) order by a.attnum) as column_types
  from pg_catalog.pg_attribute as a
  where a.attrelid = coalesce(nullif(t.typrelid, 0), b.typrelid)
    and a.attnum > 0 and not a.attisdropped
) as c on true
where n.nspname = any ($1::text[])
  and p.prokind = 'f'
  and not exists (
    select from pg_catalog.pg_depend as d
    where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
  )
  and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
order by p.oid
"""

_RELATIONS_SQL = """
select
  n.nspname as schema,
  c.relname as name,
  pg_catalog.pg_relation_is_updatable(c.oid, true) & 28 <> 0 as writable,
  array_agg(a.attname::text order by a.attnum) as column_names,
  array_agg(format_type(a.atttypid, -1) order by a.attnum) as column_types,
  coalesce((
    select array_agg(k.attname::text order by array_position(i.indkey::int2[], k.attnum))
    from pg_catalog.pg_index as i
    join pg_catalog.pg_attribute as k on k.attrelid = c.oid and k.attnum = any (i.indkey)
    where i.indrelid = c.oid and i.indisprimary
  ), '{}') as primary_key
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname = any ($1::text[]) and c.relkind in ('r', 'v', 'm', 'f', 'p')
group by c.oid, n.nspname, c.relname
"""

_ROLE_SETTINGS_SQL = """
select r.rolname, s.setconfig as settings
from pg_catalog.pg_db_role_setting as s
join pg_catalog.pg_roles as r on r.oid = s.setrole
where s.setdatabase = 0 and pg_has_role(session_user, r.oid, 'member')
"""
