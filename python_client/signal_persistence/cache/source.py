"""Where a cache gets its answers from, and what it follows."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

from signal_persistence.advance import AsyncSignalLifecycle, EventPage
from signal_persistence.async_subscriber import AsyncSubscriber
from signal_persistence.caller import Caller
from signal_persistence.coverage import Observation
from signal_persistence.credentials import Credentials
from signal_persistence.query import AsyncSignalQuery
from signal_persistence.questions import QueryOptions
from signal_persistence.reader import Route
from signal_persistence.reading import Page
from signal_persistence.subscription import SubscriptionState
from signal_persistence.token import account_of


class Following(Protocol):
    """The part of AsyncSubscriber that a cache needs."""

    @property
    def state(self) -> SubscriptionState: ...

    @property
    def is_up_to_date(self) -> bool: ...

    @property
    def cursor(self) -> int | None: ...

    @property
    def buffered(self) -> int: ...

    async def take(self, at_most: int, timeout: float | None = None) -> list[Observation]: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Source(Protocol):
    """An account, as a cache sees it."""

    async def account_id(self) -> UUID: ...

    async def page(self, options: QueryOptions) -> Page: ...

    async def events(self, after_seq: int) -> EventPage: ...

    def follow(self) -> Following: ...

    async def close(self) -> None: ...


class ProjectSource:
    """The account of some credentials in a project."""

    def __init__(
        self, url: str, key: str, credentials: Credentials, *, transport: Route, timeout: float
    ) -> None:
        self._project = (url, key, credentials)
        self._transport: Route = transport
        self._timeout = timeout
        caller = Caller(url, key, credentials, timeout=timeout)
        self._query = AsyncSignalQuery(url, key, credentials, transport=transport, caller=caller)
        self._lifecycle = AsyncSignalLifecycle(url, key, credentials, caller=caller)

    async def account_id(self) -> UUID:
        return account_of(await self._project[2].access_token())

    async def page(self, options: QueryOptions) -> Page:
        return await self._query.page(**options)

    async def events(self, after_seq: int) -> EventPage:
        return await self._lifecycle.event_page(after_seq)

    def follow(self) -> AsyncSubscriber:
        url, key, credentials = self._project
        return AsyncSubscriber(
            url, key, credentials, transport=self._transport, timeout=self._timeout
        )

    async def close(self) -> None:
        await self._query.close()
