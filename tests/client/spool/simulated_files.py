"""A file system in memory that loses power.

What was written and not synced is lost or kept sector by sector, and what was made, renamed or
removed in a directory that was not synced is lost or kept name by name, in any combination. Nothing
else is promised: a real file system loses less.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from signal_persistence.errors import SpoolError, SpoolFullError
from signal_persistence.spool.files import Buffer

SECTOR: Final = 512


class PowerLostError(Exception):
    """The power went in the middle of an operation."""


class _Inode:
    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.durable = b""
        self.failed = False
        """Whether a sync failed: the system has forgotten what it was to write, and will say that
        all is well."""

    def sync(self) -> None:
        if not self.failed:
            self.durable = bytes(self.content)

    def write_back(self, chance: random.Random) -> None:
        """Bring some of what differs to the disk, as the system does at any moment."""
        size = chance.choice((len(self.content), len(self.durable)))
        disk = bytearray(self.durable[:size].ljust(size, b"\0"))
        share = chance.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        for at in range(0, size, SECTOR):
            piece = self.content[at : min(at + SECTOR, size)]
            if piece and chance.random() < share:
                disk[at : at + len(piece)] = piece
        self.durable = bytes(disk)


class _Directory:
    def __init__(self) -> None:
        self.names: dict[str, _Inode] = {}
        self.durable: dict[str, _Inode] = {}
        self.pending: list[Callable[[dict[str, _Inode]], None]] = []

    def change(self, change: Callable[[dict[str, _Inode]], None]) -> None:
        change(self.names)
        self.pending.append(change)

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.pending = []

    def write_back(self, chance: random.Random) -> None:
        kept = [change for change in self.pending if chance.random() < 0.5]
        for change in kept:
            change(self.durable)
        self.pending = [change for change in self.pending if change not in kept]


class SimulatedMappedFile:
    def __init__(self, files: SimulatedFiles, inode: _Inode) -> None:
        self._files = files
        self._inode = inode

    @property
    def buffer(self) -> Buffer:
        return self._inode.content

    def sync(self) -> None:
        self._files.step()
        if self._files.failing_syncs:
            self._files.failing_syncs -= 1
            self._inode.failed = True
            raise SpoolError("Cannot use the spool: the disk fails.")
        self._inode.sync()

    def close(self) -> None:
        pass


class SimulatedReadFile:
    def __init__(self, inode: _Inode) -> None:
        self._inode = inode

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._inode.content[offset : offset + size])

    def size(self) -> int:
        return len(self._inode.content)

    def close(self) -> None:
        pass


class SimulatedLock:
    def __init__(self, held: set[Path], path: Path) -> None:
        self._held = held
        self._path = path

    def release(self) -> None:
        self._held.discard(self._path)


class SimulatedFiles:
    def __init__(self) -> None:
        self.full = False
        """Whether nothing new finds room."""
        self.failing_syncs = 0
        """How many of the next syncs of mapped files fail."""
        self.steps_left: int | None = None
        """After how many more operations the power goes; None: never."""
        self._directories: dict[Path, _Directory] = {}
        self._locks: set[Path] = set()
        self._boot = 1

    def kill_process(self) -> None:
        """End the process: what it wrote stays, its locks go."""
        self._locks = set()

    def lose_power(self, chance: random.Random) -> None:
        """Keep what is durable, and of the rest what chance keeps."""
        self.write_back(chance)
        for directory in self._directories.values():
            directory.names = dict(directory.durable)
            directory.pending = []
            for inode in directory.names.values():
                inode.content = bytearray(inode.durable)
        self._locks = set()
        self._boot += 1
        self.steps_left = None

    def write_back(self, chance: random.Random) -> None:
        """Make some of what is not durable durable."""
        for directory in self._directories.values():
            for inode in {id(inode): inode for inode in directory.names.values()}.values():
                inode.write_back(chance)
            directory.write_back(chance)

    def rot(self, path: Path, offset: int, flip: int) -> None:
        """Change a byte of a file on the disk."""
        inode = self._at(path).names[path.name]
        inode.content[offset] ^= flip
        inode.sync()

    def step(self) -> None:
        """Count an operation; raises PowerLostError when it is the last."""
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                raise PowerLostError

    def make_directory(self, path: Path) -> None:
        self.step()
        self._directories.setdefault(path, _Directory())

    def names(self, directory: Path) -> Sequence[str]:
        inside = [path.name for path in self._directories if path.parent == directory]
        found = self._directories.get(directory)
        return sorted([*inside, *(found.names if found else ())])

    def size(self, path: Path) -> int:
        return len(self.read(path) or b"")

    def read(self, path: Path) -> bytes | None:
        inode = self._at(path).names.get(path.name)
        return None if inode is None else bytes(inode.content)

    def replace(self, path: Path, content: bytes) -> None:
        self._check_room()
        self.step()
        inode = _Inode(content)
        inode.sync()
        self._at(path).change(lambda names: names.update({path.name: inode}))
        self.sync_directory(path.parent)

    def append(self, path: Path, content: bytes) -> None:
        self._check_room()
        self.step()
        directory = self._at(path)
        if path.name not in directory.names:
            inode = _Inode()
            directory.change(lambda names: names.update({path.name: inode}))
        directory.names[path.name].content += content
        self.step()
        directory.names[path.name].sync()
        self.sync_directory(path.parent)

    def create(self, path: Path, size: int) -> SimulatedMappedFile:
        self._check_room()
        self.step()
        directory = self._at(path)
        if path.name in directory.names:
            raise SpoolError(f"{path} is there already")
        inode = _Inode(bytes(size))
        directory.change(lambda names: names.update({path.name: inode}))
        return SimulatedMappedFile(self, inode)

    def open(self, path: Path) -> SimulatedReadFile | None:
        inode = self._at(path).names.get(path.name)
        return None if inode is None else SimulatedReadFile(inode)

    def truncate(self, path: Path, size: int) -> None:
        self.step()
        inode = self._at(path).names[path.name]
        del inode.content[size:]
        self.step()
        inode.sync()

    def rename(self, old: Path, new: Path) -> None:
        self.step()
        directory = self._at(old)
        inode = directory.names[old.name]

        def change(names: dict[str, _Inode]) -> None:
            if names.get(old.name) is inode:
                del names[old.name]
            names[new.name] = inode

        directory.change(change)

    def remove(self, path: Path) -> None:
        self.step()
        inode = self._at(path).names.get(path.name)

        def change(names: dict[str, _Inode]) -> None:
            if names.get(path.name) is inode:
                del names[path.name]

        if inode is not None:
            self._at(path).change(change)

    def sync_directory(self, path: Path) -> None:
        self.step()
        if path in self._directories:
            self._directories[path].sync()

    def lock(self, path: Path, *, names_owner: bool = True) -> SimulatedLock | None:
        if path in self._locks:
            return None
        self._locks.add(path)
        return SimulatedLock(self._locks, path)

    def is_locked(self, path: Path) -> bool:
        return path in self._locks

    def boot_id(self) -> str:
        return str(self._boot)

    def _at(self, path: Path) -> _Directory:
        return self._directories.setdefault(path.parent, _Directory())

    def _check_room(self) -> None:
        if self.full:
            raise SpoolFullError("no_space")
