"""Loopback ports: which are free, and who holds one that is not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from local_stack.errors import StackError
from local_stack.settings import cache_directory

# Below the range from which the kernel takes ports for outgoing connections, so that nothing takes
# a service's port while that service restarts.
RANGE = range(20_000, 32_000)
LISTENING = "0A"


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(count: int, avoid: Collection[int] = ()) -> list[int]:
    """Return `count` free ports; hold `reserved()` until something listens on them."""
    chosen: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        if len(chosen) == count:
            break
        if port not in avoid and is_free(port):
            chosen.append(port)
    return chosen


@contextmanager
def reserved() -> Iterator[None]:
    """Let one stack at a time choose ports and bind them."""
    folder = cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def require_free(stack: str, wanted: dict[str, int], patience_s: float = 2.0) -> None:
    """Raise StackError when one of the named ports stays taken; say by whom."""
    deadline = time.monotonic() + patience_s
    for option, port in wanted.items():
        # The processes of a supervisor that was killed a moment ago may still be ending.
        while not is_free(port):
            if time.monotonic() > deadline:
                holder = f" by process {owner}" if (owner := find_owner(port)) else ""
                raise StackError(
                    f"Cannot start stack {stack}: port {port} is taken{holder}; end that process,"
                    f" or choose another port with {option}"
                )
            time.sleep(0.05)


def find_owner(port: int) -> str | None:
    """Return `<pid> (<command>)` of the process listening on `port`, if this user may see it."""
    inodes = {
        fields[9]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in _rows(Path(table))
        if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port
    }
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                return f"{process.name} ({(process / 'comm').read_text().strip()})"
    return None


def _rows(table: Path) -> Iterator[list[str]]:
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            yield line.split()
