"""A bounded pool of database connections, and transactions run as the caller's role."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
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
    settings: Sequence[tuple[str, str]]
    isolation: str | None = None


class Pool:
    """Up to `size` connections as one role. A connection is made when first needed.

    asyncpg's own pool sends a `RESET ALL` after each use; here nothing outlives its transaction
    (every setting is made with `set_config(…, is_local => true)`), so that round trip is saved.
    """

    def __init__(self, dsn: str, *, size: int) -> None:
        self._dsn = dsn
        self._slots = asyncio.Semaphore(size)
        self._idle: list[asyncpg.Connection] = []
        self._set_config_sql: dict[int, str] = {}

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

    @contextlib.asynccontextmanager
    async def transaction(self, begin: Begin) -> AsyncIterator[asyncpg.Connection]:
        """Run the body in one transaction; commit it, or roll it back when the body raises."""
        async with self.connection() as connection:
            try:
                await connection.execute(_begin_sql(begin))
                if begin.settings:
                    values = [text for setting in begin.settings for text in setting]
                    await connection.fetch(self._settings_sql(len(begin.settings)), *values)
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
        return await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT_SECONDS,
            statement_cache_size=MAX_STATEMENTS,
            max_cached_statement_lifetime=0,
            server_settings={"application_name": "gateway", "jit": "off"},
        )

    def _settings_sql(self, count: int) -> str:
        sql = self._set_config_sql.get(count)
        if sql is None:
            calls = (f"set_config(${2 * n + 1}, ${2 * n + 2}, true)" for n in range(count))
            sql = f"select {', '.join(calls)}"
            self._set_config_sql[count] = sql
        return sql


def _begin_sql(begin: Begin) -> str:
    mode = "read only" if begin.read_only else "read write"
    return f"begin isolation level {begin.isolation or 'read committed'} {mode}"


async def _roll_back(connection: asyncpg.Connection) -> None:
    """End a failed transaction; a connection on which even that fails is not used again."""
    if connection.is_closed():
        return
    try:
        await asyncio.wait_for(asyncio.shield(connection.execute("rollback")), timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
