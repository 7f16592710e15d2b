"""A cache of answers for asyncio, kept in step with the database by a subscriber."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Final, Self, TypedDict, Unpack
from uuid import UUID

from signal_persistence.advance import AdvanceVerdict
from signal_persistence.cache.answer import CachedSignals, Lack
from signal_persistence.cache.flights import SingleFlight
from signal_persistence.cache.memory import BEYOND_EVERY_SEQ, AnswerMemory
from signal_persistence.cache.question import Question, QuestionOptions, Questions
from signal_persistence.cache.source import Following, ProjectSource, Source
from signal_persistence.cache.stats import CacheStats
from signal_persistence.caller import pause_before
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import DeliveryReport
from signal_persistence.errors import (
    ClosedError,
    ConfigurationError,
    InvalidQueryError,
    SubscriptionError,
    UnavailableError,
)
from signal_persistence.reader import Route
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import SubscriptionState

_TAKE_AT_ONCE: Final = 100
"""Few enough that a reader in another thread does not wait for a millisecond."""
_BEAT_SECONDS: Final = 0.2
"""How long nothing may come before it is noted again that nothing came."""
_ATTEMPTS: Final = 5
_EVENT_PAGES: Final = 20
"""With more events than these pages hold, it is faster to begin anew."""
_PAUSES: Final = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Ceilings of the pause before following is begun anew, by how often it failed in a row."""

_log: Final = logging.getLogger("signal_persistence")


class CacheOptions(TypedDict, total=False):
    """How much a cache keeps, and how old it may get; see AsyncSignalCache."""

    max_bytes: int
    ttl: float
    max_stale: float
    transport: Route
    timeout: float


class AsyncSignalCache:
    """Answer what a worker asks again and again from memory: the newest signals of a filter.

    Use it as an async context manager. A subscriber of its own follows the account, and merges
    every new signal into the answers that it belongs to: what is in memory is what the database
    answers at the answer's `seq` (cache/memory.py argues why). What becomes of signals is asked for
    when a read finds that it is more than `max_stale` seconds ago that anybody asked.

    While following is not live, an answer is given from memory for `max_stale` seconds more; then
    reads go to the database. They raise the TransportError or ApiError of the query, at once for
    all who wait for it. Reads of one question at the same time share one query.

    The status `expired` is told by the clock of this host, everything else by the database.
    """

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        ttl: float = 300.0,
        max_stale: float = 1.0,
        transport: Route = "edge",
        timeout: float = 10.0,
        source: Source | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`url` is the project's URL, `key` its publishable key; all times are in seconds.

        `max_bytes` bounds the memory of the signals that are kept: the answers that were read
        longest ago make room. No answer is kept longer than `ttl`.
        """
        for name, value in (("max_bytes", max_bytes), ("ttl", ttl)):
            if not value > 0:
                raise ConfigurationError(f"Cannot use {name}={value}: it must be more than 0.")
        if not max_stale >= 0:
            raise ConfigurationError(f"Cannot use max_stale={max_stale}: it must be 0 or more.")
        self._source = source or ProjectSource(
            url, key, credentials, transport=transport, timeout=timeout
        )
        self.max_stale = max_stale
        self._clock = clock
        self._now = now
        self._memory = AnswerMemory(max_bytes=max_bytes, ttl=ttl, clock=clock, now=now)
        self._questions = Questions()
        self._loads: SingleFlight[CachedSignals] = SingleFlight()
        self._status_checks: SingleFlight[None] = SingleFlight()
        self._following: asyncio.Task[None] | None = None
        self._account_id: UUID | None = None
        self._state = SubscriptionState.CONNECTING
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def state(self) -> SubscriptionState:
        """How far following is up to date now."""
        return self._state

    async def start(self) -> None:
        """Begin to follow in the background, without waiting; the context does it."""
        if self._following is not None or self._closed:
            raise ClosedError("Cannot start a cache twice: make a new one.")
        self._following = asyncio.create_task(self._follow(), name="signal-cache")

    async def close(self) -> None:
        """End following; whoever still waits for an answer gets a ClosedError."""
        self._closed = True
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self._loads.close()
        await self._status_checks.close()
        await self._source.close()
        self._tell(SubscriptionState.CLOSED)

    async def newest(
        self,
        count: int = 100,
        *,
        at_least: int = 0,
        max_stale: float | None = None,
        **options: Unpack[QuestionOptions],
    ) -> CachedSignals:
        """Return the newest `count` (at most 1,000) of the signals that match.

        The answer includes everything up to seq `at_least`: pass the `seq` of a delivery report to
        read what this or another process has written; it raises InvalidQueryError when the account
        has not come to it. `max_stale` of this read is used instead of that of the cache; with 0
        the database is asked unless the answer in memory was right this very moment.
        """
        question = self.question(count, options)
        stale = self.max_stale if max_stale is None else max_stale
        found = self.look(question, at_least, stale)
        if isinstance(found, CachedSignals):
            return found
        return await self.fetch(question, found, at_least, stale)

    async def latest(
        self,
        *,
        at_least: int = 0,
        max_stale: float | None = None,
        **options: Unpack[QuestionOptions],
    ) -> StoredSignal | None:
        """Return the newest signal that matches, None if there is none; see `newest`."""
        found = await self.newest(1, at_least=at_least, max_stale=max_stale, **options)
        return found.signals[0] if found.signals else None

    def wrote(self, done: DeliveryReport | AdvanceVerdict) -> None:
        """Have every read from now on see what this process has written; for any thread.

        It may be the `on_delivery` of a producer, which is called a moment after the delivery has
        its report: who waits for `delivery.result()` passes `at_least`, or calls this, before it
        reads.
        """
        if isinstance(done, AdvanceVerdict):
            self._memory.changed(done)
        elif done.stored and self._account_id is None:
            # It may be of another account, whose seq says nothing here.
            self._memory.stored(done.signal, None)
        elif done.stored and done.account_id in (None, self._account_id):
            self._memory.stored(done.signal, done.seq)

    def stats(self) -> CacheStats:
        """Return the counts of this moment; for any thread."""
        return self._memory.stats()

    async def wait_until_live(self, timeout: float) -> None:
        """Return when following is live; raise SubscriptionError after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._state is not SubscriptionState.LIVE:
                    if self._closed:
                        raise ClosedError
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise SubscriptionError(
                f"Cannot follow live within {timeout:g} s: it is {self._state}; reads go to the "
                "database."
            ) from None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # For the blocking face, which looks in its caller's thread and fetches on the loop.

    def question(self, count: int, options: QuestionOptions) -> Question:
        return self._questions.of(count, options)

    def look(self, question: Question, at_least: int, max_stale: float) -> CachedSignals | Lack:
        if self._closed:
            raise ClosedError
        return self._memory.look(question, at_least, max_stale)

    async def fetch(
        self, question: Question, lack: Lack, at_least: int, max_stale: float
    ) -> CachedSignals:
        """Return the answer although memory lacks it."""
        if lack is Lack.STATUSES:
            try:
                await self._status_checks.run(None, self._check_statuses)
            except BaseException:
                self._memory.missed(lack)
                raise
            found = self.look(question, at_least, max_stale)
            if isinstance(found, CachedSignals):
                return found
            lack = found
        self._memory.missed(lack)
        for attempt in range(_ATTEMPTS):
            # What another reader has begun to load may be from before `at_least` was stored.
            answer = await self._loads.run(question, partial(self._load, question))
            if answer.seq >= at_least:
                return answer
            await asyncio.sleep(pause_before(attempt) if attempt else 0)
        raise InvalidQueryError(
            f"Cannot read as of seq {at_least}: the account has only come to {answer.seq}."
        )

    async def _load(self, question: Question) -> CachedSignals:
        for attempt in range(1, _ATTEMPTS + 1):
            entry = self._memory.begin(question)
            try:
                page = await self._source.page(question.query(self._now()))
            except BaseException:
                self._memory.abandon(entry)
                raise
            answer = self._memory.finish(entry, page)
            if answer is not None:
                return answer
            await asyncio.sleep(pause_before(attempt))
        raise UnavailableError(
            "Cannot answer: the database does not show yet what it has stored; try again.",
            code="unavailable",
            status=503,
        )

    async def _check_statuses(self) -> None:
        """Merge the events since the last check; they are asked for only when somebody reads."""
        for _ in range(_EVENT_PAGES):
            after_seq = self._memory.event_seq
            if after_seq is None:
                return
            asked_at = self._clock()
            page = await self._source.events(after_seq)
            if self._memory.advance(page.events, page.last_seq, asked_at):
                return
        self._memory.lost()

    async def _follow(self) -> None:
        """Follow for as long as the cache is open: what ends a subscriber only makes a new one."""
        attempt = 0
        while True:
            try:
                self._account_id = await self._source.account_id()
                async with self._source.follow() as subscriber:
                    events = await self._source.events(BEYOND_EVERY_SEQ)
                    self._memory.restart(subscriber.cursor or 0, events.last_seq)
                    attempt = 0
                    await self._feed(subscriber)
            except Exception as error:
                _log.warning("The cache cannot follow the account; reads are queries: %s", error)
            finally:
                self._memory.lost()
            self._tell(SubscriptionState.STALE)
            attempt += 1
            await asyncio.sleep(random.random() * _PAUSES[min(attempt, len(_PAUSES) - 1)])

    async def _feed(self, subscriber: Following) -> None:
        """Merge what the subscriber brings until it ends, or until memory must begin anew."""
        while subscriber.state is not SubscriptionState.CLOSED:
            observations = await subscriber.take(_TAKE_AT_ONCE, _BEAT_SECONDS)
            if not self._memory.follow([observation.signal for observation in observations]):
                return
            if not subscriber.buffered:
                # Nothing is waiting to be taken, so memory has whatever the subscriber knows of.
                # Live alone is not enough: it may be a moment behind of what it knows is stored.
                if subscriber.is_up_to_date:
                    self._memory.confirm()
                self._tell(subscriber.state)

    def _tell(self, state: SubscriptionState) -> None:
        if state is not self._state:
            self._state = state
            self._changed.set()
