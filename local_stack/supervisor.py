"""The process that owns a stack's children: `python -m local_stack.supervisor <directory>`.

It holds `supervisor.lock` for as long as it lives, so a lock that can be taken means that nothing
runs: the kernel ends all children with it. SIGTERM stops the stack, SIGHUP restarts what changed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import functools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import IO, Any

import asyncpg

from local_stack import database
from local_stack.functions_runner import function_names, function_service
from local_stack.keys import Keys
from local_stack.processes import Service, ServiceSpec, accepts_connections, fingerprint
from local_stack.settings import REPOSITORY, StackSettings

LOCK = "supervisor.lock"
STATUS = "status.json"
LOCK_PATIENCE_S = 5.0
MAINTENANCE_PERIOD_S = 3600.0
log = logging.getLogger("supervisor")


def database_service(settings: StackSettings) -> ServiceSpec:
    return ServiceSpec(
        name="database",
        command=tuple(database.server_command(settings)),
        environment={"PATH": os.environ.get("PATH", os.defpath)},
        port=settings.database_port,
        is_ready=functools.partial(_database_answers, settings),
        ask_to_stop=database.interrupt_server,
        stop_within_s=60.0,
        after_ready=functools.partial(maintain_realtime_messages, settings),
    )


def gateway_service(settings: StackSettings) -> ServiceSpec:
    package = REPOSITORY / "local_stack"
    return ServiceSpec(
        name="gateway",
        command=(sys.executable, "-m", "local_stack.gateway", str(settings.directory)),
        environment={**os.environ, "PYTHONUNBUFFERED": "1"},
        port=settings.api_port,
        is_ready=functools.partial(accepts_connections, settings.api_port),
        sources=(*package.glob("*.py"), package / "realtime", settings.directory / "stack.json"),
    )


async def _database_answers(settings: StackSettings) -> bool:
    try:
        connection = await asyncpg.connect(database.superuser_dsn(settings), timeout=2)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


async def maintain_realtime_messages(settings: StackSettings) -> None:
    """Make the partitions that the hosted Realtime server would make."""
    connection = await asyncpg.connect(database.superuser_dsn(settings), timeout=10)
    try:
        await connection.execute("select local_stack.maintain_realtime_messages()")
    finally:
        await connection.close()


class Supervisor:
    """Start the services of one stack, keep them running, tell their state, stop them."""

    def __init__(self, settings: StackSettings) -> None:
        self._settings = settings
        self._services: dict[str, Service] = {}
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._state = "starting"
        self._refreshes = 0

    def request_stop(self) -> None:
        self._stop.set()

    def request_refresh(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Run until `request_stop`; leave no child behind."""
        database_server = self._add(database_service(self._settings))
        background = [
            asyncio.create_task(self._start_the_rest(database_server)),
            asyncio.create_task(self._refresh_on_request()),
            asyncio.create_task(self._maintain()),
        ]
        for task in background:
            task.add_done_callback(self._stop_if_failed)
        try:
            await self._stop.wait()
        finally:
            self._state = "stopping"
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            del self._services["database"]
            await asyncio.gather(*(service.stop() for service in self._services.values()))
            await database_server.stop()
            self._state = "stopped"
            self._publish()

    def _stop_if_failed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("The stack stops: %s", error, exc_info=error)
            self._stop.set()

    async def _start_the_rest(self, database_server: Service) -> None:
        await database_server.ready.wait()
        await self._refresh()

    async def _refresh_on_request(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._services["database"].ready.wait()
            self._settings = StackSettings.load(self._settings.directory)
            await self._refresh()

    async def _refresh(self) -> None:
        """Start what is new, restart what changed, stop what is gone."""
        wanted = {spec.name: spec for spec in self._dependents()}
        for name, service in list(self._services.items()):
            if name == "database":
                continue
            spec = wanted.get(name)
            if spec is None or service.fingerprint != fingerprint(spec.sources):
                log.info("%s %s", "stopping" if spec is None else "restarting", name)
                await service.stop()
                del self._services[name]
        for name, spec in wanted.items():
            if name not in self._services:
                self._add(spec)
        self._state = "running"
        self._refreshes += 1
        self._publish()

    def _dependents(self) -> list[ServiceSpec]:
        keys = Keys.load(self._settings)
        return [
            gateway_service(self._settings),
            *(
                function_service(self._settings, keys, name)
                for name in function_names()
                if name in self._settings.function_ports
            ),
        ]

    def _add(self, spec: ServiceSpec) -> Service:
        service = Service(spec, self._settings.log_directory, self._publish)
        self._services[spec.name] = service
        service.start()
        return service

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(MAINTENANCE_PERIOD_S)
            try:
                await maintain_realtime_messages(self._settings)
            except (OSError, TimeoutError, asyncpg.PostgresError) as error:
                log.warning("Cannot maintain the partitions of realtime.messages: %s", error)

    def _publish(self) -> None:
        path = self._settings.directory / STATUS
        status = {
            "supervisor_pid": os.getpid(),
            "state": self._state,
            "refreshes": self._refreshes,
            "updated_at": time.time(),
            "services": {name: service.describe() for name, service in self._services.items()},
        }
        draft = path.with_suffix(".tmp")
        # A full disk, or a folder that was deleted under us, must not end the supervisor.
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(status, indent=2) + "\n")
            draft.replace(path)


def take_lock(directory: Path, patience_s: float) -> IO[str] | None:
    """Return the held lock file, or None when another supervisor has it."""
    file = (directory / LOCK).open("a+")
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                return None
            time.sleep(0.01)
        else:
            return file


def is_locked(directory: Path) -> bool:
    """Return whether a supervisor of this folder lives; asking never looks like one that does."""
    with contextlib.suppress(FileNotFoundError), (directory / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def supervise(settings: StackSettings, *, attached: bool) -> None:
    supervisor = Supervisor(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.request_stop)
    loop.add_signal_handler(signal.SIGHUP, supervisor.request_refresh)
    if attached:
        _stop_at_end_of_input(supervisor)
    await supervisor.run()


def _stop_at_end_of_input(supervisor: Supervisor) -> None:
    """Stop when the process that holds the other end of standard input is gone."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            supervisor.request_stop()

    loop.add_reader(0, read)


def _log_failure(work: Coroutine[Any, Any, None]) -> int:
    try:
        asyncio.run(work)
    except Exception:
        log.exception("The supervisor failed")
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--attached", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = StackSettings.load(arguments.directory)
    lock = take_lock(settings.directory, LOCK_PATIENCE_S)
    if lock is None:
        log.error("Stack %s has a supervisor already", settings.name)
        return 1
    with lock:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return _log_failure(supervise(settings, attached=arguments.attached))


if __name__ == "__main__":
    sys.exit(main())
