"""Prices as bars in columns, and questions about them that are answered for many times at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import numpy as np

from signal_persistence.analysis.arrays import (
    TIME,
    Floats,
    Integers,
    Times,
    microseconds,
    times_of,
)
from signal_persistence.errors import InvalidAnalysisError


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """Bars of one symbol: `at` is when each begins (UTC, ascending), `length` how long it lasts.

    A bar of length zero is one trade or quote.
    """

    at: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    length: timedelta

    @classmethod
    def of(cls, at: Any, open_: Any, high: Any, low: Any, close: Any, *, length: timedelta) -> Self:
        """Build bars of any sequences; `at` are aware datetimes, or datetime64 in UTC.

        Raises InvalidAnalysisError for times that do not ascend and prices that are not finite.
        """
        has_datetimes = isinstance(next(iter(at), None), datetime)
        times = times_of(at) if has_datetimes else np.asarray(at, TIME)
        prices = [np.asarray(column, np.float64) for column in (open_, high, low, close)]
        opens, highs, lows, closes = prices
        if any(len(column) != len(times) for column in prices):
            raise InvalidAnalysisError("Cannot use these bars: the columns differ in length.")
        if not all(np.isfinite(column).all() for column in prices):
            raise InvalidAnalysisError("Cannot use these bars: every price must be finite.")
        if (times[1:] <= times[:-1]).any() or length < timedelta(0):
            raise InvalidAnalysisError("Cannot use these bars: their times must ascend.")
        return cls(times, opens, highs, lows, closes, length)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def end(self) -> Times:
        """When each bar ends; only then its high, low and close are known."""
        return self.at + np.timedelta64(microseconds(self.length), "us")

    def price_at(self, times: Times) -> Floats:
        """Return the last close that was known at each time.

        NaN before the first bar has ended and after the last one has: nothing is known there.
        """
        end = self.end
        if not len(end):
            return np.full(len(times), np.nan)
        bar = np.searchsorted(end, times, side="right") - 1
        known = (bar >= 0) & (times <= end[-1])
        return np.where(known, self.close[np.maximum(bar, 0)], np.nan)

    def first_from(self, times: Times) -> Integers:
        """Return the first bar that begins at or after each time; `len(self)` when none does."""
        return np.searchsorted(self.at, times, side="left")


def rows_by_symbol(
    symbol: Integers, symbols: Sequence[str], prices: Mapping[str, Bars]
) -> Iterator[tuple[Integers, Bars]]:
    """Iterate over the bars of `prices` with the rows that are about their symbol."""
    for place, name in enumerate(symbols):
        rows = np.flatnonzero(symbol == place)
        if name in prices and len(rows):
            yield rows, prices[name]


class LowestOf:
    """The lowest of any stretch of values, and where a stretch first falls to a level.

    A sparse table: log2(n) rows of n values, so a question takes log2(n) steps or fewer for all
    stretches at once. Highest is lowest of the negated values.
    """

    def __init__(self, values: Floats) -> None:
        self._levels = [values]
        while (width := 1 << len(self._levels)) <= len(values):
            finer = self._levels[-1]
            self._levels.append(np.minimum(finer[: -(width // 2)], finer[width // 2 :]))

    def between(self, first: Integers, end: Integers) -> Floats:
        """Return the lowest of values[first:end] for each pair; infinity when it is empty."""
        lowest = np.full(len(first), np.inf)
        for level, values in enumerate(self._levels):
            width = 1 << level
            here = (end - first >= width) & (end - first < 2 * width)
            left, right = first[here], end[here] - width
            lowest[here] = np.minimum(values[left], values[right])
        return lowest

    def first_at_or_below(self, first: Integers, end: Integers, limit: Floats) -> Integers:
        """Return the first place of [first, end) with a value <= limit; `end` when there is none.

        Skips stretches that stay above the limit, the longest first; a NaN limit is never reached.
        """
        place = first.copy()
        for level in reversed(range(len(self._levels))):
            values, width = self._levels[level], 1 << level
            fits = place + width <= end
            lowest = values[np.where(fits, place, 0)] if len(values) else np.empty(0)
            place[fits & ~(lowest <= limit)] += width
        return place
