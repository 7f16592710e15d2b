"""One account of a manager: its signals, the mode it is in, and what that means for each operation.

The book in memory has every signal that this process published, in every mode, and what of it is
not in the database yet. So the mode can change at any moment: on the way to the database the book
says what is still to be written, and on the way back it is there even when the database is not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final
from uuid import UUID, uuid4

from signal_persistence.advance import SignalChange
from signal_persistence.delivery import DeliveryReport
from signal_persistence.errors import (
    InvalidChangeError,
    InvalidTransitionError,
    RequestTimeoutError,
    SignalPersistenceError,
    UnknownSignalError,
)
from signal_persistence.manager.book import Book, Entry, ManagedSignal, Mode
from signal_persistence.manager.differences import (
    DifferenceTracker,
    refused_change,
    refused_signal,
)
from signal_persistence.manager.store import SignalStore
from signal_persistence.signal import Signal, StoredSignal

_log: Final = logging.getLogger("signal_persistence")
_SIGNALS_A_STEP: Final = 500
_CHANGES_A_REQUEST: Final = 500
_CAUGHT_UP: Final = 500
"""With at most so many signals still to be written an account goes over to `persist`."""


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """What an account may hold and how long it waits; see `SignalManager` for each name."""

    max_signals: int
    timeout: float
    compare_interval: float | None
    compare_max_signals: int


class ManagedAccount:
    """The signals of one account, for any thread.

    `lock` guards the book and is never held while the database is asked. Operations that ask it are
    counted in `_asking`, and the mode changes away from `persist` only when there are none.
    """

    def __init__(
        self,
        book: Book,
        store_of: Callable[[UUID], SignalStore],
        settings: ManagerSettings,
        tracker: DifferenceTracker,
        wake_writer: Callable[[ManagedAccount], object],
    ) -> None:
        self.account_id: Final = book.account_id
        self.book: Final = book
        self.lock: Final = threading.RLock()
        self.changed: Final = threading.Condition(self.lock)
        self.refresh_due = False
        """Whether what the database has is still to be taken over into the book."""
        self.last_error: SignalPersistenceError | None = None
        """Why writing does not go on; None while it does."""
        self.reached = False
        """Whether the database has answered since the mode changed."""
        self._store_of = store_of
        self._store: SignalStore | None = None
        self._settings = settings
        self._tracker = tracker
        self._wake_writer = wake_writer
        self._turn = threading.Lock()
        self._refresh_failed = False
        self._switching = False
        self._held_up = 0
        """How many operations wait for a change of the mode to end."""
        self._asking = 0
        self._waiting = 0
        """How many threads wait for what is to be written."""

    @property
    def store(self) -> SignalStore:
        """The account's store, made when it is first needed."""
        if self._store is None:
            self._store = self._store_of(self.account_id)
        return self._store

    @property
    def writes(self) -> bool:
        """Whether a writer has, or will have, something to do for this account."""
        return self.book.mode != "memory" or self.refresh_due

    # The mode.

    def follow(self, wanted: Mode) -> None:
        """Change to the wanted mode, or on the way to `persist` as far as it is possible now."""
        if wanted == self.book.mode:
            return
        if wanted != "memory":
            # An account that has no store is a mistake, and no reason to wait.
            _ = self.store
        # In the other modes nobody waits for the thread that changes it.
        if not self._turn.acquire(blocking=self.book.mode == "persist"):
            return
        try:
            with self._nobody_asking():
                self._change_mode(wanted)
        finally:
            self._turn.release()

    def _change_mode(self, wanted: Mode) -> None:
        mode = self.book.mode
        if wanted == mode:
            return
        if mode == "persist" or wanted == "dual_write":
            # At its beginning, and on the way back, memory is of use only with what is stored.
            self._refresh(wait=mode == "persist" or len(self.book) == 0)
        if wanted != "persist":
            self._set_mode(wanted)
            return
        if mode == "memory":
            self._set_mode("dual_write")
        if self._has_caught_up():
            self._set_mode("persist")

    def _has_caught_up(self) -> bool:
        if self.book.pending == 0:
            return True
        return self.reached and self.last_error is None and self.book.pending <= _CAUGHT_UP

    def _set_mode(self, mode: Mode) -> None:
        with self.lock:
            before, self.book.mode = self.book.mode, mode
            self.reached = False
            self.refresh_due = self.refresh_due and mode != "persist"
        _log.info(
            "Account %s goes from %s to %s with %d signals to be written",
            self.account_id,
            before,
            mode,
            self.book.pending,
            extra={"account_id": str(self.account_id), "mode": mode},
        )
        self._wake_writer(self)

    def _refresh(self, *, wait: bool) -> None:
        """Have the writer bring memory up to date, and wait until it has, or first failed to."""
        with self.lock:
            self.refresh_due = True
            self._refresh_failed = False
        self._wake_writer(self)
        # A writer that cannot reach the database tries again when it has paused: not now.
        if wait and self.last_error is None:
            with self.lock:
                self.changed.wait_for(
                    lambda: not self.refresh_due or self._refresh_failed, self._settings.timeout
                )

    @contextmanager
    def _nobody_asking(self) -> Iterator[None]:
        """Let what asks the database end, and nothing begin to ask it."""
        with self.lock:
            # Changes without a pause would else hold those up for ever.
            self.changed.wait_for(lambda: self._held_up == 0)
            self._switching = True
            self.changed.wait_for(lambda: self._asking == 0)
        try:
            yield
        finally:
            with self.lock:
                self._switching = False
                self.changed.notify_all()

    @contextmanager
    def _in_persist(self) -> Iterator[bool]:
        """Say whether the mode is `persist`; it stays so meanwhile. If it is not, hold the lock."""
        with self.lock:
            if self.book.mode != "persist":
                yield False
                return
            self._held_up += 1
            try:
                self.changed.wait_for(lambda: not self._switching)
            finally:
                self._held_up -= 1
                self.changed.notify_all()
            if self.book.mode != "persist":
                yield False
                return
            self._asking += 1
        try:
            yield True
        finally:
            with self.lock:
                self._asking -= 1
                self.changed.notify_all()

    # What the application does.

    def publish(self, signal: Signal) -> ManagedSignal:
        """Add a signal, in `persist` also to the store, in `dual_write` behind."""
        with self._in_persist() as persist:
            if persist:
                return self._publish_through(signal)
            entry = self.book.publish(signal)
            seen = self._seen(entry)
        self._wake_writer(self)
        return seen

    def change(self, change: SignalChange) -> ManagedSignal:
        """Change the status of a signal; in `persist` the database decides whether it may."""
        with self._in_persist() as persist:
            if persist:
                return self._change_through(change)
            entry = self.book.change(change)
            seen = self._seen(entry)
        self._wake_writer(self)
        return seen

    def _publish_through(self, signal: Signal) -> ManagedSignal:
        with self.lock:
            held = signal.signal_id(self.account_id) in self.book
            entry = self.book.publish(signal)
            if entry.place != "waiting":
                return self._seen(entry)
            self.book.move(entry, "sending")
        try:
            self.store.publish(entry.signal, partial(self.delivered, entry))
        except BaseException:
            with self.lock:
                if held:
                    self.book.move(entry, "waiting")
                else:
                    self.book.withdraw(entry)
            raise
        return self._seen(entry)

    def _change_through(self, change: SignalChange) -> ManagedSignal:
        signal_id = self.book.id_of(change)
        self._await_stored(signal_id)
        verdict = self.store.advance([change], uuid4())
        code = verdict.items[0].code if verdict.items else None
        if code == "unknown_signal":
            raise UnknownSignalError
        if code == "invalid_transition":
            found = self._found(change)
            raise InvalidTransitionError(found.status if found else None, change.status)
        if code not in (None, "duplicate_change"):
            raise InvalidChangeError(code)
        with self.lock:
            entry = self.book.record(change)
            if entry is not None:
                return self._seen(entry)
        found = self._found(change)
        if found is None:
            raise UnknownSignalError
        return found

    # What the application asks.

    def get(
        self, signal_id: UUID, signal: Signal | StoredSignal | None = None
    ) -> ManagedSignal | None:
        """Return a signal as it is now; `signal` has the natural key of one that is not held."""
        with self._in_persist() as persist:
            if not persist:
                return self.book.get(signal_id)
            with self.lock:
                entry = self.book.entry(signal_id)
            named = entry.signal if entry else signal
            if named is None:
                return None
            self._await_stored(signal_id)
            return self._found(named)

    def signals(self, trader_id: UUID | None = None) -> list[ManagedSignal]:
        """Return the signals of the account or of one trader, newest first, at most max_signals."""
        with self._in_persist() as persist:
            if not persist:
                return sorted(
                    (
                        seen
                        for seen in self.book.signals()
                        if trader_id is None or seen.signal.trader_id == trader_id
                    ),
                    key=_by_time,
                    reverse=True,
                )
            self._await(lambda: self.book.pending == 0)
            stored = islice(self.store.signals(trader_id), self._settings.max_signals)
            return sorted(map(ManagedSignal.of, stored), key=_by_time, reverse=True)

    def flush(self, timeout: float) -> int:
        """Wait until the database has everything; return how many signals it has not."""
        if self.book.mode != "memory":
            self._wait(lambda: self.book.pending == 0, timeout)
        return self.book.pending

    def _await_stored(self, signal_id: UUID) -> None:
        """Wait until the database has a signal of ours, so that it can be asked about it."""

        def is_stored() -> bool:
            entry = self.book.entry(signal_id)
            return entry is None or entry.standing != "pending"

        self._await(is_stored)

    def _await(self, done: Callable[[], bool]) -> None:
        if not self._wait(done, self._settings.timeout):
            raise RequestTimeoutError(
                "Cannot ask the database: it has not taken yet what was published before."
            ) from self.last_error

    def _wait(self, done: Callable[[], bool], timeout: float) -> bool:
        """Have everything sent at once, and wait until `done`; say whether it is."""
        with self.lock:
            if done():
                return True
            self._waiting += 1
        try:
            self.store.hurry()
            self._wake_writer(self)
            with self.lock:
                return self.changed.wait_for(done, timeout)
        finally:
            with self.lock:
                self._waiting -= 1

    def _found(self, signal: Signal | StoredSignal | SignalChange) -> ManagedSignal | None:
        """Ask the database for a signal, and remember what it says."""
        version = self._version_of(signal)
        stored = self.store.find(signal)
        if stored is None:
            return None
        with self.lock:
            if self._version_of(signal) == version:
                self.book.adopt(stored)
        return ManagedSignal.of(stored)

    def _version_of(self, signal: Signal | StoredSignal | SignalChange) -> int | None:
        entry = self.book.entry(self.book.id_of(signal))
        return entry.version if entry else None

    def _seen(self, entry: Entry) -> ManagedSignal:
        return entry.seen(self.book.now())

    # What the writer does.

    def write(self) -> bool:
        """Write a part of what is to be written; say whether there was anything."""
        if self.refresh_due:
            self._take_over()
        if self.book.mode == "memory":
            return False
        sent = self._write_signals()
        return self._write_changes() or sent

    def delivered(self, entry: Entry, report: DeliveryReport) -> None:
        """Take the report about a signal that was sent."""
        code = (report.code or "rejected") if report.status == "rejected" else None
        if code is not None:
            # Before it counts as written: after a flush() every difference is known.
            self._tracker.add(refused_signal(self.account_id, entry, code))
        with self.lock:
            if code is not None:
                self.book.move(entry, "refused", code)
            elif report.stored:
                self.reached = True
                self.book.move(entry, "stored")
            else:
                self.book.move(entry, "waiting")
            self.changed.notify_all()
        self._wake_writer(self)

    def _take_over(self) -> None:
        """Take over what the database has into the book, newest first, as far as there is room.

        Only the writer does: what it reads here cannot be older than a change that it has written.
        """
        try:
            for stored in self.store.signals():
                with self.lock:
                    no_room = self.book.is_full and stored.signal_id not in self.book
                    self.book.adopt(stored)
                if no_room:
                    break
            self.refresh_due = False
        finally:
            with self.lock:
                self._refresh_failed = self.refresh_due
                self.changed.notify_all()

    def _write_signals(self) -> bool:
        with self.lock:
            entries = self.book.take_signals(_SIGNALS_A_STEP)
        for number, entry in enumerate(entries):
            try:
                self.store.publish(entry.signal, partial(self.delivered, entry))
            except BaseException:
                with self.lock:
                    for unsent in entries[number:]:
                        self.book.move(unsent, "waiting")
                raise
        if entries and self._waiting:
            self.store.hurry()
        return bool(entries)

    def _write_changes(self) -> bool:
        with self.lock:
            changes = self.book.next_changes(_CHANGES_A_REQUEST)
        if not changes:
            return False
        verdict = self.store.advance(changes, uuid4())
        refusals = {
            item.index: item.code for item in verdict.items if item.code != "duplicate_change"
        }
        for index, code in refusals.items():
            signal_id = self.book.id_of(changes[index])
            self._tracker.add(refused_change(self.account_id, signal_id, changes[index], code))
        with self.lock:
            self.reached = True
            for index, change in enumerate(changes):
                self.book.confirm(change, refusals.get(index))
            self.changed.notify_all()
        return True


def _by_time(seen: ManagedSignal) -> tuple[datetime, UUID]:
    return seen.signal.generated_at, seen.signal_id
