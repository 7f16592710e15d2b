"""Follow the signals of an account live with asyncio: each once, in the order of storing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypedDict, Unpack
from uuid import UUID

import msgspec

from signal_persistence.caller import pause_before
from signal_persistence.channel import LiveChannel
from signal_persistence.credentials import Credentials
from signal_persistence.errors import (
    ClosedError,
    ConfigurationError,
    SubscriptionError,
    TransportError,
    UnavailableError,
)
from signal_persistence.query import AsyncSignalQuery, Route
from signal_persistence.reading import Broadcast, Page, SignalFilter
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import (
    Observation,
    SeqQuery,
    Subscription,
    SubscriptionState,
)
from signal_persistence.token import account_of

_POLL_SECONDS: Final = 2.0
"""Seconds between queries while nothing is pushed."""

_log = logging.getLogger(__name__)


class SubscriberOptions(TypedDict, total=False):
    """Which signals to follow, from where, and how.

    `after_seq` continues after a saved `cursor`; 0 begins with the first signal ever stored;
    without it, following begins with what is stored from now on. `buffer_signals` bounds what is
    held for a slow reader: beyond it signals are fetched again later, never lost.
    `check_interval` is in seconds: how often the database is asked whether a broadcast was lost.
    """

    traders: Iterable[UUID | str] | None
    symbols: Iterable[str] | None
    timeframes: Iterable[str] | None
    actions: Iterable[str] | None
    min_confidence: float | None
    after_seq: int | None
    buffer_signals: int
    check_interval: float
    transport: Route
    timeout: float
    on_state: Callable[[SubscriptionState], None] | None


class AsyncSubscriber:
    """Follow the signals of one account, each once and in seq order.

    Use it as an async context manager and iterate over it: entering returns once it is settled
    where following begins, so whatever is stored after that is seen. Broken connections are
    renewed without end; an error that cannot pass (a password that is refused, a missing scope)
    is raised by the iteration, and `cursor` tells where to continue.
    """

    def __init__(
        self, url: str, key: str, credentials: Credentials, **options: Unpack[SubscriberOptions]
    ) -> None:
        """`url` is the project's URL, `key` its publishable key."""
        self._options = options
        self._url = url
        self._key = key
        self._credentials = credentials
        self._filter = SignalFilter.of(
            traders=options.get("traders"),
            symbols=options.get("symbols"),
            timeframes=options.get("timeframes"),
            actions=options.get("actions"),
            min_confidence=options.get("min_confidence"),
        )
        self._check_interval = _positive("check_interval", options.get("check_interval", 10.0))
        self._timeout = _positive("timeout", options.get("timeout", 10.0))
        buffer_signals = int(_positive("buffer_signals", options.get("buffer_signals", 10_000)))
        self._subscription = Subscription(
            self._filter.matches,
            after_seq=_seq(options.get("after_seq")),
            buffer_signals=buffer_signals,
        )
        self._query = AsyncSignalQuery(
            url,
            key,
            credentials,
            transport=options.get("transport", "edge"),
            timeout=self._timeout,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._error: BaseException | None = None
        self._last_state = self._subscription.state
        self._work = asyncio.Event()
        self._arrived = asyncio.Event()
        self._state_changed = asyncio.Event()

    @property
    def state(self) -> SubscriptionState:
        """How far this subscriber is up to date now."""
        return self._subscription.state

    @property
    def cursor(self) -> int | None:
        """Everything up to this seq has been handed out: save it, and continue with `after_seq`."""
        return self._subscription.cursor

    async def start(self) -> None:
        """Settle where following begins, then follow in the background; the context does it."""
        if self._tasks or self.state is SubscriptionState.CLOSED:
            raise ClosedError("Cannot start a subscriber twice: make a new one.")
        account_id = account_of(await self._credentials.access_token())
        query = self._subscription.next_query()
        if query is not None:
            self._take_in(query, await self._fetch(query))
        channel = LiveChannel(
            self._url,
            self._key,
            f"account:{account_id}:signals",
            self._credentials,
            self,
            timeout=self._timeout,
        )
        self._tasks = [
            asyncio.create_task(
                self._owned(partial(self._stay_joined, channel)), name="signal-channel"
            ),
            asyncio.create_task(self._owned(self._fill_gaps), name="signal-gaps"),
        ]

    async def close(self, timeout: float = 5.0) -> None:
        """End following within `timeout` seconds; signals not yet taken stay behind the cursor."""
        self._subscription.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        await self._query.close()
        self._tell()

    async def get(self, timeout: float | None = None) -> StoredSignal | None:
        """Return the next signal, or None when none came within `timeout` seconds.

        Raises ClosedError after close().
        """
        observations = await self.take(1, timeout)
        if not observations and self.state is SubscriptionState.CLOSED:
            raise ClosedError("Cannot get a signal: the subscriber is closed.")
        return observations[0].signal if observations else None

    async def take(self, at_most: int, timeout: float | None = None) -> list[Observation]:
        """Return 1 to `at_most` signals; none when none came in time or it is closed."""
        try:
            async with asyncio.timeout(timeout):
                await self._until_there_is_one()
        except TimeoutError:
            return []
        if self._error is None and self.state is SubscriptionState.CLOSED:
            return []
        taken: list[Observation] = []
        while len(taken) < at_most and (observation := self._subscription.take()) is not None:
            taken.append(observation)
        self._work.set()
        return taken

    async def observations(self) -> AsyncIterator[Observation]:
        """Iterate as the subscriber itself does, with the time of each signal's broadcast."""
        while observations := await self.take(1):
            yield observations[0]

    async def wait_until_live(self, timeout: float) -> None:
        """Return when the subscriber is LIVE; raise SubscriptionError after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.state is not SubscriptionState.LIVE:
                    if self.state is SubscriptionState.CLOSED:
                        raise self._error or ClosedError
                    self._state_changed.clear()
                    await self._state_changed.wait()
        except TimeoutError:
            raise SubscriptionError(
                f"Cannot follow live within {timeout:g} s: it is {self.state}; signals still "
                "arrive by queries, only later."
            ) from None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoredSignal:
        observations = await self.take(1)
        if not observations:
            raise StopAsyncIteration
        return observations[0].signal

    def on_joined(self) -> None:
        """For the channel: it is joined."""
        self._subscription.joined()
        self._tell()

    def on_replication_ready(self) -> None:
        """For the channel: broadcasts follow the database from now on."""
        self._subscription.replication_ready()
        self._tell()

    def on_broadcast(self, payload: Mapping[str, Any]) -> None:
        """For the channel: signals were stored."""
        try:
            self._subscription.broadcast(msgspec.convert(payload, Broadcast))
        except msgspec.ValidationError as error:
            _log.warning("Cannot read a broadcast, so the database is asked: %s", error)
            self._subscription.check_due()
        self._tell()

    async def _until_there_is_one(self) -> None:
        """Wait for a signal or the end; raise the error that ended it after the last signal."""
        while not self._subscription.buffered:
            if self._error is not None:
                raise self._error
            if self.state is SubscriptionState.CLOSED:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def _owned(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a background task; what it raises is raised to the reader."""
        try:
            await work()
        except Exception as error:
            self._error = error
            self._subscription.close()
            self._tell()

    async def _stay_joined(self, channel: LiveChannel) -> None:
        attempt = 0
        while True:
            try:
                reason = await channel.hold()
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
            attempt = 0 if self.state is SubscriptionState.LIVE else attempt
            self._subscription.left()
            self._tell()
            attempt += 1
            _log.warning("The live channel is lost (%s); joining again", reason)
            await asyncio.sleep(pause_before(attempt))

    async def _fill_gaps(self) -> None:
        loop = asyncio.get_running_loop()
        check_at = loop.time() + self._check_interval
        while True:
            query = self._subscription.next_query()
            if query is not None:
                self._take_in(query, await self._fetch_until_answered(query))
                continue
            if self.state is not SubscriptionState.LIVE:
                check_at = min(check_at, loop.time() + min(_POLL_SECONDS, self._check_interval))
            self._work.clear()
            try:
                async with asyncio.timeout_at(check_at):
                    await self._work.wait()
            except TimeoutError:
                self._subscription.check_due()
                check_at = loop.time() + self._check_interval

    async def _fetch_until_answered(self, query: SeqQuery) -> Page:
        attempt = 0
        while True:
            try:
                return await self._fetch(query)
            except (TransportError, UnavailableError) as error:
                attempt += 1
                _log.warning("Cannot fetch missed signals yet: %s", error)
                wanted = getattr(error, "retry_after", None) or 0.0
                await asyncio.sleep(max(pause_before(attempt), wanted))

    async def _fetch(self, query: SeqQuery) -> Page:
        return await self._query.page(
            traders=self._filter.traders,
            symbols=self._filter.symbols,
            timeframes=self._filter.timeframes,
            actions=self._filter.actions,
            min_confidence=self._filter.min_confidence,
            after_seq=query.after_seq,
            sort="seq",
            page_size=query.page_size,
        )

    def _take_in(self, query: SeqQuery, page: Page) -> None:
        self._subscription.page(query, page)
        self._tell()

    def _tell(self) -> None:
        """Wake whoever may have something to do after the subscription changed."""
        self._work.set()
        self._arrived.set()
        state = self.state
        if state is self._last_state:
            return
        self._last_state = state
        self._state_changed.set()
        on_state = self._options.get("on_state")
        if on_state is not None:
            try:
                on_state(state)
            except Exception:
                _log.exception("on_state raised")


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ConfigurationError(f"Cannot use {name}={value}: it must be more than 0.")
    return value


def _seq(value: int | None) -> int | None:
    if value is not None and value < 0:
        raise ConfigurationError(f"Cannot follow after seq {value}: the first one is 1.")
    return value
