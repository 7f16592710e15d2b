"""A cache of answers without asyncio: the blocking face of AsyncSignalCache."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from signal_persistence.advance import AdvanceVerdict
from signal_persistence.cache.answer import CachedSignals
from signal_persistence.cache.async_cache import AsyncSignalCache, CacheOptions
from signal_persistence.cache.question import QuestionOptions
from signal_persistence.cache.stats import CacheStats
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import DeliveryReport
from signal_persistence.errors import ClosedError
from signal_persistence.loop_thread import LoopThread
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import SubscriptionState

T = TypeVar("T")


class SignalCache:
    """Answer what a worker asks again and again from memory; see AsyncSignalCache.

    It may be used from several threads at once: what is in memory is answered in the caller's own.
    A background thread follows and loads. A forked child makes a cache of its own.
    """

    def __init__(
        self, url: str, key: str, credentials: Credentials, **options: Unpack[CacheOptions]
    ) -> None:
        """`url` is the project's URL, `key` its publishable key; options as AsyncSignalCache."""
        self._cache = AsyncSignalCache(url, key, credentials, **options)
        self._loop = LoopThread("signal-cache")
        self._process = os.getpid()
        self._loop.run(self._cache.start())

    @property
    def state(self) -> SubscriptionState:
        """How far following is up to date now."""
        return self._cache.state

    def newest(
        self,
        count: int = 100,
        *,
        at_least: int = 0,
        max_stale: float | None = None,
        **options: Unpack[QuestionOptions],
    ) -> CachedSignals:
        """As `AsyncSignalCache.newest`."""
        self._require_own_process()
        question = self._cache.question(count, options)
        stale = self._cache.max_stale if max_stale is None else max_stale
        found = self._cache.look(question, at_least, stale)
        if isinstance(found, CachedSignals):
            return found
        return self._run(self._cache.fetch(question, found, at_least, stale))

    def latest(
        self,
        *,
        at_least: int = 0,
        max_stale: float | None = None,
        **options: Unpack[QuestionOptions],
    ) -> StoredSignal | None:
        """As `AsyncSignalCache.latest`."""
        found = self.newest(1, at_least=at_least, max_stale=max_stale, **options)
        return found.signals[0] if found.signals else None

    def wrote(self, done: DeliveryReport | AdvanceVerdict) -> None:
        """As `AsyncSignalCache.wrote`."""
        self._require_own_process()
        self._cache.wrote(done)

    def stats(self) -> CacheStats:
        """Return the counts of this moment."""
        self._require_own_process()
        return self._cache.stats()

    def wait_until_live(self, timeout: float) -> None:
        """Return when following is live; raise SubscriptionError after `timeout` seconds."""
        self._run(self._cache.wait_until_live(timeout))

    def close(self) -> None:
        """End following and the background thread; who waits for an answer gets a ClosedError."""
        if os.getpid() != self._process:
            return
        try:
            self._loop.run(self._cache.close())
        except ClosedError:
            return
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._require_own_process()
        except ClosedError:
            work.close()
            raise
        return self._loop.run(work)

    def _require_own_process(self) -> None:
        """Before all else: who held the memory's lock at the fork never lets go of it here."""
        if os.getpid() != self._process:
            raise ClosedError("Cannot read here: this cache is of the parent process; make one.")
