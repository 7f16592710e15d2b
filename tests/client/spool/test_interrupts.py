"""A signal handler may raise between any two lines of publish(): KeyboardInterrupt, a timeout.

What it interrupts may be in the log or not: publish() did not return. Everything else goes on.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dis import opname
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import pytest

from signal_persistence.spool import (
    FsyncPolicy,
    Log,
    LogReader,
    SpoolSettings,
    files,
    log,
    segments,
)

SLOT = UUID(int=1)
FILES = {module.__file__ for module in (files, log, segments)}
LARGE = b"x" * 1500
"""Two of them fill a segment, nearly."""


class Interrupted(BaseException):
    """What the handler raises."""


class Interruption:
    """Raises at the n-th place where Python would run a signal handler, in the files of the log.

    That is behind the beginning of a function and behind each call of one that is not of Python.
    """

    def __init__(self, place: int) -> None:
        self.left = place
        self.where = ""
        """Where it raised, once it did."""
        self._last: dict[FrameType, str] = {}

    def trace(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        caller = frame.f_back
        if event == "call":
            if caller in self._last:
                self._last[caller] = "a call of Python"
            if frame.f_code.co_filename not in FILES:
                return None
            frame.f_trace_opcodes = True
            self._last[frame] = "RESUME"
        elif event == "opcode":
            before, now = self._last.get(frame, ""), opname[frame.f_code.co_code[frame.f_lasti]]
            self._last[frame] = now
            if before == "RESUME" or before.startswith("CALL"):
                self._count(frame)
        return self.trace

    def _count(self, frame: FrameType) -> None:
        self.left -= 1
        if self.left == 0:
            sys.settrace(None)
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            raise Interrupted


@contextmanager
def interrupted_at(place: int) -> Iterator[Interruption]:
    interruption = Interruption(place)
    before = sys.gettrace()
    sys.settrace(interruption.trace)
    try:
        yield interruption
    except Interrupted:
        pass
    finally:
        sys.settrace(before)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder that no sync waits for, where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def publish(log: Log, body: bytes) -> int:
    fsn = log.append(0, body)
    log.await_durable(fsn)
    return fsn


@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
def test_an_interrupt_anywhere_leaves_a_log_that_goes_on(
    in_memory: Path, fsync: FsyncPolicy
) -> None:
    settings = SpoolSettings(fsync=fsync, segment_bytes=4096)
    for place in range(1, 200):
        directory = in_memory / str(place)
        log = Log.open(directory, SLOT, settings)
        taken = {publish(log, b"first"): b"first"}
        taken[publish(log, LARGE)] = LARGE
        with interrupted_at(place) as interruption:
            # The next does not fit into what is left of the segment.
            for body in (b"one", LARGE, LARGE, b"two"):
                taken[publish(log, body)] = body
        reader = LogReader(directory, SLOT)
        seen = reader.read(0, 1000, 10**6)
        for body in (b"after", LARGE, LARGE, b"last"):
            fsn = publish(log, body)
            assert fsn not in taken, interruption.where
            taken[fsn] = body
        log.sync()
        assert fsync == "never" or log.durable_fsn == log.published_fsn, interruption.where
        assert_holds(log, taken, interruption.where)
        seen += reader.read(seen[-1].fsn, 1000, 10**6)
        assert seen == log.read(0, 1000, 10**6), interruption.where
        reader.close()
        log.close()
        log = Log.open(directory, SLOT, settings)
        assert log.damage.lost_frames == log.damage.gaps == 0, interruption.where
        assert_holds(log, taken, interruption.where)
        log.close()
        if not interruption.where:
            return
    raise AssertionError("there are more places than that")


def assert_holds(log: Log, taken: dict[int, bytes], where: str) -> None:
    frames = log.read(0, 1000, 10**6)
    assert [frame.fsn for frame in frames] == list(range(1, log.published_fsn + 1)), where
    found = {frame.fsn: frame.body for frame in frames}
    assert taken.items() <= found.items(), where
    assert len(found) <= len(taken) + 1, where
