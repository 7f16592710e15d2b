"""What to do when a request did not give a verdict: pure decisions, no clock and no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from signal_persistence.errors import (
    ApiError,
    AuthenticationError,
    BatchTooLargeError,
    PermissionDeniedError,
    RequestTimeoutError,
    SignalPersistenceError,
    TransportError,
    UnavailableError,
)

_OVERLOAD: Final = frozenset({408, 429, 503, 504})


class Next(Enum):
    """What happens to the batch after a failed attempt."""

    RETRY = "the same batch again after a pause"
    RENEW = "the same batch again with a fresh token"
    SPLIT = "its two halves, because it was too large"
    GIVE_UP = "nothing: every attempt would fail"


def decide(error: SignalPersistenceError, *, renewed: bool, messages: int) -> Next:
    """Decide by what failed; `renewed` says that a fresh token was already tried.

    Only what the service itself says of a batch can give it up. Everything else waits like an
    outage, the data being kept (without a spool until its delivery timeout), because somebody may
    yet repair it: credentials (a refused token is renewed once before), their scopes, a proxy.
    """
    if isinstance(error, AuthenticationError):
        return Next.RETRY if renewed else Next.RENEW
    if isinstance(error, BatchTooLargeError) and messages > 1:
        return Next.SPLIT
    if not isinstance(error, ApiError) or error.foreign:
        return Next.RETRY
    if isinstance(error, (UnavailableError, PermissionDeniedError)):
        return Next.RETRY
    return Next.GIVE_UP


def is_down(error: SignalPersistenceError) -> bool:
    """Say whether the endpoint did not do its work: what a circuit breaker counts.

    A refusal of any kind, 429 among them, is the answer of an endpoint that works, unless somebody
    else gave it.
    """
    if isinstance(error, UnavailableError):
        return error.status != 429
    if isinstance(error, (AuthenticationError, BatchTooLargeError)):
        return False
    return isinstance(error, TransportError) or (isinstance(error, ApiError) and error.foreign)


def is_overload(error: SignalPersistenceError) -> bool:
    """Say whether the failure asks for less at once: 429, 503, or no answer in time."""
    if isinstance(error, UnavailableError):
        return error.status in _OVERLOAD
    return isinstance(error, RequestTimeoutError)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: full jitter below a doubling ceiling; Retry-After is a floor."""

    first: float
    longest: float
    randomness: Callable[[], float]
    """Uniform in [0, 1)."""

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after this many failures in a row (1, 2, …).

        Jitter is added to Retry-After, so that clients told the same do not all return at once.
        """
        # 2 ** 30 is beyond every sensible ceiling, and a float never overflows there.
        ceiling = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        jitter = self.randomness() * ceiling
        if retry_after is None:
            return jitter
        return max(jitter, retry_after + self.randomness() * self.first)
