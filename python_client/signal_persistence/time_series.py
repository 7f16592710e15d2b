"""Stored signals as time series: per bucket, rolling, correlated, who comes first, by the hour.

The figures are made in the database, in one question each; their formulas are in the docstrings
of AsyncTimeSeries. Answers are in columns: each element of a tuple belongs to one bucket or hour.
What has no value is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Required, TypedDict, TypeVar, Unpack, cast
from uuid import UUID

import msgspec

from signal_persistence.errors import InvalidQueryError
from signal_persistence.loop_thread import LoopThread
from signal_persistence.reader import Call, Reader
from signal_persistence.reading import (
    SignalFilter,
    SignalFilterOptions,
    require_known,
    utc_text,
    whole_number,
)

Key = Literal["trader", "symbol", "timeframe"]
"""By what signals are told apart: a series for each trader, say."""
Fill = Literal["null", "previous", "linear"]
"""What an empty bucket's confidence and price are: None, those of the bucket before (last
observation carried forward), or on the line between its neighbours. Counts are 0 there."""
Value = Literal["signals", "net_entries", "confidence", "price"]
"""A bucket as one number: how many signals, long entries less short ones, or an average."""

_Numbers = tuple[float | None, ...]
A = TypeVar("A")


class SeriesFilter(TypedDict, total=False):
    """Which signals: from `from_` (inclusive) to `to`; what else is left out is unrestricted.

    `to` is exclusive; without it the bucket, hour or minute that now lies in is the last. There is
    no `at_least_seq`: figures are made of rollups, whose `last_seq` may be behind the account's.
    """

    from_: Required[datetime]
    to: datetime | None
    traders: Iterable[UUID | str] | None
    symbols: Iterable[str] | None
    timeframes: Iterable[str] | None
    actions: Iterable[str] | None
    min_confidence: float | None
    max_confidence: float | None
    top: int | None
    """Of how many traders, symbols or timeframes: those with the most signals (10; at most 50)."""


class BucketFilter(SeriesFilter, total=False):
    """Which signals, and how gaps are filled."""

    fill: Fill | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What all answers tell: the range, and the account's seq up to which signals count.

    `keys_left_out` is how many more traders, symbols or timeframes there are than `top`.
    """

    from_: datetime = msgspec.field(name="from")
    to: datetime
    keys_left_out: int
    last_seq: int


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Signals of one key, summed up per bucket; the key is None for all of them together.

    `stddev` is that of a sample: None for fewer than two signals.
    """

    key: str | None
    signals: tuple[int, ...]
    enter_long: tuple[int, ...]
    exit_long: tuple[int, ...]
    enter_short: tuple[int, ...]
    exit_short: tuple[int, ...]
    confidence_avg: _Numbers
    confidence_stddev: _Numbers
    confidence_min: _Numbers
    confidence_max: _Numbers
    price_avg: _Numbers
    price_stddev: _Numbers
    price_min: _Numbers
    price_max: _Numbers


class TimeBuckets(Answer, frozen=True, kw_only=True):
    """Series with their buckets: `buckets` is when each begins. An empty range has neither."""

    buckets: tuple[datetime, ...]
    series: tuple[Series, ...]


class Rolling(msgspec.Struct, frozen=True, kw_only=True):
    """One value per bucket, and the figures of the window that ends there."""

    key: str | None
    value: _Numbers
    mean: _Numbers
    exponential_mean: _Numbers
    weighted_mean: _Numbers
    stddev: _Numbers
    z_score: _Numbers


class RollingStatistics(Answer, frozen=True, kw_only=True):
    """Rolling series with their buckets."""

    buckets: tuple[datetime, ...]
    series: tuple[Rolling, ...]


class Correlation(msgspec.Struct, frozen=True):
    """How two series move together: a coefficient for each lag, and of how many buckets it is."""

    leader: str
    follower: str
    correlation: _Numbers
    observations: tuple[int, ...]


class Correlations(Answer, frozen=True, kw_only=True):
    """Each pair once, also each key with itself; `lags` are in buckets."""

    keys: tuple[str, ...]
    lags: tuple[int, ...]
    pairs: tuple[Correlation, ...]

    def at(self, leader: str, follower: str, lag: int = 0) -> float | None:
        """Return the correlation of `leader` with `follower` so many buckets later.

        Raises KeyError for what the answer does not have.
        """
        for pair in self.pairs:
            for sign, names in ((1, (leader, follower)), (-1, (follower, leader))):
                if (pair.leader, pair.follower) == names and sign * lag in self.lags:
                    return pair.correlation[self.lags.index(sign * lag)]
        raise KeyError((leader, follower, lag))

    def matrix(self, lag: int = 0) -> list[list[float | None]]:
        """Return the correlation of each key (a row) with each (a column) `lag` buckets later."""
        return [[self.at(leader, other, lag) for other in self.keys] for leader in self.keys]


class CoOccurrence(msgspec.Struct, frozen=True):
    """How often one key signals after another; see AsyncTimeSeries.co_occurrence."""

    leader: str
    follower: str
    leader_signals: int
    follower_signals: int
    trigger_rate: float
    precursor_rate: float
    expected_trigger_rate: float
    median_delay_seconds: float | None


class CoOccurrences(Answer, frozen=True, kw_only=True):
    """Each ordered pair of keys."""

    keys: tuple[str, ...]
    pairs: tuple[CoOccurrence, ...]


class HeatMap(Answer, frozen=True, kw_only=True):
    """A series for each row, with an element for each of `hours`."""

    hours: tuple[int, ...]
    series: tuple[Series, ...]


_decode_time_buckets: Final = msgspec.json.Decoder(TimeBuckets).decode
_decode_rolling_statistics: Final = msgspec.json.Decoder(RollingStatistics).decode
_decode_correlations: Final = msgspec.json.Decoder(Correlations).decode
_decode_co_occurrence: Final = msgspec.json.Decoder(CoOccurrences).decode
_decode_heat_map: Final = msgspec.json.Decoder(HeatMap).decode


class AsyncTimeSeries:
    """Ask for time series of the signals of one account.

    Buckets begin at 2000-01-03 00:00 UTC (a Monday), or any number of widths before or after. Whole
    hours and days come from rollups, however many signals they hold, when neither actions nor
    confidence are filtered by (hours of the last 30 days, days of the last year); all else is read
    signal by signal. Raises the ApiError `query_too_wide` for more than a million of these, and for
    an answer of more than 11,000 buckets, or 20,000 in all series.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def time_buckets(
        self, width: timedelta, *, by: Key | None = None, **options: Unpack[BucketFilter]
    ) -> TimeBuckets:
        """Sum up signals per bucket, with a place for every bucket of the range.

        Averages, sample standard deviations, least and greatest of confidence and price are of the
        signals in a bucket. As TimescaleDB's `time_bucket_gapfill`, QuestDB's `SAMPLE BY … FILL`
        and pandas' `resample`.
        """
        return await self._ask(
            "time_buckets",
            _decode_time_buckets,
            filter_parameters(options, BucketFilter),
            width=_seconds("width", width),
            by=by,
        )

    async def rolling_statistics(
        self,
        width: timedelta,
        value: Value = "signals",
        *,
        window: int = 20,
        min_periods: int | None = None,
        by: Key | None = None,
        **options: Unpack[BucketFilter],
    ) -> RollingStatistics:
        """Return moving averages, deviation and z-score of a value per bucket.

        Of the last `window` buckets, where the value x is known in `min_periods` of them at least
        (in all, unless told otherwise), else None:

        - mean: sum(x) / n (simple moving average), as pandas' `rolling(window).mean()`
        - weighted_mean: sum(w x) / sum(w), w = 1 for the oldest bucket, `window` for the newest
          (linearly weighted moving average)
        - stddev: sqrt(sum((x - mean)²) / (n - 1)), as pandas' `rolling(window).std()`
        - z_score: (x - mean) / stddev of the newest bucket; None where all values are equal
        - exponential_mean: of all buckets since `from_`, sum(dⁱ x) / sum(dⁱ), i buckets ago, with
          d = 1 - 2 / (window + 1), as pandas' `ewm(span=window).mean()`
        """
        return await self._ask(
            "rolling_statistics",
            _decode_rolling_statistics,
            filter_parameters(options, BucketFilter),
            width=_seconds("width", width),
            value=value,
            window=whole_number("window", window),
            min_periods=None if min_periods is None else whole_number("min_periods", min_periods),
            by=by,
        )

    async def correlations(
        self,
        width: timedelta,
        value: Value = "signals",
        *,
        max_lag: int = 0,
        by: Key = "symbol",
        **options: Unpack[BucketFilter],
    ) -> Correlations:
        """Correlate series with each other, at lags from -max_lag to max_lag buckets.

        Pearson's r = sum((x - mean x) (y - mean y)) / sqrt(sum((x - mean x)²) sum((y - mean y)²)),
        x the leader's value and y the follower's `lag` buckets later, over the buckets where both
        are known: the cross-correlation function (Box, Jenkins, Reinsel, Ljung, Time Series
        Analysis) with the means of what overlaps, as pandas' `x.corr(y.shift(-lag))`. None where
        one side is constant or nothing overlaps. A peak at a lag above 0: the leader comes first.
        """
        return await self._ask(
            "correlations",
            _decode_correlations,
            filter_parameters(options, BucketFilter),
            width=_seconds("width", width),
            value=value,
            max_lag=whole_number("max_lag", max_lag),
            by=by,
        )

    async def co_occurrence(
        self, window: timedelta, *, by: Key = "symbol", **options: Unpack[SeriesFilter]
    ) -> CoOccurrences:
        """Tell which keys signal together within `window` (at most 7 days), and which comes first.

        Event coincidence analysis (Donges, Schleussner, Siegmund, Donner, Eur. Phys. J. Special
        Topics 225, 2016), for each ordered pair:

        - trigger_rate: the share of the leader's signals with one of the follower at the same
          instant or within `window` after
        - precursor_rate: the share of the follower's signals with one of the leader at the same
          instant or within `window` before; median_delay_seconds: from the latest of these
        - expected_trigger_rate: 1 - (1 - window / range)^follower_signals, the trigger rate of
          signals at random times
        """
        return await self._ask(
            "co_occurrence",
            _decode_co_occurrence,
            filter_parameters(options, SeriesFilter),
            window=_seconds("window", window),
            by=by,
        )

    async def heat_map(
        self,
        cycle: Literal["day", "week"] = "day",
        *,
        by: Key = "symbol",
        **options: Unpack[SeriesFilter],
    ) -> HeatMap:
        """Sum up signals by the hour of the day, or of the week from Monday 00:00, in UTC."""
        wanted = filter_parameters(options, SeriesFilter)
        return await self._ask("heat_map", _decode_heat_map, wanted, cycle=cycle, by=by)

    async def _ask(
        self,
        function: str,
        decode: Callable[[bytes], A],
        filter_: dict[str, Any],
        **parameters: object,
    ) -> A:
        asked = filter_ | {name: value for name, value in parameters.items() if value is not None}
        return await self._reader.ask(Call(function, asked, decode))


class TimeSeries:
    """Ask for time series without an event loop; see AsyncTimeSeries."""

    def __init__(self, series: AsyncTimeSeries, loop: LoopThread) -> None:
        self._series = series
        self._loop = loop

    def time_buckets(
        self, width: timedelta, *, by: Key | None = None, **options: Unpack[BucketFilter]
    ) -> TimeBuckets:
        """Sum up signals per bucket; see AsyncTimeSeries.time_buckets."""
        return self._loop.run(self._series.time_buckets(width, by=by, **options))

    def rolling_statistics(
        self,
        width: timedelta,
        value: Value = "signals",
        *,
        window: int = 20,
        min_periods: int | None = None,
        by: Key | None = None,
        **options: Unpack[BucketFilter],
    ) -> RollingStatistics:
        """Return moving figures per bucket; see AsyncTimeSeries.rolling_statistics."""
        return self._loop.run(
            self._series.rolling_statistics(
                width, value, window=window, min_periods=min_periods, by=by, **options
            )
        )

    def correlations(
        self,
        width: timedelta,
        value: Value = "signals",
        *,
        max_lag: int = 0,
        by: Key = "symbol",
        **options: Unpack[BucketFilter],
    ) -> Correlations:
        """Correlate series with each other; see AsyncTimeSeries.correlations."""
        return self._loop.run(
            self._series.correlations(width, value, max_lag=max_lag, by=by, **options)
        )

    def co_occurrence(
        self, window: timedelta, *, by: Key = "symbol", **options: Unpack[SeriesFilter]
    ) -> CoOccurrences:
        """Tell which keys signal together; see AsyncTimeSeries.co_occurrence."""
        return self._loop.run(self._series.co_occurrence(window, by=by, **options))

    def heat_map(
        self,
        cycle: Literal["day", "week"] = "day",
        *,
        by: Key = "symbol",
        **options: Unpack[SeriesFilter],
    ) -> HeatMap:
        """Sum up signals by the hour; see AsyncTimeSeries.heat_map."""
        return self._loop.run(self._series.heat_map(cycle, by=by, **options))


def filter_parameters(options: SeriesFilter | BucketFilter, kind: Any) -> dict[str, Any]:
    """Return the parameters of options of one kind; raises InvalidQueryError."""
    require_known(options, kind)
    if options.get("from_") is None:
        raise InvalidQueryError("Cannot query time series without from_: say where they begin.")
    parameters = SignalFilter.of(cast(SignalFilterOptions, options)).parameters()
    for name, moment in (("from", options["from_"]), ("to", options.get("to"))):
        if moment is not None:
            parameters[name] = utc_text(name, moment)
    if (top := options.get("top")) is not None:
        parameters["top"] = whole_number("top", top)
    if (fill := options.get("fill")) is not None:
        parameters["fill"] = fill
    return parameters


def _seconds(name: str, duration: timedelta) -> str:
    if not isinstance(duration, timedelta):
        raise InvalidQueryError(f"Cannot query with {name} {duration!r}: it must be a timedelta.")
    seconds, rest = divmod(duration, timedelta(seconds=1))
    if rest or seconds < 1:
        raise InvalidQueryError(f"Cannot query with {name} {duration}: it must be whole seconds.")
    return f"{seconds}s"
