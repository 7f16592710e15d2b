"""The bounded buffer of a producer and its counts, safe for every thread.

At every moment `accepted = delivered + dead_lettered + pending`: one lock guards all changes.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from signal_persistence.batch import Batch, Lane, Record
from signal_persistence.breaker import State
from signal_persistence.delivery import Delivery, Fate
from signal_persistence.errors import ClosedError
from signal_persistence.outbox import Outbox

_log: Final = logging.getLogger("signal_persistence")
_READ_BYTES: Final = 2 * 1024 * 1024
"""The most that is read back from disk at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerStats:
    """What became of everything that publish() accepted, at one moment.

    `accepted = delivered + dead_lettered + pending`. `delivered` counts stored signals, among them
    `duplicates` that were stored before. `dead_lettered` counts the `rejected` and the `failed`:
    their reports have status `rejected` or `failed`. `recovered` of the accepted were left in the
    spool by a former process. `pending_bytes` are those of pending signals in memory, `on_disk` the
    pending signals that are on disk only. `callbacks_waiting` are reports on their way to
    on_delivery; they still take room in the buffer. `outage_started_at` is set while sending fails.
    Everything up to `acked_fsn` is finished. `batch_messages` is the most signals that a batch
    takes at the pace of the moment, `requests` how many requests are under way.
    """

    accepted: int
    delivered: int
    duplicates: int
    dead_lettered: int
    rejected: int
    failed: int
    pending: int
    pending_bytes: int
    batches: int
    attempts: int
    retries: int
    callbacks_waiting: int
    callback_errors: int
    outage_started_at: datetime | None
    recovered: int = 0
    on_disk: int = 0
    spool_bytes: int = 0
    published_fsn: int = 0
    acked_fsn: int = 0
    breaker: State = "closed"
    batch_messages: int = 0
    requests: int = 0


class Ledger:
    """Lanes of waiting signals, what they may hold in memory, and what became of each signal.

    Without a spool a full buffer takes no more. With one, each lane has its share of the memory;
    what does not fit stays on disk until it is its turn (`reload`), so that an account that cannot
    be sent does not take the room of the others.
    """

    def __init__(
        self,
        lanes: Iterable[Lane],
        outbox: Outbox,
        max_messages: int,
        max_bytes: int,
        callback: Callable[..., object] | None = None,
    ) -> None:
        """`callback` is for signals that come without one of their own."""
        self.lock: Final = threading.Lock()
        self.lanes: Final = {lane.account_id: lane for lane in lanes}
        self.closed = False
        self.batches = 0
        self.recovered = 0
        self._outbox = outbox
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._lane_messages = max(1, max_messages // len(self.lanes))
        self._lane_bytes = max_bytes // len(self.lanes)
        self._callback = callback
        self._bytes = 0
        self._accepted = 0
        self._unfinished = 0
        self._by_status: Counter[str] = Counter()
        self._deliveries: WeakValueDictionary[int, Delivery] = WeakValueDictionary()
        """Of signals that are on disk only, by fsn, as long as somebody holds them."""
        self._callbacks: dict[int, Callable[..., object]] = {}
        """Of signals that are on disk only and have one of their own, by fsn."""

    def recover(self, now: float) -> None:
        """Take over what a former process left in the spool."""
        self.recovered = self._outbox.recover(self.lanes.values(), now)
        self._accepted = self._unfinished = self.recovered
        for lane in self.lanes.values():
            for batch in lane.resend:
                self._bytes += _bytes_of(batch.records)
                for record in batch.records:
                    record.callback = self._callback

    def offer(self, lane: Lane, record: Record, callbacks_waiting: int) -> bool | None:
        """Put a signal at the end of its lane and give it its number.

        Returns None when the buffer is full, else whether the lane's sender must be woken.
        Raises ClosedError once the ledger is closed, SpoolFullError, SpoolError.
        """
        with self.lock:
            if self.closed:
                raise ClosedError("Cannot publish the signal: the producer is closed.")
            size = len(record.body)
            in_memory = self._has_room(lane, size, callbacks_waiting)
            if not in_memory and not self._may_stay_on_disk(record):
                return None
            record.fsn = fsn = self._outbox.append(lane.number, record.body)
            delivery = record.delivery
            if delivery is not None:
                delivery.fsn = fsn
            self._accepted += 1
            self._unfinished += 1
            if in_memory:
                self._bytes += size
                return lane.append(record)
            self._remember(record)
            return lane.leave_on_disk(fsn)

    def has_room(self, lane: Lane, record: Record, callbacks_waiting: int) -> bool:
        """Say whether the buffer has room for a signal (or refuses it for being closed)."""
        with self.lock:
            return (
                self.closed
                or self._has_room(lane, len(record.body), callbacks_waiting)
                or self._may_stay_on_disk(record)
            )

    def drain(self, lane: Lane, new_id: Callable[[], UUID]) -> list[Batch]:
        """Take everything that is left out of the lane."""
        with self.lock:
            return lane.drain(new_id)

    def close(self) -> None:
        """Take no more signals."""
        with self.lock:
            self.closed = True

    def take(self, lane: Lane, most: int, new_id: Callable[[], UUID]) -> Batch | None:
        """Take the lane's next batch of at most `most` signals, None if nothing is in memory."""
        with self.lock:
            lane.most = most
            batch = lane.take(new_id)
            self.batches += batch is not None
            return batch

    def put_back(self, lane: Lane) -> None:
        """Undo `take`."""
        with self.lock:
            self.batches -= 1
            lane.put_back()

    def reload(self, lane: Lane, now: float) -> None:
        """Read the lane's next signals back from disk, enough for a batch or two.

        Only the lane's sender calls this. The lock is not held while reading.
        """
        with self.lock:
            if lane.resend or not lane.on_disk or len(lane.waiting) >= lane.most:
                return
            expected, published = lane.on_disk, self._outbox.published_fsn
        frames = self._outbox.read(lane.loaded, 2 * lane.most, _READ_BYTES)
        with self.lock:
            if not frames and self._outbox.published_fsn == published:
                self._lost(lane, expected)
            for frame in frames:
                lane.loaded = frame.fsn
                if frame.lane == lane.number:
                    lane.on_disk -= 1
                    self._bytes += len(frame.body)
                    lane.load(self._recall(frame.body, now, frame.fsn))

    def settle(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> None:
        """Count the first signals of the batch under way as finished; the rest is next."""
        finished = batch.records[: len(fates)]
        with self.lock:
            lane.finish(len(finished), rest)
            self._unfinished -= len(finished)
            self._bytes -= _bytes_of(finished)
            self._by_status.update([fate.status for fate in fates])
        _log_dead_letters(lane, fates)

    def leave(self) -> None:
        """In a forked child: wake whoever waits for a report, since none will come from here.

        Takes no lock: a thread of the parent may have held it, and will never let go of it here.
        """
        deliveries = list(self._deliveries.values())
        for lane in self.lanes.values():
            deliveries += [record.delivery for record in lane.in_memory() if record.delivery]
        for delivery in deliveries:
            delivery.leave()

    def pending(self) -> int:
        """How many accepted signals have no report yet."""
        return self._unfinished

    def acked_fsn(self) -> int:
        """The number up to which every signal is finished."""
        with self.lock:
            return self._acked_fsn()

    def stats(
        self,
        *,
        attempts: int,
        retries: int,
        callbacks_waiting: int,
        callback_errors: int,
        outage_started_at: datetime | None,
        breaker: State,
        batch_messages: int,
        requests: int,
    ) -> ProducerStats:
        """Return all counts of one moment."""
        with self.lock:
            count = self._by_status
            return ProducerStats(
                accepted=self._accepted,
                delivered=count["accepted"] + count["duplicate"],
                duplicates=count["duplicate"],
                dead_lettered=count["rejected"] + count["failed"],
                rejected=count["rejected"],
                failed=count["failed"],
                pending=sum(lane.published - lane.finished for lane in self.lanes.values()),
                pending_bytes=self._bytes,
                batches=self.batches,
                attempts=attempts,
                retries=retries,
                callbacks_waiting=callbacks_waiting,
                callback_errors=callback_errors,
                outage_started_at=outage_started_at,
                recovered=self.recovered,
                on_disk=sum(lane.on_disk for lane in self.lanes.values()),
                spool_bytes=self._outbox.disk_bytes,
                published_fsn=self._outbox.published_fsn,
                acked_fsn=self._acked_fsn(),
                breaker=breaker,
                batch_messages=batch_messages,
                requests=requests,
            )

    def _acked_fsn(self) -> int:
        firsts = [lane.first_unfinished() for lane in self.lanes.values()]
        open_fsns = [fsn for fsn in firsts if fsn is not None]
        return min(open_fsns) - 1 if open_fsns else self._outbox.published_fsn

    def _has_room(self, lane: Lane, size: int, callbacks_waiting: int) -> bool:
        if self._outbox.keeps:
            return (
                not lane.on_disk
                and len(lane.waiting) < self._lane_messages
                and lane.waiting_bytes + size <= self._lane_bytes
                and callbacks_waiting < self._max_messages
            )
        held = self._unfinished + callbacks_waiting
        if held == 0:
            return True
        return held < self._max_messages and self._bytes + size <= self._max_bytes

    def _may_stay_on_disk(self, record: Record) -> bool:
        """A callback of its own has to be held in memory, so their number is bounded too."""
        own = record.callback is not None and record.callback is not self._callback
        return self._outbox.keeps and not (own and len(self._callbacks) >= self._max_messages)

    def _remember(self, record: Record) -> None:
        """Hold what cannot be read back from disk."""
        if record.delivery is not None:
            self._deliveries[record.fsn] = record.delivery
        if record.callback is not None and record.callback is not self._callback:
            self._callbacks[record.fsn] = record.callback

    def _recall(self, body: bytes, now: float, fsn: int) -> Record:
        delivery = self._deliveries.pop(fsn, None)
        return Record(body, now, fsn, delivery, self._callbacks.pop(fsn, self._callback))

    def _lost(self, lane: Lane, count: int) -> None:
        """Count signals that the log no longer holds: damage, which the log has reported."""
        _log.error("%d signals of account %s are no longer on disk", count, _name(lane))
        lane.on_disk -= count
        lane.batched += count
        lane.finished += count
        self._unfinished -= count
        self._by_status["failed"] += count


def _bytes_of(records: Sequence[Record]) -> int:
    return sum([len(record.body) for record in records])


def _log_dead_letters(lane: Lane, fates: Sequence[Fate]) -> None:
    codes = Counter(fate.code for fate in fates if not fate.stored)
    if codes:
        _log.warning(
            "%d of %d signals of account %s were not stored: %s",
            codes.total(),
            len(fates),
            _name(lane),
            ", ".join(f"{count} {code}" for code, count in codes.most_common()),
        )


def _name(lane: Lane) -> str:
    return str(lane.account_id or "(the only one)")
