"""Waiting on an event loop: for an event up to a time, and for any change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def wait(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for `event` up to `seconds` (None: without limit) and say whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


class Pulse:
    """Wakes everyone who waits for some condition whenever it may have become true."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._event = asyncio.Event()
        self.watched = 0
        """How many are waiting: without any, nobody needs to beat."""

    def beat(self) -> None:
        """Have every waiting condition looked at again; on the loop only."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def until(self, condition: Callable[[], bool], seconds: float | None) -> bool:
        """Wait until `condition()` holds, up to `seconds` (None: without limit)."""
        ends = None if seconds is None else self._clock() + seconds
        self.watched += 1
        try:
            while True:
                # Taken before looking, so that a beat in between is not missed.
                event = self._event
                if condition():
                    return True
                left = None if ends is None else ends - self._clock()
                if left is not None and left <= 0:
                    return False
                await wait(event, left)
        finally:
            self.watched -= 1
