"""The lifecycle manager of an application: signals by id in memory, in the database, or in both."""

from __future__ import annotations

import builtins
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, get_args
from uuid import UUID

from signal_persistence.advance import Reached, SignalChange
from signal_persistence.errors import (
    ClosedError,
    ConfigurationError,
    InvalidChangeError,
    UnknownSignalError,
    UnwrittenError,
)
from signal_persistence.manager.account import ManagedAccount, ManagerSettings
from signal_persistence.manager.book import Book, ManagedSignal, Mode, counted
from signal_persistence.manager.comparison import Comparison
from signal_persistence.manager.differences import (
    Difference,
    DifferenceReport,
    DifferenceTracker,
)
from signal_persistence.manager.lifecycle import Status, problem_of_change
from signal_persistence.manager.store import SignalStore
from signal_persistence.manager.writer import Writer
from signal_persistence.retry import Backoff
from signal_persistence.signal import Signal, StoredSignal

ModeFlag = Mode | Mapping[UUID, Mode] | Callable[[UUID], Mode]
"""The mode of every account, of each (the others are in memory), or a function that says it."""
SignalRef = UUID | Signal | StoredSignal | ManagedSignal
"""A signal, or its id."""

_MODES: Final = frozenset(get_args(Mode))
_log: Final = logging.getLogger("signal_persistence")


@dataclass(frozen=True, slots=True)
class ManagerStats:
    """An account of a manager at one moment.

    `signals` and `by_status` count what `list` returns. `pending` signals are in memory and not, or
    not with all their changes, in the database; `refused` ones it did not take. `forgotten` had to
    make room, since the manager was made.
    """

    mode: Mode
    signals: int
    by_status: Mapping[Status, int]
    pending: int
    refused: int
    forgotten: int


class SignalManager:
    """Keep the signals of an application and what becomes of them; for any thread.

    Each account is in one of three modes, which may change at any moment:

    - `memory`: signals are kept in memory only.
    - `dual_write`: memory answers and decides, and everything is written to the store behind it.
      Nothing of the store is waited for or raised. What it says differently is a `Difference`.
    - `persist`: the store answers and decides. Reads wait for what this manager published before.

    A change of mode takes effect with the next operation. On the way to the database everything in
    memory is written first: until little is left to be written, an account that should be in
    `persist` goes on in `dual_write`. On the way back memory is brought up to date from the
    database; when that cannot be reached, memory goes on with what this manager has seen, and is
    brought up to date later.

    Use it as a context manager, or `stop` it.
    """

    def __init__(
        self,
        store: SignalStore
        | Mapping[UUID, SignalStore]
        | Callable[[UUID], SignalStore]
        | None = None,
        *,
        mode: ModeFlag = "memory",
        account_id: UUID | None = None,
        max_signals: int = 100_000,
        max_differences: int = 10_000,
        timeout: float = 10.0,
        compare_interval: float | None = 60.0,
        compare_max_signals: int = 10_000,
        on_difference: Callable[[Difference], object] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`store` is the store of each account, or a function that makes it when it is needed.

        `mode` is asked at every operation; when the function fails the account stays as it is.
        `account_id` is that of operations that name none. At most `max_signals` of an account are
        held: the oldest that has ended makes room (in memory it is then gone; in the other modes
        only one that the database has), and when there is none, publish() raises ManagerFullError.
        In `persist` an operation waits up to `timeout` seconds for what was published before it. In
        `dual_write` the newest `compare_max_signals` are compared every `compare_interval` seconds
        (None: only by `compare`). `max_differences` are kept, and counted beyond. `clock` returns
        the time as an aware datetime.
        """
        for name, value in (("max_signals", max_signals), ("max_differences", max_differences)):
            if value < 1:
                raise ConfigurationError(f"Cannot use this {name}: it must be 1 or more.")
        self._store = store
        self._flag = mode
        self._only = account_id
        self._max_signals = max_signals
        self._settings = ManagerSettings(
            max_signals, timeout, compare_interval, compare_max_signals
        )
        self._clock = clock
        self._tracker = DifferenceTracker(max_differences, on_difference)
        self._lock = threading.Lock()
        self._accounts: dict[UUID, ManagedAccount] = {}
        self._writers: dict[UUID, Writer] = {}
        self._stopped = False

    # The life of a signal.

    def publish(self, signal: Signal, *, account_id: UUID | None = None) -> ManagedSignal:
        """Add a signal, with status `generated`; of two with one natural key the first one counts.

        In `persist` it is handed to the store, and what it raises then (BufferFullError) says that
        nothing was taken. Raises InvalidSignalError, ManagerFullError or ClosedError, too.
        """
        signal.validate()
        return self._account(account_id).publish(signal)

    def analyze(self, signal: SignalRef, **details: Any) -> ManagedSignal:
        """Note that a signal was analyzed.

        `details`, here and below, are `reason` (a text for people), `occurred_at` (now) and
        `account_id`. A change that the signal has had with the same content changes nothing.

        Raises InvalidTransitionError when its status does not allow that, InvalidChangeError for a
        value that is not valid, UnknownSignalError when there is no such signal; then nothing was
        changed. In `persist` also the TransportError or ApiError of the database: the change may
        have been made then if `in_doubt`, and it is safe to ask for it again.
        """
        return self._change(signal, "analyzed", details)

    def execute(
        self, signal: SignalRef, *, entry_price: float | None = None, **details: Any
    ) -> ManagedSignal:
        """Note that a signal was executed, at `entry_price`."""
        return self._change(signal, "executed", details, entry_price=entry_price)

    def close(
        self,
        signal: SignalRef,
        *,
        exit_price: float,
        close_reason: str,
        return_: float | None = None,
        fees: float | None = None,
        **details: Any,
    ) -> ManagedSignal:
        """Note that an executed signal was closed at `exit_price`, and why; see SignalChange."""
        return self._change(
            signal,
            "closed",
            details,
            exit_price=exit_price,
            close_reason=close_reason,
            return_=return_,
            fees=fees,
        )

    def cancel(self, signal: SignalRef, **details: Any) -> ManagedSignal:
        """Note that a signal was cancelled before it was executed."""
        return self._change(signal, "cancelled", details)

    def reject(self, signal: SignalRef, **details: Any) -> ManagedSignal:
        """Note that a signal was rejected, by a person, a rule or a broker."""
        return self._change(signal, "rejected", details)

    def expire(self, *, account_id: UUID | None = None) -> builtins.list[ManagedSignal]:
        """Return the signals held here that have expired since the last call, each once.

        A signal expires by itself when its `valid_until` is reached; nothing has to be called.
        """
        account = self._account(account_id)
        with account.lock:
            return account.book.newly_expired()

    # Questions.

    def get(self, signal: SignalRef, *, account_id: UUID | None = None) -> ManagedSignal | None:
        """Return a signal as it is now, None if there is no such signal.

        In `persist` the database finds a signal by its natural key: an id alone is enough for the
        signals that this manager holds, for others pass the signal.
        """
        account = self._account(account_id)
        named = _signal_of(signal)
        signal_id = _id_of(signal, account.account_id)
        return account.get(signal_id, named)

    def list(
        self,
        *,
        status: Status | None = None,
        trader_id: UUID | None = None,
        account_id: UUID | None = None,
    ) -> builtins.list[ManagedSignal]:
        """Return the signals, newest first, at most max_signals; all, or of a status or trader."""
        found = self._account(account_id).signals(trader_id)
        return [seen for seen in found if status is None or seen.status == status]

    def by_status(
        self, status: Status, *, account_id: UUID | None = None
    ) -> builtins.list[ManagedSignal]:
        """Return the signals of a status, newest first."""
        return self.list(status=status, account_id=account_id)

    def by_trader(
        self, trader_id: UUID, *, account_id: UUID | None = None
    ) -> builtins.list[ManagedSignal]:
        """Return the signals of a trader, newest first."""
        return self.list(trader_id=trader_id, account_id=account_id)

    def stats(self, *, account_id: UUID | None = None) -> ManagerStats:
        """Return the counts of an account."""
        account = self._account(account_id)
        seen = account.signals()
        with account.lock:
            return ManagerStats(
                mode=account.book.mode,
                signals=len(seen),
                by_status=counted(seen),
                pending=account.book.pending,
                refused=len(account.book.refused()),
                forgotten=account.book.forgotten,
            )

    def refused(self, *, account_id: UUID | None = None) -> builtins.list[ManagedSignal]:
        """Return the signals that the database did not take; publish one again to try again."""
        account = self._account(account_id)
        with account.lock:
            return account.book.refused()

    # The mode, and what the two say differently.

    def mode_of(self, account_id: UUID | None = None) -> Mode:
        """Return the mode that an account is in now, after looking at the flag."""
        return self._account(account_id).book.mode

    def flush(self, timeout: float = 10.0, *, account_id: UUID | None = None) -> int:
        """Wait up to `timeout` seconds until the store of an account has everything.

        Returns how many signals it has not, or not with all their changes. Does not wait in
        `memory`.
        """
        return self._account(account_id).flush(timeout)

    def compare(
        self, *, max_signals: int | None = None, account_id: UUID | None = None
    ) -> DifferenceReport:
        """Compare the newest `max_signals` of an account with its store now.

        Leaves out what is still to be written. Returns what `differences` does. Raises the
        TransportError or ApiError of the store.
        """
        account = self._account(account_id)
        Comparison(account, self._tracker).run(max_signals or self._max_signals)
        return self._tracker.report()

    def differences(self) -> DifferenceReport:
        """Return everything that memory and database say differently, as far as it was found."""
        return self._tracker.report()

    def stop(self, timeout: float = 5.0) -> None:
        """Write what is left within `timeout` seconds and end.

        Raises UnwrittenError when the stores were not given everything by then: what they took is
        theirs to keep or to report (a producer with a spool keeps it). Accounts in `memory` are not
        written. Stopping again does nothing.
        """
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        ends = time.monotonic() + timeout
        left = 0
        for account in self._accounts.values():
            if account.book.mode != "memory":
                account.flush(max(0.0, ends - time.monotonic()))
                with account.lock:
                    left += account.book.unwritten
        for writer in self._writers.values():
            writer.close(max(0.1, ends - time.monotonic()))
        if left:
            raise UnwrittenError(left)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except UnwrittenError as unwritten:
            if error is None:
                raise
            _log.error("%s", unwritten)

    def _change(
        self, signal: SignalRef, status: Reached, details: Mapping[str, Any], **outcome: Any
    ) -> ManagedSignal:
        rest = dict(details)
        account = self._account(rest.pop("account_id", None))
        named = _signal_of(signal)
        if named is None:
            with account.lock:
                entry = account.book.entry(_id_of(signal, account.account_id))
            if entry is None:
                raise UnknownSignalError
            named = entry.signal
        rest.setdefault("occurred_at", self._clock())
        change = SignalChange.of(named, status, **outcome, **rest)
        problem = problem_of_change(change)
        if problem is not None:
            raise InvalidChangeError(problem)
        return account.change(change)

    def _account(self, account_id: UUID | None) -> ManagedAccount:
        """Return the account, in the mode that its flag says now."""
        if account_id is None:
            account_id = self._only
        if account_id is None:
            raise ConfigurationError("Cannot tell the account: pass its account_id.")
        account = self._accounts.get(account_id) or self._new_account(account_id)
        if self._stopped:
            raise ClosedError("Cannot use this manager: it was stopped; make a new one.")
        account.follow(self._wanted(account))
        return account

    def _new_account(self, account_id: UUID) -> ManagedAccount:
        with self._lock:
            if account_id not in self._accounts:
                book = Book(account_id, self._max_signals, self._clock)
                account = ManagedAccount(
                    book, self._store_of, self._settings, self._tracker, self._wake_writer
                )
                self._writers[account_id] = Writer(
                    account,
                    self._tracker,
                    Backoff(0.1, 5.0, random.random),
                    compare_interval=self._settings.compare_interval,
                    compare_max_signals=self._settings.compare_max_signals,
                )
                self._accounts[account_id] = account
            return self._accounts[account_id]

    def _wanted(self, account: ManagedAccount) -> Mode:
        flag = self._flag
        if isinstance(flag, str):
            wanted = flag
        elif isinstance(flag, Mapping):
            wanted = flag.get(account.account_id, "memory")
        else:
            try:
                wanted = flag(account.account_id)
            except Exception:
                # A flag service that is down must not stop the trading.
                _log.exception("Cannot tell the mode of account %s", account.account_id)
                return account.book.mode
        if wanted not in _MODES:
            raise ConfigurationError(
                f"Cannot use mode {wanted!r}: it is 'memory', 'dual_write' or 'persist'."
            )
        return wanted

    def _store_of(self, account_id: UUID) -> SignalStore:
        store = self._store
        if isinstance(store, Mapping):
            store = store.get(account_id)
        elif callable(store):
            store = store(account_id)
        if store is None:
            raise ConfigurationError(
                f"Cannot write account {account_id}: the manager was made without a store for it."
            )
        return store

    def _wake_writer(self, account: ManagedAccount) -> None:
        self._writers[account.account_id].wake()


def _signal_of(signal: SignalRef) -> Signal | StoredSignal | None:
    if isinstance(signal, ManagedSignal):
        return signal.signal
    return None if isinstance(signal, UUID) else signal


def _id_of(signal: SignalRef, account_id: UUID) -> UUID:
    if isinstance(signal, UUID):
        return signal
    if isinstance(signal, Signal):
        return signal.signal_id(account_id)
    return signal.signal_id
