"""Follow an account live with asyncio: each signal and event once, in the order of storing."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from itertools import groupby
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack
from uuid import UUID

import msgspec

from signal_persistence.advance import (
    AsyncSignalLifecycle,
    EventBroadcast,
    EventPage,
    SignalEvent,
)
from signal_persistence.caller import LONGEST_RETRY_AFTER, Caller, pause_before
from signal_persistence.channel import ADVANCED, LiveChannel, Loss
from signal_persistence.coverage import Observation, SeqQuery
from signal_persistence.credentials import Credentials
from signal_persistence.errors import (
    ClosedError,
    ConfigurationError,
    RequestTimeoutError,
    SubscriptionError,
    TransportError,
    UnavailableError,
)
from signal_persistence.event_filter import EventFilter
from signal_persistence.query import AsyncSignalQuery
from signal_persistence.reader import Route
from signal_persistence.reading import (
    Broadcast,
    Page,
    SignalFilter,
    SignalFilterOptions,
    require_known,
)
from signal_persistence.refusals import pause_after_silence, pause_before_joining
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import StateReason, Subscription, SubscriptionState
from signal_persistence.token import account_of
from signal_persistence.user_callback import UserCallback

T = TypeVar("T")
News = StoredSignal | SignalEvent
"""What `AsyncSubscriber.news` yields."""

_HEAD: Final = "/rest/v1/rpc/account_head"
_TRADERS: Final = "/rest/v1/rpc/list_traders"
_PAGE_SECONDS: Final = 5.0
"""A page that has not come by then is asked for again, half of it and with twice the time."""
_LONGEST_PAGE_SECONDS: Final = 10.0
"""An answer that was lost on its way is waited for no longer."""
_START_ATTEMPTS: Final = 5
_HEAD_SECONDS: Final = 4.0
"""A check is asked anew after so long; sooner would only add to what a busy service has to do."""
_PROMPT_SECONDS: Final = 0.5
"""An answer that took longer does not tell well what time it is in the database."""
_EARLIEST_CHECK: Final = 0.9
"""Each subscriber checks after this part of the interval or a little later: not all at once."""
_HAND_OUT_AT_ONCE: Final = 100
_STATES_KEPT: Final = 100
"""Changes of state that wait for a blocked `on_state`; the oldest of more are not told."""

_log = logging.getLogger(__name__)


class SubscriberOptions(SignalFilterOptions, total=False):
    """Which signals to follow, from where, and how.

    `after_seq` continues after a saved `cursor`; 0 begins with the first signal ever stored;
    without it, following begins with what is stored from now on. `buffer_signals` bounds what is
    held for a slow reader: beyond it signals are fetched again later, never lost.
    `check_interval` is in seconds: how often the database is asked whether a broadcast was lost,
    while nothing comes that shows it; the service says how often when it is left out. `own_channel`
    listens to the channel of the one trader that `traders` names: None, when that trader has one.

    With `events` what becomes of the signals of the filter is followed, too, and `news()` yields
    both; `after_event_seq` continues after a saved `event_cursor`, 0 begins with the first event.

    `on_signal` is called with each signal instead of iterating, `on_event` with each event (which
    makes it follow events), `on_state` with each new state and its reason (None when live). All
    run one call at a time, a coroutine function on the event loop, any other on a thread of its
    own; they may block, and what they raise is logged.
    """

    after_seq: int | None
    buffer_signals: int
    check_interval: float | None
    own_channel: bool | None
    events: bool
    after_event_seq: int | None
    transport: Route
    timeout: float
    on_signal: Callable[[StoredSignal], object] | None
    on_event: Callable[[SignalEvent], object] | None
    on_state: Callable[[SubscriptionState, StateReason | None], object] | None


class _Head(msgspec.Struct, frozen=True):
    last_seq: int
    last_event_seq: int
    broadcast_interval_ms: float
    check_interval_ms: float
    database_time: datetime


class _Trader(msgspec.Struct, frozen=True):
    trader_id: UUID
    own_channel: bool


_head_decoder: Final = msgspec.json.Decoder(_Head)
_traders_decoder: Final = msgspec.json.Decoder(list[_Trader])


class AsyncSubscriber:
    """Follow the signals of one account, each once and in seq order; and their events, if asked.

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
        require_known(options, SubscriberOptions)
        self._filter = SignalFilter.of(options)
        self._timeout = _positive("timeout", options.get("timeout", 10.0))
        self._events = _event_filter(options, self._filter)
        _ask_for_one_trader(options.get("own_channel"), self._filter)
        self._subscription = self._new_subscription(own_channel=False)
        self._check_early = random.uniform(_EARLIEST_CHECK, 1.0)
        # Whoever asks tries again by itself: when a page was asked is what its answer proves.
        self._caller = Caller(url, key, credentials, timeout=self._timeout, attempts=1)
        self._query = AsyncSignalQuery(
            url,
            key,
            credentials,
            transport=options.get("transport", "edge"),
            caller=self._caller,
        )
        self._lifecycle = AsyncSignalLifecycle(url, key, credentials, caller=self._caller)
        self._on_signal = _callback("signal-on-signal", options.get("on_signal"))
        self._on_event = _callback("signal-on-event", options.get("on_event"))
        self._on_state = _callback("signal-on-state", options.get("on_state"))
        self._tasks: list[asyncio.Task[None]] = []
        self._tellers: list[asyncio.Task[None]] = []
        self._channel: LiveChannel | None = None
        self._loss = Loss(StateReason.NOT_JOINED, "")
        self._timer: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None
        self._in_hand: int | None = None
        self._event_in_hand: int | None = None
        self._ending = False
        self._last_state = self._subscription.state
        self._last_reason = self._subscription.reason
        self._was_live = False
        self._untold: deque[tuple[SubscriptionState, StateReason | None]] = deque(
            maxlen=_STATES_KEPT
        )
        self._work = asyncio.Event()
        self._arrived = asyncio.Event()
        self._state_changed = asyncio.Event()
        self._state_untold = asyncio.Event()
        self._check_wanted = asyncio.Event()

    @property
    def state(self) -> SubscriptionState:
        """How far this subscriber is up to date now."""
        return self._subscription.state

    @property
    def state_reason(self) -> StateReason | None:
        """Why it is in this state; None when it is LIVE."""
        return self._subscription.reason

    @property
    def cursor(self) -> int | None:
        """Everything up to this seq has been handed out: save it, and continue with `after_seq`.

        With `on_signal` a signal is handed out when its call has returned.
        """
        # In this order: what is in hand is noted before the subscription's cursor passes it.
        cursor, in_hand = self._subscription.cursor, self._in_hand
        return cursor if cursor is None or in_hand is None else min(cursor, in_hand)

    @property
    def event_cursor(self) -> int | None:
        """The same for events, by their own seq: continue with `after_event_seq`."""
        cursor, in_hand = self._subscription.event_cursor, self._event_in_hand
        return cursor if cursor is None or in_hand is None else min(cursor, in_hand)

    @property
    def is_up_to_date(self) -> bool:
        """Whether it is LIVE and has all that it knows of, not even being a moment behind."""
        return self._subscription.is_up_to_date

    @property
    def buffered(self) -> int:
        """How many signals and events wait to be taken."""
        return self._subscription.buffered

    @property
    def callback_errors(self) -> int:
        """How often `on_signal`, `on_event` or `on_state` raised."""
        return sum(callback.errors for callback in self._callbacks)

    async def start(self) -> None:
        """Settle where following begins, then follow in the background; the context does it."""
        if self._tasks or self.state is SubscriptionState.CLOSED:
            raise ClosedError("Cannot start a subscriber twice: make a new one.")
        topic = f"account:{account_of(await self._credentials.access_token())}:signals"
        trader = await self._trader_with_own_channel()
        if trader is not None:
            topic = f"trader:{trader}:signals"
            self._subscription = self._new_subscription(own_channel=True)
        await self._fill_gap(_START_ATTEMPTS)
        await self._fill_event_gap(_START_ATTEMPTS)
        self._channel = channel = LiveChannel(
            self._url, self._key, topic, self._credentials, self, timeout=self._timeout
        )
        self._tasks = [
            asyncio.create_task(self._owned(work), name=f"signal-subscriber-{name}")
            for name, work in (
                ("channel", partial(self._stay_joined, channel)),
                ("gaps", partial(self._keep_filling, self._fill_gap)),
                ("event-gaps", partial(self._keep_filling, self._fill_event_gap)),
                ("checks", self._check),
            )
        ]
        self._tellers = [
            asyncio.create_task(work, name="signal-subscriber-callbacks")
            for work in (self._tell_news(), self._tell_states())
        ]

    async def close(self, timeout: float = 5.0) -> None:
        """End following within `timeout` seconds; signals not yet taken stay behind the cursor."""
        self.end_callbacks()
        self._tell(self._subscription.close)
        for task in self._tasks:
            task.cancel()
        mine = asyncio.current_task()
        running = [task for task in (*self._tasks, *self._tellers) if task is not mine]
        if running:
            _, late = await asyncio.wait(running, timeout=timeout)
            for task in late:
                task.cancel()
        for callback in self._callbacks:
            callback.end()
        await self._query.close()

    async def wait(self) -> None:
        """Return when it is closed; raise the error that ended it. For use with `on_signal`."""
        while self.state is not SubscriptionState.CLOSED:
            await self._next_state()
        if self._error is not None:
            raise self._error

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
        if self._events is not None:
            raise ConfigurationError("Cannot take signals alone: with events, iterate over news().")
        observations = await self.take_in_hand(at_most, timeout)
        self.hand_out(None)
        return [one for one in observations if isinstance(one, Observation)]

    async def observations(self) -> AsyncIterator[Observation]:
        """Iterate as the subscriber itself does, with the time of each signal's broadcast."""
        while observations := await self.take(1):
            yield observations[0]

    async def news(self) -> AsyncIterator[News]:
        """Iterate over signals and, when these are followed, events: each once and by its seq.

        An event comes after the signals that it is about.
        """
        while taken := await self.take_in_hand(1, None):
            self.hand_out(None)
            yield news_of(taken[0])

    async def wait_until_live(self, timeout: float) -> None:
        """Return when the subscriber is LIVE; raise SubscriptionError after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.state is not SubscriptionState.LIVE:
                    if self.state is SubscriptionState.CLOSED:
                        raise self._error or ClosedError
                    await self._next_state()
        except TimeoutError:
            raise SubscriptionError(
                f"Cannot follow live within {timeout:g} s: it is {self.state} "
                f"({self.state_reason}); signals still arrive by queries, only later."
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

    async def take_in_hand(
        self, at_most: int, timeout: float | None, *, for_callback: bool = False
    ) -> list[Observation | SignalEvent]:
        """For the blocking face: take what the cursors pass only with `hand_out`."""
        if (self._on_signal or self._on_event) and not for_callback:
            raise ConfigurationError("Cannot take signals: on_signal and on_event get all.")
        try:
            async with asyncio.timeout(timeout):
                await self._until_there_is_one()
        except TimeoutError:
            return []
        if self._error is None and self.state is SubscriptionState.CLOSED:
            return []
        self._in_hand = self._subscription.cursor
        self._event_in_hand = self._subscription.event_cursor
        taken: list[Observation | SignalEvent] = []
        while len(taken) < at_most and (one := self._subscription.take()) is not None:
            taken.append(one)
        self._work.set()
        return taken

    def hand_out(self, last: Observation | SignalEvent | None) -> None:
        """For the blocking face: of what is in hand, this and all before it; None for all."""
        if last is None:
            self._in_hand = self._event_in_hand = None
        elif isinstance(last, Observation):
            self._in_hand = last.signal.seq
        else:
            self._event_in_hand = last.seq

    def is_callback(self) -> bool:
        """For the blocking face: say whether the caller is one of the callbacks."""
        return any(callback.is_current() for callback in self._callbacks)

    def end_callbacks(self) -> None:
        """For the blocking face: tell no more news, at once, from whatever thread."""
        self._ending = True

    def on_joined(self) -> None:
        """For the channel: it is joined."""
        self._tell(self._subscription.joined)

    def on_replication_ready(self) -> None:
        """For the channel: broadcasts follow the database from now on."""
        self._tell(self._subscription.replication_ready)

    def on_broadcast(self, event: str, payload: Mapping[str, Any]) -> None:
        """For the channel: signals or events were stored."""
        try:
            if event != ADVANCED:
                self._tell(self._subscription.broadcast, msgspec.convert(payload, Broadcast))
            elif self._events is not None:
                message = msgspec.convert(payload, EventBroadcast)
                self._tell(self._subscription.event_broadcast, message)
        except msgspec.ValidationError as error:
            _log.warning("Cannot read a broadcast, so the database is asked: %s", error)
            self._tell(self._subscription.check_due)

    def on_lost(self, loss: Loss) -> None:
        """For the channel: it is lost, or cannot be joined."""
        if self.state is not SubscriptionState.CLOSED:
            _log.warning("The live channel is lost (%s); joining again", loss.said)
        self._loss = loss
        self._tell(self._subscription.left, loss.reason)

    def _new_subscription(self, *, own_channel: bool) -> Subscription:
        options = self._options
        return Subscription(
            self._filter.matches,
            after_seq=_seq(options.get("after_seq")),
            buffer_signals=int(_positive("buffer_signals", options.get("buffer_signals", 10_000))),
            check_interval=_optional("check_interval", options.get("check_interval")),
            own_channel=own_channel,
            matches_event=None if self._events is None else self._events.matches,
            after_event_seq=_seq(options.get("after_event_seq")),
        )

    @property
    def _callbacks(self) -> list[UserCallback]:
        return [each for each in (self._on_signal, self._on_event, self._on_state) if each]

    async def _trader_with_own_channel(self) -> UUID | None:
        """Return the trader to whose channel it listens; None for the channel of the account."""
        asked = self._options.get("own_channel")
        traders = self._filter.traders
        if asked is False or self._events is not None or traders is None or len(traders) != 1:
            return None  # The channel of a trader does not tell of events.
        [trader_id] = traders
        known, _ = await _until_answered(
            lambda _: self._caller.call(_TRADERS, {}, _traders_decoder.decode), _START_ATTEMPTS
        )
        if any(trader.own_channel for trader in known if trader.trader_id == trader_id):
            return trader_id
        if asked:
            raise SubscriptionError(
                f"Cannot follow the own channel of trader {trader_id}: it has none; create it with "
                "own_channel=True, or leave own_channel out."
            )
        return None

    async def _owned(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a background task; what it raises is raised to the reader."""
        try:
            await work()
        except Exception as error:
            self._error = error
            self._tell(self._subscription.close, StateReason.FAILED)

    async def _stay_joined(self, channel: LiveChannel) -> None:
        attempt = 0
        while True:
            self._was_live = False
            try:
                await channel.hold()
            except Exception as error:
                self.on_lost(Loss.of(error))
            attempt = 1 if self._was_live else attempt + 1
            if self._loss.reason is StateReason.BROADCASTS_MISSING:
                pause = pause_after_silence(attempt)
            else:
                pause = pause_before_joining(attempt, self._loss.said)
            await asyncio.sleep(pause)

    async def _keep_filling(self, fill: Callable[[], Awaitable[bool]]) -> None:
        while True:
            self._work.clear()
            if not await fill():
                await self._work.wait()

    async def _fill_gap(self, attempts: float = math.inf) -> bool:
        """Fetch a page of what is missing; tell whether anything was."""
        query = self._subscription.next_query()
        if query is None:
            return False
        page, asked_at = await _until_answered(partial(self._fetch, query), attempts)
        self._tell(partial(self._subscription.page, query, page, asked_at=asked_at))
        return True

    async def _fill_event_gap(self, attempts: float = math.inf) -> bool:
        query = self._subscription.next_event_query()
        if query is None:
            return False
        page, asked_at = await _until_answered(partial(self._fetch_events, query), attempts)
        self._tell(partial(self._subscription.event_page, query, page, asked_at=asked_at))
        return True

    async def _fetch(self, query: SeqQuery, unanswered: int) -> Page:
        return await self._query.page(
            **self._filter.options(),
            after_seq=query.after_seq,
            sort="seq",
            page_size=query.page_size_after(unanswered),
        )

    async def _fetch_events(self, query: SeqQuery, unanswered: int) -> EventPage:
        return await self._lifecycle.event_page(
            query.after_seq,
            page_size=query.page_size_after(unanswered),
            with_signals=self._events is not None and self._events.needs_signal,
        )

    async def _check(self) -> None:
        """Ask where the account is, whenever nothing else has shown it for a while."""
        attempt = 0
        while True:
            await self._check_wanted.wait()
            self._check_wanted.clear()
            if not self._subscription.check_wanted:
                continue
            asked_at = time.monotonic()
            try:
                asking = self._caller.call(_HEAD, {}, _head_decoder.decode)
                head = await _within(_HEAD_SECONDS, asking)
            except (TransportError, UnavailableError) as error:
                attempt += 1
                _log.warning("Cannot check where the account is yet: %r", error)
                await asyncio.sleep(_pause_after(error, attempt))
                self._check_wanted.set()
            else:
                attempt = 0
                self._tell(self._take_in, head, asked_at)

    def _take_in(self, head: _Head, asked_at: float) -> None:
        prompt = time.monotonic() < asked_at + _PROMPT_SECONDS
        self._subscription.head(
            head.last_seq,
            head.last_event_seq,
            broadcast_interval=head.broadcast_interval_ms / 1000,
            check_interval=head.check_interval_ms / 1000 * self._check_early,
            database_time=head.database_time if prompt else None,
            asked_at=asked_at,
        )

    async def _tell_news(self) -> None:
        """Call `on_signal` and `on_event` with each, a few in hand at a time."""
        if self._on_signal is None and self._on_event is None:
            return
        try:
            while taken := await self.take_in_hand(_HAND_OUT_AT_ONCE, None, for_callback=True):
                for kind, ones in groupby(taken, type):
                    callback = self._on_signal if kind is Observation else self._on_event
                    if callback is not None:
                        await callback.call_with_each(self._out_of_hand(ones))
                if self._ending:
                    return
                self.hand_out(None)
        except Exception as error:
            _log.error("No more news for on_signal and on_event: %s", error)

    def _out_of_hand(self, ones: Iterator[Observation | SignalEvent]) -> Iterator[tuple[News]]:
        for one in ones:
            if self._ending:
                return
            yield (news_of(one),)
            self.hand_out(one)

    async def _tell_states(self) -> None:
        """Call `on_state` with each change until the last one."""
        callback = self._on_state
        last = None
        while callback is not None and last is not SubscriptionState.CLOSED:
            await self._state_untold.wait()
            self._state_untold.clear()
            while self._untold:
                last, reason = self._untold.popleft()
                await callback.call_with_each([(last, reason)])

    async def _until_there_is_one(self) -> None:
        """Wait for a signal or the end; raise the error that ended it after the last signal."""
        while not self._subscription.has_next:
            if self._error is not None:
                raise self._error
            if self.state is SubscriptionState.CLOSED:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def _next_state(self) -> None:
        self._state_changed.clear()
        await self._state_changed.wait()

    def _tell(self, what: Callable[..., None], *values: object) -> None:
        """Tell the subscription what happens, now, and do what follows."""
        self._subscription.tick(time.monotonic())
        what(*values)
        self._follow_up()

    def _follow_up(self) -> None:
        """Wake whoever may have something to do after the subscription changed."""
        self._work.set()
        self._arrived.set()
        if self._subscription.check_wanted:
            self._check_wanted.set()
        if self._subscription.rejoin_wanted and self._channel is not None:
            self._channel.leave(self._loss_of_what_brings_nothing())
        self._note_state()
        self._set_timer()

    def _loss_of_what_brings_nothing(self) -> Loss:
        if self.state_reason is StateReason.BROADCASTS_MISSING:
            return Loss(self.state_reason, "signals are stored that it did not tell of")
        said = "the server did not say that it follows the database"
        return Loss(StateReason.CONNECTION_LOST, said)

    def _note_state(self) -> None:
        state, reason = self._subscription.state, self._subscription.reason
        if (state, reason) == (self._last_state, self._last_reason):
            return
        self._last_state, self._last_reason = state, reason
        self._was_live = self._was_live or state is SubscriptionState.LIVE
        self._untold.append((state, reason))
        self._state_untold.set()
        self._state_changed.set()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wake_at = self._subscription.wake_at
        if self.state is SubscriptionState.CLOSED or wake_at == math.inf:
            return
        pause = max(0.0, wake_at - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(pause, self._wake)

    def _wake(self) -> None:
        self._tell(lambda: None)


def news_of(taken: Observation | SignalEvent) -> News:
    """Return what a reader gets of what was taken."""
    return taken.signal if isinstance(taken, Observation) else taken


async def _until_answered(
    ask: Callable[[int], Awaitable[T]], attempts: float = math.inf
) -> tuple[T, float]:
    """Ask until there is an answer; return it and when it was asked.

    `ask` is told how often it went unanswered. An answer that takes long is asked for anew: it may
    be lost.
    """
    unanswered = 0
    while True:
        asked_at = time.monotonic()
        seconds = min(_PAGE_SECONDS * (1 + unanswered), _LONGEST_PAGE_SECONDS)
        try:
            return await _within(seconds, ask(unanswered)), asked_at
        except (TransportError, UnavailableError) as error:
            unanswered += 1
            if unanswered >= attempts:
                raise
            _log.warning("Cannot fetch what was missed yet: %r", error)
            await asyncio.sleep(_pause_after(error, unanswered))


async def _within(seconds: float, asking: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await asking
    except TimeoutError:
        raise RequestTimeoutError(f"The service has not answered in {seconds:g} s.") from None


def _pause_after(error: Exception, attempt: int) -> float:
    wanted = getattr(error, "retry_after", None) or 0.0
    return max(pause_before(attempt), min(wanted, LONGEST_RETRY_AFTER))


def _callback(name: str, function: Callable[..., object] | None) -> UserCallback | None:
    return None if function is None else UserCallback(name, function)


def _event_filter(options: SubscriberOptions, wanted: SignalFilter) -> EventFilter | None:
    """Return which events are followed; None when none are. Raises ConfigurationError."""
    on_event = options.get("on_event")
    if on_event is None and not options.get("events"):
        if options.get("after_event_seq") is not None:
            raise ConfigurationError("Cannot use after_event_seq without events=True or on_event.")
        return None
    if on_event is None and options.get("on_signal") is not None:
        raise ConfigurationError("Cannot use events=True with on_signal alone: pass on_event, too.")
    if options.get("own_channel"):
        raise ConfigurationError("Cannot follow events on a trader's own channel: it has none.")
    return EventFilter(wanted)


def _ask_for_one_trader(own_channel: bool | None, wanted: SignalFilter) -> None:
    if own_channel and (wanted.traders is None or len(wanted.traders) != 1):
        raise ConfigurationError("Cannot use own_channel=True: name the one trader in traders.")


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ConfigurationError(f"Cannot use {name}={value}: it must be more than 0.")
    return value


def _optional(name: str, value: float | None) -> float | None:
    return None if value is None else _positive(name, value)


def _seq(value: int | None) -> int | None:
    if value is not None and value < 0:
        raise ConfigurationError(f"Cannot follow after seq {value}: the first one is 1.")
    return value
