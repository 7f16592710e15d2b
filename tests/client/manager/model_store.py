"""A store with the rules of the database and the failures of a network, for the manager's laws.

`test_manager_on_stack` runs the same operations on it and on the real database, and compares them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from signal_persistence import (
    AdvanceVerdict,
    DeliveryReport,
    Signal,
    SignalChange,
    StoredSignal,
)
from signal_persistence.errors import ConnectError, ConnectionLostError
from signal_persistence.manager.lifecycle import (
    TRANSITIONS,
    Status,
    content_of,
    outcome_after,
    status_at,
)
from signal_persistence.signal import Outcome
from signal_persistence.verdict import VerdictItem
from tests.client.scripted_service import make_signal

ACCOUNT = UUID("0190b5a6-0000-7000-8000-00000000000a")
START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Row:
    """What the database has of a signal."""

    seq: int
    signal: Signal
    reported: Status = "generated"
    outcome: Outcome | None = None
    reached: dict[Status, SignalChange] = field(default_factory=dict)


@dataclass
class ModelStore:
    """Keeps signals as the database does, and fails as it is told.

    With `down` nothing can be reached: what is published waits until it is up again. Each of
    `faults` is spent by one request: "refused" before, or "lost" after its work was done; or by one
    signal: "failed" before, or "failed after" it was stored. With `slow` signals are stored when
    the store is told to hurry. `rejects` are item codes by symbol.
    """

    clock: Clock
    account_id: UUID = ACCOUNT
    down: bool = False
    slow: bool = False
    faults: list[str] = field(default_factory=list)
    rejects: dict[str, str] = field(default_factory=dict)
    rows: dict[UUID, Row] = field(default_factory=dict)
    published: list[UUID] = field(default_factory=list)
    """Every signal that arrived, in order, again when it came again."""
    changes: list[SignalChange] = field(default_factory=list)
    """Every change that arrived, in order, again when it came again."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: list[tuple[Signal, Callable[[DeliveryReport], object]]] = []

    def publish(self, signal: Signal, done: Callable[[DeliveryReport], object]) -> None:
        with self._lock:
            self._waiting.append((signal, done))
        if not self.slow:
            self.hurry()

    def hurry(self) -> None:
        while not self.down:
            with self._lock:
                if not self._waiting:
                    return
                signal, done = self._waiting.pop(0)
                report = self._store(signal)
            done(report)

    def advance(self, changes: Sequence[SignalChange], request_id: UUID) -> AdvanceVerdict:
        with self._lock:
            lost = self._request()
            self.changes += changes
            codes = [self._judge(change) for change in changes]
        if lost:
            raise ConnectionLostError
        items = tuple(
            VerdictItem(index, code, "No.") for index, code in enumerate(codes) if code is not None
        )
        duplicate = codes.count("duplicate_change")
        return AdvanceVerdict(
            request_id=request_id,
            accepted=codes.count(None),
            duplicate=duplicate,
            rejected=len(items) - duplicate,
            first_seq=None,
            last_seq=None,
            items=items,
        )

    def find(self, signal: Signal | SignalChange | StoredSignal) -> StoredSignal | None:
        with self._lock:
            lost = self._request()
            row = self.rows.get(self._id_of(signal))
            found = self._stored(row) if row else None
        if lost:
            raise ConnectionLostError
        return found

    def signals(self, trader_id: UUID | None = None) -> Iterator[StoredSignal]:
        with self._lock:
            lost = self._request()
            rows = [row for row in self.rows.values() if trader_id in (None, row.signal.trader_id)]
            rows.sort(key=lambda row: (row.signal.generated_at, row.seq), reverse=True)
            found = [self._stored(row) for row in rows]
        if lost:
            raise ConnectionLostError
        return iter(found)

    def change_elsewhere(self, signal: Signal, status: Any, **outcome: Any) -> None:
        """Change a signal as another worker would."""
        with self._lock:
            assert self._judge(SignalChange.of(signal, status, **outcome)) is None

    def _request(self) -> bool:
        """Fail as told; say whether the answer is to be lost."""
        if self.down:
            raise ConnectError
        fault = self._fault("refused", "lost")
        if fault == "refused":
            raise ConnectError
        return fault == "lost"

    def _fault(self, *kinds: str) -> str | None:
        return self.faults.pop(0) if self.faults and self.faults[0] in kinds else None

    def _store(self, signal: Signal) -> DeliveryReport:
        fault = self._fault("failed", "failed after")
        if fault == "failed":
            return DeliveryReport(signal, self.account_id, "failed", "delivery_timeout")
        signal_id = signal.signal_id(self.account_id)
        self.published.append(signal_id)
        if signal.symbol in self.rejects:
            return DeliveryReport(signal, self.account_id, "rejected", self.rejects[signal.symbol])
        known = signal_id in self.rows
        if not known:
            self.rows[signal_id] = Row(len(self.rows) + 1, signal)
        if fault == "failed after":
            return DeliveryReport(signal, self.account_id, "failed", "abandoned", in_doubt=True)
        return DeliveryReport(signal, self.account_id, "duplicate" if known else "accepted")

    def _judge(self, change: SignalChange) -> str | None:
        row = self.rows.get(self._id_of(change))
        if row is None:
            return "unknown_signal"
        if row.reached.get(change.status) == content_of(change):
            return "duplicate_change"
        status = status_at(row.reported, row.signal.valid_until, self.clock())
        if change.status not in TRANSITIONS.get(status, ()):
            return "invalid_transition"
        row.reached[change.status] = content_of(change)
        row.reported = change.status
        row.outcome = outcome_after(row.outcome, change)
        return None

    def _stored(self, row: Row) -> StoredSignal:
        fields = {name: getattr(row.signal, name) for name in Signal.__struct_fields__}
        return StoredSignal(
            signal_id=self._id_of(row.signal),
            seq=row.seq,
            status=status_at(row.reported, row.signal.valid_until, self.clock()),
            outcome=row.outcome,
            **fields,
        )

    def _id_of(self, signal: Signal | SignalChange | StoredSignal) -> UUID:
        key = make_signal(
            0,
            trader_id=signal.trader_id,
            symbol=signal.symbol,
            timeframe=signal.timeframe,
            generated_at=signal.generated_at,
        )
        return key.signal_id(self.account_id)
