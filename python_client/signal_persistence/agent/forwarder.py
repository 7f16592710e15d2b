"""Sending what slots hold: the signals of all of them, merged per account, batch by batch."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final
from uuid import UUID

from signal_persistence.agent.results import result_of
from signal_persistence.agent.served_slot import ServedSlot
from signal_persistence.batch import Batch, Lane, Record, time_ordered_id
from signal_persistence.breaker import Breaker
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import Fate
from signal_persistence.outbox import finish_in_journal, letter_of
from signal_persistence.pacing import Pacing
from signal_persistence.retry import Backoff
from signal_persistence.sender import LaneSender, Sending
from signal_persistence.settings import ProducerSettings
from signal_persistence.spool import (
    DeadLetters,
    Frame,
    Journal,
    JournalBatch,
    Part,
    SenderSlot,
    compact,
)
from signal_persistence.transport import Transport
from signal_persistence.trying import Trying
from signal_persistence.waiting import Pulse

_log: Final = logging.getLogger("signal_persistence")

_CANCEL_SECONDS: Final = 0.1
"""How long close() waits for requests to notice that they were cancelled."""


class SpooledRecord(Record, kw_only=True, eq=False):
    """A signal and where it is spooled."""

    slot: ServedSlot
    frame: Frame


@dataclass(slots=True)
class AccountLane(Lane):
    """The signals of one account, whichever slots they are from."""

    identity: str = ""


class Forwarder:
    """Sends the signals of the slots it was given; what becomes of them goes to their results.

    It is the `Books` of its lane senders. Everything happens on one event loop.
    """

    def __init__(
        self,
        project: Path,
        transport: Transport,
        accounts: Mapping[str, Credentials],
        settings: ProducerSettings,
        *,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        entropy: random.Random | None = None,
    ) -> None:
        """`accounts` are credentials by the identity that slots know an account by.

        `journal` is closed with the forwarder. Without one it sends a single slot, and the journal
        is that of the slot.
        """
        entropy = entropy or random.SystemRandom()
        self._project = project
        self._settings = settings
        self._journal = journal
        self._clock = clock
        self._pulse = Pulse(clock)
        self._pacing = Pacing(
            first_messages=settings.first_batch_messages,
            most_messages=settings.batch_max_messages,
            most_requests=settings.max_in_flight_requests,
            slow=settings.slow_seconds,
        )
        self._lanes = {
            identity: AccountLane(
                None, settings.batch_policy, most=self._pacing.messages, identity=identity
            )
            for identity in accounts
        }
        longest_pause = settings.retry_backoff_max_ms / 1000
        self._sending = Sending(
            transport=transport,
            path=settings.path,
            books=self,
            pacing=self._pacing,
            breaker=Breaker(
                clock,
                first_wait=min(1.0, longest_pause),
                longest_wait=longest_pause,
                callers=len(accounts),
            ),
            backoff=Backoff(settings.retry_backoff_ms / 1000, longest_pause, entropy.random),
            clock=clock,
            new_id=lambda: time_ordered_id(wall_clock(), entropy.getrandbits(74)),
        )
        self._senders = {
            identity: LaneSender(lane, accounts[identity], self._sending)
            for identity, lane in self._lanes.items()
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._served: dict[UUID, ServedSlot] = {}
        self._dead_letters: dict[UUID, DeadLetters] = {}
        self._trying = Trying()
        self.fates: Final[Counter[str]] = Counter()
        """How many signals ended with which status since this was made."""

    @property
    def served(self) -> list[ServedSlot]:
        """The slots that are sent from here."""
        return list(self._served.values())

    @property
    def unfinished(self) -> int:
        """How many signals were read and are not finished."""
        return sum(served.unfinished for served in self._served.values())

    @property
    def slot_failures(self) -> int:
        """How often a slot could not be read or tidied."""
        return self._trying.failures

    @property
    def outage_started_at(self) -> datetime | None:
        """Set while sending fails."""
        return self._sending.outage_started_at

    def serves(self, identities: Sequence[str]) -> bool:
        """Say whether the credentials of all these accounts are here."""
        return all(identity in self._lanes for identity in identities)

    def start(self) -> None:
        """Start sending on the running loop; after the first slots were adopted."""
        self._tasks = [
            asyncio.create_task(sender.run(), name=f"signal-lane-{identity}")
            for identity, sender in self._senders.items()
        ]

    def adopt(self, slots: Sequence[SenderSlot]) -> None:
        """Send these slots as well; what an earlier sender began goes before what waits.

        A batch of several slots keeps its request_id only if they are adopted together. Raises
        SpoolError or SpoolFullError; then the slots are closed.
        """
        with ExitStack() as undo:
            for slot in slots:
                undo.callback(slot.close)
            adopted = [self._open(slot, undo) for slot in slots]
            undo.pop_all()
        for served in adopted:
            self._served[served.uuid] = served
            self._dead_letters[served.uuid] = DeadLetters(
                self._project / "dead_letters",
                served.slot.name,
                self._settings.dead_letters_max_bytes,
            )
        try:
            if self._journal is not None:
                self._resume(self._journal, {served.uuid for served in adopted})
            for served in adopted:
                self._resume(served.own_journal, {served.uuid})
        except Exception:
            # Served without its open batches, a slot would take their signals for finished.
            self._forget(adopted)
            raise

    def _forget(self, adopted: Sequence[ServedSlot]) -> None:
        """Let go of slots before any of their signals was sent."""
        for lane in self._lanes.values():
            resend, lane.resend = lane.resend, deque()
            for batch in resend:
                if _place(batch.records[0]).slot in adopted:
                    lane.published -= len(batch.records)
                    lane.batched -= len(batch.records)
                else:
                    lane.resend.append(batch)
        self._release(adopted)

    def _release(self, slots: Sequence[ServedSlot]) -> None:
        """Serve these no more, whichever of them cannot be closed cleanly."""
        with ExitStack() as closing:
            for served in slots:
                del self._served[served.uuid], self._dead_letters[served.uuid]
                closing.callback(served.close)

    def release_foreign(self) -> list[Path]:
        """Let go of slots that new writers use for accounts whose credentials are not here."""
        foreign = [
            served
            for served in self._served.values()
            if not served.unfinished and not self.serves(served.identities)
        ]
        self._release(foreign)
        return [served.slot.path for served in foreign]

    def read(self) -> int:
        """Read once from each slot what is new, and return how many signals that was.

        A slot that cannot be read is logged and tried again; it does not stop the others.
        """
        return sum(
            self._trying.do(
                f"read slot {served.slot.path}", partial(served.read, self._take_frame), 0
            )
            for served in self._served.values()
        )

    def trim(self) -> None:
        """Remove from the disk what nobody needs any more; failures as in `read`."""
        for served in self._served.values():
            self._trying.do(f"tidy slot {served.slot.path}", served.trim, None)

    async def sync(self) -> None:
        """Make the journal survive a loss of power."""
        journals = [self._journal] if self._journal else [s.own_journal for s in self.served]
        for journal in journals:
            await asyncio.to_thread(journal.sync)

    async def flush(self, seconds: float) -> bool:
        """Send everything that was read without lingering; say whether all is finished in time."""
        for identity, sender in self._senders.items():
            self._lanes[identity].flush()
            sender.hurry()
            sender.wake.set()
        return await self._pulse.until(lambda: self.unfinished == 0, seconds)

    async def close(self) -> None:
        """End, and leave what is not finished to the next sender. Closing again does nothing."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CANCEL_SECONDS)
        with ExitStack() as ending:
            if self._journal is not None:
                ending.callback(self._journal.close)
            for served in self._served.values():
                ending.callback(served.close)
            self._served.clear()

    # The books of the lane senders:

    def due_at(self, lane: Lane) -> float | None:
        return lane.due_at()

    async def take(self, lane: Lane) -> Batch | None:
        lane.most = self._pacing.messages
        batch = lane.take(self._sending.new_id)
        if batch is not None and not batch.begun:
            written = _written(_identity(lane), batch)
            try:
                await self._write(lambda: self._journal_of(batch).begin(written))
            except BaseException:
                lane.put_back()
                raise
            batch.begun = True
        return batch

    async def settle(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> None:
        # In this order: after a crash in between signals are sent again, and none is forgotten.
        await self._add_dead_letters(lane, batch, fates)
        for served, number, places in _by_slot(batch.records[: len(fates)]):
            fsns = [batch.records[at].fsn for at in places]
            result = result_of(fsns, [fates[at] for at in places], batch)
            served.settle(number, fsns, result)
        await self._finish_in_journal(lane, batch, len(fates), rest)
        for part in rest:
            part.begun = True
        lane.finish(len(fates), rest)
        self.fates.update([fate.status for fate in fates])
        self._pulse.beat()

    async def _finish_in_journal(
        self, lane: Lane, batch: Batch, finished: int, rest: Sequence[Batch]
    ) -> None:
        def finish() -> None:
            written = partial(_written, _identity(lane))
            finish_in_journal(self._journal_of(batch), batch, finished, rest, written)

        if rest:
            await self._write(finish)
        else:
            finish()

    async def _add_dead_letters(self, lane: Lane, batch: Batch, fates: Sequence[Fate]) -> None:
        now, account, to_bury = datetime.now(UTC), _identity(lane), set(batch.to_bury(fates))
        for served, _, places in _by_slot(batch.records[: len(fates)]) if to_bury else ():
            buried = [at for at in places if at in to_bury]
            letters = [
                letter_of(account, served.slot.name, batch, batch.records[at], fates[at], now)
                for at in buried
            ]
            if letters:
                await asyncio.to_thread(self._dead_letters[served.uuid].add, letters)
                batch.buried.update(buried)

    async def _write(self, work: Callable[[], None]) -> None:
        """Write to the journal, on a thread if that waits for the disk."""
        if self._settings.spool_fsync == "always":
            await asyncio.to_thread(work)
        else:
            work()

    def _journal_of(self, batch: Batch) -> Journal:
        return self._journal or _place(batch.records[0]).slot.own_journal

    def _open(self, slot: SenderSlot, undo: ExitStack) -> ServedSlot:
        served = ServedSlot(slot, self._journal, self._settings.spool, self._read_ahead)
        undo.callback(served.close)
        return served

    def _read_ahead(self) -> int:
        """How many signals of one lane of a slot may be in memory: a share of the whole."""
        share = self._settings.buffer_max_messages // max(1, len(self._served))
        return max(share, self._settings.first_batch_messages)

    def _take_frame(self, served: ServedSlot, frame: Frame) -> bool:
        lane = self._lanes.get(served.identities[frame.lane])
        if lane is None:
            # Of an account that a new writer added and whose credentials are not here.
            return False
        if lane.append(self._record(served, frame)):
            self._senders[lane.identity].wake.set()
        return True

    def _record(self, served: ServedSlot, frame: Frame) -> SpooledRecord:
        return SpooledRecord(frame.body, self._clock(), frame.fsn, slot=served, frame=frame)

    def _resume(self, journal: Journal, adopted: set[UUID]) -> None:
        """Have the open batches of a journal sent again, as far as they are of these slots."""
        for written in journal.open_batches:
            here = [part for part in written.parts if part.slot in adopted]
            if not here:
                continue
            elsewhere = tuple(part for part in written.parts if part.slot not in adopted)
            found = [
                self._record(self._served[part.slot], frame)
                for part in here
                for frame in self._served[part.slot].slot.log.fetch(part.fsns)
            ]
            batch = self._batch_again(written, found)
            self._register(journal, written, batch, elsewhere)
            if batch.records:
                lane = self._lanes[written.lane]
                lane.resend.append(batch)
                lane.published += len(batch.records)
                lane.batched += len(batch.records)
                self._senders[lane.identity].wake.set()

    def _batch_again(self, written: JournalBatch, found: Sequence[SpooledRecord]) -> Batch:
        """Return what is to be sent of an open batch of which these signals are here.

        A request_id stands for the same signals at every send, so a batch keeps its own only when
        it is whole. Then all of it is sent, although a sender that was killed may have told some of
        its slots already: the service gives the verdict that it gave before.
        """
        left = [record for record in found if record.slot.reopen(record.frame)]
        whole = Batch(written.request_id, found, in_doubt=True, begun=True)
        if left and _written(written.lane, whole) == written:
            return whole
        return Batch(self._sending.new_id(), left, in_doubt=True, begun=True)

    def _register(
        self,
        journal: Journal,
        written: JournalBatch,
        batch: Batch,
        elsewhere: tuple[Part, ...],
    ) -> None:
        """Write down in the journal of this sender how an open batch is sent again.

        Of an account whose credentials are not here any more, nothing is left in slots that are.
        """
        if journal is not (self._journal or journal):
            # The slot's own, which learns with the last of its signals that they are finished.
            if batch.records:
                self._journal_of(batch).begin(_written(written.lane, batch))
        elif batch.request_id != written.request_id:
            left = [_written(written.lane, batch)] if batch.records else []
            if elsewhere:
                left.append(JournalBatch(self._sending.new_id(), written.lane, elsewhere))
            journal.split(written.request_id, left)


def _place(record: Record) -> SpooledRecord:
    """Every record of a forwarder is spooled."""
    assert isinstance(record, SpooledRecord)  # noqa: S101
    return record


def _identity(lane: Lane) -> str:
    """Every lane of a forwarder is an account's."""
    assert isinstance(lane, AccountLane)  # noqa: S101
    return lane.identity


def _by_slot(records: Sequence[Record]) -> list[tuple[ServedSlot, int, list[int]]]:
    """Return, for each slot, the number of the lane in it and the places of its signals."""
    places: dict[UUID, tuple[ServedSlot, int, list[int]]] = {}
    for at, record in enumerate(map(_place, records)):
        places.setdefault(record.slot.uuid, (record.slot, record.frame.lane, []))[2].append(at)
    return list(places.values())


def _written(identity: str, batch: Batch) -> JournalBatch:
    """Return the batch as a journal has it: runs of its slots, in the order of its body."""
    runs = groupby(map(_place, batch.records), lambda record: record.slot.uuid)
    parts = tuple(Part(slot, compact(record.fsn for record in run)) for slot, run in runs)
    return JournalBatch(batch.request_id, identity, parts)
