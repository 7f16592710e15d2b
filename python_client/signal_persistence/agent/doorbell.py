"""A doorbell between processes: a Unix datagram that says "look again", and nothing else.

What there is to see is in the files. A ring that is lost costs at most one poll interval, and many
rings are no more than one, so nobody ever waits for the other side.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

_LONGEST_ADDRESS: Final = 100
"""sun_path holds 108 bytes on Linux and 104 elsewhere, with the terminating zero."""
_FD_DIRECTORY: Final = Path("/proc/self/fd")


class Doorbell:
    """The side that listens; rings are taken on the running event loop."""

    def __init__(self, path: Path, rung: Callable[[], object]) -> None:
        """Bind `path`, in place of what a process that died left there; one process may do so."""
        path.unlink(missing_ok=True)
        self._path = path
        self._rung = rung
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with _Address(path) as address:
            self._socket.bind(address)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._take)

    def close(self) -> None:
        """Stop listening: from now on a ring fails, which tells the others that nobody is here."""
        self._loop.remove_reader(self._socket)
        self._path.unlink(missing_ok=True)
        self._socket.close()

    def forget(self) -> None:
        """Close the copy in a forked child; the parent goes on listening."""
        # Not through the loop: its selector is one with the parent's.
        os.close(self._socket.detach())

    def _take(self) -> None:
        try:
            while True:
                self._socket.recv(1)
        except BlockingIOError:
            pass
        self._rung()


class Bell:
    """The side that rings. It may be shared by threads, and used in forked children."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def ring(self) -> bool:
        """Ring and say whether a process listens; never blocks."""
        try:
            with _Address(self._path) as address:
                self._socket.sendto(b"", address)
        except BlockingIOError:
            # Its queue is full of rings that it has not taken yet.
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class _Address:
    """The path as the kernel takes it: a long one goes by way of its folder's descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder: int | None = None

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= _LONGEST_ADDRESS:
            return str(self._path)
        self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return str(_FD_DIRECTORY / str(self._folder) / self._path.name)

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)
