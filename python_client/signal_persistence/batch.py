"""How signals become batches: pure policy, no clock, no lock, no network.

A `Lane` holds the signals of one account in the order they were published. Batches are taken
from its front one at a time, so a lane never has two requests under way and never reorders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from signal_persistence.delivery import Delivery

ENVELOPE_BYTES: Final = len('{"request_id":"00000000-0000-0000-0000-000000000000","signals":[]}')


@dataclass(slots=True)
class Record:
    """One published signal in its wire form; `accepted_at` is on the engine's clock."""

    body: bytes
    accepted_at: float
    delivery: Delivery
    callback: Callable[..., object] | None


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
    sent_at: float = 0.0
    """When its last attempt was sent, on the engine's clock."""

    def body(self) -> bytes:
        """The JSON body, the same bytes at every attempt and for both transports."""
        signals = b",".join([record.body for record in self.records])
        return b'{"request_id":"%s","signals":[%s]}' % (str(self.request_id).encode(), signals)

    def split(self, new_id: Callable[[], UUID]) -> list[Batch]:
        """Return two halves in order under new ids, for a batch that is too large to send."""
        half = len(self.records) // 2
        parts = (self.records[:half], self.records[half:])
        return [Batch(new_id(), part, in_doubt=self.in_doubt) for part in parts]

    def without(self, gone: Iterable[Record], new_id: Callable[[], UUID]) -> Batch | None:
        """Return what is left under a new id when some of it was given up, None if nothing is."""
        lost = set(map(id, gone))
        left = [record for record in self.records if id(record) not in lost]
        return Batch(new_id(), left, in_doubt=self.in_doubt) if left else None


@dataclass(slots=True)
class Lane:
    """The signals of one account that are not finished, oldest first."""

    account_id: UUID | None
    policy: BatchPolicy
    waiting: deque[Record] = field(default_factory=deque)
    waiting_bytes: int = 0
    resend: deque[Batch] = field(default_factory=deque)
    """Parts of a batch that was split: they go before everything that waits."""
    published: int = 0
    finished: int = 0
    batched: int = 0
    flush_to: int = 0
    """Signals up to this count of `published` do not linger."""

    def append(self, record: Record) -> bool:
        """Add a signal; say whether this makes the sender look at its timer again."""
        was_full = self._is_full()
        self.waiting.append(record)
        self.waiting_bytes += len(record.body) + 1
        self.published += 1
        return len(self.waiting) == 1 or (self._is_full() and not was_full)

    def flush(self) -> int:
        """Make everything published so far due, and return how many signals that is."""
        self.flush_to = self.published
        return self.published

    def due_at(self) -> float | None:
        """When the next batch is complete (minus infinity: now), None if nothing waits."""
        if self.resend:
            return float("-inf")
        if not self.waiting:
            return None
        if self._is_full() or self.batched < self.flush_to:
            return float("-inf")
        return self.waiting[0].accepted_at + self.policy.linger

    def take(self, new_id: Callable[[], UUID]) -> Batch:
        """Take the next batch from the front: as much as the limits allow, at least one signal."""
        if self.resend:
            return self.resend.popleft()
        records = [self._pop()]
        size = ENVELOPE_BYTES + len(records[0].body)
        while self.waiting and len(records) < self.policy.max_messages:
            size += len(self.waiting[0].body) + 1
            if size > self.policy.max_bytes:
                break
            records.append(self._pop())
        self.batched += len(records)
        return Batch(new_id(), records)

    def put_back(self, batches: Sequence[Batch]) -> None:
        """Put parts of the batch taken last before everything else."""
        self.resend.extendleft(reversed(batches))

    def drain(self) -> list[Record]:
        """Take out everything that is in no batch under way, oldest first."""
        records = [record for batch in self.resend for record in batch.records]
        records += self.waiting
        self.resend.clear()
        self.waiting.clear()
        self.waiting_bytes = 0
        self.batched = self.published
        return records

    def _pop(self) -> Record:
        record = self.waiting.popleft()
        self.waiting_bytes -= len(record.body) + 1
        return record

    def _is_full(self) -> bool:
        return (
            len(self.waiting) >= self.policy.max_messages
            or self.waiting_bytes + ENVELOPE_BYTES - 1 >= self.policy.max_bytes
        )


def time_ordered_id(unix_seconds: float, random_bits: int) -> UUID:
    """Make a request_id that sorts by time: a UUID of version 7 (RFC 9562) of 74 random bits."""
    milliseconds = int(unix_seconds * 1000) & (1 << 48) - 1
    high = random_bits >> 62 & 0xFFF
    low = random_bits & (1 << 62) - 1
    return UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low)
