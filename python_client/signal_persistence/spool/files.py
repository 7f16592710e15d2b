"""The few things a spool asks of a file system, so that tests can put a simulated one in its place.

Errors are SpoolFullError("no_space") when there is no room, and SpoolError for everything else.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from signal_persistence.errors import SpoolError, SpoolFullError

_PAGE: Final = mmap.PAGESIZE
_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NO_FALLOCATE: Final = frozenset((errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS))
_ADVICE: Final = {
    errno.EACCES: "; make it writable for this user, or set spool_dir",
    errno.EPERM: "; make it writable for this user, or set spool_dir",
    errno.EROFS: "; mount it writable, or set spool_dir",
    errno.EIO: "; the disk fails: replace it, and restart to recover what it still has",
}
_fdatasync: Final = getattr(os, "fdatasync", os.fsync)


class Buffer(Protocol):
    """Memory that takes slices and `struct.pack_into`, such as a `bytearray` or a `mmap.mmap`."""

    def __setitem__(self, place: slice, content: bytes) -> None: ...

    def __buffer__(self, flags: int) -> memoryview: ...


class MappedFile(Protocol):
    """A file of fixed size whose bytes are memory."""

    @property
    def buffer(self) -> Buffer:
        """The bytes; writing to them is writing to the file."""

    def sync(self) -> None:
        """Make everything written so far survive a loss of power."""

    def close(self) -> None:
        """Give the memory back; the file stays."""


class ReadFile(Protocol):
    """A file opened for reading."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes; pages that the disk cannot read come as zeros."""

    def size(self) -> int:
        """Return how many bytes the file has."""

    def close(self) -> None:
        """Close it."""


class Lock(Protocol):
    """An exclusive lock of this process, until it is released or the process ends."""

    def release(self) -> None:
        """Let others have it. In a forked child: drop the copy; the parent keeps the lock."""


class Files(Protocol):
    """A file system."""

    def make_directory(self, path: Path) -> None:
        """Make a directory and its parents, durably."""

    def names(self, directory: Path) -> Sequence[str]:
        """Return the names in a directory in order; none if there is no such directory."""

    def size(self, path: Path) -> int:
        """Return the size of a file in bytes, 0 if there is none."""

    def read(self, path: Path) -> bytes | None:
        """Return the bytes of a file, None if there is none."""

    def replace(self, path: Path, content: bytes) -> None:
        """Write a small file all at once and durably."""

    def append(self, path: Path, content: bytes) -> None:
        """Write all of it, or nothing, at the end of a file (made if there is none), durably."""

    def create(self, path: Path, size: int) -> MappedFile:
        """Make a file of `size` zero bytes whose room is taken, all of it or nothing."""

    def open(self, path: Path) -> ReadFile | None:
        """Open a file for reading, None if there is none."""

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file, durably."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name; `sync_directory` makes it durable."""

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there; `sync_directory` makes it durable."""

    def sync_directory(self, path: Path) -> None:
        """Make what was made, renamed or removed in a directory durable."""

    def lock(self, path: Path, *, names_owner: bool = True) -> Lock | None:
        """Take the lock that a file stands for, None if another process has it.

        The file tells people the pid of the owner, unless `names_owner` is false.
        """

    def is_locked(self, path: Path) -> bool:
        """Say whether a process, this one included, has the lock."""

    def boot_id(self) -> str:
        """Return what tells this run of the system from the one before; empty if nothing does."""


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SpoolFullError("no_space") from error
        advice = _ADVICE.get(error.errno or 0, "")
        raise SpoolError(f"Cannot use the spool at {path}: {error.strerror}{advice}.") from error


class _OsMappedFile:
    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.buffer = mmap.mmap(descriptor, size)

    def sync(self) -> None:
        # Not buffer.flush(): that is msync, and Python holds its lock meanwhile.
        with _errors_about(self._path):
            _fdatasync(self._descriptor)

    def close(self) -> None:
        self.buffer.close()
        descriptor, self._descriptor = self._descriptor, -1
        _close(descriptor)


class _OsReadFile:
    """Reads by pread, not through a map: what the disk cannot read is an error, not a SIGBUS."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise SpoolError(f"Cannot read the spool at {self._path}: {error}") from error
        size = max(0, min(size, self.size() - offset))
        return b"".join(
            self._page(at, min(_PAGE, offset + size - at))
            for at in range(offset, offset + size, _PAGE)
        )

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        _close(descriptor)

    def _page(self, offset: int, size: int) -> bytes:
        with suppress(OSError):
            return os.pread(self._descriptor, size, offset).ljust(size, b"\0")
        return bytes(size)


class _OsLock:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _open_locks.add(self)

    def release(self) -> None:
        # Closing, not LOCK_UN: that would take the lock from a parent as well.
        with _lock_files:
            _open_locks.discard(self)
            descriptor, self._descriptor = self._descriptor, -1
            _close(descriptor)


_lock_files: Final = threading.RLock()
"""Held while the file of a lock is opened or closed, and during a fork."""
_open_locks: Final[set[_OsLock]] = set()


def _leave_locks_to_parent() -> None:
    """In a forked child: close the copies, which would hold the locks when the parent is dead.

    Here and not where locks are used: a thread may just be opening what they are for.
    """
    for lock in list(_open_locks):
        lock.release()
    _lock_files.release()


os.register_at_fork(
    before=_lock_files.acquire,
    after_in_parent=_lock_files.release,
    after_in_child=_leave_locks_to_parent,
)


class OsFiles:
    """The file system of the machine. It must be a local one: locks and maps must be shared."""

    def make_directory(self, path: Path) -> None:
        with _errors_about(path):
            if path.is_dir():
                return
            if path.parent != path:
                self.make_directory(path.parent)
            path.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(path.parent)

    def names(self, directory: Path) -> Sequence[str]:
        with _errors_about(directory):
            try:
                return sorted(os.listdir(directory))
            except FileNotFoundError:
                return []

    def size(self, path: Path) -> int:
        with _errors_about(path):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return 0

    def read(self, path: Path) -> bytes | None:
        file = self.open(path)
        if file is None:
            return None
        try:
            return file.read(0, file.size())
        finally:
            file.close()

    def replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(path.name + ".tmp")
        with _errors_about(path):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
            self.sync_directory(path.parent)

    def append(self, path: Path, content: bytes) -> None:
        with _errors_about(path), open(path, "ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                left = memoryview(content)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), before)
                raise
            if before == 0:
                self.sync_directory(path.parent)

    def create(self, path: Path, size: int) -> MappedFile:
        # One name for all of a directory: what a crash leaves is overwritten.
        temporary = path.with_name("new")
        with _errors_about(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600)
            try:
                _allocate(descriptor, size)
                file = _OsMappedFile(path, descriptor, size)
                temporary.rename(path)
            except BaseException:
                os.close(descriptor)
                temporary.unlink(missing_ok=True)
                raise
            return file

    def open(self, path: Path) -> ReadFile | None:
        with _errors_about(path):
            try:
                return _OsReadFile(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                return None

    def truncate(self, path: Path, size: int) -> None:
        with _errors_about(path), open(path, "r+b") as file:
            os.ftruncate(file.fileno(), size)
            os.fsync(file.fileno())

    def rename(self, old: Path, new: Path) -> None:
        with _errors_about(new):
            old.rename(new)

    def remove(self, path: Path) -> None:
        with _errors_about(path):
            path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        with _errors_about(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def lock(self, path: Path, *, names_owner: bool = True) -> Lock | None:
        with _errors_about(path), _lock_files:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if names_owner:
                # The lock is what counts, so that a full disk does no harm here.
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
            return _OsLock(descriptor)

    def is_locked(self, path: Path) -> bool:
        with _errors_about(path), _lock_files:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
            return False

    def boot_id(self) -> str:
        with suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return ""


def _close(descriptor: int) -> None:
    """Close a descriptor that nobody knows any more: once, even if a signal handler raises."""
    if descriptor >= 0:
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    """Take the room of the file now: through a map, a full disk would be a SIGBUS."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:
        _write_zeros(descriptor, size)
    except OSError as error:
        if error.errno not in _NO_FALLOCATE:
            raise
        _write_zeros(descriptor, size)


def _write_zeros(descriptor: int, size: int) -> None:
    written = 0
    while written < size:
        written += os.pwrite(descriptor, bytes(min(size - written, 1 << 20)), written)


OS_FILES: Final = OsFiles()
