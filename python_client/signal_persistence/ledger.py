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

from signal_persistence.batch import Batch, Lane, Record
from signal_persistence.delivery import DeliveryReport
from signal_persistence.errors import ClosedError

_log: Final = logging.getLogger("signal_persistence")


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """What became of everything that publish() accepted, at one moment.

    `accepted = delivered + dead_lettered + pending`. `delivered` counts stored signals, among them
    `duplicates` that were stored before. `dead_lettered` counts the `rejected` and the `failed`:
    their reports have status `rejected` or `failed`. `callbacks_waiting` are reports on their way
    to on_delivery; they still take room in the buffer. `outage_started_at` is set while sending
    fails.
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


class Ledger:
    """Lanes of waiting signals, what they may hold together, and what became of each signal."""

    def __init__(self, lanes: Iterable[Lane], max_messages: int, max_bytes: int) -> None:
        self.lock: Final = threading.Lock()
        self.lanes: Final = {lane.account_id: lane for lane in lanes}
        self.closed = False
        self.outage_started_at: datetime | None = None
        self.batches = 0
        self.attempts = 0
        self.retries = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0
        self._accepted = 0
        self._unfinished = 0
        self._by_status: Counter[str] = Counter()

    def offer(self, lane: Lane, record: Record, callbacks_waiting: int) -> bool | None:
        """Put a signal at the end of its lane.

        Returns None when the buffer is full, else whether the lane's sender must be woken.
        Raises ClosedError once the ledger is closed.
        """
        with self.lock:
            if self.closed:
                raise ClosedError("Cannot publish the signal: the producer is closed.")
            if not self._has_room(len(record.body), callbacks_waiting):
                return None
            self._accepted += 1
            self._unfinished += 1
            self._bytes += len(record.body)
            return lane.append(record)

    def has_room(self, size: int, callbacks_waiting: int) -> bool:
        """Say whether a signal of `size` bytes would be taken (or refused for being closed)."""
        with self.lock:
            return self.closed or self._has_room(size, callbacks_waiting)

    def close(self) -> None:
        """Take no more signals."""
        with self.lock:
            self.closed = True

    def take(self, lane: Lane, new_id: Callable[[], UUID]) -> Batch:
        """Take the lane's next batch."""
        with self.lock:
            self.batches += 1
            return lane.take(new_id)

    def settle(
        self, lane: Lane, records: Sequence[Record], reports: Sequence[DeliveryReport]
    ) -> None:
        """Count the lane's oldest unfinished signals as finished, and answer their deliveries."""
        with self.lock:
            lane.finished += len(records)
            self._unfinished -= len(records)
            self._bytes -= sum(len(record.body) for record in records)
            self._by_status.update(report.status for report in reports)
        for record, report in zip(records, reports, strict=True):
            record.delivery.resolve(report)
        _log_dead_letters(lane, reports)

    def pending(self) -> int:
        """How many accepted signals have no report yet."""
        return self._unfinished

    def stats(self, callbacks_waiting: int, callback_errors: int) -> ProducerStats:
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
                attempts=self.attempts,
                retries=self.retries,
                callbacks_waiting=callbacks_waiting,
                callback_errors=callback_errors,
                outage_started_at=self.outage_started_at,
            )

    def _has_room(self, size: int, callbacks_waiting: int) -> bool:
        held = self._unfinished + callbacks_waiting
        if held == 0:
            return True
        return held < self._max_messages and self._bytes + size <= self._max_bytes


def _log_dead_letters(lane: Lane, reports: Sequence[DeliveryReport]) -> None:
    codes = Counter(report.code for report in reports if not report.stored)
    if codes:
        _log.warning(
            "%d of %d signals of account %s were not stored: %s",
            codes.total(),
            len(reports),
            lane.account_id or "(the only one)",
            ", ".join(f"{count} {code}" for code, count in codes.most_common()),
        )
