"""One supervised child process: start, wait until it serves, restart after a crash, stop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.settings import REPOSITORY

LOG_BYTES = 10_000_000
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 5.0
STEADY_S = 30.0
"""A child that ran this long is restarted at once when it crashes."""
READY_POLL_S = 0.02
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _terminate(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How to run one child."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    is_ready: Callable[[], Awaitable[bool]]
    ask_to_stop: Callable[[int], None] = _terminate
    """Called with the child's process id; it has `stop_within_s` to end before it is killed."""
    stop_within_s: float = 5.0
    after_ready: Callable[[], Awaitable[None]] | None = None
    sources: tuple[Path, ...] = ()
    """Files and folders whose change calls for a restart, at `scripts/stack up`."""


class RotatingLog:
    """Append a child's output to a file of bounded size; keep the file before as `.1`."""

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._limit = path, limit
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        # A full disk must not stop the service: its output is lost, but it is taken from the pipe.
        with contextlib.suppress(OSError):
            if self._file.tell() and self._file.tell() + len(data) > self._limit:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                full, self._file = self._file, self._path.open("ab", buffering=0)
                full.close()
            self._file.write(data)

    def close(self) -> None:
        self._file.close()


@dataclass(slots=True)
class Service:
    """A child and what is known about it; `run` owns it until `stop`."""

    spec: ServiceSpec
    log_directory: Path
    on_change: Callable[[], None]
    state: str = "stopped"
    pid: int | None = None
    restarts: int = 0
    exit_code: int | None = None
    fingerprint: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    _task: asyncio.Task[None] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"service {self.spec.name}")

    async def stop(self) -> None:
        """Ask the child to end; kill it when it does not within its time."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task

    def describe(self) -> dict[str, object]:
        return {
            "state": self.state,
            "pid": self.pid,
            "port": self.spec.port,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
        }

    async def _run(self) -> None:
        log = RotatingLog(self.log_directory / f"{self.spec.name}.log")
        backoff = FIRST_BACKOFF_S
        clock = asyncio.get_running_loop().time
        try:
            while not self._stopping:
                started = clock()
                await self._run_once(log)
                if self._stopping:
                    break
                backoff = FIRST_BACKOFF_S if clock() - started > STEADY_S else backoff
                log.write(
                    f"[stack] {self.spec.name} ended with code {self.exit_code};"
                    f" it is started again in {backoff:.1f} s\n".encode()
                )
                self.restarts += 1
                self._set("restarting")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), backoff)
                backoff = min(backoff * 2, LAST_BACKOFF_S)
        finally:
            self._set("stopped")
            log.close()

    async def _run_once(self, log: RotatingLog) -> None:
        self.fingerprint = fingerprint(self.spec.sources)
        supervisor = os.getpid()
        child = await asyncio.create_subprocess_exec(
            *self.spec.command,
            cwd=REPOSITORY,
            env=dict(self.spec.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _die_with(supervisor),
        )
        self.pid, self.exit_code = child.pid, None
        self._set("starting")
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        copying = asyncio.create_task(_copy(child.stdout, log))
        readiness = asyncio.create_task(self._become_ready(log))
        ended = asyncio.create_task(child.wait())
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({ended, woken}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._set("stopping")
                self.spec.ask_to_stop(child.pid)
                await asyncio.wait({ended}, timeout=self.spec.stop_within_s)
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
            self.exit_code = await ended
            for task in (readiness, woken):
                task.cancel()
            await asyncio.gather(readiness, woken, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(copying, 1.0)
            self.ready.clear()
            self.pid = None

    async def _become_ready(self, log: RotatingLog) -> None:
        # Another process becomes ready: there is nothing but asking it.
        while not await self._serves(log):  # noqa: ASYNC110
            await asyncio.sleep(READY_POLL_S)
        self.ready.set()
        self._set("running")

    async def _serves(self, log: RotatingLog) -> bool:
        if not await self.spec.is_ready():
            return False
        if self.spec.after_ready is not None:
            try:
                await self.spec.after_ready()
            except Exception as error:
                log.write(f"[stack] {self.spec.name} cannot be prepared: {error}\n".encode())
                return False
        return True

    def _set(self, state: str) -> None:
        self.state = state
        self.on_change()


def _die_with(supervisor: int) -> None:
    """Have the kernel kill this child when the supervisor is gone (runs in the child)."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


async def _copy(stream: asyncio.StreamReader, log: RotatingLog) -> None:
    while chunk := await stream.read(65_536):
        log.write(chunk)


def fingerprint(sources: tuple[Path, ...]) -> int:
    """Return a number that changes when a file of `sources` changes."""
    files = sorted(
        path
        for source in sources
        for path in (source.rglob("*") if source.is_dir() else [source])
        if path.is_file() and "__pycache__" not in path.parts
    )
    return hash(tuple((str(path), path.stat().st_mtime_ns) for path in files))


async def accepts_connections(port: int) -> bool:
    """Return whether something listens on the loopback port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
