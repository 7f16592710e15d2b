"""How signals become batches: pure policy, no clock, no lock, no network.

A `Lane` holds the signals of one account in the order they were published. Batches are taken
from its front one at a time, so a lane never has two requests under way and never reorders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import msgspec

from signal_persistence.delivery import Delivery, Fate

ENVELOPE_BYTES: Final = len('{"request_id":"00000000-0000-0000-0000-000000000000","signals":[]}')


class Record(msgspec.Struct, eq=False):
    """One signal to send, in its wire form.

    `accepted_at` is on the engine's clock, `fsn` the signal's number in the log of its slot.
    Signals of a producer's own have a `delivery` as long as somebody may hold it, and perhaps a
    `callback`; signals that were read back from a log, or come from another process, have neither.
    Whoever sends for several slots makes a subclass that says which slot.
    """

    body: bytes
    accepted_at: float
    fsn: int = 0
    delivery: Delivery | None = None
    callback: Callable[..., object] | None = None


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch is complete: its first signal waited `linger` seconds, or it is full."""

    linger: float
    max_messages: int
    max_bytes: int


@dataclass(slots=True)
class Batch:
    """What one request carries. `request_id` never changes, whatever happens to the request."""

    request_id: UUID
    records: Sequence[Record]
    attempts: int = 0
    in_doubt: bool = False
    """Whether an earlier attempt may have stored the batch."""
    round_trip: float = 0.0
    """Seconds from sending its last attempt to the answer."""
    begun: bool = False
    """Whether a journal has it: it must not be sent before."""
    buried: set[int] = field(default_factory=set)
    """The places of signals whose dead letters are written."""

    def body(self) -> bytes:
        """The JSON body, the same bytes at every attempt and for both transports."""
        signals = b",".join([record.body for record in self.records])
        return b'{"request_id":"%s","signals":[%s]}' % (str(self.request_id).encode(), signals)

    def split(self, new_id: Callable[[], UUID]) -> list[Batch]:
        """Return two halves in order under new ids, for a batch that is too large to send."""
        half = len(self.records) // 2
        parts = (self.records[:half], self.records[half:])
        return [Batch(new_id(), part, in_doubt=self.in_doubt) for part in parts]

    def to_bury(self, fates: Sequence[Fate]) -> list[int]:
        """Return the places of signals that were not stored and have no dead letter yet.

        They may have one: what comes behind it, to finish the batch, may fail and be tried again.
        """
        return [
            place
            for place, fate in enumerate(fates)
            if not fate.stored and place not in self.buried
        ]

    def after(self, finished: int, new_id: Callable[[], UUID]) -> list[Batch]:
        """Return what follows its first `finished` signals: a batch under a new id, or nothing."""
        left = self.records[finished:]
        return [Batch(new_id(), left, in_doubt=self.in_doubt)] if left else []


@dataclass(slots=True)
class Lane:
    """The signals of one account that are not finished, oldest first."""

    account_id: UUID | None
    policy: BatchPolicy
    number: int = 0
    """The lane's number in the log of its slot."""
    most: int = 0
    """How many signals make a batch full at the pace of the moment."""
    waiting: deque[Record] = field(default_factory=deque)
    waiting_bytes: int = 0
    on_disk: int = 0
    """Signals after `waiting` that are in the log only, all of them with an fsn after `loaded`."""
    loaded: int = 0
    """The last fsn of the log that was looked at for this lane."""
    resend: deque[Batch] = field(default_factory=deque)
    """Batches that exist already, parts of a split one or those of a former process: they go
    before everything that waits."""
    under_way: Batch | None = None
    """The batch that was taken last, until it is finished."""
    published: int = 0
    finished: int = 0
    batched: int = 0
    flush_to: int = 0
    """Signals up to this count of `published` do not linger."""

    def __post_init__(self) -> None:
        self.most = self.most or self.policy.max_messages

    def append(self, record: Record) -> bool:
        """Add a new signal; say whether this makes the sender look at its timer again."""
        size = len(record.body) + 1
        self.waiting.append(record)
        self.waiting_bytes += size
        self.loaded = record.fsn
        self.published += 1
        return len(self.waiting) == 1 or (self._is_full() and not self._is_full(1, size))

    def load(self, record: Record) -> None:
        """Add a signal that was counted as published before."""
        self.waiting.append(record)
        self.waiting_bytes += len(record.body) + 1

    def leave_on_disk(self, fsn: int) -> bool:
        """Count a new signal that is in the log only; say whether its sender must be woken."""
        if not self.on_disk:
            self.loaded = fsn - 1
        self.on_disk += 1
        self.published += 1
        return self.on_disk == 1

    def flush(self) -> int:
        """Make everything published so far due, and return how many signals that is."""
        self.flush_to = self.published
        return self.published

    def due_at(self) -> float | None:
        """When the next batch is complete (minus infinity: now), None if nothing waits."""
        if self.resend or self.on_disk:
            return float("-inf")
        if not self.waiting:
            return None
        if self._is_full() or self.batched < self.flush_to:
            return float("-inf")
        return self.waiting[0].accepted_at + self.policy.linger

    def take(self, new_id: Callable[[], UUID]) -> Batch | None:
        """Take the next batch from the front: as much as the limits allow, at least one signal.

        It is `under_way` until `finish`. Returns None if nothing waits in memory.
        """
        if self.resend:
            self.under_way = self.resend.popleft()
        elif self.waiting:
            self.under_way = Batch(new_id(), self._pop_batch())
        return self.under_way

    def put_back(self) -> None:
        """Undo `take`: the batch under way becomes the next to be taken, under its request_id."""
        if self.under_way is not None:
            self.resend.appendleft(self.under_way)
            self.under_way = None

    def finish(self, finished: int, rest: Sequence[Batch] = ()) -> None:
        """End the batch under way: its first signals are finished, `rest` is what is left of it.

        The rest goes before everything else that waits.
        """
        self.under_way = None
        self.finished += finished
        self.resend.extendleft(reversed(rest))

    def in_memory(self) -> Iterator[Record]:
        """Iterate over the signals in memory that are not finished, oldest first."""
        if self.under_way is not None:
            yield from self.under_way.records
        for batch in self.resend:
            yield from batch.records
        yield from self.waiting

    def drain(self, new_id: Callable[[], UUID]) -> list[Batch]:
        """Take out everything that is in memory, oldest first, what was never sent as one batch."""
        batches = [self.under_way] if self.under_way else []
        batches += self.resend
        if self.waiting:
            batches.append(Batch(new_id(), list(self.waiting)))
        self.resend.clear()
        self.waiting.clear()
        self.waiting_bytes = 0
        self.under_way = None
        self.batched = self.published
        return batches

    def first_unfinished(self) -> int | None:
        """The fsn of the oldest signal that is not finished, None if all are."""
        if self.under_way is not None:
            return self.under_way.records[0].fsn
        if self.resend:
            return self.resend[0].records[0].fsn
        if self.waiting:
            return self.waiting[0].fsn
        return self.loaded + 1 if self.on_disk else None

    def _pop_batch(self) -> list[Record]:
        records = [self._pop()]
        size = ENVELOPE_BYTES + len(records[0].body)
        while self.waiting and len(records) < self.most:
            size += len(self.waiting[0].body) + 1
            if size > self.policy.max_bytes:
                break
            records.append(self._pop())
        self.batched += len(records)
        return records

    def _pop(self) -> Record:
        record = self.waiting.popleft()
        self.waiting_bytes -= len(record.body) + 1
        return record

    def _is_full(self, without: int = 0, without_bytes: int = 0) -> bool:
        size = self.waiting_bytes - without_bytes + ENVELOPE_BYTES - 1
        return len(self.waiting) - without >= self.most or size >= self.policy.max_bytes


def time_ordered_id(unix_seconds: float, random_bits: int) -> UUID:
    """Make a request_id that sorts by time: a UUID of version 7 (RFC 9562) of 74 random bits."""
    milliseconds = int(unix_seconds * 1000) & (1 << 48) - 1
    high = random_bits >> 62 & 0xFFF
    low = random_bits & (1 << 62) - 1
    return UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low)
