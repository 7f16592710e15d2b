"""The thread that writes one account behind: it lives while the account has, or may have, work."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from signal_persistence.errors import SignalPersistenceError
from signal_persistence.logs import correlation
from signal_persistence.manager.account import ManagedAccount
from signal_persistence.manager.comparison import Comparison
from signal_persistence.manager.differences import DifferenceTracker
from signal_persistence.retry import Backoff

_log: Final = logging.getLogger("signal_persistence")


class Writer:
    """Writes what an account has for the database, in order, again and again until it has it."""

    def __init__(
        self,
        account: ManagedAccount,
        tracker: DifferenceTracker,
        backoff: Backoff,
        *,
        compare_interval: float | None,
        compare_max_signals: int,
    ) -> None:
        """While the mode is `dual_write` it also compares, every `compare_interval` seconds."""
        self._account = account
        self._tracker = tracker
        self._backoff = backoff
        self._compare_interval = compare_interval
        self._compare_max_signals = compare_max_signals
        self._compared_at = time.monotonic()
        self._failures = 0
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have it look for work, if the account's mode has any."""
        with self._lock:
            if not self._account.writes or self._closed.is_set():
                return
            # After a fork the thread is not there in the child.
            if self._thread is None or not self._thread.is_alive():
                name = f"signal-manager-{self._account.account_id}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
        self._woken.set()

    def close(self, timeout: float) -> None:
        """End the thread, waiting for it up to `timeout` seconds."""
        self._closed.set()
        self._woken.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while not self._is_done():
            self._woken.clear()
            try:
                with correlation():
                    busy = self._account.write()
                    self._compare_when_due()
            except Exception as error:
                self._failed(error)
                continue
            self._failures = 0
            self._account.last_error = None
            if not busy:
                self._woken.wait(self._compare_interval)

    def _is_done(self) -> bool:
        with self._lock:
            if self._closed.is_set() or not self._account.writes:
                self._thread = None
                return True
            return False

    def _compare_when_due(self) -> None:
        if self._compare_interval is None or self._account.book.mode != "dual_write":
            return
        if time.monotonic() - self._compared_at >= self._compare_interval:
            self._compared_at = time.monotonic()
            Comparison(self._account, self._tracker).run(self._compare_max_signals)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if isinstance(error, SignalPersistenceError):
            first = self._account.last_error is None
            self._account.last_error = error
            if first:
                _log.warning(
                    "Cannot write account %s yet, it will be tried again: %s",
                    self._account.account_id,
                    error,
                    extra={"account_id": str(self._account.account_id), "code": error.code},
                )
        else:
            # A bug of ours, or of a store, must not end the writing: nothing is lost meanwhile.
            _log.exception("Cannot go on writing account %s", self._account.account_id)
        self._closed.wait(self._backoff.pause(self._failures, getattr(error, "retry_after", None)))
