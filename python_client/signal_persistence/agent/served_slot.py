"""One slot as its sender sees it: what is still to be sent, and what became of the rest."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final
from uuid import UUID, uuid4

from msgspec.structs import replace

from signal_persistence.agent.doorbell import Bell
from signal_persistence.agent.results import (
    RESULT,
    Finished,
    Result,
    decode_result,
    encode_result,
)
from signal_persistence.spool import (
    Frame,
    Journal,
    JournalBatch,
    Log,
    Part,
    Ranges,
    SenderSlot,
    SpoolSettings,
    compact,
    expand,
)

_READ_MESSAGES: Final = 1_000
_READ_BYTES: Final = 1024**2
_RESULTS_SEGMENT_BYTES: Final = 256 * 1024


class ServedSlot:
    """A slot whose sender's lock this process holds, with its results and its own journal.

    A lane reads on until `read_ahead` of its signals are unfinished. Lanes that wait for their
    account do not hold up the others: each has a cursor of its own.
    """

    def __init__(
        self,
        slot: SenderSlot,
        journal: Journal | None,
        spool: SpoolSettings,
        read_ahead: Callable[[], int],
    ) -> None:
        """`journal` is that of a sender of many slots; one of this slot alone uses its own."""
        # Not synced: a loss of power costs the reports of signals that are stored all the same.
        unsynced = SpoolSettings(fsync="never", segment_bytes=_RESULTS_SEGMENT_BYTES)
        self.slot: Final = slot
        self.identities: Sequence[str] = ()
        self._slot_file: tuple[int, int] | None = None
        """Which slot.json the identities are from."""
        self._finished = Finished()
        self._told: deque[tuple[int, int]] = deque()
        """Of each result on disk its own number, and the highest fsn that it is about."""
        self._results = Log.open(
            slot.path / "results", slot.uuid, unsynced, visit=self._remember_results
        )
        own = spool if journal is None else unsynced
        self.own_journal: Final = Journal.open(slot.path / "journal", own)
        self._journal = journal or self.own_journal
        self._bell = Bell(slot.path / "worker.sock")
        self._read_ahead = read_ahead
        self._unfinished: Counter[int] = Counter()
        self._cursors: dict[int, int] = {}
        self._begun: Sequence[int] = ()
        """For each lane the last fsn that an earlier sender began."""
        self._open: set[int] = set()
        self._told_through = self._finished.through
        self._learn_lanes()

    @property
    def uuid(self) -> UUID:
        return self.slot.uuid

    @property
    def unfinished(self) -> int:
        """How many signals were read and are not finished."""
        return self._unfinished.total()

    def reopen(self, frame: Frame) -> bool:
        """Say whether a signal of an open batch is still to be sent; `read` then leaves it out.

        It is not when it was finished, or is in another open batch as well.
        """
        if frame.fsn in self._finished or frame.fsn in self._open:
            return False
        self._open.add(frame.fsn)
        self._unfinished[frame.lane] += 1
        return True

    def read(self, take: Callable[[ServedSlot, Frame], bool]) -> int:
        """Read once what is new and give it to `take` in order; return how many were taken.

        `take` says whether it took the signal. If not, its lane ends there this time.
        """
        ready = {lane for lane in range(len(self.identities)) if self._has_room(lane)}
        if not ready:
            return 0
        after = last = min(self._cursor(lane) for lane in ready)
        frames = self.slot.log.read(after, _READ_MESSAGES, _READ_BYTES)
        if frames and self._learn_lanes():
            return 0
        taken = 0
        for frame in frames:
            if frame.fsn > last + 1:
                # Numbers that no frame has: power was lost, or the disk was damaged.
                self._finished.add(last + 1, frame.fsn - 1)
            last = frame.fsn
            if frame.lane not in ready or not self._is_news(frame):
                continue
            if self._has_room(frame.lane) and take(self, frame):
                self._unfinished[frame.lane] += 1
                self._cursors[frame.lane] = frame.fsn
                taken += 1
            else:
                ready.discard(frame.lane)
        for lane in ready:
            self._cursors[lane] = max(self._cursor(lane), last)
        self._tell_progress()
        return taken

    def settle(self, lane: int, fsns: Sequence[int], result: Result) -> None:
        """Tell the worker what became of signals of one lane, which were in one batch.

        Raises SpoolFullError or SpoolError; then it may be called again.
        """
        ranges = compact(fsns)
        finished = self._finished.with_ranges(ranges)
        self._tell(lane, replace(result, finished_through=finished.through), fsns[-1])
        # Only now: what is finished and was not told, the worker would take for lost.
        self._unfinished[lane] -= sum(fsn not in self._finished for fsn in fsns)
        self._finished = finished
        self._open.difference_update(fsns)
        self._note(self.identities[lane], ranges)
        self._bell.ring()

    def trim(self) -> None:
        """Remove what nobody needs any more: finished signals, and results that were read.

        A worker removes its signals once it has read their results, so those of signals that are
        gone were read.
        """
        self.slot.remove_through(self._finished.through)
        first = self._first_fsn()
        read = 0
        while len(self._told) > 1 and self._told[0][1] < first:
            read, _ = self._told.popleft()
        if read:
            self._results.finish_through(read)

    def close(self) -> None:
        """Close everything and let go of the slot, whatever of it fails. Raises SpoolError."""
        with ExitStack() as ending:
            for part in (self.slot, self._bell, self.own_journal, self._results):
                ending.callback(part.close)

    def _has_room(self, lane: int) -> bool:
        return self._unfinished[lane] < self._read_ahead()

    def _cursor(self, lane: int) -> int:
        return self._cursors.get(lane, self._finished.through)

    def _is_news(self, frame: Frame) -> bool:
        if frame.fsn <= self._cursor(frame.lane):
            return False
        if frame.fsn in self._open or frame.fsn in self._finished:
            return False
        if frame.fsn <= self._begun[frame.lane]:
            # Begun and not open: an earlier sender finished it.
            self._finished.add(frame.fsn, frame.fsn)
            return False
        return True

    def _learn_lanes(self) -> bool:
        """Read the lanes again if a new writer changed them, and say so.

        Asked behind every read of signals: lanes are only ever added to those of signals that are
        not finished, but a slot that was empty may belong to others now.
        """
        status = (self.slot.path / "slot.json").stat()
        slot_file = status.st_ino, status.st_mtime_ns
        if slot_file == self._slot_file:
            return False
        self._slot_file = slot_file
        before, self.identities = self.identities, tuple(self.slot.lanes())
        if before == self.identities:
            return False
        journals = (self._journal, self.own_journal)
        self._begun = [
            max(journal.begun_through(self.uuid, identity) for journal in journals)
            for identity in self.identities
        ]
        if self.identities[: len(before)] != before:
            self._cursors.clear()
        return True

    def _first_fsn(self) -> int:
        """Return the number that the oldest segment begins with, the next one if there is none."""
        first_fsns = (path.stem for path in (self.slot.path / "log").glob("*.seg"))
        numbers = (int(name) for name in first_fsns if name.isdecimal())
        return min(numbers, default=self._finished.through + 1)

    def _remember_results(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            result = decode_result(frame.body)
            self._finished.add_runs(result.runs)
            self._finished.reach(result.finished_through)
            highest = max((run.last_fsn for run in result.runs), default=result.finished_through)
            self._told.append((frame.fsn, highest))

    def _tell(self, lane: int, result: Result, highest_fsn: int) -> None:
        number = self._results.append(lane, encode_result(result), RESULT)
        self._told.append((number, highest_fsn))
        self._told_through = result.finished_through

    def _tell_progress(self) -> None:
        """Tell of what is finished without a verdict of ours, when there is something."""
        through = self._finished.through
        if through > self._told_through:
            self._tell(0, Result(through), through)

    def _note(self, identity: str, fsns: Ranges) -> None:
        """Write into the slot's own journal what is finished, for a sender of this slot alone."""
        journal = self.own_journal
        if journal is self._journal:
            return
        for batch in journal.open_batches:
            if all(fsn in self._finished for part in batch.parts for fsn in expand(part.fsns)):
                journal.finish(batch.request_id)
        if fsns[-1][1] > journal.begun_through(self.uuid, identity):
            note = JournalBatch(uuid4(), identity, (Part(self.uuid, fsns),))
            journal.begin(note)
            journal.finish(note.request_id)
