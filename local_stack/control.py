"""What `scripts/stack` and the tests do with a stack: up, down, status, reset."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from local_stack import database, migrations, ports
from local_stack.errors import StackError
from local_stack.functions_runner import function_names, service_name
from local_stack.keys import Keys
from local_stack.settings import JWT_SECRET, PUBLISHABLE_KEY, REPOSITORY, SECRET_KEY, StackSettings
from local_stack.supervisor import LOCK, STATUS, is_locked, take_lock
from local_stack.tree import ensure_tree

Progress = Callable[[str], None]
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 90.0
POLL_S = 0.02
CRASHES_BEFORE_GIVING_UP = 3
_detached: list[tuple[Path, subprocess.Popen[bytes]]] = []
"""Supervisors that this process started and that outlive it; kept to be reaped when they end."""


def check_name(name: str) -> None:
    """Raise StackError unless the name can be a folder's."""
    if not NAME.fullmatch(name):
        raise StackError(
            f"Cannot use {name!r} as a stack's name: small letters, digits and dashes only"
        )


def _silent(_line: str) -> None:
    """Report no progress."""


@dataclass(slots=True)
class Attached:
    """A supervisor that stops when this process ends, or at `close`."""

    process: subprocess.Popen[bytes]
    lifeline: IO[bytes]

    def close(self) -> None:
        self.lifeline.close()
        self.process.wait(STOP_TIMEOUT_S)


def up(
    settings: StackSettings, progress: Progress = _silent, *, attached: bool = False
) -> Attached | None:
    """Start the stack, or take in what changed if it runs; apply the migrations.

    The ports of `settings` count, and are saved. Returns the lifeline of an attached supervisor.
    """
    ensure_tree(progress)
    with _command_lock(settings):
        started = None
        if is_running(settings):
            progress(f"Stack {settings.name} is running already")
            _refresh(settings)
            settings = StackSettings.load(settings.directory)
        else:
            started = _start(settings, progress, attached=attached)
        try:
            if count := migrations.migrate(settings):
                progress(f"Applied {count} migrations")
            _wait_until_ready(settings, set(_service_names()))
        except BaseException:
            if started is not None:
                started.close()
            raise
    return started


def down(settings: StackSettings) -> bool:
    """Stop the stack; return False when nothing was running."""
    if not settings.directory.exists():
        return False
    with _command_lock(settings):
        return _stop(settings)


def reset(settings: StackSettings, progress: Progress = _silent) -> None:
    """Throw the database away and start with an empty one that has the migrations."""
    with _command_lock(settings):
        _stop(settings)
        shutil.rmtree(settings.data_directory, ignore_errors=True)
        (settings.directory / migrations.APPLIED).unlink(missing_ok=True)
    up(settings, progress)


def remove(settings: StackSettings) -> None:
    """Stop the stack and delete its folder."""
    down(settings)
    shutil.rmtree(settings.directory, ignore_errors=True)
    shutil.rmtree(settings.socket_directory, ignore_errors=True)


def is_running(settings: StackSettings) -> bool:
    return is_locked(settings.directory)


def status(settings: StackSettings) -> dict[str, Any]:
    """Return URLs, keys, ports and the services' states, for `status --json`."""
    running = is_running(settings)
    known = _read_status(settings) if running else {}
    keys = Keys.load(settings) if running else None
    return {
        "name": settings.name,
        "state": known.get("state", "starting") if running else "stopped",
        "supervisor_pid": known.get("supervisor_pid"),
        "api_url": settings.api_url,
        "database_url": settings.database_url,
        "publishable_key": PUBLISHABLE_KEY,
        "secret_key": SECRET_KEY,
        "anon_key": keys.anon_key if keys else None,
        "service_role_key": keys.service_role_key if keys else None,
        "jwt_secret": JWT_SECRET,
        "durable": settings.durable,
        "ports": {
            "api": settings.api_port,
            "database": settings.database_port,
            **{service_name(name): port for name, port in settings.function_ports.items()},
        },
        "services": known.get("services", {}),
        "logs": str(settings.log_directory),
    }


def tail(settings: StackSettings, service: str, lines: int) -> list[str]:
    """Return the last lines of a service's log."""
    path = settings.log_directory / f"{service}.log"
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200 * lines))
        return file.read().decode(errors="replace").splitlines()[-lines:]


def services_with_logs(settings: StackSettings) -> list[str]:
    return sorted(path.stem for path in settings.log_directory.glob("*.log"))


@contextmanager
def _command_lock(settings: StackSettings) -> Iterator[None]:
    """Let one command at a time change this stack."""
    settings.directory.mkdir(parents=True, exist_ok=True)
    with (settings.directory / "command.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _service_names() -> list[str]:
    return ["database", "gateway", *(service_name(name) for name in function_names())]


def _start(settings: StackSettings, progress: Progress, *, attached: bool) -> Attached | None:
    with ports.reserved():
        ports.require_free(
            settings.name,
            {"--api-port": settings.api_port, "--database-port": settings.database_port},
        )
        settings = _with_function_ports(settings)
        settings.save()
        (settings.directory / STATUS).unlink(missing_ok=True)
        database.prepare(settings)
        progress(f"Starting stack {settings.name}")
        supervisor = _spawn(settings, attached=attached)
        try:
            _wait_until_ready(settings, {"database"}, supervisor)
        except BaseException:
            supervisor.terminate()
            supervisor.wait(STOP_TIMEOUT_S)
            raise
    if not attached:
        _detached.append((settings.directory, supervisor))
        return None
    assert supervisor.stdin is not None  # noqa: S101 - it is a pipe
    return Attached(supervisor, supervisor.stdin)


def _with_function_ports(settings: StackSettings) -> StackSettings:
    """Keep the ports of the functions that have one still free, choose the others'."""
    kept = {
        name: port
        for name, port in settings.function_ports.items()
        if name in function_names() and ports.is_free(port)
    }
    return _add_function_ports(dataclasses.replace(settings, function_ports=kept))


def _add_function_ports(settings: StackSettings) -> StackSettings:
    missing = [name for name in function_names() if name not in settings.function_ports]
    chosen = ports.choose(len(missing), avoid=ports_of_other_stacks(settings))
    added = dict(zip(missing, chosen, strict=True))
    return dataclasses.replace(settings, function_ports={**settings.function_ports, **added})


def ports_of_other_stacks(settings: StackSettings) -> set[int]:
    """Return the ports that stacks beside this one have, running or not."""
    taken: set[int] = set()
    for path in Path(settings.state_root).glob("*/stack.json"):
        with contextlib.suppress(OSError, StackError):
            other = StackSettings.load(path.parent)
            taken |= {other.api_port, other.database_port, *other.function_ports.values()}
    return taken


def _spawn(settings: StackSettings, *, attached: bool) -> subprocess.Popen[bytes]:
    settings.log_directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "local_stack.supervisor", str(settings.directory)]
    with (settings.log_directory / "supervisor.log").open("w") as output:
        return subprocess.Popen(
            [*command, *(["--attached"] if attached else [])],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _refresh(settings: StackSettings) -> None:
    """Have the running supervisor start, restart and stop what changed in the repository."""
    running = StackSettings.load(settings.directory)
    before = _read_status(settings).get("refreshes", 0)
    with ports.reserved():
        if set(function_names()) - set(running.function_ports):
            _add_function_ports(running).save()
        _signal_supervisor(settings, signal.SIGHUP)
        deadline = time.monotonic() + START_TIMEOUT_S
        while _read_status(settings).get("refreshes", 0) == before:
            if not is_running(settings) or time.monotonic() > deadline:
                _raise_for(settings, "supervisor", "it does not take in what changed")
            time.sleep(POLL_S)


def _stop(settings: StackSettings) -> bool:
    running = is_running(settings)
    if running:
        _signal_supervisor(settings, signal.SIGTERM)
        lock = take_lock(settings.directory, STOP_TIMEOUT_S)
        if lock is None:
            _signal_supervisor(settings, signal.SIGKILL)
            lock = take_lock(settings.directory, STOP_TIMEOUT_S)
        if lock is not None:
            lock.close()
    _reap(settings)
    return running


def _reap(settings: StackSettings) -> None:
    """Collect the stack's supervisors that this process started: they end soon after the lock."""
    for started in [each for each in _detached if each[0] == settings.directory]:
        started[1].wait(STOP_TIMEOUT_S)
        _detached.remove(started)


def _signal_supervisor(settings: StackSettings, number: signal.Signals) -> None:
    """Signal the supervisor, and nothing else: its process id may be another's by now."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((settings.directory / LOCK).read_text())
        if os.fsencode(settings.directory) in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, number)


def _read_status(settings: StackSettings) -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads((settings.directory / STATUS).read_text())
    except FileNotFoundError:
        return {}
    return status


def _wait_until_ready(
    settings: StackSettings, wanted: set[str], supervisor: subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        services = _read_status(settings).get("services", {})
        waiting = {name for name in wanted if services.get(name, {}).get("state") != "running"}
        if not waiting:
            return
        crashing = [
            name
            for name in sorted(waiting)
            if services.get(name, {}).get("restarts", 0) >= CRASHES_BEFORE_GIVING_UP
        ]
        if crashing:
            _raise_for(settings, crashing[0], "it keeps ending")
        ended = not is_running(settings) if supervisor is None else supervisor.poll() is not None
        if ended:
            _raise_for(settings, "supervisor", "it ended")
        if time.monotonic() > deadline:
            _raise_for(settings, min(waiting), f"it is not ready after {START_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)


def _raise_for(settings: StackSettings, service: str, why: str) -> None:
    last = "\n  ".join(tail(settings, service, 15))
    raise StackError(
        f"Cannot start {service} of stack {settings.name}: {why}; its last lines"
        f" ({settings.log_directory}/{service}.log):\n  {last}"
    )
