"""Read stored signals back: by page, all of them one after the other, counted, or as a table."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Self,
    TypeVar,
    Unpack,
)

from signal_persistence import frames
from signal_persistence.caller import Caller
from signal_persistence.credentials import Credentials
from signal_persistence.export import Export, ExportOptions, ExportProgress
from signal_persistence.loop_thread import LoopThread
from signal_persistence.questions import (
    ExportFilter,
    LatestOptions,
    QueryOptions,
    Selection,
    count_call,
    facets_call,
    filter_parameters,
    in_large_pages,
    latest_call,
    lifecycle_call,
    page_call,
    rows_call,
)
from signal_persistence.reader import Call, Paged, Reader, Route
from signal_persistence.reading import Facets, Page, SignalCount, SignalRow, require_known
from signal_persistence.replica import ReadReplica
from signal_persistence.signal import StoredSignal
from signal_persistence.time_series import AsyncTimeSeries, TimeSeries
from signal_persistence.transport import HttpTransport

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

T = TypeVar("T")
P = TypeVar("P", bound=Paged)


class AsyncSignalQuery:
    """Query the signals of one account.

    Failures that may pass are tried again a few times; what is raised then is the last
    TransportError or ApiError. InvalidQueryError means that nothing was sent, or that the answer
    is from before `at_least_seq`.

    With the URL of a read replica, that is asked first, through its REST API. What it cannot
    answer, refuses, or has only as of before `at_least_seq`, the primary answers. The primary alone
    makes tables, and what has statuses and an `at_least_seq`. The pages of one answer never go
    back to an earlier seq.
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
        read_url: str | None = None,
        caller: Caller | None = None,
    ) -> None:
        """`url` is the project's URL, `key` its publishable key, `timeout` is in seconds.

        `read_url` is the API URL of a read replica.
        """
        self._project = url, key, credentials, timeout
        caller = caller or Caller(url, key, credentials, timeout=timeout, attempts=attempts)
        replica = ReadReplica(read_url, key, credentials, timeout=timeout) if read_url else None
        self._reader = Reader(caller, transport, replica)
        self.time_series = AsyncTimeSeries(self._reader)
        """What is made of signals over time."""

    async def page(self, *, cursor: str | None = None, **options: Unpack[QueryOptions]) -> Page:
        """Return one page; pass its `next_cursor` with the same options to get the next one.

        With `statuses` a page may have fewer signals than there are, even none, and be followed by
        others: only a `next_cursor` of None says that it is the last. With a read replica, pass the
        `last_seq` of the page before as `at_least_seq`, and the primary answers; `pages` also asks
        the replica, where that has come so far.
        """
        return await self._reader.ask(page_call(options, cursor))

    async def pages(self, **options: Unpack[QueryOptions]) -> AsyncIterator[Page]:
        """Iterate over all pages of the answer."""
        async for page in self._reader.pages(page_call(options)):
            yield page

    async def signals(self, **options: Unpack[QueryOptions]) -> AsyncIterator[StoredSignal]:
        """Iterate over all signals of the answer, one page in memory at a time."""
        async for page in self._reader.pages(page_call(in_large_pages(options))):
            for signal in page.signals:
                yield signal

    async def rows(
        self, fields: Iterable[str], **options: Unpack[QueryOptions]
    ) -> AsyncIterator[SignalRow]:
        """Iterate over all signals of the answer, with only some of their fields sent."""
        async for page in self._reader.pages(rows_call(fields, in_large_pages(options))):
            for row in page.signals:
                yield row

    async def latest(self, **options: Unpack[LatestOptions]) -> AsyncIterator[StoredSignal]:
        """Iterate over the newest signal of each trader and symbol."""
        async for page in self._reader.pages(latest_call(options)):
            for signal in page.signals:
                yield signal

    async def count(self, *, exact: bool = False, **options: Unpack[Selection]) -> SignalCount:
        """Count signals: by estimate and at once, or exactly; a read replica counts what it has.

        Raises the ApiError `query_too_wide` when too many would have to be counted one by one.
        """
        return await self._reader.ask(count_call(exact, options))

    async def facets(self, **options: Unpack[Selection]) -> Facets:
        """Count signals by symbol, trader, action and timeframe."""
        return await self._reader.ask(facets_call(options))

    async def to_arrow(
        self, *, lifecycle: bool = False, **filter_: Unpack[ExportFilter]
    ) -> pyarrow.Table:
        """Return all signals of the filter as an Arrow table, in the order of seq.

        With `lifecycle` it has what became of each signal as well: `status`, `entry_price`,
        `exit_price`, `close_reason`, `return`, `fees` and `reason`, as of when its page was read,
        which takes several times as long. Needs the extra `arrow`; the README lists the columns.
        """
        await asyncio.to_thread(frames.require, "pyarrow")
        if lifecycle:
            pages = self._reader.pages(lifecycle_call(filter_))
            return frames.lifecycle_table([frames.lifecycle_batch(page) async for page in pages])
        with tempfile.TemporaryDirectory(prefix="signals-") as folder:
            file = Path(folder) / "signals.csv"
            await self.export(file, ExportOptions(for_spreadsheets=False), **filter_)
            return await asyncio.to_thread(frames.read_csv, file)

    async def to_polars(
        self, *, lifecycle: bool = False, **filter_: Unpack[ExportFilter]
    ) -> polars.DataFrame:
        """As `to_arrow`, as a frame of polars; needs the extra `polars`."""
        await asyncio.to_thread(frames.require, "polars")
        table = await self.to_arrow(lifecycle=lifecycle, **filter_)
        return await asyncio.to_thread(frames.polars_frame, table)

    async def to_pandas(
        self, *, lifecycle: bool = False, **filter_: Unpack[ExportFilter]
    ) -> pandas.DataFrame:
        """As `to_arrow`, as a frame of pandas; needs the extra `pandas`."""
        await asyncio.to_thread(frames.require, "pandas")
        table = await self.to_arrow(lifecycle=lifecycle, **filter_)
        return await asyncio.to_thread(frames.pandas_frame, table)

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
        require_known(filter_, ExportFilter)
        url, key, credentials, timeout = self._project
        async with HttpTransport(url, key, timeout=timeout) as transport:
            parameters = filter_parameters(filter_)
            return await Export(transport, credentials, Path(path), parameters, options).run()

    async def close(self) -> None:
        """Close the connections."""
        await self._reader.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def ask(self, call: Call[T]) -> T:
        """Return the answer of a call; for the blocking face."""
        return await self._reader.ask(call)


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
        read_url: str | None = None,
    ) -> None:
        """`url` is the project's URL, `key` its publishable key, `timeout` is in seconds.

        `read_url` is the API URL of a read replica.
        """
        self._query = AsyncSignalQuery(
            url,
            key,
            credentials,
            transport=transport,
            timeout=timeout,
            attempts=attempts,
            read_url=read_url,
        )
        self._loop = LoopThread("signal-query")
        self.time_series = TimeSeries(self._query.time_series, self._loop)
        """What is made of signals over time."""

    def page(self, *, cursor: str | None = None, **options: Unpack[QueryOptions]) -> Page:
        """Return one page; see AsyncSignalQuery.page."""
        return self._ask(page_call(options, cursor))

    def pages(self, **options: Unpack[QueryOptions]) -> Iterator[Page]:
        """Iterate over all pages of the answer."""
        return self._turn(page_call(options))

    def signals(self, **options: Unpack[QueryOptions]) -> Iterator[StoredSignal]:
        """Iterate over all signals of the answer, one page in memory at a time."""
        for page in self._turn(page_call(in_large_pages(options))):
            yield from page.signals

    def rows(self, fields: Iterable[str], **options: Unpack[QueryOptions]) -> Iterator[SignalRow]:
        """Iterate over all signals of the answer, with only some of their fields sent."""
        for page in self._turn(rows_call(fields, in_large_pages(options))):
            yield from page.signals

    def latest(self, **options: Unpack[LatestOptions]) -> Iterator[StoredSignal]:
        """Iterate over the newest signal of each trader and symbol."""
        for page in self._turn(latest_call(options)):
            yield from page.signals

    def count(self, *, exact: bool = False, **options: Unpack[Selection]) -> SignalCount:
        """Count signals; see AsyncSignalQuery.count."""
        return self._ask(count_call(exact, options))

    def facets(self, **options: Unpack[Selection]) -> Facets:
        """Count signals by symbol, trader, action and timeframe."""
        return self._ask(facets_call(options))

    def to_arrow(
        self, *, lifecycle: bool = False, **filter_: Unpack[ExportFilter]
    ) -> pyarrow.Table:
        """Return all signals of the filter as an Arrow table; see AsyncSignalQuery.to_arrow."""
        return self._loop.run(self._query.to_arrow(lifecycle=lifecycle, **filter_))

    def to_polars(
        self, *, lifecycle: bool = False, **filter_: Unpack[ExportFilter]
    ) -> polars.DataFrame:
        """As `to_arrow`, as a frame of polars; needs the extra `polars`."""
        return self._loop.run(self._query.to_polars(lifecycle=lifecycle, **filter_))

    def to_pandas(
        self, *, lifecycle: bool = False, **filter_: Unpack[ExportFilter]
    ) -> pandas.DataFrame:
        """As `to_arrow`, as a frame of pandas; needs the extra `pandas`."""
        return self._loop.run(self._query.to_pandas(lifecycle=lifecycle, **filter_))

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

    def _ask(self, call: Call[T]) -> T:
        return self._loop.run(self._query.ask(call))

    def _turn(self, call: Call[P]) -> Iterator[P]:
        following: Call[P] | None = call
        while following is not None:
            page = self._ask(following)
            yield page
            following = following.after(page)
