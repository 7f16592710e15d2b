"""TimescaleDB for a comparison: a server of its own, with the tree and memory of the stack's.

Debian 13's package is the Apache edition: hypertables and time_bucket, but neither the columnstore
nor continuous aggregates. Its data are not kept, so nothing is flushed: reads do not care.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from benchmarks.project import say
from local_stack import database
from local_stack.errors import StackError
from local_stack.settings import REPOSITORY, StackSettings
from local_stack.tree import ensure_tree

PACKAGE = "postgresql-17-timescaledb"
PORT = 5432
START_TIMEOUT_S = 30.0
SETTINGS = """
listen_addresses = ''
shared_preload_libraries = 'timescaledb'
timescaledb.license = 'apache'
timescaledb.telemetry_level = 'off'
fsync = off
full_page_writes = off
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = '1GB'
"""
"""Those of a durable stack come first: the last value of a setting counts."""


@contextlib.contextmanager
def timescale_database(name: str) -> Iterator[str]:
    """Start an empty TimescaleDB; yield how to connect, and delete it at the end."""
    tree = ensure_tree(say, PACKAGE)
    folder = REPOSITORY / ".stack" / f"{name}-timescale"
    shutil.rmtree(folder, ignore_errors=True)
    data = folder / "data"
    data.mkdir(mode=0o700, parents=True)
    with tempfile.TemporaryDirectory(prefix="ts-") as sockets:
        run = Path(sockets)
        try:
            _initialise(tree, data, run)
            with _server(tree, data, run):
                dsn = f"postgresql://{database.SUPERUSER}@/postgres?host={run}&port={PORT}"
                asyncio.run(_wait_and_extend(dsn, folder))
                yield dsn
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _initialise(tree: Path, data: Path, run: Path) -> None:
    command = database.bubblewrap(data, run, *database.INITDB, tree=tree)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"Cannot make a database for TimescaleDB:\n{done.stderr.strip()}")
    stack = database.configuration(StackSettings(database_port=PORT, durable=True))
    (data / "postgresql.conf").write_text(stack + SETTINGS)


@contextlib.contextmanager
def _server(tree: Path, data: Path, run: Path) -> Iterator[None]:
    binary = f"{database.BINARIES}/postgres"
    command = database.bubblewrap(data, run, binary, "-D", "/data", tree=tree)
    with (
        (data.parent / "server.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
    ):
        try:
            yield
        finally:
            database.signal_server(server.pid, signal.SIGQUIT)
            server.wait(START_TIMEOUT_S)


async def _wait_and_extend(dsn: str, folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            connection = await asyncpg.connect(dsn)
            break
        except (OSError, asyncpg.CannotConnectNowError):
            if time.monotonic() > deadline:
                log = (folder / "server.log").read_text()
                raise StackError(f"Cannot start TimescaleDB:\n{log[-2000:]}") from None
            await asyncio.sleep(0.05)
    await connection.execute("create extension timescaledb")
    await connection.close()
