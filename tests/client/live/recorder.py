"""A subscriber whose every signal and state is noted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

from signal_persistence import (
    AsyncSubscriber,
    SignalEvent,
    StateReason,
    StoredSignal,
    SubscriptionState,
)
from tests.checkers.histories import Stored

_AT_ONCE: Final = 100
_LOOK_EVERY: Final = 0.1

States = list[tuple[SubscriptionState, StateReason | None]]


class Recorder:
    """Read everything that a subscriber hands out, from the first on, through restarts."""

    def __init__(self, make: Callable[..., AsyncSubscriber], **options: Any) -> None:
        self._make = make
        self._options = options
        self._free_at = 0.0
        self._follows_events = options.get("events", False)
        self.observed: list[Stored] = []
        self.events: list[SignalEvent] = []
        self.early_events: list[SignalEvent] = []
        self.states: States = []
        self.subscriber = self._new(after_seq=0, after_event_seq=0)
        self._reading: asyncio.Task[None] | None = None

    def be_slow(self, seconds: float) -> None:
        """Read nothing for so long."""
        self._free_at = time.monotonic() + seconds

    async def restart(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Close the subscriber and continue with another one where it stopped."""
        await self._stop()
        await meanwhile()
        stopped = self.subscriber
        self.subscriber = self._new(after_seq=stopped.cursor, after_event_seq=stopped.event_cursor)
        await self._begin()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    def _new(self, *, after_seq: int | None, after_event_seq: int | None) -> AsyncSubscriber:
        cursors = {"after_seq": after_seq}
        if self._follows_events:
            cursors["after_event_seq"] = after_event_seq
        return self._make(**cursors, on_state=self._note_state, **self._options)

    def _note_state(self, state: SubscriptionState, reason: StateReason | None) -> None:
        self.states.append((state, reason))

    async def _begin(self) -> None:
        await self.subscriber.start()
        self._reading = asyncio.create_task(self._read())

    async def _stop(self) -> None:
        await self.subscriber.close()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def _read(self) -> None:
        if self._follows_events:
            async for news in self.subscriber.news():
                self._note(news)
                await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
            return
        while True:
            await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
            for observation in await self.subscriber.take(_AT_ONCE, _LOOK_EVERY):
                self._note(observation.signal)

    def _note(self, news: StoredSignal | SignalEvent) -> None:
        if isinstance(news, StoredSignal):
            self.observed.append(Stored(news.signal_id, news.seq))
            return
        self.events.append(news)
        if news.signal_id not in {signal.signal_id for signal in self.observed}:
            self.early_events.append(news)
