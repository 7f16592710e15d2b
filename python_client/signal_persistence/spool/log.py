"""The log of a slot: signals in the order they were published."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self
from uuid import UUID

from signal_persistence.errors import (
    ClosedError,
    SignalPersistenceError,
    SpoolError,
    SpoolFullError,
)
from signal_persistence.spool.files import OS_FILES, Files
from signal_persistence.spool.frames import SIGNAL, Frame
from signal_persistence.spool.ranges import Ranges
from signal_persistence.spool.reader import LogReader
from signal_persistence.spool.segments import (
    Damage,
    Recovered,
    SegmentWriter,
    recover,
    segment_path,
    segment_size,
    wholly_through,
)
from signal_persistence.spool.settings import SpoolSettings


class Log:
    """An append-only log of frames in segment files, safe for every thread of one process.

    Numbers ascend by one from 1, over restarts too. After a loss of power, and behind damage, they
    go on at the next multiple of 2³²: those behind the last frame found may have been used.
    """

    published_fsn: int
    """The last number given, 0 if none was."""
    durable_fsn: int
    """Frames up to this number survive a loss of power."""
    finished_fsn: int
    """What `finish_through` was told last."""
    damage: Damage
    """What was found damaged when the log was opened."""

    def __init__(
        self,
        directory: Path,
        uuid: UUID,
        settings: SpoolSettings,
        recovered: Recovered,
        *,
        epoch: int,
        first_fsn: int,
        files: Files,
    ) -> None:
        self.published_fsn = self.durable_fsn = max(recovered.last_fsn, first_fsn - 1)
        self.finished_fsn = 0
        self.damage = recovered.damage
        self._directory = directory
        self._uuid = uuid
        self._epoch = epoch
        self._settings = settings
        self._files = files
        self._sizes = dict(recovered.sizes)
        self._active = SegmentWriter.nowhere()
        self._unsynced: list[SegmentWriter] = []
        self._made = self._made_durable = 0
        """How many segments were made, and how many of their names are durable."""
        self._refusal: SignalPersistenceError | None = None
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._reader = LogReader(directory, uuid, files=files, segments=lambda: list(self._sizes))

    @classmethod
    def open(
        cls,
        directory: Path,
        uuid: UUID,
        settings: SpoolSettings,
        *,
        epoch: int = 1,
        first_fsn: int = 1,
        visit: Callable[[Sequence[Frame]], None] = lambda _: None,
        files: Files = OS_FILES,
    ) -> Self:
        """Recover the log of a directory, which nobody else writes to, and go on with it.

        The next number is at least `first_fsn`. `visit` is called with all frames found, a segment
        at a time, in order. Raises SpoolError.
        """
        files.make_directory(directory)
        recovered = recover(files, directory, uuid, visit)
        return cls(
            directory, uuid, settings, recovered, epoch=epoch, first_fsn=first_fsn, files=files
        )

    @property
    def size_bytes(self) -> int:
        """How many bytes the segment files take, without copies of damaged ones."""
        return sum(list(self._sizes.values()))

    @property
    def first_fsn(self) -> int:
        """Everything below this number is finished and gone."""
        return next(iter(list(self._sizes)), self.published_fsn + 1)

    def append(self, lane: int, body: bytes, kind: int = SIGNAL) -> int:
        """Write a frame and return its fsn; a killed process does not lose it.

        Thread-safe; `body` is not empty. Raises SpoolFullError (reason "limit" or "no_space"),
        SpoolError when the disk failed, ClosedError when the log is closed or belongs to the
        process that this one was forked from; then nothing was written.
        """
        with self._lock:
            fsn = self.published_fsn + 1
            try:
                if not self._active.append(fsn, lane, kind, body):
                    self._roll(fsn, len(body))
                    self._active.append(fsn, lane, kind, body)
                self.published_fsn = fsn
            except BaseException:
                # A signal handler may raise anywhere: a number that is in the file is used.
                self.published_fsn = max(self.published_fsn, self._active.last_fsn)
                raise
        return fsn

    def skip_to(self, fsn: int) -> None:
        """Give no number below `fsn` any more; only before the first append."""
        self.published_fsn = self.durable_fsn = fsn - 1

    def await_durable(self, fsn: int) -> None:
        """Return when a loss of power cannot take the frames up to `fsn` any more.

        Waiting callers share one fdatasync. Returns at once unless fsync is "always". Raises
        SpoolError when the disk failed.
        """
        if self._settings.fsync == "always" and self.durable_fsn < fsn:
            with self._sync_lock:
                # Whoever had the lock may have synced this one as well.
                if self.durable_fsn < fsn:
                    self._sync()

    def sync(self) -> None:
        """Make everything published before this call durable, unless fsync is "never".

        Raises SpoolError when the disk failed. Then append() refuses as well: what the disk has
        kept is known only by reading it again, after a restart.
        """
        with self._sync_lock:
            self._sync()

    def read(self, after_fsn: int, max_messages: int, max_bytes: int) -> list[Frame]:
        """Return the frames behind `after_fsn`: up to `max_messages`, bodies up to `max_bytes`.

        Returns at least one frame if there is one. Reading on from the last frame returned is
        cheap. Damage is passed over; it was counted when the log was opened. Raises SpoolError.
        """
        through_fsn = self.published_fsn
        if after_fsn >= through_fsn:
            return []
        with self._read_lock:
            return self._reader.read(after_fsn, max_messages, max_bytes, through_fsn)

    def fetch(self, fsns: Ranges) -> list[Frame]:
        """Return those of the frames that are there. Raises SpoolError."""
        with self._read_lock:
            return self._reader.fetch(fsns)

    def finish_through(self, fsn: int) -> None:
        """Let go of everything up to `fsn`: segments that hold nothing else are removed."""
        with self._lock:
            self.finished_fsn = max(self.finished_fsn, fsn)
            gone = wholly_through(fsn, self._sizes)
        self._remove(gone)

    def close(self) -> None:
        """Sync, unless fsync is "never", and close. Closing again does nothing.

        A log of which everything is finished leaves no segment behind.
        """
        with self._sync_lock:
            try:
                if self._refusal is None:
                    self._sync()
            finally:
                self._end(ClosedError("Cannot publish the signal: the spool is closed."))
        with self._read_lock:
            self._reader.close()

    def remove_all(self) -> None:
        """Remove every segment; only after close(), when everything is finished."""
        self._remove(list(self._sizes))

    def abandon(self) -> None:
        """In a forked child: forget the parent's log; append raises ClosedError from then on."""
        # The parent's threads, which may hold the locks, are not here.
        self._lock, self._sync_lock, self._read_lock = (threading.Lock() for _ in range(3))
        self._end(ClosedError("Cannot publish the signal: this spool is the parent process's."))
        self._reader.close()

    def _roll(self, fsn: int, body_bytes: int) -> None:
        """Go on in a new segment that begins with frame `fsn`."""
        if self._refusal is not None:
            raise self._refusal
        size = segment_size(self._settings.segment_bytes, body_bytes)
        if self.size_bytes + size > self._settings.max_bytes:
            raise SpoolFullError("limit")
        path = segment_path(self._directory, fsn)
        full, syncs = self._active, self._settings.fsync != "never"
        try:
            file = self._files.create(path, size)
            segment = SegmentWriter(file, size, self._uuid, self._epoch, fsn)
        except BaseException:
            # A signal handler may raise behind any call: then nothing was made.
            with suppress(SignalPersistenceError):
                self._files.remove(path)
            raise
        self._sizes[fsn] = size
        self._made += 1
        self._unsynced, self._active = self._unsynced + [full] * syncs, segment
        if not syncs:
            full.close()

    def _sync(self) -> None:
        """Make everything published durable; with the sync lock held."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            if self._settings.fsync == "never" or self.durable_fsn == self.published_fsn:
                return
            target = self.published_fsn
            full, active = list(self._unsynced), self._active
            made = self._made
            changed = made != self._made_durable
        try:
            for segment in (*full, active):
                segment.sync()
            if changed:
                self._files.sync_directory(self._directory)
        except (SpoolError, SpoolFullError) as error:
            failure = SpoolError(
                f"Cannot trust the spool any more: {error} Restart to recover what the disk has."
            )
            self._end(failure)
            raise failure from error
        with self._lock:
            self.durable_fsn = target
            self._made_durable = made
            del self._unsynced[: len(full)]
        for segment in full:
            segment.close()

    def _end(self, refusal: SignalPersistenceError) -> None:
        with self._lock:
            self._refusal = self._refusal or refusal
            for segment in (*self._unsynced, self._active):
                segment.close()
            self._unsynced.clear()

    def _remove(self, firsts: Sequence[int]) -> None:
        """Remove segments from the front, each durably, so that never one is left behind a hole."""
        for first in firsts:
            self._files.remove(segment_path(self._directory, first))
            self._files.sync_directory(self._directory)
            with self._lock:
                self._sizes.pop(first, None)
