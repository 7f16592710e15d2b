"""The journal of a sender: which signals went out in which batch, before they do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from uuid import UUID

import msgspec

from signal_persistence.errors import ClosedError, SignalPersistenceError
from signal_persistence.spool.files import OS_FILES, Files, MappedFile
from signal_persistence.spool.frames import (
    HEADER_BYTES,
    RECORD,
    frames_from,
    header_checks,
    seed_of,
)
from signal_persistence.spool.ranges import Ranges, expand
from signal_persistence.spool.segments import (
    SegmentWriter,
    first_fsns,
    keep_copy,
    segment_path,
    segment_size,
)
from signal_persistence.spool.settings import SpoolSettings

_log: Final = logging.getLogger("signal_persistence")
_NOBODY: Final = UUID(int=0)
"""A journal may be of several slots; its files carry this uuid."""


@dataclass(frozen=True, slots=True)
class Part:
    """The signals of a batch that one slot holds, in order."""

    slot: UUID
    fsns: Ranges


@dataclass(frozen=True, slots=True)
class JournalBatch:
    """A batch as it was fixed before its first send. `lane` is the account's name in slot.json."""

    request_id: UUID
    lane: str
    parts: tuple[Part, ...]


class _Begun(msgspec.Struct, frozen=True):
    slot: UUID
    lane: str
    through: int


class _Begin(msgspec.Struct, tag="begin", frozen=True):
    batch: JournalBatch


class _Finish(msgspec.Struct, tag="finish", frozen=True):
    request_id: UUID


class _Split(msgspec.Struct, tag="split", frozen=True):
    request_id: UUID
    batches: list[JournalBatch]


class _Checkpoint(msgspec.Struct, tag="checkpoint", frozen=True):
    """The whole state; every file of a journal begins with one."""

    batches: list[JournalBatch]
    begun: list[_Begun]


_Record = _Begin | _Finish | _Split | _Checkpoint
_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder[_Record](_Record)


class JournalState:
    """What the records of a journal say."""

    def __init__(self) -> None:
        self.batches: dict[UUID, JournalBatch] = {}
        """The open ones by request_id, in the order in which they are to be sent."""
        self.begun: dict[tuple[UUID, str], int] = {}
        """The highest number of each slot and lane that is in any batch so far."""

    def apply(self, record: _Record) -> None:
        match record:
            case _Begin(batch):
                self._open(batch)
            case _Finish(request_id):
                self.batches.pop(request_id, None)
            case _Split(request_id, batches):
                self._replace(request_id, batches)
            case _Checkpoint(batches, begun):
                self.batches = {batch.request_id: batch for batch in batches}
                self.begun = {(each.slot, each.lane): each.through for each in begun}

    def checkpoint(self) -> _Checkpoint:
        begun = [_Begun(slot, lane, through) for (slot, lane), through in self.begun.items()]
        return _Checkpoint(list(self.batches.values()), begun)

    def _open(self, batch: JournalBatch) -> None:
        self.batches[batch.request_id] = batch
        for part in batch.parts:
            key = part.slot, batch.lane
            self.begun[key] = max(self.begun.get(key, 0), part.fsns[-1][1])

    def _replace(self, request_id: UUID, batches: Sequence[JournalBatch]) -> None:
        """Put batches in the place of another: theirs is the order in which all are sent."""
        replaced = {request_id} if request_id in self.batches else self._sharing_with(batches)
        before, self.batches = self.batches, {}
        for opened in before.values():
            if opened.request_id not in replaced:
                self._open(opened)
            for batch in batches if opened.request_id in replaced else ():
                self._open(batch)

    def _sharing_with(self, batches: Iterable[JournalBatch]) -> set[UUID]:
        """Find what took the place of a batch before, when that was to be tried again."""
        signals = {signal for batch in batches for signal in _signals_of(batch)}
        return {
            batch.request_id
            for batch in self.batches.values()
            if not signals.isdisjoint(_signals_of(batch))
        }


def _signals_of(batch: JournalBatch) -> Iterator[tuple[UUID, int]]:
    return ((part.slot, fsn) for part in batch.parts for fsn in expand(part.fsns))


class Journal:
    """The batches of one sender; a batch that was begun and not finished is open.

    The state is small: the open batches and, for each slot and lane, the last number ever begun.
    A frame with a higher number waits, one of an open batch is to be sent again with it, every
    other is finished. So the signals of a lane must be begun in order, none left out.

    One file holds it all. When it is full a new one begins with a checkpoint of the state and takes
    its place; the room for it was taken before, so that a full disk does not stop the sender.
    """

    def __init__(
        self, directory: Path, settings: SpoolSettings, state: JournalState, last: int, files: Files
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._files = files
        self._state = state
        self._last = last
        self._writer = SegmentWriter.nowhere()
        self._spare: MappedFile | None = None
        self._unsynced = False
        self._failed = False
        """Whether the file failed to sync, and no other has taken its place yet."""
        self._refusal: SignalPersistenceError | None = None
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()

    @classmethod
    def open(cls, directory: Path, settings: SpoolSettings, *, files: Files = OS_FILES) -> Self:
        """Recover the journal of a directory, which nobody else writes to, and go on with it.

        It is believed up to its first damaged record; what comes behind is sent again, and the
        service knows it by its natural keys. Raises SpoolError, SpoolFullError.
        """
        files.make_directory(directory)
        state, last = _recover(files, directory)
        journal = cls(directory, settings, state, last, files)
        journal._start_file()
        return journal

    @property
    def open_batches(self) -> Sequence[JournalBatch]:
        """Batches begun and not finished, in the order in which they are to be sent."""
        return tuple(self._state.batches.values())

    def begun_through(self, slot: UUID, lane: str) -> int:
        """Return the highest number of the slot's lane that is in any batch so far, 0 if none."""
        return self._state.begun.get((slot, lane), 0)

    def begin(self, batch: JournalBatch) -> None:
        """Write down a batch, before its first send; durable at once if fsync is "always".

        Its fsns are the next of their lanes, or belong to an open batch (a retry of some of it).
        Raises SpoolFullError("no_space"), SpoolError or ClosedError; then it must not be sent.
        """
        self._write(_Begin(batch))
        if self._settings.fsync == "always":
            self.sync()

    def finish(self, request_id: UUID) -> None:
        """Write down that the batch is done for.

        Each of its signals is stored, a dead letter, or in a batch that was begun since.
        """
        self._write(_Finish(request_id))

    def split(self, request_id: UUID, batches: Sequence[JournalBatch]) -> None:
        """Replace an open batch by others with the same signals, all or nothing, as `begin`."""
        self._write(_Split(request_id, list(batches)))
        if self._settings.fsync == "always":
            self.sync()

    def reconcile(self, found: Callable[[Part], Ranges], new_id: Callable[[], UUID]) -> None:
        """Give open batches of which signals are gone (power was lost) new ids, with what is left.

        `found` returns those numbers of a part that its slot still holds. A request_id stands for
        the same signals at every send, so a batch that is not whole cannot keep its own. Durable
        when it returns, whatever fsync says, as the checkpoint before it: new ids are used next.
        """
        before = self.open_batches
        for batch in before:
            parts = tuple(Part(part.slot, found(part)) for part in batch.parts)
            if parts != batch.parts:
                left = tuple(part for part in parts if part.fsns)
                batches = [JournalBatch(new_id(), batch.lane, left)] if left else []
                self.split(batch.request_id, batches)
        if self.open_batches != before:
            self._writer.sync()

    def sync(self) -> None:
        """Make everything written so far durable, unless fsync is "never".

        Raises SpoolError or SpoolFullError, and may then be called again.
        """
        with self._sync_lock:
            with self._lock:
                if not self._unsynced or self._settings.fsync == "never" or self._refusal:
                    return
                if self._failed:
                    self._start_file()
                    return
                self._unsynced = False
                writer = self._writer
            try:
                writer.sync()
            except SignalPersistenceError as error:
                self._begin_anew()
                _log.warning("Wrote %s anew, since it failed to sync: %s", self._directory, error)

    def close(self) -> None:
        """Sync, unless fsync is "never", and close. Closing again does nothing."""
        try:
            if self._refusal is None:
                self.sync()
        finally:
            with self._sync_lock, self._lock:
                self._end(ClosedError("Cannot send the batch: the spool is closed."))

    def abandon(self) -> None:
        """In a forked child: forget the parent's journal."""
        self._lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._end(ClosedError("Cannot send the batch: this spool is the parent process's."))

    def _write(self, record: _Record) -> None:
        body = _encode(record)
        with self._lock:
            if self._append(body):
                self._state.apply(record)
                return
        # The sync lock comes first: a file that is being synced must not be closed.
        with self._sync_lock, self._lock:
            if self._refusal is not None:
                raise self._refusal
            if not self._append(body):
                self._start_file(room_for=len(body))
                self._append(body)
            self._state.apply(record)

    def _append(self, body: bytes) -> bool:
        if not self._writer.append(self._last + 1, 0, RECORD, body):
            return False
        self._last += 1
        self._unsynced = True
        return True

    def _begin_anew(self) -> None:
        """Write everything into a new file: nobody knows what the disk has of this one.

        When that fails as well, so does every write and sync until it does not.
        """
        with self._lock:
            self._unsynced = self._failed = True
            self._writer.close()
            self._start_file()

    def _start_file(self, room_for: int = 0) -> None:
        """Go on in a new file that begins with the state; durably, whatever fsync says."""
        checkpoint = _encode(self._state.checkpoint())
        number = self._last + 1
        path = segment_path(self._directory, number)
        least = 2 * len(checkpoint) + room_for
        size = segment_size(self._settings.journal_bytes, least)
        spare, self._spare = self._spare, None
        if spare is None or size > segment_size(self._settings.journal_bytes, 0):
            spare = self._take_room(size, spare)
        writer = SegmentWriter(spare, size, _NOBODY, 1, number)
        writer.append(number, 0, RECORD, checkpoint)
        try:
            writer.sync()
            self._files.rename(self._spare_path, path)
            self._files.sync_directory(self._directory)
        except SignalPersistenceError:
            writer.close()
            raise
        self._writer.close()
        self._writer, self._last = writer, number
        self._unsynced = self._failed = False
        for older in first_fsns(self._files, self._directory):
            if older < number:
                self._files.remove(segment_path(self._directory, older))
        self._spare = self._take_spare()

    @property
    def _spare_path(self) -> Path:
        return self._directory / "spare"

    def _take_room(self, size: int, spare: MappedFile | None) -> MappedFile:
        if spare is not None:
            spare.close()
        self._files.remove(self._spare_path)
        return self._files.create(self._spare_path, size)

    def _take_spare(self) -> MappedFile | None:
        try:
            return self._take_room(segment_size(self._settings.journal_bytes, 0), None)
        except SignalPersistenceError as error:
            _log.warning("Cannot take the room for the next journal file yet: %s", error)
            return None

    def _end(self, refusal: SignalPersistenceError) -> None:
        self._refusal = self._refusal or refusal
        self._writer.close()
        if self._spare is not None:
            self._spare.close()
            self._spare = None


def read_journal(directory: Path, *, files: Files = OS_FILES) -> JournalState:
    """Read the journal of a directory without touching it; its sender may write meanwhile."""
    return _recover(files, directory)[0]


def _recover(files: Files, directory: Path) -> tuple[JournalState, int]:
    """Return the state and the last number used, from the newest file that begins well."""
    numbers = first_fsns(files, directory)
    for number in reversed(numbers):
        path = segment_path(directory, number)
        data = files.read(path) or b""
        header_checks(data, _NOBODY, number)
        frames, end = frames_from(data, HEADER_BYTES, seed_of(_NOBODY, number), number - 1)
        records = [_decoder.decode(frame.body) for frame in frames]
        if not records or not isinstance(records[0], _Checkpoint):
            _log.error("%s is damaged at its beginning: what it says is sent again", path)
            keep_copy(files, path, data)
            continue
        state = JournalState()
        for record in records:
            state.apply(record)
        torn = len(data[end:].rstrip(b"\0"))
        if torn:
            _log.warning("%s ends in %d bytes that are no record: passed over", path, torn)
        return state, max(frames[-1].fsn, numbers[-1])
    return JournalState(), max(numbers, default=0)
