"""What the real file system is asked, in which order."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from signal_persistence.errors import SpoolError, SpoolFullError
from signal_persistence.spool.files import OS_FILES


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is synced and renamed, by name."""
    seen: list[str] = []
    sync, rename = os.fsync, Path.rename

    def note_sync(descriptor: int) -> None:
        seen.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        seen.append(f"rename {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    return seen


def test_a_file_is_replaced_durably(tmp_path: Path, asked: list[str]) -> None:
    OS_FILES.replace(tmp_path / "slot.json", b"{}")
    assert asked == ["sync slot.json.tmp", "rename slot.json", f"sync {tmp_path.name}"]
    assert OS_FILES.read(tmp_path / "slot.json") == b"{}"


def test_lines_are_appended_durably(tmp_path: Path, asked: list[str]) -> None:
    path = tmp_path / "letters"
    OS_FILES.append(path, b"one\n")
    OS_FILES.append(path, b"two\n")
    assert asked == ["sync letters", f"sync {tmp_path.name}", "sync letters"]
    assert OS_FILES.read(path) == b"one\ntwo\n"


def test_each_new_directory_is_synced_in_its_parent(tmp_path: Path, asked: list[str]) -> None:
    OS_FILES.make_directory(tmp_path / "a" / "b")
    assert asked == [f"sync {tmp_path.name}", "sync a"]


def test_cutting_a_file_is_durable(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "segment").write_bytes(b"12345")
    OS_FILES.truncate(tmp_path / "segment", 3)
    assert asked == ["sync segment"]
    assert OS_FILES.size(tmp_path / "segment") == 3


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "letters"
    OS_FILES.append(path, b"one\n")
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(SpoolFullError):
        OS_FILES.append(path, b"two\n")
    assert path.read_bytes() == b"one\n"


def test_pages_that_cannot_be_read_are_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"a" * 4096 + b"b" * 4096 + b"c" * 100)
    read = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if offset < 8192 and offset + size > 4096:
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert OS_FILES.read(path) == b"a" * 4096 + bytes(4096) + b"c" * 100


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(code))
    with pytest.raises(SpoolFullError) as refused:
        OS_FILES.create(tmp_path / "segment", 4096)
    assert refused.value.reason == "no_space"
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_its_size_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed in between leaves no segment without room in it."""
    left = tmp_path / "new"
    left.write_bytes(b"of a crash")

    def allocate(descriptor: int, _: int, size: int) -> None:
        assert [path.name for path in tmp_path.iterdir()] == ["new"]
        os.ftruncate(descriptor, size)

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    OS_FILES.create(tmp_path / "segment", 4096).close()
    assert [path.name for path in tmp_path.iterdir()] == ["segment"]
    assert OS_FILES.read(tmp_path / "segment") == bytes(4096)


def test_a_descriptor_is_closed_once_though_a_signal_handler_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second time it would be somebody else's."""
    mapped = OS_FILES.create(tmp_path / "segment", 4096)
    opened, lock = OS_FILES.open(tmp_path / "segment"), OS_FILES.lock(tmp_path / "lock")
    assert opened is not None
    assert lock is not None
    close, closed = os.close, []

    def close_and_raise(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", close_and_raise)
    for end in (mapped.close, opened.close, lock.release):
        with pytest.raises(KeyboardInterrupt):
            end()
        end()
    assert len(closed) == 3


def descriptors_of(name: str) -> list[str]:
    descriptors = Path("/proc/self/fd").iterdir()
    return [path for each in descriptors if (path := str(each.resolve())).endswith(name)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("moment", ["while it is taken", "before it is used"])
def test_a_child_has_no_lock_that_another_thread_takes_at_the_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It would keep the lock when its parent is dead, and nobody could adopt the slot."""
    name = f"{tmp_path.name}/writer.lock"
    taking, go_on = threading.Event(), threading.Event()
    flock = fcntl.flock

    def slow_flock(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if moment == "while it is taken":
            taking.set()
            go_on.wait(30)

    def take() -> None:
        lock = OS_FILES.lock(tmp_path / "writer.lock")
        taking.set()
        go_on.wait(30)
        assert lock is not None
        lock.release()

    monkeypatch.setattr(fcntl, "flock", slow_flock)
    thread = threading.Thread(target=take)
    thread.start()
    taking.wait(30)
    # A fork in the middle waits for this.
    threading.Timer(0.2, go_on.set).start()
    child = os.fork()
    if child == 0:
        os._exit(len(descriptors_of(name)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go_on.set()
    thread.join()
    assert descriptors_of(name) == []


@pytest.mark.parametrize("missing", [True, False])
def test_room_is_taken_where_fallocate_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    if missing:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", failing(errno.EOPNOTSUPP))
    OS_FILES.create(tmp_path / "segment", 3 << 20).close()
    assert (tmp_path / "segment").stat().st_blocks * 512 >= 3 << 20


def test_other_errors_say_what_and_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolError, match=r"file.*: "):
        OS_FILES.make_directory(tmp_path / "file" / "below")


def failing(code: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail
