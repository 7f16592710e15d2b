"""A bounded pool of database connections, and transactions run as the caller's role."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import asyncpg

from local_stack.rest_errors import pool_exhausted

ACQUIRE_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_STATEMENTS = 400


@dataclass(frozen=True, slots=True)
class Begin:
    """How a transaction starts: read-only or not, and the settings it is given."""

    read_only: bool
    settings: Mapping[str, str]


class Pool:
    """Up to `size` connections as one role. A connection is made when first needed.

    asyncpg's own pool sends a `RESET ALL` after each use. Here every transaction has every setting
    that any transaction is ever given, so nothing of the one before can show, and that round trip
    is saved.
    """

    def __init__(self, dsn: str, *, size: int) -> None:
        self._dsn = dsn
        self._slots = asyncio.Semaphore(size)
        self._idle: list[asyncpg.Connection] = []
        self._defaults: dict[str, str] = {}
        self._kept: WeakKeyDictionary[asyncpg.Connection, dict[str, str]] = WeakKeyDictionary()
        """What `run` last set for the session."""

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection; raise `ApiError` 504 if none is free in time."""
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise pool_exhausted() from None
        try:
            connection = await self._open()
            try:
                yield connection
            finally:
                if connection.is_closed() or connection.is_in_transaction():
                    connection.terminate()
                else:
                    self._idle.append(connection)
        finally:
            self._slots.release()

    async def run(self, begin: Begin, sql: str, parameters: Sequence[str]) -> asyncpg.Record:
        """Run one statement that returns one row, as a transaction of its own.

        `sql` writes its first parameter as `$1::text`. What a request is told travels with the
        statement; role, search path and timeouts stay with the connection and are set when the
        request before had others. So the hot path is one round trip where `transaction` has four.
        """
        settings = self._settings(begin) | {
            "default_transaction_read_only": "on" if begin.read_only else "off",
        }
        told = {name: text for name, text in settings.items() if _is_told(name) and parameters}
        kept = {name: text for name, text in settings.items() if name not in told}
        # Once more for this transaction: a function before may have changed the session's role.
        told |= {"role": settings["role"]} if told else {}
        async with self.connection() as connection:
            if self._kept.get(connection) != kept:
                self._kept.pop(connection, None)
                await connection.fetch(_settings_sql(len(kept), local=False), *_flat(kept))
                if parameters:
                    self._kept[connection] = kept
            sql = _telling_sql(sql, len(parameters), len(told)) if told else sql
            [row] = await connection.fetch(sql, *parameters, *_flat(told))
            return row

    @contextlib.asynccontextmanager
    async def transaction(self, begin: Begin) -> AsyncIterator[asyncpg.Connection]:
        """Run the body in one transaction; commit it, or roll it back when the body raises."""
        async with self.connection() as connection:
            try:
                await connection.execute(_begin_sql(begin))
                settings = self._settings(begin)
                await connection.fetch(_settings_sql(len(settings), local=True), *_flat(settings))
                yield connection
                await connection.execute("commit")
            except BaseException:
                await _roll_back(connection)
                raise

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
                await connection.close(timeout=1)

    async def _open(self) -> asyncpg.Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        connection = await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT_SECONDS,
            statement_cache_size=MAX_STATEMENTS,
            max_cached_statement_lifetime=0,
            server_settings={"application_name": "gateway", "jit": "off"},
        )
        # The role's own timeouts: what a transaction has when its caller's role sets none.
        row = await connection.fetchrow(
            "select current_setting('statement_timeout') as statement_timeout, "
            "current_setting('lock_timeout') as lock_timeout"
        )
        self._defaults = dict(row)
        return connection

    def _settings(self, begin: Begin) -> dict[str, str]:
        return {**self._defaults, **begin.settings}


def _is_told(name: str) -> bool:
    return name.startswith("request.")


@functools.cache
def _settings_sql(count: int, *, local: bool) -> str:
    return f"select {_set_config(1, count, local=local)}"


@functools.lru_cache(maxsize=1000)
def _telling_sql(sql: str, parameters: int, settings: int) -> str:
    """Write the statement so that settings behind its parameters hold before it has the first one.

    PostgreSQL must compute the whole row of the CTE to know `$1`.
    """
    told = _set_config(parameters + 1, settings, local=True)
    told_first = sql.replace("$1::text", "(select request.body from request)")
    return f"with request as materialized (select $1::text as body, {told}) {told_first}"


def _set_config(first: int, count: int, *, local: bool) -> str:
    return ", ".join(
        f"pg_catalog.set_config(${first + 2 * n}, ${first + 2 * n + 1}, {local})"
        for n in range(count)
    )


def _flat(settings: Mapping[str, str]) -> list[str]:
    return [text for setting in settings.items() for text in setting]


def _begin_sql(begin: Begin) -> str:
    mode = "read only" if begin.read_only else "read write"
    return f"begin isolation level read committed {mode}"


async def _roll_back(connection: asyncpg.Connection) -> None:
    """End a failed transaction; a connection on which even that fails is not used again."""
    if connection.is_closed():
        return
    try:
        await asyncio.wait_for(asyncio.shield(connection.execute("rollback")), timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
