"""What became of a published signal: the report, and the handle that waits for it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Generator
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from signal_persistence.errors import (
    AbandonedError,
    ClosedError,
    DeliveryError,
    DeliveryTimeoutError,
    RejectedError,
)
from signal_persistence.signal import Signal

DeliveryStatus = Literal["accepted", "duplicate", "rejected", "failed"]


class Fate(msgspec.Struct, frozen=True, gc=False):
    """What became of one signal of a batch; see DeliveryReport for each field."""

    status: DeliveryStatus
    code: str | None = None
    message: str | None = None
    seq: int | None = None

    @property
    def stored(self) -> bool:
        """Whether the service is known to store the signal."""
        return self.status in ("accepted", "duplicate")


class DeliveryReport(msgspec.Struct, frozen=True):
    """The last word about one published signal.

    `accepted` and `duplicate` mean that the service stores the signal, from this call or from an
    earlier one; `rejected` that the service refused this signal; `failed` that its batch could
    not be delivered. `code` and `message` say why it was not accepted. `seq` is the place in the
    account's order of an accepted signal. `in_doubt` is true when a failed signal may be stored
    all the same; publishing it again is safe. `fsn` is the signal's number in its producer's log.
    `latency` is seconds from publish() to this report (from when it was read back, for a signal
    that was only on disk), `round_trip` from sending the request to the verdict.
    """

    signal: Signal
    account_id: UUID | None
    status: DeliveryStatus
    code: str | None = None
    message: str | None = None
    seq: int | None = None
    request_id: UUID | None = None
    attempts: int = 0
    in_doubt: bool = False
    latency: float = 0.0
    round_trip: float = 0.0
    fsn: int = 0

    @property
    def stored(self) -> bool:
        """Whether the service is known to store the signal."""
        return self.status in ("accepted", "duplicate")

    def raise_unless_stored(self) -> None:
        """Raise the DeliveryError that fits, unless the signal is stored."""
        if not self.stored:
            raise _ERRORS.get(self.code or "", _error_of(self.status))(self)


class Delivery(msgspec.Struct, eq=False, weakref=True):
    """A published signal on its way: wait with `result()` in a thread, with `await` in asyncio.

    `fsn` is the signal's number in its producer's log: `await_acked(fsn)` of the producer waits
    for it and everything before it.
    """

    signal: Signal
    fsn: int = 0
    _report: DeliveryReport | None = None
    _wakers: list[Callable[[], object]] | None = None
    _left: bool = False

    @property
    def report(self) -> DeliveryReport | None:
        """The report, or None while the signal is on its way. Never raises."""
        return self._report

    def done(self) -> bool:
        """Say whether the report is there."""
        return self._report is not None

    def result(self, timeout: float | None = None) -> DeliveryReport:
        """Block until the signal is stored and return the report.

        Raises DeliveryError when it finally was not stored, TimeoutError after `timeout` seconds
        (the signal is still on its way then), ClosedError when its producer was closed before, and
        keeps it on disk for the next one.
        """
        arrived = threading.Event()
        self._when_done(arrived.set)
        if not arrived.wait(timeout):
            raise TimeoutError("Cannot tell yet what became of the signal: it is on its way.")
        return self._stored_report()

    def __await__(self) -> Generator[Any, None, DeliveryReport]:
        """Wait as `result()` does, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            # A loop that has been closed has nobody left to wake.
            if not loop.is_closed():
                loop.call_soon_threadsafe(arrived.set)

        self._when_done(wake)
        yield from arrived.wait().__await__()
        return self._stored_report()

    def resolve(self, report: DeliveryReport) -> None:
        """Set the report and wake all that wait; only the engine calls this, once."""
        with _wakers_lock:
            self._report = report
            wakers, self._wakers = self._wakers, None
        for wake in wakers or ():
            wake()

    def leave(self) -> None:
        """Wake all that wait for a report that will not come here; only the engine calls this."""
        with _wakers_lock:
            self._left = True
            wakers, self._wakers = self._wakers, None
        for wake in wakers or ():
            wake()

    def _when_done(self, wake: Callable[[], object]) -> None:
        with _wakers_lock:
            if self._report is None and not self._left:
                self._wakers = [*(self._wakers or ()), wake]
                return
        wake()

    def _stored_report(self) -> DeliveryReport:
        report = self._report
        if report is None:
            raise ClosedError(
                "Cannot tell what became of the signal: its producer ended before it was sent. "
                "It stays in the spool (of the parent, in a forked child) and is sent from there."
            )
        report.raise_unless_stored()
        return report


_wakers_lock = threading.Lock()
"""One lock for all deliveries: held for an assignment only, and a lock each would cost more."""


def _renew_lock() -> None:
    """In a forked child: a thread that is not here may have held the lock."""
    global _wakers_lock
    _wakers_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)

_ERRORS: Final[dict[str, type[DeliveryError]]] = {
    DeliveryTimeoutError.code: DeliveryTimeoutError,
    AbandonedError.code: AbandonedError,
}


def _error_of(status: DeliveryStatus) -> type[DeliveryError]:
    return RejectedError if status == "rejected" else DeliveryError
