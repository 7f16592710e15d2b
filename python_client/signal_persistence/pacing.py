"""How much is sent at once: it grows while the service keeps up, and halves when it does not."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_FEWEST_MESSAGES: Final = 10
_GROWTH: Final = 0.1
"""A full batch that went well makes the next one larger by this share of the first size, …"""
_FLAT: Final = 0.8
"""… if signals per second are still at least this share of the best lately, else smaller, but not
than the batch that was the best: that answers take their time now is no reason to send less at
once, which only costs more by the signal."""
_FORGETTING: Final = 0.98
"""What the best lately is multiplied by with every full batch, so that an old best is forgotten."""


class Pacing:
    """The sizes of the moment of one endpoint: additive increase, multiplicative decrease.

    `messages` is the most signals that a batch takes, `requests` the most requests under way. Both
    stay between their bounds. A batch that is not full says nothing about larger ones.
    """

    def __init__(
        self, *, first_messages: int, most_messages: int, most_requests: int, slow: float
    ) -> None:
        """An answer that takes `slow` seconds counts as a sign of overload."""
        self._least_messages = min(_FEWEST_MESSAGES, first_messages)
        self._most_messages = most_messages
        self._most_requests = most_requests
        self._step = max(1.0, _GROWTH * first_messages)
        self._slow = slow
        self._messages = float(first_messages)
        self._requests = float(most_requests)
        self._best_rate = 0.0
        self._best_messages = 0.0

    @property
    def messages(self) -> int:
        return int(self._messages)

    @property
    def requests(self) -> int:
        return int(self._requests)

    def answered(self, messages: int, seconds: float) -> None:
        """Take note that a batch of this many signals was answered after this many seconds."""
        if seconds >= self._slow:
            self.overloaded()
            return
        self._requests = min(self._most_requests, self._requests + 1 / self._requests)
        if messages < self.messages:
            return
        rate = messages / max(seconds, 1e-6)
        self._best_rate *= _FORGETTING
        if rate >= self._best_rate:
            self._best_rate, self._best_messages = rate, self._messages
        if rate >= _FLAT * self._best_rate:
            self._messages = min(self._most_messages, self._messages + self._step)
        else:
            self._messages = max(self._best_messages, self._messages - self._step)

    def overloaded(self) -> None:
        """Take note that the service did not keep up: 429, 503, or no answer in time."""
        self._messages = max(self._least_messages, self._messages / 2)
        self._requests = max(1.0, self._requests / 2)
        self._best_rate = 0.0
        self._best_messages = 0.0


class RequestSlots:
    """One slot per request under way, first come first served; a Pacing says how many there are."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.taken = 0

    async def __aenter__(self) -> Self:
        if self._waiting or self.taken >= self._pacing.requests:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._step_back(turn)
                raise
        else:
            self.taken += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.taken -= 1
        self._call_next()

    def _step_back(self, turn: asyncio.Future[None]) -> None:
        """Leave the queue; a slot that was given in the same moment goes to the next."""
        if turn.cancelled():
            with suppress(ValueError):
                self._waiting.remove(turn)
        else:
            self.taken -= 1
            self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self.taken < self._pacing.requests:
            turn = self._waiting.popleft()
            if not turn.done():
                self.taken += 1
                turn.set_result(None)
