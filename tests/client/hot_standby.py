"""A hot standby of a stack's PostgreSQL, and the REST API in front of it: a real read replica."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
from aiohttp import web
from aiohttp.test_utils import TestServer

from local_stack.database import (
    BINARIES,
    SUPERUSER,
    bubblewrap,
    configuration,
    interrupt_server,
    server_command,
)
from local_stack.gateway import CONFIG_FILE
from local_stack.keys import Keys
from local_stack.ports import choose
from local_stack.rest import ApiConfig, RestApi
from local_stack.settings import DATABASE_PASSWORD, StackSettings

START_SECONDS = 60.0


class HotStandby:
    """Streams what the primary commits, unless it is told to hold it back."""

    def __init__(self, primary: StackSettings, folder: Path) -> None:
        [port] = choose(1)
        self._primary = primary
        self._settings = StackSettings(
            name="replica", database_port=port, durable=False, state_root=str(folder)
        )
        self._log = folder / "server.log"
        keys = Keys.load(primary)
        self._rest = RestApi(self._settings, keys, ApiConfig.load(CONFIG_FILE))
        app = web.Application()
        app.router.add_route("*", "/rest/v1/{resource:.*}", self._rest.handle)
        self._http = TestServer(app)

    @property
    def url(self) -> str:
        return str(self._http.make_url("")).rstrip("/")

    async def hold_back(self) -> None:
        """Show nothing that is committed from now on."""
        await self._ask("select pg_wal_replay_pause()")
        await self._until("pg_get_wal_replay_pause_state() = 'paused'")

    async def catch_up(self) -> None:
        """Go on, and return when everything is shown that is committed by now."""
        primary = await asyncpg.connect(self._primary.socket_dsn(SUPERUSER))
        end = await primary.fetchval("select pg_current_wal_insert_lsn()::text")
        await primary.close()
        await self._ask("select pg_wal_replay_resume()")
        await self._until(f"pg_last_wal_replay_lsn() >= '{end}'")

    async def __aenter__(self) -> Self:
        self._copy_primary()
        self._server = self._start_server()
        await self._until("pg_is_in_recovery()")
        await self._http.start_server()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.close()
        await self._rest.stop()
        interrupt_server(self._server.pid)
        self._server.wait(timeout=START_SECONDS)

    def _copy_primary(self) -> None:
        data, run = self._settings.data_directory, self._settings.socket_directory
        for folder in (data, run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        source = f"host=127.0.0.1 port={self._primary.database_port} user={SUPERUSER}"
        backup = (
            *(f"{BINARIES}/pg_basebackup", "--pgdata=/data", "--checkpoint=fast", "--no-sync"),
            *("--write-recovery-conf", f"--dbname={source} password={DATABASE_PASSWORD}"),
        )
        subprocess.run(bubblewrap(data, run, *backup), check=True, timeout=START_SECONDS)
        (data / "postgresql.conf").write_text(configuration(self._settings))

    def _start_server(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(server_command(self._settings), stderr=log)

    async def _until(self, condition: str) -> None:
        ends = time.monotonic() + START_SECONDS
        while not await self._holds(condition):
            assert self._server.poll() is None, self._log.read_text()
            assert time.monotonic() < ends, f"{condition}\n{self._log.read_text()}"
            await asyncio.sleep(0.02)

    async def _holds(self, condition: str) -> bool:
        try:
            return bool(await self._ask(f"select {condition}"))
        except (OSError, asyncpg.PostgresError):
            return False

    async def _ask(self, statement: str) -> object:
        connection = await asyncpg.connect(self._settings.socket_dsn(SUPERUSER))
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()
