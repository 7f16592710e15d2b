"""What the real file system is asked, in which order."""

from __future__ import annotations

import errno
import os
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
