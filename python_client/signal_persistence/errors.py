"""Every error that this package raises.

    SignalPersistenceError
    ├── ConfigurationError          (ValueError) a setting that cannot work
    ├── InvalidSignalError          (ValueError) refused by publish(), nothing was buffered
    ├── InvalidQueryError           (ValueError) a filter that cannot work, nothing was sent
    ├── InvalidAnalysisError        (ValueError) a value that a formula does not allow
    ├── ClosedError                 the object was closed
    ├── BufferFullError             (BufferError) back-pressure: nothing was buffered
    │   └── SpoolFullError          … because the disk log may not or cannot grow
    ├── SpoolError                  the disk log cannot be used, or not be trusted any more
    ├── TransportError              no usable answer from the server
    │   ├── ConnectError            … because the request never left: definite
    │   ├── RequestTimeoutError     … in time: in doubt
    │   └── ConnectionLostError     … after the request left: in doubt
    ├── ApiError                    the server answered with an error of the catalogue
    │   ├── AuthenticationError     401
    │   ├── PermissionDeniedError   403
    │   ├── BatchTooLargeError      413
    │   └── UnavailableError        408, 429 and 5xx: worth another try
    ├── DeliveryError               a published signal that was finally not stored
    │   ├── RejectedError           … because the server refused it
    │   ├── DeliveryTimeoutError    … within delivery_timeout_ms
    │   └── AbandonedError          … because the producer was closed before
    ├── UndeliveredError            close() gave up with signals still unsent
    ├── ChangeError                 a signal's status was not changed
    │   ├── InvalidChangeError      (ValueError) … a value of the change is not valid
    │   ├── InvalidTransitionError  … its status does not allow it
    │   └── UnknownSignalError      … there is no such signal
    ├── ManagerFullError            (BufferError) max_signals: nothing was taken
    ├── UnwrittenError              a manager closed with signals or changes still unwritten
    └── SubscriptionError           live delivery cannot go on

`in_doubt` says whether the server may have done the work although the call failed; it is false
for an error that proves it did not. Messages never contain tokens, keys or passwords.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from signal_persistence.contract import CONTRACT

if TYPE_CHECKING:
    from signal_persistence.delivery import DeliveryReport


class SignalPersistenceError(Exception):
    """Signal Persistence failed."""

    in_doubt: bool = False
    code: str = "internal"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class ConfigurationError(SignalPersistenceError, ValueError):
    """Cannot use this setting: it is outside its range."""

    code = "invalid_configuration"


class InvalidSignalError(SignalPersistenceError, ValueError):
    """Cannot publish the signal: a field is not valid."""

    def __init__(self, code: str, message: str | None = None) -> None:
        self.code = code
        super().__init__(message or f"Cannot publish the signal: {CONTRACT.item_codes[code]}")

    @property
    def field(self) -> str | None:
        """The field that was refused, when one field is to blame."""
        name = self.code.removeprefix("invalid_")
        return name if name in CONTRACT.fields else None


class InvalidQueryError(SignalPersistenceError, ValueError):
    """Cannot query signals: a filter is not valid."""

    code = "invalid_filter"


class InvalidAnalysisError(SignalPersistenceError, ValueError):
    """Cannot analyse this: a value is outside what the formula allows."""


class ClosedError(SignalPersistenceError):
    """Cannot use this object: it is closed; make a new one."""

    code = "closed"


class BufferFullError(SignalPersistenceError, BufferError):
    """Cannot publish the signal: the buffer stayed full; slow down, or make the buffer larger."""

    code = "buffer_full"

    def __init__(self, reason: str, outage_started_at: datetime | None = None) -> None:
        """`reason` is "backpressure" (sending works, too slowly), "disconnected" or "callbacks".

        A SpoolFullError has its own reasons.
        """
        self.reason = reason
        self.outage_started_at = outage_started_at
        super().__init__(f"Cannot publish the signal: {_FULL[reason]}.")


_FULL = {
    "backpressure": "the buffer stayed full while sending; slow down, or make buffer_max_messages, "
    "buffer_max_bytes or max_block_ms larger",
    "disconnected": "the buffer is full because sending fails; wait until the service is back, or "
    "make buffer_max_messages and buffer_max_bytes larger",
    "callbacks": "the buffer is full of signals whose on_delivery callback has not returned; make "
    "the callback faster",
    "limit": "the spool has reached spool_max_bytes; wait until the service takes signals again, "
    "or make spool_max_bytes larger",
    "no_space": "the disk of the spool is full; free some space, or move spool_dir to another disk",
}


class SpoolFullError(BufferFullError):
    """Cannot publish the signal: the spool is full; nothing was written.

    `reason` is "limit" (spool_max_bytes) or "no_space" (the disk or a quota). What the spool holds
    is safe and is still sent; publish() works again once there is room.
    """

    code = "spool_full"


class SpoolError(SignalPersistenceError):
    """Cannot use the spool."""

    code = "spool_failed"


class TransportError(SignalPersistenceError):
    """Cannot reach the service."""

    code = "unreachable"

    def __init__(self, message: str | None = None, *, in_doubt: bool = False) -> None:
        self.in_doubt = in_doubt
        super().__init__(message)


class ConnectError(TransportError):
    """Cannot connect to the service: nothing was sent; check the URL and the network."""


class RequestTimeoutError(TransportError):
    """Cannot tell whether the service did the work: it did not answer in time."""

    code = "request_timeout"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, in_doubt=True)


class ConnectionLostError(TransportError):
    """Cannot tell whether the service did the work: the connection broke before the answer."""

    code = "connection_lost"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, in_doubt=True)


class ApiError(SignalPersistenceError):
    """Cannot do what was asked: the service refused it."""

    foreign: bool
    """Whether the answer is not the service's own, but a proxy's page or the platform's: it then
    proves nothing about what was asked."""

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str = "internal",
        status: int = 500,
        hint: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        foreign: bool = False,
    ) -> None:
        """`retry_after` is in seconds; `status` is the HTTP status."""
        self.code = code
        self.status = status
        self.foreign = foreign
        self.hint = hint
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(message)

    @property
    def in_doubt(self) -> bool:  # type: ignore[override]
        """Whether the work may have been done: who answers for the service may hide its answer."""
        return self.foreign


class AuthenticationError(ApiError):
    """Cannot sign in: the service does not accept these credentials."""


class PermissionDeniedError(ApiError):
    """Cannot do what was asked: these credentials do not allow it."""


class BatchTooLargeError(ApiError):
    """Cannot send the batch: it is larger than the service accepts."""


class UnavailableError(ApiError):
    """Cannot be served now: the service is overloaded or failing; try again later."""

    @property
    def in_doubt(self) -> bool:  # type: ignore[override]
        """Whether the work may have been done: only 429 is said before it is begun."""
        return self.status != 429


class DeliveryError(SignalPersistenceError):
    """Cannot deliver the signal."""

    def __init__(self, report: DeliveryReport, message: str | None = None) -> None:
        self.report = report
        self.code = report.code or "internal"
        self.in_doubt = report.in_doubt
        super().__init__(message or report.message)


class RejectedError(DeliveryError):
    """Cannot deliver the signal: the service rejected it."""


class DeliveryTimeoutError(DeliveryError):
    """Cannot deliver the signal: delivery_timeout_ms passed."""

    code = "delivery_timeout"


class AbandonedError(DeliveryError):
    """Cannot deliver the signal: the producer was closed before it was sent."""

    code = "abandoned"


class UndeliveredError(SignalPersistenceError):
    """Cannot deliver everything before close() had to end."""

    code = "undelivered"

    def __init__(self, reports: Sequence[DeliveryReport]) -> None:
        """`reports` names every signal that was given up, per account in the order published."""
        self.reports = tuple(reports)
        doubtful = sum(report.in_doubt for report in reports)
        self.in_doubt = doubtful > 0
        super().__init__(
            f"Cannot deliver {len(self.reports)} signals before close() had to end "
            f"({doubtful} of them may be stored): publish them again, each is stored only once."
        )


class ChangeError(SignalPersistenceError):
    """Cannot change the signal."""

    def __init__(self, code: str, message: str | None = None) -> None:
        """`code` is an item code of the contract."""
        self.code = code
        super().__init__(message or f"Cannot change the signal: {CONTRACT.item_codes[code]}")


class InvalidChangeError(ChangeError, ValueError):
    """Cannot change the signal: a value of the change is not valid."""


class InvalidTransitionError(ChangeError):
    """Cannot change the signal: its status does not allow it."""

    def __init__(self, status: str | None = None, wanted: str | None = None) -> None:
        """`status` is the status that the signal has, where it is known, `wanted` the new one."""
        self.status = status
        self.wanted = wanted
        why = f"it is {status}, and cannot become {wanted}" if status else "its status has changed"
        super().__init__("invalid_transition", f"Cannot change the signal: {why}.")


class UnknownSignalError(ChangeError):
    """Cannot change the signal: there is no such signal here."""

    def __init__(self) -> None:
        super().__init__("unknown_signal", self.__doc__)


class ManagerFullError(SignalPersistenceError, BufferError):
    """Cannot take the signal: max_signals are held, and none of them may be forgotten."""

    code = "manager_full"


class UnwrittenError(SignalPersistenceError):
    """Cannot write everything to the database before close() had to end."""

    code = "unwritten"
    in_doubt = True

    def __init__(self, unwritten: int) -> None:
        """`unwritten` counts the signals that were not written, or not all of their changes."""
        self.unwritten = unwritten
        super().__init__(
            f"Cannot write {unwritten} signals or their changes to the database before close() had "
            "to end: they were only in memory."
        )


class SubscriptionError(SignalPersistenceError):
    """Cannot go on with live delivery."""

    code = "subscription_failed"
