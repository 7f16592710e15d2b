"""What trades brought: win rate, profit factor, expectancy, streaks, time in the market.

A figure that is not defined is None, never infinite or NaN: an average of nothing, a ratio to
losses when nothing was lost, a deviation of one value or of equal values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist
from typing import Final, Self

import numpy as np

from signal_persistence.analysis.arrays import (
    Booleans,
    Floats,
    time_of,
    timedelta_of,
)
from signal_persistence.analysis.bars import Bars, LowestOf, rows_by_symbol
from signal_persistence.analysis.signal_table import LONG
from signal_persistence.analysis.trades import OPEN, Measure, Trades
from signal_persistence.errors import InvalidAnalysisError

_CONFIDENCE_LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of `count` with its Wilson score interval; all are fractions from 0 to 1."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, successes: int, count: int, level: float = _CONFIDENCE_LEVEL) -> Self | None:
        """Return successes / count with its interval at `level`; None of nothing.

        (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), with z the normal quantile of
        (1 + level) / 2 (E. B. Wilson, JASA 22, 1927). It never leaves 0 to 1.
        """
        if not 0 <= successes <= count or not 0 < level < 1:
            raise InvalidAnalysisError(
                f"Cannot take {successes} of {count} as a proportion at level {level}."
            )
        if count == 0:
            return None
        share = successes / count
        z = NormalDist().inv_cdf((1 + level) / 2)
        centre = share + z * z / (2 * count)
        spread = z * float(np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2))
        scale = 1 + z * z / count
        low, high = max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
        return cls(share, 0.0 if successes == 0 else low, 1.0 if share == 1 else high, count)


@dataclass(frozen=True, slots=True)
class TradeStatistics:
    """Figures of the results x of n trades, in the order of their exits; None where not defined.

    Results and their averages are fractions or money, as they were measured. A win has x > 0, a
    loss x < 0; a trade with x = 0 is neither, and ends a streak.

    | figure | formula |
    | --- | --- |
    | `win_rate` | wins / n, with a 95 % Wilson interval |
    | `expectancy` | Σx / n: what a trade brings on average |
    | `average_win`, `average_loss` | Σx / count over wins; over losses (negative) |
    | `payoff_ratio` | average_win / abs(average_loss) |
    | `profit_factor` | Σ wins / abs(Σ losses) |
    | `sqn` | √n * mean(x) / s(x), s with n - 1: Van Tharp's system quality number, no cap on n |
    | `longest_winning_streak`, `longest_losing_streak` | most in a row |
    """

    count: int
    wins: int
    losses: int
    win_rate: Proportion | None
    total: float
    expectancy: float | None
    average_win: float | None
    average_loss: float | None
    largest_win: float | None
    largest_loss: float | None
    payoff_ratio: float | None
    profit_factor: float | None
    sqn: float | None
    longest_winning_streak: int
    longest_losing_streak: int

    @classmethod
    def of(cls, results: Floats) -> Self:
        """Compute the figures of `results`, one a trade: `trades.results()` or any array."""
        won, lost = results[results > 0], results[results < 0]
        return cls(
            count=len(results),
            wins=len(won),
            losses=len(lost),
            win_rate=Proportion.of(len(won), len(results)),
            total=float(results.sum()),
            expectancy=mean(results),
            average_win=mean(won),
            average_loss=mean(lost),
            largest_win=float(won.max()) if len(won) else None,
            largest_loss=float(lost.min()) if len(lost) else None,
            payoff_ratio=ratio(mean(won), mean(lost)),
            profit_factor=ratio(float(won.sum()), float(lost.sum())) if len(results) else None,
            sqn=_system_quality(results),
            longest_winning_streak=longest_run(results > 0),
            longest_losing_streak=longest_run(results < 0),
        )


@dataclass(frozen=True, slots=True)
class HoldingTimes:
    """How long trades were held: exit minus entry, over the trades for which both are known."""

    count: int
    mean: timedelta
    median: timedelta
    shortest: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True)
class Excursions:
    """How far the price went against each trade and for it, as fractions of the entry price.

    `adverse` (MAE) is 0 or negative, `favourable` (MFE) 0 or positive: the worst and the best of
    side * (price - entry_price) / |entry_price| over the entry, the exit and all bars that lie
    wholly between them (J. Sweeney, Maximum Adverse Excursion). So it is a lower bound with bars,
    and exact with ticks. NaN where the bars do not reach, and for an entry at price 0.
    """

    adverse: Floats
    favourable: Floats


def trade_statistics(trades: Trades, *, measure: Measure = "return") -> TradeStatistics:
    """Compute the figures of closed trades, by return (the default) or by profit."""
    return TradeStatistics.of(trades.results(measure))


def holding_times(trades: Trades) -> HoldingTimes | None:
    """Describe how long closed trades were held; None when no trade has both times."""
    spans = (trades.exited_at - trades.entered_at)[
        ~np.isnat(trades.exited_at) & ~np.isnat(trades.entered_at)
    ].astype(np.float64)
    if not len(spans):
        return None
    return HoldingTimes(
        count=len(spans),
        mean=timedelta_of(spans.mean()),
        median=timedelta_of(np.median(spans)),
        shortest=timedelta_of(spans.min()),
        longest=timedelta_of(spans.max()),
    )


def exposure(*parts: Trades, start: datetime, end: datetime) -> float:
    """Return the share of the time from `start` to `end` in which a position was held, 0 to 1.

    Times in which several trades are open count once. Pass open trades too: they last to `end`.
    """
    first, last = time_of(start).astype(np.int64), time_of(end).astype(np.int64)
    if last <= first:
        raise InvalidAnalysisError("Cannot take the exposure: the end must be after the start.")
    for trades in parts:
        trades.take(trades.close_reason != OPEN).exit_times()
    entered = np.concatenate([trades.entered_at for trades in parts])
    exited = np.concatenate([trades.exited_at for trades in parts])
    begins = np.clip(entered.astype(np.int64), first, last)
    ends = np.where(np.isnat(exited), last, np.clip(exited.astype(np.int64), first, last))
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], ends[order]
    covered = np.maximum.accumulate(np.append(first, ends))[:-1]
    return float(np.maximum(ends - np.maximum(begins, covered), 0).sum() / (last - first))


def excursions(trades: Trades, prices: Mapping[str, Bars]) -> Excursions:
    """Measure the excursions of closed trades by the bars of their symbols."""
    adverse, favourable = np.full((2, len(trades)), np.nan)
    for rows, bars in rows_by_symbol(trades.symbol, trades.symbols, prices):
        some = trades.take(rows)
        low, high = _extremes(some, bars)
        known = _is_covered(some, bars) & (some.entry_price != 0)
        entry = np.where(known, some.entry_price, np.nan)
        is_long = some.side == LONG
        worst, best = np.where(is_long, low, high), np.where(is_long, high, low)
        adverse[rows] = some.side * (worst - entry) / np.abs(entry)
        favourable[rows] = some.side * (best - entry) / np.abs(entry)
    return Excursions(adverse, favourable)


def mean(values: Floats) -> float | None:
    """Return the arithmetic mean; None of nothing."""
    return float(values.mean()) if len(values) else None


def ratio(above: float | None, below: float | None) -> float | None:
    """Return above / |below|; None when either is not known, or nothing is below."""
    return above / abs(below) if above is not None and below else None


def deviation(values: Floats) -> float | None:
    """Return the standard deviation of a sample (n - 1); None when it is 0 or not defined.

    Equal values have none, whatever rounding makes of their mean.
    """
    if len(values) < 2 or values.min() == values.max():
        return None
    return float(values.std(ddof=1))


def longest_run(chosen: Booleans) -> int:
    """Return how many true values stand in a row at most."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _system_quality(results: Floats) -> float | None:
    spread = deviation(results)
    return None if spread is None else float(np.sqrt(len(results)) * results.mean() / spread)


def _extremes(trades: Trades, bars: Bars) -> tuple[Floats, Floats]:
    """Return the lowest and the highest price of each trade, its entry and exit included."""
    first = np.searchsorted(bars.at, trades.entered_at, side="left")
    end = np.maximum(first, np.searchsorted(bars.end, trades.exited_at, side="right"))
    low = LowestOf(bars.low).between(first, end)
    high = -LowestOf(-bars.high).between(first, end)
    own = np.stack([trades.entry_price, trades.exit_price])
    return np.minimum(low, own.min(axis=0)), np.maximum(high, own.max(axis=0))


def _is_covered(trades: Trades, bars: Bars) -> Booleans:
    """Tell which trades lie within the time of the bars; false when a time is not known."""
    if not len(bars):
        return np.zeros(len(trades), bool)
    covered: Booleans = (trades.entered_at >= bars.at[0]) & (trades.exited_at <= bars.end[-1])
    return covered
