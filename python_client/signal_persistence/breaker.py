"""A circuit breaker: a service that fails is left alone, and asked again by exactly one call.

Pure but for its lock, which is held for assignments only: never during a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Literal

State = Literal["closed", "open", "half_open"]

_FAILURES_TO_OPEN: Final = 5
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 30.0


class Breaker:
    """Lets calls to one endpoint through while it works; may be shared by threads and tasks.

    `closed`: every call is admitted. `open`, after `failures_to_open` failures in a row: none is,
    for a wait that doubles from `first_wait` up to `longest_wait` seconds. `half_open`, after the
    wait: exactly one call, the probe. When it succeeds the breaker closes, when it fails it opens.

    Of several callers at least two must fail: one account that the service cannot serve slows down
    by its own pauses, and must not hold up the others.

    A caller gets a ticket from `admit`, says how the call ended with `succeeded` or `failed`, and
    gives the ticket back with `release` whatever happened. The word of a call that was admitted
    before the breaker last changed its state does not count any more.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failures_to_open: int = _FAILURES_TO_OPEN,
        first_wait: float = _FIRST_WAIT,
        longest_wait: float = _LONGEST_WAIT,
        callers: int = 1,
    ) -> None:
        """`callers` is how many there are; it may be changed (`callers`) when that does."""
        self.callers = callers
        self._clock = clock
        self._failures_to_open = failures_to_open
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._lock = threading.Lock()
        self._state: State = "closed"
        self._ticket = 0
        self._failures = 0
        self._failing: set[object] = set()
        self._wait = first_wait
        self._probe_at = 0.0

    @property
    def state(self) -> State:
        """The state of this moment; an open breaker becomes half open by admitting its probe."""
        return self._state

    def admit(self) -> int | None:
        """Return the ticket of a call that may go out now, None if it has to wait."""
        with self._lock:
            if self._state == "closed":
                return self._ticket
            if self._state == "half_open" or self._clock() < self._probe_at:
                return None
            self._enter("half_open")
            return self._ticket

    def would_admit(self) -> bool:
        """Say whether `admit` would return a ticket now."""
        with self._lock:
            waits = self._state == "open" and self._clock() < self._probe_at
            return self._state != "half_open" and not waits

    def seconds_to_probe(self) -> float | None:
        """How long until a call is admitted; None when that is up to a probe on its way."""
        with self._lock:
            if self._state == "half_open":
                return None
            return 0.0 if self._state == "closed" else max(0.0, self._probe_at - self._clock())

    def succeeded(self, ticket: int) -> None:
        """Take note that the endpoint answered the call as a working service does."""
        with self._lock:
            if ticket == self._ticket:
                self._forget_failures()
                if self._state == "half_open":
                    self._wait = self._first_wait
                    self._enter("closed")

    def failed(self, ticket: int, *, caller: object = None, at_least: float = 0.0) -> None:
        """Take note of a failure; a breaker that opens stays so for `at_least` seconds."""
        with self._lock:
            if ticket != self._ticket:
                return
            self._failures += 1
            self._failing.add(caller)
            if self._state == "half_open":
                self._wait = min(2 * self._wait, self._longest_wait)
                self._open(max(self._wait, at_least))
            elif self._failures >= self._failures_to_open and self._several_fail():
                self._open(max(self._wait, at_least))

    def release(self, ticket: int) -> None:
        """Give the ticket back. A probe that ended without a word leaves its place to the next."""
        with self._lock:
            if ticket == self._ticket and self._state == "half_open":
                self._open(0.0)

    def hurry(self) -> None:
        """Admit the next probe at once."""
        with self._lock:
            self._probe_at = self._clock()

    def _open(self, seconds: float) -> None:
        self._probe_at = self._clock() + seconds
        self._enter("open")

    def _enter(self, state: State) -> None:
        self._state = state
        self._ticket += 1
        self._forget_failures()

    def _forget_failures(self) -> None:
        self._failures = 0
        self._failing.clear()

    def _several_fail(self) -> bool:
        return len(self._failing) >= min(2, self.callers)
