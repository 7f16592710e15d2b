"""Slots: one directory per process that publishes, found again by whoever comes after a crash.

<spool_dir>/<project>/slots.lock    held while the locks of slots are tried or looked at
<spool_dir>/<project>/slots/0001/
    writer.lock sender.lock    held as long as their processes live; the pid inside is for people
    slot.json                  uuid, lanes, and where the numbers of this epoch begin
    log/ journal/              segments
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import msgspec

from signal_persistence.errors import SignalPersistenceError, SpoolError, SpoolFullError
from signal_persistence.spool.files import OS_FILES, Files, Lock
from signal_persistence.spool.frames import Frame
from signal_persistence.spool.journal import Journal, Part
from signal_persistence.spool.log import Log
from signal_persistence.spool.ranges import Ranges, compact, expand
from signal_persistence.spool.reader import LogReader
from signal_persistence.spool.segments import (
    FSN_BLOCK,
    Damage,
    first_fsns,
    segment_path,
    wholly_through,
)
from signal_persistence.spool.settings import SpoolSettings
from signal_persistence.trying import Trying

MAX_SLOTS: Final = 9_999
_TRYING_SECONDS: Final = 1.0
"""How long to wait for others who try locks: only one that was stopped takes so long."""
_TRY_EVERY: Final = 0.001
_VERSION: Final = 1
_log: Final = logging.getLogger("signal_persistence")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a slot held when it was opened."""

    signals: int
    """How many signals are neither stored nor dead letters, as far as the journal knows.

    Without a journal (`as_sender` was false): how many the log still has.
    """
    acked_fsn: int
    """Every signal up to this number is finished: read the log behind it."""
    lost_frames: int
    """How many signals the disk lost: their numbers are missing. Logged as an error.

    As the damaged bytes, they are found again at each opening until what is around is finished.
    """
    damaged_bytes: int
    torn_bytes: int
    """Bytes of writes that were under way: publish() had not returned for them."""


class Slot:
    """A slot opened by its writer, which is the sender too unless `as_sender` is false.

    A forked child must not use it, and cannot: every write to the log and the journal raises
    ClosedError there, and the locks stay the parent's alone.
    """

    name: str
    """Four digits: `0001` is the first."""
    path: Path
    uuid: UUID
    lanes: Sequence[str]
    """The identities that the lane numbers of frames stand for, those of earlier owners too."""
    log: Log
    recovered: Recovery

    def __init__(
        self,
        path: Path,
        slot_file: _SlotFile,
        locks: Sequence[Lock],
        settings: SpoolSettings,
        files: Files,
        *,
        as_sender: bool,
    ) -> None:
        """Recover a slot whose locks are held; `open` and `adopt` do this."""
        self.path, self.name = path, path.name
        self.uuid, self.lanes = slot_file.uuid, slot_file.lanes
        self._slot_file = slot_file
        self._files = files
        self._locks = locks
        self._journal: Journal | None = None
        self._closed = False
        with ExitStack() as undo:
            if as_sender:
                self._journal = Journal.open(path / "journal", settings, files=files)
                undo.callback(self._journal.close)
            found = _Found(slot_file, self._journal)
            self.log = Log.open(
                path / "log",
                self.uuid,
                settings,
                epoch=slot_file.epoch + 1,
                first_fsn=slot_file.first_fsn,
                visit=found.visit,
                files=files,
            )
            undo.callback(self.log.close)
            # Behind the log: on a full disk its recovery has made room for this.
            self._begin_epoch()
            if self._journal is not None:
                self._journal.reconcile(found.found, uuid4)
            self.recovered = found.recovery(self.log)
            self.log.finish_through(self.recovered.acked_fsn)
            undo.pop_all()
        _log_recovery(path, self.recovered)
        self._syncing = _RegularSync(self, settings) if settings.fsync == "interval" else None
        _open_slots.add(self)

    @classmethod
    def open(
        cls,
        project: Path,
        lanes: Sequence[str],
        settings: SpoolSettings,
        *,
        as_sender: bool = True,
        files: Files = OS_FILES,
    ) -> Self:
        """Take the first slot that nobody writes to and whose lanes are all among `lanes`.

        One that holds signals goes before an empty one: later signals must not overtake them.
        Makes a new one if there is none. What an earlier owner left is in its log and journal, to
        be delivered first. Raises SpoolError when the directory cannot be used, SpoolFullError.
        """
        numbered = (_slots(project) / f"{number:04}" for number in range(1, MAX_SLOTS + 1))
        for path, described in chain(
            ((path, _holding_with_lanes) for path in _slot_paths(project, files)),
            ((path, _with_lanes) for path in numbered),
        ):
            slot = cls._take(path, lanes, settings, files, described, as_sender=as_sender)
            if slot is not None:
                return slot
        raise SpoolError(f"Cannot use the spool at {project}: all {MAX_SLOTS} slots are taken.")

    @classmethod
    def adopt(
        cls,
        project: Path,
        lanes: Sequence[str],
        settings: SpoolSettings,
        *,
        other_than: str | None = None,
        files: Files = OS_FILES,
    ) -> Self | None:
        """Take a slot that nobody writes to or sends from and that still holds signals, if any.

        All its lanes are among `lanes`; none is added, so that whoever serves these few can go on
        with it. Deliver what `recovered` says, then close it. One that cannot be used is logged.
        """
        for path in _slot_paths(project, files):
            if path.name == other_than:
                continue
            try:
                slot = cls._take(path, lanes, settings, files, _orphaned, as_sender=True)
                if slot is not None and slot.recovered.signals:
                    return slot
                if slot is not None:
                    slot.close()
            except (SpoolError, SpoolFullError) as error:
                _log.error("Cannot adopt slot %s, which is left as it is: %s", path, error)
        return None

    @classmethod
    def _take(
        cls,
        path: Path,
        lanes: Sequence[str],
        settings: SpoolSettings,
        files: Files,
        described: _Described,
        *,
        as_sender: bool,
    ) -> Self | None:
        """Return None for a slot that others have, or that `described` says is to be left alone."""
        files.make_directory(path)
        if described(path, lanes, files) is None:
            return None
        with ExitStack() as undo:
            locks = []
            with _nobody_else_trying(path, files), ExitStack() as undo_tried:
                for name in ("writer.lock", "sender.lock")[: 1 + as_sender]:
                    lock = files.lock(path / name)
                    if lock is None:
                        return None
                    undo_tried.callback(lock.release)
                    locks.append(lock)
                slot_file = described(path, lanes, files)
                if slot_file is None:
                    return None
                undo.push(undo_tried.pop_all())
            slot = cls(path, slot_file, locks, settings, files, as_sender=as_sender)
            undo.pop_all()
            return slot

    @property
    def journal(self) -> Journal:
        """The sender's journal. Raises SpoolError if the slot was opened without it."""
        if self._journal is None:
            raise SpoolError("Cannot use the journal: the slot was opened for writing only.")
        return self._journal

    def lane(self, identity: str) -> int:
        """Return the number that frames carry for one of `lanes`."""
        return self.lanes.index(identity)

    def close(self) -> None:
        """Sync, close the files and let go of the locks. Closing again does nothing.

        A slot of which everything is finished keeps no segment. Raises SpoolError when the disk
        failed; the slot is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        _open_slots.discard(self)
        with ExitStack() as ending:
            for lock in self._locks:
                ending.callback(lock.release)
            if self._journal is not None:
                ending.callback(self._journal.close)
            ending.callback(self._remove_finished)
            ending.callback(self.log.close)
            if self._syncing is not None:
                self._syncing.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin_epoch(self) -> None:
        """Write down who goes on from which number, before the first number is given."""
        boot_id = self._files.boot_id()
        damage = self.log.damage
        # What lies behind the last frame found is not certain: a number may have been used.
        certain = boot_id and boot_id == self._slot_file.boot_id
        if self._slot_file.epoch and not (certain and damage == Damage()):
            self.log.skip_to(((self.log.published_fsn + 1) // FSN_BLOCK + 1) * FSN_BLOCK)
        self._write_slot_file(boot_id=boot_id, epoch=self._slot_file.epoch + 1)

    def _write_slot_file(self, **changes: str | int) -> None:
        first_fsn = self.log.published_fsn + 1
        self._slot_file = msgspec.structs.replace(self._slot_file, first_fsn=first_fsn, **changes)
        content = msgspec.json.format(msgspec.json.encode(self._slot_file)) + b"\n"
        self._files.replace(self.path / "slot.json", content)

    def _remove_finished(self) -> None:
        if self.log.published_fsn <= self.log.finished_fsn:
            # Without room for this the segments stay, and are found finished the next time.
            with suppress(SignalPersistenceError):
                self._write_slot_file()
                self.log.remove_all()

    def _abandon(self) -> None:
        """In a forked child: close the copies of the parent's files, and nothing else."""
        self._closed = True
        for lock in self._locks:
            lock.release()
        self.log.abandon()
        if self._journal is not None:
            self._journal.abandon()


class SenderSlot:
    """A slot opened by a sender that is not its writer (the agent). Holds the sender's lock."""

    name: str
    path: Path
    uuid: UUID
    log: LogReader

    def __init__(self, path: Path, uuid: UUID, lock: Lock, files: Files) -> None:
        self.path, self.name = path, path.name
        self.uuid = uuid
        self.log = LogReader(path / "log", uuid, files=files)
        self._lock = lock
        self._files = files
        _open_slots.add(self)

    @classmethod
    def open(cls, path: Path, *, files: Files = OS_FILES) -> Self | None:
        """Take the sender's lock of a slot directory, None if another process has it.

        Also None while the slot has no slot.json yet. Raises SpoolError when slot.json is damaged
        or of another version.
        """
        with _nobody_else_trying(path, files), ExitStack() as undo:
            lock = files.lock(path / "sender.lock")
            if lock is None:
                return None
            undo.callback(lock.release)
            slot_file = _read_slot_file(path, files)
            if slot_file is None:
                return None
            undo.pop_all()
            return cls(path, slot_file.uuid, lock, files)

    def lanes(self) -> Sequence[str]:
        """Read the identities that lane numbers stand for; a new writer may have added some."""
        slot_file = _read_slot_file(self.path, self._files)
        return slot_file.lanes if slot_file else ()

    def writer_is_alive(self) -> bool:
        """Say whether a process has the writer's lock at this moment."""
        with _nobody_else_trying(self.path, self._files):
            return self._files.is_locked(self.path / "writer.lock")

    def remove_through(self, fsn: int) -> bool:
        """Remove the segments up to `fsn`, but the last, of a slot without a writer.

        Returns False if it has one: a living writer does this itself (`Log.finish_through`).
        """
        with _nobody_else_trying(self.path, self._files):
            lock = self._files.lock(self.path / "writer.lock")
            if lock is None:
                return False
            try:
                for first in wholly_through(fsn, first_fsns(self._files, self.path / "log")):
                    self._files.remove(segment_path(self.path / "log", first))
                    self._files.sync_directory(self.path / "log")
            finally:
                lock.release()
        return True

    def close(self) -> None:
        """Close and let go of the lock. Closing again does nothing."""
        _open_slots.discard(self)
        self.log.close()
        self._lock.release()

    def _abandon(self) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """What a look at a slot from outside shows, without touching it."""

    name: str
    path: Path
    uuid: UUID
    lanes: Sequence[str]
    epoch: int
    """How many times a writer opened it."""
    first_fsn: int
    """The numbers of the last epoch begin here."""
    log_bytes: int
    has_writer: bool
    has_sender: bool
    damaged: Sequence[Path]
    """Copies of damaged segments, kept for a person to look at."""


def list_slots(project: Path, *, files: Files = OS_FILES) -> list[SlotInfo]:
    """List the slots of a project; one whose slot.json cannot be read is logged and left out."""
    slots = []
    for path in _slot_paths(project, files):
        try:
            slot_file = _read_slot_file(path, files)
        except SpoolError as error:
            _log.error("%s", error)
            continue
        if slot_file is not None:
            slots.append(_info(path, slot_file, files))
    return slots


def project_directory(spool_directory: Path, url: str) -> Path:
    """Return the directory of a project: its host and port, made safe for a file name."""
    place = urlsplit(url).netloc.rpartition("@")[2].lower()
    return spool_directory / re.sub(r"[^a-z0-9.-]+", "_", place)


def default_spool_directory() -> Path:
    """Return SIGNAL_SPOOL_DIR, else signal-persistence/spool below the user's state directory."""
    chosen = os.environ.get("SIGNAL_SPOOL_DIR")
    if chosen:
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state else Path.home() / ".local" / "state"
    return base / "signal-persistence" / "spool"


class _SlotFile(msgspec.Struct, frozen=True):
    """slot.json."""

    version: int
    uuid: UUID
    epoch: int
    boot_id: str
    """The run of the system in which a writer opened the slot last."""
    first_fsn: int
    lanes: tuple[str, ...]


class _Found:
    """Counts, while the log is recovered, what of it is not finished."""

    def __init__(self, slot_file: _SlotFile, journal: Journal | None) -> None:
        lanes, uuid = slot_file.lanes, slot_file.uuid
        self._begun = [journal.begun_through(uuid, lane) if journal else 0 for lane in lanes]
        self._in_batches = {
            fsn
            for batch in (journal.open_batches if journal else ())
            for part in batch.parts
            for fsn in expand(part.fsns)
        }
        self._found_in_batches: set[int] = set()
        self._waiting = 0
        self._first_unfinished: int | None = None

    def visit(self, frames: Sequence[Frame]) -> None:
        """Count the frames of one segment."""
        begun, in_batches = self._begun, self._in_batches
        for frame in frames:
            if frame.lane >= len(begun):
                raise SpoolError(f"Cannot use the spool: slot.json lacks lane {frame.lane}.")
            if frame.fsn > begun[frame.lane]:
                self._waiting += 1
            elif frame.fsn in in_batches:
                self._found_in_batches.add(frame.fsn)
            else:
                continue
            if self._first_unfinished is None:
                self._first_unfinished = frame.fsn

    def found(self, part: Part) -> Ranges:
        """Return the numbers of a part that the log holds."""
        return compact(fsn for fsn in expand(part.fsns) if fsn in self._found_in_batches)

    def recovery(self, log: Log) -> Recovery:
        first = self._first_unfinished
        return Recovery(
            signals=self._waiting + len(self._found_in_batches),
            acked_fsn=log.published_fsn if first is None else first - 1,
            lost_frames=log.damage.lost_frames,
            damaged_bytes=log.damage.gap_bytes,
            torn_bytes=log.damage.torn_bytes,
        )


class _RegularSync:
    """The thread behind fsync="interval"."""

    def __init__(self, slot: Slot, settings: SpoolSettings) -> None:
        self._stop = threading.Event()
        self._seconds = settings.fsync_interval_ms / 1000
        self._thread = threading.Thread(
            target=self._run, args=(slot,), name=f"signal-spool-sync-{slot.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a sync under way is waited for."""
        self._stop.set()
        self._thread.join()

    def _run(self, slot: Slot) -> None:
        # Of what one of them raises, publish() and the sender hear as well.
        trying = Trying()
        while not self._stop.wait(self._seconds) and not slot._closed:
            trying.do(f"sync the log of {slot.path}", slot.log.sync, None)
            if slot._journal is not None:
                trying.do(f"sync the journal of {slot.path}", slot._journal.sync, None)


def _slots(project: Path) -> Path:
    return project / "slots"


def _slot_paths(project: Path, files: Files) -> Iterator[Path]:
    for name in files.names(_slots(project)):
        if len(name) == 4 and name.isdecimal():
            yield _slots(project) / name


@contextmanager
def _nobody_else_trying(slot: Path, files: Files) -> Iterator[None]:
    """Try or look at the locks of a slot while no other process does.

    So a slot that is found locked belongs to somebody. It could else be one who looks at it for a
    moment: its owner would then go to another, where new signals overtake those left in this one.
    """
    ends = time.monotonic() + _TRYING_SECONDS
    lock = None
    # Whoever may only read the spool looks at it all the same.
    with suppress(SpoolError, SpoolFullError):
        path = slot.parent.parent / "slots.lock"
        while (lock := files.lock(path, names_owner=False)) is None:
            if time.monotonic() > ends:
                _log.warning("A process has held slots.lock at %s for long", slot.parent.parent)
                break
            time.sleep(_TRY_EVERY)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _read_slot_file(path: Path, files: Files) -> _SlotFile | None:
    """Return slot.json, None if the slot was never used. Raises SpoolError."""
    content = files.read(path / "slot.json")
    if content is None and not first_fsns(files, path / "log"):
        return None
    try:
        slot_file = msgspec.json.decode(content or b"", type=_SlotFile)
    except msgspec.DecodeError as error:
        raise _UnreadableError(
            f"Cannot read {path / 'slot.json'}: {error}; restore it, or move the slot away."
        ) from error
    if slot_file.version != _VERSION:
        raise SpoolError(
            f"Cannot use the spool at {path}: it is of format {slot_file.version}, this release "
            f"knows {_VERSION}; drain it with the release that wrote it, or move it away."
        )
    return slot_file


_Described = Callable[[Path, Sequence[str], Files], _SlotFile | None]
"""What slot.json is to say when the slot is taken; None for a slot that is to be left alone."""


class _UnreadableError(SpoolError):
    """Cannot read slot.json."""


def _with_lanes(path: Path, lanes: Sequence[str], files: Files) -> _SlotFile | None:
    """Return slot.json with all of `lanes`, None for a slot that is to be left alone."""
    try:
        slot_file = _read_slot_file(path, files)
    except _UnreadableError as error:
        _log.error("%s It is left alone.", error)
        return None
    if slot_file is None:
        return _SlotFile(_VERSION, uuid4(), 0, "", 1, tuple(lanes))
    if not first_fsns(files, path / "log"):
        return msgspec.structs.replace(slot_file, lanes=tuple(lanes))
    if not set(slot_file.lanes) <= set(lanes):
        return None
    added = tuple(lane for lane in lanes if lane not in slot_file.lanes)
    return msgspec.structs.replace(slot_file, lanes=slot_file.lanes + added)


def _holding_with_lanes(path: Path, lanes: Sequence[str], files: Files) -> _SlotFile | None:
    """Return what `_with_lanes` does, but None for a slot without signals.

    It is asked anew of each slot, and never of a list: one of others that is emptied just now must
    not go before one that holds signals of these lanes.
    """
    return _with_lanes(path, lanes, files) if first_fsns(files, path / "log") else None


def _orphaned(path: Path, lanes: Sequence[str], files: Files) -> _SlotFile | None:
    """Return slot.json as it is, None for a slot without signals or for others than `lanes`."""
    if not first_fsns(files, path / "log"):
        return None
    slot_file = _read_slot_file(path, files)
    return slot_file if slot_file and set(slot_file.lanes) <= set(lanes) else None


def _info(path: Path, slot_file: _SlotFile, files: Files) -> SlotInfo:
    log = path / "log"
    names = files.names(log)
    with _nobody_else_trying(path, files):
        has_writer, has_sender = (
            files.is_locked(path / name) for name in ("writer.lock", "sender.lock")
        )
    return SlotInfo(
        name=path.name,
        path=path,
        uuid=slot_file.uuid,
        lanes=slot_file.lanes,
        epoch=slot_file.epoch,
        first_fsn=slot_file.first_fsn,
        log_bytes=sum(files.size(log / name) for name in names if name.endswith(".seg")),
        has_writer=has_writer,
        has_sender=has_sender,
        damaged=tuple(log / name for name in names if name.endswith(".damaged")),
    )


def _log_recovery(path: Path, found: Recovery) -> None:
    if found.signals:
        _log.info("Found %d signals at %s that are still to be delivered", found.signals, path)
    if found.torn_bytes:
        _log.info("Cut %d bytes of an unfinished write at %s", found.torn_bytes, path)
    if found.lost_frames or found.damaged_bytes:
        _log.error(
            "%s is damaged: %d signals are lost, %d bytes are kept as *.damaged",
            path,
            found.lost_frames,
            found.damaged_bytes,
        )


_open_slots: Final[weakref.WeakSet[Slot | SenderSlot]] = weakref.WeakSet()


def _abandon_in_child() -> None:
    for slot in list(_open_slots):
        slot._abandon()
    _open_slots.clear()


os.register_at_fork(after_in_child=_abandon_in_child)
