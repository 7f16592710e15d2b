"""A database server that a test may kill, and connections that come back when it does."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import asyncpg

from local_stack import control, database
from local_stack.settings import StackSettings
from tests.plugins.stack import new_test_settings

START_SECONDS = 30.0
RETRY_SECONDS = 0.02
CUT_OFF = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What asyncpg raises when the server is gone, by the moment at which that happens."""


class Server:
    """The server of one migrated stack, alone: nothing else reacts to its death."""

    def __init__(self, settings: StackSettings) -> None:
        self.settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        database.prepare(self.settings)
        with (self.settings.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(database.server_command(self.settings), stderr=log)

    def kill(self) -> None:
        """End every process of the server at once: the first of a namespace takes all along."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        database.signal_server(self._process.pid, number)
        self._process.wait(timeout=START_SECONDS)


@contextmanager
def migrated_server() -> Iterator[Server]:
    """A running server of its own, with the migrations applied."""
    settings = new_test_settings()
    try:
        attached = control.up(settings, attached=True)
        assert attached is not None
        attached.close()
        server = Server(StackSettings.load(settings.directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        control.remove(settings)


class Link:
    """A connection that is made anew, with its first statements, after it was cut."""

    def __init__(self, dsn: str, *first_statements: str) -> None:
        self._dsn = dsn
        self._first_statements = first_statements
        self._connection: asyncpg.Connection | None = None

    async def fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        """Run a query once; what cuts the connection off is raised."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        rows: list[asyncpg.Record] = await self._connection.fetch(query, *values)
        return rows

    async def value(self, query: str, *values: object) -> Any:
        """Run a query until it is answered, and return its one value."""
        while True:
            try:
                [[value]] = await self.fetch(query, *values)
            except CUT_OFF:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return value

    async def _connect(self) -> asyncpg.Connection:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connection = await asyncpg.connect(self._dsn, timeout=5)
                for statement in self._first_statements:
                    await self._connection.execute(statement)
            except CUT_OFF:
                self.close()
                assert time.monotonic() < deadline, "the server did not come back"
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
