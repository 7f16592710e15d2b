"""Where memory and the database disagree: found by comparing, kept as values, counted by reason."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from signal_persistence.advance import SignalChange
from signal_persistence.manager.book import Entry, ManagedSignal
from signal_persistence.signal import Outcome, Signal, StoredSignal

Aspect = Literal["signal", "status", "outcome"]

MISSING_IN_DATABASE: Final = "missing_in_database"
MISSING_IN_MEMORY: Final = "missing_in_memory"
DIFFERENT: Final = "different"

_log: Final = logging.getLogger("signal_persistence")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that memory and the database say differently of a signal.

    `aspect` is `signal`, `status` or `outcome`, and `field` the field of it that differs, None when
    it is all of it. `reason` is `missing_in_database`, `missing_in_memory`, `different`, or the
    item code with which the database refused what memory has (`stale`, `invalid_transition`, …).
    """

    account_id: UUID
    signal_id: UUID
    aspect: Aspect
    field: str | None
    memory: Any
    database: Any
    reason: str

    @property
    def kind(self) -> tuple[Aspect, str | None, str]:
        """What makes it the same difference when it is found again, whatever the values are."""
        return self.aspect, self.field, self.reason

    def __str__(self) -> str:
        what = self.aspect if self.field is None else f"{self.aspect}.{self.field}"
        return (
            f"{what} of signal {self.signal_id} of account {self.account_id}: memory says "
            f"{self.memory!r}, the database {self.database!r} ({self.reason})"
        )


@dataclass(frozen=True, slots=True)
class DifferenceReport:
    """What the tracker knows at one moment.

    `open` are the differences that still stand, oldest first, at most `max_differences`; `found`
    counts by reason all that were ever found, also those that a later comparison found gone
    (`resolved`). `overflowed` did not fit. `compared` counts the comparisons of a signal.
    """

    open: tuple[Difference, ...]
    found: Counter[str]
    resolved: int
    overflowed: int
    compared: int

    @property
    def clean(self) -> bool:
        """Whether nothing stands open."""
        return not self.open and not self.overflowed


class DifferenceTracker:
    """Keeps the differences that stand, at most `max_differences` of them; safe for threads."""

    def __init__(
        self, max_differences: int, on_difference: Callable[[Difference], object] | None = None
    ) -> None:
        """`on_difference` is called with each difference that was not known before."""
        self._max_differences = max_differences
        self._on_difference = on_difference
        self._lock = threading.Lock()
        self._open: dict[tuple[UUID, UUID], tuple[Difference, ...]] = {}
        self._count = 0
        self._found: Counter[str] = Counter()
        self._resolved = 0
        self._overflowed: Counter[UUID] = Counter()
        self._compared = 0

    def begin(self, account_id: UUID) -> None:
        """Begin a comparison of an account: it finds again what did not fit before."""
        with self._lock:
            self._overflowed[account_id] = 0

    def add(self, difference: Difference) -> None:
        """Note one more difference of a signal."""
        key = (difference.account_id, difference.signal_id)
        with self._lock:
            new = self._replace(key, (*self._open.get(key, ()), difference))
        self._tell(new)

    def compared(
        self, account_id: UUID, signal_id: UUID, differences: Sequence[Difference]
    ) -> None:
        """Note all that differs of one signal; what was known and is not among it is resolved."""
        with self._lock:
            self._compared += 1
            new = self._replace((account_id, signal_id), differences)
        self._tell(new)

    def report(self) -> DifferenceReport:
        """Return what is known at this moment."""
        with self._lock:
            return DifferenceReport(
                open=tuple(known for kept in self._open.values() for known in kept),
                found=self._found.copy(),
                resolved=self._resolved,
                overflowed=self._overflowed.total(),
                compared=self._compared,
            )

    def signals_of(self, account_id: UUID) -> set[UUID]:
        """Return the signals of an account of which a difference stands."""
        with self._lock:
            return {signal_id for account, signal_id in self._open if account == account_id}

    def _replace(
        self, key: tuple[UUID, UUID], differences: Sequence[Difference]
    ) -> list[Difference]:
        """Keep these differences of a signal, and return those that were not known."""
        differences = list({difference.kind: difference for difference in differences}.values())
        known = self._open.pop(key, ())
        kinds = {difference.kind for difference in known}
        new = [difference for difference in differences if difference.kind not in kinds]
        self._count -= len(known)
        self._resolved += len(kinds - {difference.kind for difference in differences})
        room = self._max_differences - self._count
        lost = differences[room:]
        self._overflowed[key[0]] += len(lost)
        new = [difference for difference in new if difference not in lost]
        self._found.update(difference.reason for difference in new)
        if kept := tuple(differences[:room]):
            self._open[key] = kept
            self._count += len(kept)
        return new

    def _tell(self, differences: Sequence[Difference]) -> None:
        for difference in differences:
            _log.warning(
                "Memory and database differ: %s",
                difference,
                extra={
                    "account_id": str(difference.account_id),
                    "signal_id": str(difference.signal_id),
                    "reason": difference.reason,
                },
            )
            if self._on_difference is None:
                continue
            try:
                self._on_difference(difference)
            except Exception:
                _log.exception("An on_difference callback failed")


def refused_signal(account_id: UUID, entry: Entry, code: str) -> Difference:
    """Return the difference of a signal that the database did not take."""
    return Difference(account_id, entry.signal_id, "signal", None, entry.signal, None, code)


def refused_change(
    account_id: UUID, signal_id: UUID, change: SignalChange, code: str
) -> Difference:
    """Return the difference of a change that the database did not take."""
    return Difference(account_id, signal_id, "status", None, change.status, None, code)


def compare(
    account_id: UUID, entry: Entry, stored: StoredSignal, moment: datetime
) -> list[Difference]:
    """Return all that differs between a signal in memory and in the database at `moment`."""
    memory, database = entry.seen(moment), ManagedSignal.of(stored)

    def difference(aspect: Aspect, field: str | None, ours: Any, theirs: Any) -> Difference:
        reason = DIFFERENT if aspect == "signal" else entry.refusal or DIFFERENT
        return Difference(account_id, entry.signal_id, aspect, field, ours, theirs, reason)

    found = [
        difference("signal", *parts) for parts in _unequal(Signal, memory.signal, database.signal)
    ]
    if memory.status != database.status:
        found.append(difference("status", None, memory.status, database.status))
    ours, theirs = memory.outcome or Outcome(), database.outcome or Outcome()
    found += [difference("outcome", *parts) for parts in _unequal(Outcome, ours, theirs)]
    return found


def missing_in_database(account_id: UUID, entry: Entry) -> Difference:
    """Return the difference of a signal that should be in the database and is not."""
    return Difference(
        account_id, entry.signal_id, "signal", None, entry.signal, None, MISSING_IN_DATABASE
    )


def missing_in_memory(account_id: UUID, stored: StoredSignal) -> Difference:
    """Return the difference of a signal that memory never had, or lost."""
    signal = ManagedSignal.of(stored).signal
    return Difference(account_id, stored.signal_id, "signal", None, None, signal, MISSING_IN_MEMORY)


def _unequal(
    kind: type[Signal | Outcome], ours: Signal | Outcome, theirs: Signal | Outcome
) -> Iterator[tuple[str, Any, Any]]:
    """Iterate over the fields that differ; times are the same when they are the same instant."""
    names: Iterable[str] = kind.__struct_fields__
    for name in names:
        one, other = getattr(ours, name), getattr(theirs, name)
        if one != other:
            yield name, one, other
