"""Follow an account live without asyncio: the blocking face of AsyncSubscriber."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self, Unpack

from signal_persistence.advance import SignalEvent
from signal_persistence.async_subscriber import AsyncSubscriber, News, SubscriberOptions, news_of
from signal_persistence.coverage import Observation
from signal_persistence.credentials import Credentials
from signal_persistence.errors import ClosedError, ConfigurationError
from signal_persistence.loop_thread import LoopThread
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import StateReason, SubscriptionState

_TAKE_AT_ONCE: Final = 500


class Subscriber:
    """Follow the signals of one account without an event loop; see AsyncSubscriber.

    Iterating blocks until the next signal. One thread reads; another may close it, and a callback
    may.
    """

    def __init__(
        self, url: str, key: str, credentials: Credentials, **options: Unpack[SubscriberOptions]
    ) -> None:
        """`url` is the project's URL, `key` its publishable key."""
        self._subscriber = AsyncSubscriber(url, key, credentials, **options)
        self._loop = LoopThread("signal-subscriber")
        self._follows_events = bool(options.get("events") or options.get("on_event"))
        self._taken: deque[Observation | SignalEvent] = deque()
        self._closed = False

    @property
    def state(self) -> SubscriptionState:
        """How far this subscriber is up to date now."""
        return self._subscriber.state

    @property
    def state_reason(self) -> StateReason | None:
        """Why it is in this state; None when it is LIVE."""
        return self._subscriber.state_reason

    @property
    def cursor(self) -> int | None:
        """Everything up to this seq has been handed out: save it, and continue with `after_seq`.

        With `on_signal` a signal is handed out when its call has returned.
        """
        return self._subscriber.cursor

    @property
    def event_cursor(self) -> int | None:
        """The same for events, by their own seq: continue with `after_event_seq`."""
        return self._subscriber.event_cursor

    @property
    def callback_errors(self) -> int:
        """How often `on_signal`, `on_event` or `on_state` raised."""
        return self._subscriber.callback_errors

    def start(self) -> None:
        """Settle where following begins, then follow in the background; the context does it."""
        self._loop.run(self._subscriber.start())

    def close(self, timeout: float = 5.0) -> None:
        """End following within `timeout` seconds; signals not yet taken stay behind the cursor."""
        if self._closed:
            return
        self._closed = True
        self._subscriber.end_callbacks()
        if self._subscriber.is_callback() or self._loop.is_current():
            # A callback, on its thread or on the loop, cannot wait for itself.
            self._loop.finish(lambda: self._close_softly(timeout))
            return
        self._loop.run(self._subscriber.close(timeout))
        self._loop.close()

    def wait(self) -> None:
        """Return when it is closed; raise the error that ended it. For use with `on_signal`."""
        try:
            self._loop.run(self._subscriber.wait())
        except ClosedError:
            if not self._closed:
                raise

    def get(self, timeout: float | None = None) -> StoredSignal | None:
        """Return the next signal, or None when none came within `timeout` seconds.

        Raises ClosedError after close().
        """
        observation = self._next_signal(timeout)
        if observation is None and self.state is SubscriptionState.CLOSED:
            raise ClosedError("Cannot get a signal: the subscriber is closed.")
        return observation.signal if observation else None

    def observations(self) -> Iterator[Observation]:
        """Iterate as the subscriber itself does, with the time of each signal's broadcast."""
        while (observation := self._next_signal(None)) is not None:
            yield observation

    def news(self) -> Iterator[News]:
        """Iterate over signals and, when these are followed, events: each once and by its seq.

        An event comes after the signals that it is about.
        """
        while (one := self._next(None)) is not None:
            yield news_of(one)

    def wait_until_live(self, timeout: float) -> None:
        """Return when the subscriber is LIVE; raise SubscriptionError after `timeout` seconds."""
        self._loop.run(self._subscriber.wait_until_live(timeout))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StoredSignal:
        observation = self._next_signal(None)
        if observation is None:
            raise StopIteration
        return observation.signal

    async def _close_softly(self, timeout: float) -> None:
        await self._subscriber.close(timeout)
        # The loop ends with this: transports that were closed need one more turn of it.
        await asyncio.sleep(0)

    def _next_signal(self, timeout: float | None) -> Observation | None:
        if self._follows_events:
            raise ConfigurationError("Cannot take signals alone: with events, iterate over news().")
        one = self._next(timeout)
        return one if isinstance(one, Observation) else None

    def _next(self, timeout: float | None) -> Observation | SignalEvent | None:
        """Take many at once from the other thread: handing over one by one would be slow."""
        if not self._taken and not self._closed:
            try:
                work = self._subscriber.take_in_hand(_TAKE_AT_ONCE, timeout)
                self._taken.extend(self._loop.run(work))
            except ClosedError:
                if not self._closed:
                    raise
        if not self._taken or self._closed:
            return None
        one = self._taken.popleft()
        self._subscriber.hand_out(one if self._taken else None)
        return one
