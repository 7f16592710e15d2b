"""The signals of one account in memory: their life, and what of it is not in the database yet.

Pure: no thread, no lock, no network, an injected clock. Whoever owns a book holds a lock around it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, cast
from uuid import UUID

import msgspec

from signal_persistence.advance import Reached, SignalChange
from signal_persistence.errors import (
    InvalidTransitionError,
    ManagerFullError,
    UnknownSignalError,
)
from signal_persistence.manager.lifecycle import (
    TRANSITIONS,
    Status,
    content_of,
    outcome_after,
    status_at,
)
from signal_persistence.signal import Outcome, Signal, StoredSignal, signal_id

Mode = Literal["memory", "dual_write", "persist"]
Place = Literal["waiting", "sending", "stored", "refused"]
"""Where a signal is on its way to the database."""
Standing = Literal["pending", "stored", "refused"]
"""What the database has of a signal and its changes: not all yet, all, or not the signal."""

_FORGETTABLE: Final[Mapping[Mode, tuple[tuple[bool, Standing], ...]]] = {
    "memory": ((True, "stored"), (True, "refused"), (True, "pending")),
    "dual_write": ((True, "stored"), (True, "refused")),
    "persist": ((True, "stored"), (True, "refused"), (False, "stored"), (False, "refused")),
}
"""What makes room, in this order; each is (the signal has ended, its standing), oldest first."""


@dataclass(frozen=True, slots=True)
class ManagedSignal:
    """A signal and what became of it, the same from memory and from the database."""

    signal_id: UUID
    signal: Signal
    status: Status
    outcome: Outcome | None

    @classmethod
    def of(cls, stored: StoredSignal) -> ManagedSignal:
        """Return what the database says of a signal."""
        return cls(
            stored.signal_id, _signal_of(stored), cast(Status, stored.status), stored.outcome
        )


@dataclass(slots=True, eq=False)
class Entry:
    """A signal that a book holds. `version` counts what has happened to it."""

    signal_id: UUID
    signal: Signal
    reported: Status = "generated"
    outcome: Outcome | None = None
    reached: dict[Status, SignalChange] = field(default_factory=dict)
    place: Place = "waiting"
    changes: list[SignalChange] = field(default_factory=list)
    """What is not in the database yet, in order."""
    refusal: str | None = None
    """The item code with which the database last refused the signal or a change of it."""
    version: int = 0
    group: tuple[bool, Standing] = (False, "pending")

    @property
    def standing(self) -> Standing:
        if self.place == "refused":
            return "refused"
        return "stored" if self.place == "stored" and not self.changes else "pending"

    def status(self, moment: datetime) -> Status:
        return status_at(self.reported, self.signal.valid_until, moment)

    def seen(self, moment: datetime) -> ManagedSignal:
        return ManagedSignal(self.signal_id, self.signal, self.status(moment), self.outcome)


class Book:
    """At most `max_signals` signals of one account, by id."""

    def __init__(self, account_id: UUID, max_signals: int, clock: Callable[[], datetime]) -> None:
        """`clock` returns the time as an aware datetime."""
        self.account_id: Final = account_id
        self.mode: Mode = "memory"
        self.forgotten = 0
        """How many signals had to make room."""
        self.complete_after: datetime | None = None
        """Of the signals generated after this the book has forgotten none."""
        self._max_signals = max_signals
        self._clock = clock
        self._entries: dict[UUID, Entry] = {}
        self._groups: dict[tuple[bool, Standing], dict[UUID, Entry]] = {
            (ended, standing): {}
            for ended in (False, True)
            for standing in ("pending", "stored", "refused")
        }
        self._unsent: dict[UUID, Entry] = {}
        self._unsent_changes: dict[UUID, Entry] = {}
        self._due: list[tuple[datetime, UUID]] = []
        self._newly_expired: dict[UUID, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, signal_id: UUID) -> bool:
        return signal_id in self._entries

    @property
    def is_full(self) -> bool:
        """Whether the next signal takes the place of another."""
        return len(self._entries) >= self._max_signals

    @property
    def pending(self) -> int:
        """How many signals are not in the database, or not with all their changes."""
        return len(self._groups[False, "pending"]) + len(self._groups[True, "pending"])

    def now(self) -> datetime:
        return self._clock()

    @property
    def unwritten(self) -> int:
        """How many signals the store was not given, or not all of their changes."""
        groups = (self._groups[ended, "pending"] for ended in (False, True))
        return sum(
            entry.place == "waiting" or bool(entry.changes)
            for group in groups
            for entry in group.values()
        )

    # What the application does.

    def publish(self, signal: Signal) -> Entry:
        """Add a signal; of two with the same natural key the first one counts.

        One that the database refused before is to be sent again. Raises ManagerFullError when
        nothing may be forgotten to make room.
        """
        signal_id = signal.signal_id(self.account_id)
        entry = self._entries.get(signal_id)
        if entry is None:
            return self._add(Entry(signal_id, signal))
        if entry.place == "refused":
            self.move(entry, "waiting")
        return entry

    def change(self, change: SignalChange) -> Entry:
        """Change the status of a signal; one that it has had with the same content is no change.

        Raises UnknownSignalError or InvalidTransitionError; then nothing was changed.
        """
        entry = self._named(change)
        if entry.reached.get(change.status) == content_of(change):
            return entry
        status = entry.status(self._clock())
        if change.status not in TRANSITIONS.get(status, ()):
            raise InvalidTransitionError(status, change.status)
        self._apply(entry, change)
        entry.changes.append(change)
        self._file(entry)
        return entry

    def withdraw(self, entry: Entry) -> None:
        """Take back a signal that was just added and that the database was not given."""
        self._remove(entry)

    # What the application asks.

    def get(self, signal_id: UUID) -> ManagedSignal | None:
        """Return a signal as it is now."""
        entry = self._entries.get(signal_id)
        return entry.seen(self._clock()) if entry else None

    def signals(self) -> Iterator[ManagedSignal]:
        """Iterate over all signals as they are now, in no order."""
        now = self._clock()
        return (entry.seen(now) for entry in self._entries.values())

    def refused(self) -> list[ManagedSignal]:
        """Return the signals that the database did not take."""
        now = self._clock()
        groups = (self._groups[ended, "refused"] for ended in (False, True))
        return [entry.seen(now) for group in groups for entry in group.values()]

    def newly_expired(self) -> list[ManagedSignal]:
        """Return the signals whose `valid_until` has passed since the last call, each once."""
        self._sweep()
        now = self._clock()
        expired, self._newly_expired = self._newly_expired, {}
        return [entry.seen(now) for entry in expired.values()]

    # What the database is given, and what it answers.

    def entry(self, signal_id: UUID) -> Entry | None:
        return self._entries.get(signal_id)

    def settled(self) -> dict[UUID, Entry]:
        """Return the signals that the database must have as they are here."""
        return self._groups[False, "stored"] | self._groups[True, "stored"]

    def take_signals(self, limit: int) -> list[Entry]:
        """Take signals that are to be sent, in the order they were published."""
        taken = _first(self._unsent.values(), limit)
        for entry in taken:
            self.move(entry, "sending")
        return taken

    def next_changes(self, limit: int) -> list[SignalChange]:
        """Return changes of stored signals that are to be sent; those of one signal in order."""
        changes: list[SignalChange] = []
        for entry in self._unsent_changes.values():
            if len(changes) + len(entry.changes) > limit:
                break
            changes += entry.changes
        return changes

    def move(self, entry: Entry, place: Place, refusal: str | None = None) -> None:
        """Note where a signal is on its way, and why if it was refused."""
        if self._entries.get(entry.signal_id) is not entry:
            # It had to make room meanwhile.
            return
        entry.place = place
        entry.refusal = refusal
        self._file(entry)

    def confirm(self, change: SignalChange, refusal: str | None = None) -> None:
        """Note that the database has a change, or refused it."""
        entry = self._entries.get(self.id_of(change))
        if entry is None or change not in entry.changes:
            return
        entry.changes.remove(change)
        entry.refusal = refusal or entry.refusal
        self._file(entry)

    def record(self, change: SignalChange) -> Entry | None:
        """Apply a change that the database has taken.

        Returns None when what is held of the signal, if anything, does not lead to that change.
        """
        entry = self._entries.get(self.id_of(change))
        if entry is None or entry.reached.get(change.status) == content_of(change):
            return entry
        if change.status not in TRANSITIONS.get(entry.reported, ()):
            return None
        self._apply(entry, change)
        self._file(entry)
        return entry

    def adopt(self, stored: StoredSignal) -> None:
        """Take over what the database says of a signal, unless something of it is to be sent.

        A signal that is not held is added where there is room; nothing is forgotten for it.
        """
        entry = self._entries.get(stored.signal_id)
        if entry is None:
            if self.is_full:
                self._incomplete_until(stored.generated_at)
                return
            entry = self._add(Entry(stored.signal_id, _signal_of(stored), place="stored"))
        elif entry.standing == "pending":
            return
        entry.place = "stored"
        entry.refusal = None
        entry.signal = _signal_of(stored)
        entry.outcome = stored.outcome
        entry.reported = _reported(cast(Status, stored.status), stored.outcome)
        entry.reached = _reached(entry)
        entry.version += 1
        self._file(entry)

    def id_of(self, named: Signal | StoredSignal | SignalChange) -> UUID:
        """Return the id of the signal with this natural key."""
        return signal_id(
            self.account_id, named.trader_id, named.symbol, named.timeframe, named.generated_at
        )

    def _named(self, change: SignalChange) -> Entry:
        entry = self._entries.get(self.id_of(change))
        if entry is None:
            raise UnknownSignalError
        return entry

    def _apply(self, entry: Entry, change: SignalChange) -> None:
        entry.reached[change.status] = content_of(change)
        entry.reported = change.status
        entry.outcome = outcome_after(entry.outcome, change)
        entry.version += 1

    def _add(self, entry: Entry) -> Entry:
        if self.is_full:
            self._make_room()
        self._entries[entry.signal_id] = entry
        if entry.signal.valid_until is not None:
            heapq.heappush(self._due, (entry.signal.valid_until.astimezone(UTC), entry.signal_id))
            self._drop_stale_deadlines()
        self._file(entry)
        return entry

    def _make_room(self) -> None:
        self._sweep()
        for group in _FORGETTABLE[self.mode]:
            for entry in self._groups[group].values():
                self._incomplete_until(entry.signal.generated_at)
                self._remove(entry)
                self.forgotten += 1
                return
        raise ManagerFullError

    def _incomplete_until(self, moment: datetime) -> None:
        if self.complete_after is None or moment > self.complete_after:
            self.complete_after = moment

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.signal_id]
        self._groups[entry.group].pop(entry.signal_id, None)
        for index in (self._unsent, self._unsent_changes, self._newly_expired):
            index.pop(entry.signal_id, None)

    def _file(self, entry: Entry) -> None:
        """Put an entry where it belongs after something happened to it."""
        signal_id = entry.signal_id
        self._groups[entry.group].pop(signal_id, None)
        entry.group = (entry.status(self._clock()) not in TRANSITIONS, entry.standing)
        self._groups[entry.group][signal_id] = entry
        _keep(self._unsent, entry, entry.place == "waiting")
        _keep(self._unsent_changes, entry, entry.place == "stored" and bool(entry.changes))

    def _sweep(self) -> None:
        """File the signals whose `valid_until` has passed."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            entry = self._entries.get(heapq.heappop(self._due)[1])
            if entry is not None and entry.status(now) == "expired":
                self._file(entry)
                self._newly_expired[entry.signal_id] = entry

    def _drop_stale_deadlines(self) -> None:
        if len(self._due) > 2 * self._max_signals:
            self._due = [due for due in self._due if due[1] in self._entries]
            heapq.heapify(self._due)


def counted(signals: Iterable[ManagedSignal]) -> Counter[Status]:
    """Count signals by status."""
    return Counter(signal.status for signal in signals)


def _first(entries: Iterable[Entry], limit: int) -> list[Entry]:
    return [entry for entry, _ in zip(entries, range(limit), strict=False)]


def _keep(index: dict[UUID, Entry], entry: Entry, wanted: bool) -> None:
    """Hold the entry in the index, at the place it has there already, or take it out."""
    if wanted:
        index.setdefault(entry.signal_id, entry)
    else:
        index.pop(entry.signal_id, None)


def _signal_of(stored: StoredSignal) -> Signal:
    return Signal(**{name: getattr(stored, name) for name in Signal.__struct_fields__})


def _reported(status: Status, outcome: Outcome | None) -> Status:
    """Return the last report of a signal with this status: an expiry is not reported."""
    return "generated" if status == "expired" else status


def _reached(entry: Entry) -> dict[Status, SignalChange]:
    """Reconstruct the reports of a signal from its outcome, as far as it tells them.

    It has the reason of the last one only: an earlier one that is repeated with its reason is then
    refused here, where the database would call it a duplicate.
    """
    outcome = entry.outcome or Outcome()
    reached: dict[Status, SignalChange] = {}
    if entry.reported in ("executed", "closed"):
        reached["executed"] = SignalChange.of(
            entry.signal, "executed", entry_price=outcome.entry_price
        )
    if entry.reported == "closed":
        reached["closed"] = SignalChange.of(
            entry.signal,
            "closed",
            exit_price=outcome.exit_price,
            close_reason=outcome.close_reason,
            return_=outcome.return_,
            fees=outcome.fees,
        )
    elif entry.reported not in ("generated", "executed"):
        reached[entry.reported] = SignalChange.of(entry.signal, cast(Reached, entry.reported))
    last = reached.get(entry.reported)
    if last is not None:
        reached[entry.reported] = msgspec.structs.replace(last, reason=outcome.reason)
    return reached
