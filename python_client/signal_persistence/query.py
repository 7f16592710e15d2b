"""Read stored signals back: by page, or all of them one after the other."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypedDict, Unpack
from uuid import UUID

import msgspec

from signal_persistence.caller import Caller
from signal_persistence.contract import CONTRACT
from signal_persistence.credentials import Credentials
from signal_persistence.errors import ConfigurationError, InvalidQueryError
from signal_persistence.export import Export, ExportOptions, ExportProgress
from signal_persistence.loop_thread import LoopThread
from signal_persistence.reading import Page, SignalFilter
from signal_persistence.signal import StoredSignal
from signal_persistence.transport import HttpTransport

Route = Literal["edge", "rpc"]
"""Through the Edge Function `query-signals`, or straight to the database function."""

_PATHS: Final[Mapping[str, str]] = {
    "edge": "/functions/v1/query-signals",
    "rpc": "/rest/v1/rpc/query_signals",
}
_page_decoder: Final = msgspec.json.Decoder(Page)


class ExportFilter(TypedDict, total=False):
    """Which signals; everything left out is unrestricted.

    `from_` is inclusive and `to` exclusive, both aware datetimes compared with `generated_at`.
    """

    traders: Iterable[UUID | str] | None
    symbols: Iterable[str] | None
    timeframes: Iterable[str] | None
    actions: Iterable[str] | None
    min_confidence: float | None
    from_: datetime | None
    to: datetime | None


class QueryOptions(ExportFilter, total=False):
    """What a query may ask for.

    `sort` is "newest" (the default) or "seq" (the default with `after_seq`), oldest first.
    """

    after_seq: int | None
    sort: Literal["newest", "seq"] | None
    page_size: int | None


class AsyncSignalQuery:
    """Query the signals of one account.

    Failures that may pass are tried again a few times; what is raised then is the last
    TransportError or ApiError. InvalidQueryError means that nothing was sent.
    """

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials,
        *,
        transport: Route = "edge",
        timeout: float = 10.0,
        attempts: int = 5,
        caller: Caller | None = None,
    ) -> None:
        """`url` is the project's URL, `key` its publishable key, `timeout` is in seconds."""
        if transport not in _PATHS:
            raise ConfigurationError(f"Cannot use transport {transport!r}: it is 'edge' or 'rpc'.")
        self._path = _PATHS[transport]
        self._project = url, key, credentials, timeout
        self._caller = caller or Caller(url, key, credentials, timeout=timeout, attempts=attempts)

    async def page(self, *, cursor: str | None = None, **options: Unpack[QueryOptions]) -> Page:
        """Return one page; pass its `next_cursor` with the same options to get the next one."""
        return await self.fetch(query_parameters(options), cursor)

    async def pages(self, **options: Unpack[QueryOptions]) -> AsyncIterator[Page]:
        """Iterate over all pages of the answer."""
        parameters = query_parameters(options)
        cursor: str | None = None
        while True:
            page = await self.fetch(parameters, cursor)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    async def signals(self, **options: Unpack[QueryOptions]) -> AsyncIterator[StoredSignal]:
        """Iterate over all signals of the answer, one page in memory at a time."""
        async for page in self.pages(**_in_large_pages(options)):
            for signal in page.signals:
                yield signal

    async def export(
        self,
        path: str | os.PathLike[str],
        options: ExportOptions = ExportOptions(),  # noqa: B008
        **filter_: Unpack[ExportFilter],
    ) -> ExportProgress:
        """Write all signals of the filter to a file, in the order of seq, whatever their number.

        Signals that are stored after the beginning are not in it. When this is cut off, also by a
        kill, the same call goes on with what is there (`<path>.part` and `<path>.export`). Raises
        OSError besides what queries raise, ConfigurationError for a file of another export.
        """
        url, key, credentials, timeout = self._project
        async with HttpTransport(url, key, timeout=timeout) as transport:
            parameters = filter_parameters(filter_)
            return await Export(transport, credentials, Path(path), parameters, options).run()

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def fetch(self, parameters: Mapping[str, Any], cursor: str | None) -> Page:
        """Return the page that `parameters` (of `query_parameters`) and `cursor` ask for."""
        asked = parameters if cursor is None else {**parameters, "cursor": cursor}
        return await self._caller.call(self._path, asked, _page_decoder.decode)


class SignalQuery:
    """Query the signals of one account without an event loop; see AsyncSignalQuery.

    It may be used from several threads at once.
    """

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials,
        *,
        transport: Route = "edge",
        timeout: float = 10.0,
        attempts: int = 5,
    ) -> None:
        """`url` is the project's URL, `key` its publishable key, `timeout` is in seconds."""
        self._query = AsyncSignalQuery(
            url, key, credentials, transport=transport, timeout=timeout, attempts=attempts
        )
        self._loop = LoopThread("signal-query")

    def page(self, *, cursor: str | None = None, **options: Unpack[QueryOptions]) -> Page:
        """Return one page; pass its `next_cursor` with the same options to get the next one."""
        return self._loop.run(self._query.page(cursor=cursor, **options))

    def pages(self, **options: Unpack[QueryOptions]) -> Iterator[Page]:
        """Iterate over all pages of the answer."""
        cursor: str | None = None
        parameters = query_parameters(options)
        while True:
            page = self._loop.run(self._query.fetch(parameters, cursor))
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def signals(self, **options: Unpack[QueryOptions]) -> Iterator[StoredSignal]:
        """Iterate over all signals of the answer, one page in memory at a time."""
        for page in self.pages(**_in_large_pages(options)):
            yield from page.signals

    def export(
        self,
        path: str | os.PathLike[str],
        options: ExportOptions = ExportOptions(),  # noqa: B008
        **filter_: Unpack[ExportFilter],
    ) -> ExportProgress:
        """Write all signals of the filter to a file; see AsyncSignalQuery.export."""
        return self._loop.run(self._query.export(path, options, **filter_))

    def close(self) -> None:
        """Close the connections and end the background thread."""
        self._loop.run(self._query.close())
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


def query_parameters(options: QueryOptions) -> dict[str, Any]:
    """Return the parameters of `query_signals`; raise InvalidQueryError for what cannot work."""
    parameters = filter_parameters(options)
    for name, value in (
        ("after_seq", options.get("after_seq")),
        ("sort", options.get("sort")),
        ("page_size", options.get("page_size")),
    ):
        if value is not None:
            parameters[name] = value
    return parameters


def filter_parameters(options: ExportFilter) -> dict[str, Any]:
    """Return the parameters that say which signals; raises as `query_parameters`."""
    parameters = SignalFilter.of(
        traders=options.get("traders"),
        symbols=options.get("symbols"),
        timeframes=options.get("timeframes"),
        actions=options.get("actions"),
        min_confidence=options.get("min_confidence"),
    ).parameters()
    for name, option in (("from", options.get("from_")), ("to", options.get("to"))):
        if option is not None:
            parameters[name] = _utc_text(name, option)
    return parameters


def _utc_text(name: str, moment: datetime) -> str:
    if moment.utcoffset() is None:
        raise InvalidQueryError(f"Cannot query {name} {moment}: give it a time zone.")
    return moment.astimezone(UTC).isoformat()


def _in_large_pages(options: QueryOptions) -> QueryOptions:
    """When all pages are wanted, the fewest are the fastest."""
    return {"page_size": CONTRACT.limits.page_size, **options}
