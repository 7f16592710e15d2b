"""Compare what memory says of an account with what the database says."""

from __future__ import annotations

from datetime import UTC, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from signal_persistence.manager.account import ManagedAccount
from signal_persistence.manager.book import Entry
from signal_persistence.manager.differences import (
    Difference,
    DifferenceTracker,
    compare,
    missing_in_database,
    missing_in_memory,
)
from signal_persistence.signal import StoredSignal

_CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""So close to its `valid_until` a signal is not compared: two clocks decide whether it expired."""


class Comparison:
    """One comparison of an account; `run` does it.

    Only signals are judged that were wholly in the database before it was asked and that nothing
    happened to since: what is on its way is no difference, and comes with the next comparison.
    """

    def __init__(self, account: ManagedAccount, tracker: DifferenceTracker) -> None:
        self._account = account
        self._tracker = tracker
        self._versions: dict[UUID, int] = {}
        self._seen: set[UUID] = set()

    def run(self, max_signals: int) -> None:
        """Compare the newest `max_signals` of the database and what memory has of that time."""
        account = self._account
        self._tracker.begin(account.account_id)
        with account.lock:
            settled = account.book.settled()
            self._versions = {key: entry.version for key, entry in settled.items()}
        last: StoredSignal | None = None
        for stored in islice(account.store.signals(), max_signals):
            self._judge(stored)
            self._seen.add(stored.signal_id)
            last = stored
        whole = len(self._seen) < max_signals
        self._judge_unseen(None if whole else last)

    def _judge(self, stored: StoredSignal) -> None:
        with self._account.lock:
            entry = self._account.book.entry(stored.signal_id)
            differences = self._unknown(stored) if entry is None else self._known(entry, stored)
        if differences is not None:
            account_id = self._account.account_id
            self._tracker.compared(account_id, stored.signal_id, differences)

    def _unknown(self, stored: StoredSignal) -> list[Difference] | None:
        """Judge a signal that memory has not, unless it may have forgotten or not loaded it."""
        complete_after = self._account.book.complete_after
        if self._account.refresh_due or (
            complete_after is not None and stored.generated_at <= complete_after
        ):
            return None
        return [missing_in_memory(self._account.account_id, stored)]

    def _known(self, entry: Entry, stored: StoredSignal) -> list[Difference] | None:
        now = self._account.book.now()
        if not self._is_unchanged(entry) or _may_be_expiring(entry, now.timestamp()):
            return None
        return compare(self._account.account_id, entry, stored, now)

    def _judge_unseen(self, last: StoredSignal | None) -> None:
        """Judge what the database did not show although it showed everything down to `last`."""
        account_id = self._account.account_id
        for signal_id in self._versions.keys() - self._seen:
            with self._account.lock:
                entry = self._account.book.entry(signal_id)
                if entry is None or not self._is_unchanged(entry):
                    continue
                if last is not None and entry.signal.generated_at <= last.generated_at:
                    continue
                difference = missing_in_database(account_id, entry)
            self._tracker.compared(account_id, signal_id, [difference])
        if last is None:
            self._forget_what_is_nowhere()

    def _forget_what_is_nowhere(self) -> None:
        for signal_id in self._tracker.signals_of(self._account.account_id) - self._seen:
            if signal_id not in self._account.book:
                self._tracker.compared(self._account.account_id, signal_id, [])

    def _is_unchanged(self, entry: Entry) -> bool:
        return self._versions.get(entry.signal_id) == entry.version


def _may_be_expiring(entry: Entry, now: float) -> bool:
    valid_until = entry.signal.valid_until
    return (
        valid_until is not None
        and abs(valid_until.astimezone(UTC).timestamp() - now) < _CLOCK_TOLERANCE.total_seconds()
    )
