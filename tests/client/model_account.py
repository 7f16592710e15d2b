"""An account with its whole past, and what a cache needs of it, in the virtual time of its loop.

The oracle of the cache's laws: it says what the database answered at any seq and moment.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import msgspec

from signal_persistence import Observation, Page, StoredSignal, SubscriptionState
from signal_persistence.advance import EventPage, SignalEvent
from signal_persistence.cache.question import Question
from signal_persistence.errors import ConnectError, SubscriptionError
from signal_persistence.manager.lifecycle import TRANSITIONS, outcome_after, status_at
from signal_persistence.questions import QueryOptions

ACCOUNT = UUID("0190b5a6-0000-7000-8000-00000000000a")
TRADERS = tuple(UUID(int=number) for number in (1, 2))
START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


def make_stored(seq: int, **changes: Any) -> StoredSignal:
    """A signal as it is stored at `seq`."""
    fields: dict[str, Any] = {
        "signal_id": UUID(int=seq),
        "seq": seq,
        "trader_id": TRADERS[0],
        "symbol": "ES",
        "timeframe": "1m",
        "generated_at": START + timedelta(seconds=seq),
        "action": "enter_long",
        "confidence": 0.5,
        "price": 100.0 + seq,
        "status": "generated",
    }
    return StoredSignal(**fields | changes)


class ModelAccount:
    """Signals and events in the order they were committed, and when that was."""

    def __init__(self) -> None:
        self.signals: list[StoredSignal] = []
        self.events: list[SignalEvent] = []
        self._stored_at: list[float] = []
        self._event_at: list[float] = []
        self.followers: list[ModelFollower] = []

    @property
    def last_seq(self) -> int:
        return len(self.signals)

    def now(self) -> datetime:
        return START + timedelta(seconds=clock())

    def store(self, **fields: Any) -> StoredSignal:
        """Commit a signal, and send it to whoever follows."""
        signal = make_stored(self.last_seq + 1, **fields)
        self.signals.append(signal)
        self._stored_at.append(clock())
        for follower in self.followers:
            asyncio.get_running_loop().call_later(follower.lag, follower.bring)
        return signal

    def advance(self, seq: int, status: str, **fields: Any) -> bool:
        """Commit an event, if the status of the signal allows it."""
        signal = self.state_of(self.signals[seq - 1], len(self.events), self.now())
        if status not in TRANSITIONS.get(signal.status, ()):
            return False
        event = SignalEvent(
            seq=len(self.events) + 1,
            status=status,
            signal_seq=seq,
            occurred_at=self.now(),
            received_at=self.now(),
            **{
                name: getattr(signal, name)
                for name in ("signal_id", "trader_id", "symbol", "timeframe", "generated_at")
            },
            **fields,
        )
        self.events.append(event)
        self._event_at.append(clock())
        return True

    def seq_at(self, moment: float) -> int:
        """The seq that the account had come to at `moment`, commits of that instant left out."""
        return bisect_right(self._stored_at, moment - 1e-6)

    def events_at(self, moment: float) -> int:
        """How many events there were at `moment`, those of that instant left out."""
        return bisect_right(self._event_at, moment - 1e-6)

    def state_of(self, signal: StoredSignal, events: int, now: datetime) -> StoredSignal:
        """The signal after the account's first `events` events, at `now`."""
        status, outcome = signal.status, signal.outcome
        for event in self.events[:events]:
            if event.signal_seq == signal.seq:
                status, outcome = event.status, outcome_after(outcome, event)  # type: ignore[arg-type]
        status = status_at(status, signal.valid_until, now)  # type: ignore[arg-type]
        return msgspec.structs.replace(signal, status=status, outcome=outcome)

    def matching(self, question: Question, seq: int) -> list[StoredSignal]:
        """What the database had for the question at `seq`, newest first, as it was stored."""
        since = question.from_ if question.within is None else self.now() - question.within
        found = [
            signal
            for signal in self.signals[:seq]
            if question.wanted.matches(signal)
            and (since is None or signal.generated_at >= since)
            and (question.to is None or signal.generated_at < question.to)
        ]
        return sorted(found, key=lambda signal: (signal.generated_at, signal.seq), reverse=True)


class ModelFollower:
    """What AsyncSubscriber is to a cache; `lag` seconds after a commit it has the signal."""

    def __init__(self, account: ModelAccount, lag: float) -> None:
        self.lag = lag
        self.live = True
        self.behind = False
        self.error: Exception | None = None
        self._account = account
        self._known = self._taken = account.last_seq
        self._waiting: deque[StoredSignal] = deque()
        self._arrived = asyncio.Event()

    @property
    def state(self) -> SubscriptionState:
        if self.error is not None:
            return SubscriptionState.CLOSED
        return SubscriptionState.LIVE if self.live else SubscriptionState.STALE

    @property
    def is_up_to_date(self) -> bool:
        return self.state is SubscriptionState.LIVE and not self.behind

    @property
    def cursor(self) -> int | None:
        return self._taken

    @property
    def buffered(self) -> int:
        return len(self._waiting)

    def bring(self) -> None:
        """Have what was stored `lag` seconds ago, unless the connection is cut."""
        if self.live:
            seq = self._account.seq_at(clock() - self.lag + 2e-6)
            self._waiting.extend(self._account.signals[self._known : seq])
            self._known = max(self._known, seq)
        self._arrived.set()

    def cut(self) -> None:
        self.live = False

    def mend(self) -> None:
        self.live = True
        self.bring()

    def end(self) -> None:
        self.error = SubscriptionError("planted")
        self._arrived.set()

    async def take(self, at_most: int, timeout: float | None = None) -> list[Observation]:
        try:
            async with asyncio.timeout(timeout):
                while not self._waiting and self.error is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return []
        if self.error is not None:
            raise self.error
        count = min(at_most, len(self._waiting))
        self._taken += count
        return [Observation(self._waiting.popleft(), None) for _ in range(count)]

    async def __aenter__(self) -> Self:
        self._account.followers.append(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._account.followers.remove(self)


class ModelSource:
    """The account over a network: answers are of a moment between question and arrival."""

    def __init__(self, account: ModelAccount, *, lag: float = 0.02) -> None:
        self.account = account
        self.lag = lag
        self.there = 0.002
        """Seconds until the database looks."""
        self.back = 0.002
        """Seconds until its answer arrives."""
        self.failures = 0
        """So many of the next queries fail."""
        self.behind = 0
        """By how many signals the database lags: a replica."""
        self.queries = 0
        self.event_queries = 0
        self.closed = False

    async def account_id(self) -> UUID:
        return ACCOUNT

    async def page(self, options: QueryOptions) -> Page:
        self.queries += 1
        await asyncio.sleep(self.there)
        self._fail()
        account, count = self.account, options["page_size"]
        seq = max(0, account.last_seq - self.behind)
        asked: dict[str, Any] = {
            name: value for name, value in options.items() if name not in ("page_size", "sort")
        }
        found = account.matching(Question.of(count or 100, asked), seq)  # type: ignore[arg-type]
        events = len(account.events)
        shown = tuple(account.state_of(one, events, account.now()) for one in found[:count])
        await asyncio.sleep(self.back)
        return Page(shown, "more" if len(found) > len(shown) else None, seq)

    async def events(self, after_seq: int) -> EventPage:
        self.event_queries += 1
        await asyncio.sleep(self.there)
        self._fail()
        events = tuple(self.account.events[after_seq : after_seq + 3])
        last_seq = len(self.account.events)
        await asyncio.sleep(self.back)
        return EventPage(events, last_seq)

    def follow(self) -> ModelFollower:
        return ModelFollower(self.account, self.lag)

    async def close(self) -> None:
        self.closed = True

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectError


def clock() -> float:
    """The time of the running loop, in seconds."""
    return asyncio.get_running_loop().time()
