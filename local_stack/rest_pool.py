"""A bounded pool of database connections, and transactions run as the caller's role."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

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

    asyncpg's own pool sends a `RESET ALL` after each use. Here every transaction is given every
    setting that any transaction is ever given, so nothing of the one before can show, and that
    round trip is saved.
    """

    def __init__(self, dsn: str, *, size: int) -> None:
        self._dsn = dsn
        self._slots = asyncio.Semaphore(size)
        self._idle: list[asyncpg.Connection] = []
        self._defaults: dict[str, str] = {}

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

    async def run(self, begin: Begin, sql: str, parameters: Sequence[object]) -> asyncpg.Record:
        """Run one statement that returns one row, as a transaction of its own.

        Two round trips: the settings, for the session, then the statement, which commits by
        itself. On the hot path that halves the time that `transaction` takes.
        """
        settings = self._settings(begin) | {
            "default_transaction_read_only": "on" if begin.read_only else "off",
        }
        async with self.connection() as connection:
            await connection.fetch(_settings_sql(len(settings), local=False), *_flat(settings))
            [row] = await connection.fetch(sql, *parameters)
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


@functools.cache
def _settings_sql(count: int, *, local: bool) -> str:
    calls = ", ".join(
        f"pg_catalog.set_config(${2 * n + 1}, ${2 * n + 2}, {local})" for n in range(count)
    )
    return f"select {calls}"


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
