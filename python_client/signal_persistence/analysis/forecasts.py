"""How good signals are as forecasts: markout curve, calibration and information coefficient.

These look at the prices after a signal, whatever was traded on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

import numpy as np

from signal_persistence.analysis.arrays import (
    Floats,
    Integers,
    microseconds,
    ranks,
)
from signal_persistence.analysis.bars import Bars, rows_by_symbol
from signal_persistence.analysis.signal_table import SignalTable
from signal_persistence.analysis.statistics import Proportion, deviation
from signal_persistence.analysis.trades import Trades
from signal_persistence.errors import InvalidAnalysisError

BASIS_POINTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class MarkoutPoint:
    """The side-adjusted forward return of entries at one horizon, in basis points (1/10,000).

    `mean` is the average over the `count` entries for which the price is known, `standard_error`
    s / √count (None for fewer than two, or equal ones), `hit_rate` the share above zero.
    """

    horizon: timedelta
    count: int
    mean: float | None
    standard_error: float | None
    hit_rate: Proportion | None


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Trades of similar confidence: what was claimed, and the share that won."""

    lowest: float
    highest: float
    mean_confidence: float
    win_rate: Proportion


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well confidence, taken as the probability of a win, agrees with what happened.

    `brier_score` is Σ (confidence - won)² / n, from 0 (perfect) to 1 (G. W. Brier, 1950);
    `expected_error` is the mean of |win rate - mean confidence| over the bins, each weighted by
    its trades (expected calibration error). Both are None without trades.
    """

    bins: tuple[CalibrationBin, ...]
    brier_score: float | None
    expected_error: float | None


@dataclass(frozen=True, slots=True)
class InformationCoefficient:
    """Spearman's rank correlation of side * confidence with the return that follows.

    Pearson's correlation of the ranks, where equal values share their mean rank (Grinold and Kahn,
    Active Portfolio Management). `t` is ic √((n - 2) / (1 - ic²)). `value` is None for fewer than
    two entries or when one side never varies, `t` also for fewer than three and for |ic| = 1.
    """

    horizon: timedelta
    count: int
    value: float | None
    t: float | None


def forward_returns(
    signals: SignalTable,
    prices: Mapping[str, Bars],
    horizon: timedelta,
    *,
    base: Literal["signal", "market"] = "signal",
) -> Floats:
    """Return (price at generated_at + horizon - base) / |base| of each signal, as a fraction.

    The base is the signal's own price, or the market's at `generated_at`. A market price is the
    last close known at that time, so nothing is taken from the future. NaN where the bars do not
    reach and for a base of 0. A negative horizon looks back: a signal that comes late has its
    return there.
    """
    change = np.full(len(signals), np.nan)
    ahead = np.timedelta64(microseconds(horizon), "us")
    for rows, bars in rows_by_symbol(signals.symbol, signals.symbols, prices):
        at = signals.generated_at[rows]
        from_ = signals.price[rows] if base == "signal" else bars.price_at(at)
        from_ = np.where(from_ == 0, np.nan, from_)
        change[rows] = (bars.price_at(at + ahead) - from_) / np.abs(from_)
    return change


def markout_curve(
    signals: SignalTable,
    prices: Mapping[str, Bars],
    horizons: Sequence[timedelta],
    *,
    base: Literal["signal", "market"] = "signal",
) -> tuple[MarkoutPoint, ...]:
    """Return side * forward return of the entries at each horizon, averaged.

    A curve that rises and stays is an edge; one that falls back is an effect of the entry itself;
    one that has risen before 0 shows signals that come late.
    """
    entries = signals.take(signals.is_entry)
    points = []
    for horizon in horizons:
        marks = BASIS_POINTS * entries.side * forward_returns(entries, prices, horizon, base=base)
        points.append(_markout_point(horizon, marks[~np.isnan(marks)]))
    return tuple(points)


def information_coefficient(
    signals: SignalTable,
    prices: Mapping[str, Bars],
    horizon: timedelta,
    *,
    base: Literal["signal", "market"] = "market",
) -> InformationCoefficient:
    """Correlate what the entries claim with the return at `horizon`."""
    entries = signals.take(signals.is_entry)
    change = forward_returns(entries, prices, horizon, base=base)
    known = ~np.isnan(change)
    claims, change = (entries.side * entries.confidence)[known], change[known]
    value = correlation(ranks(claims), ranks(change))
    t = None
    if value is not None and len(change) > 2 and abs(value) < 1:
        t = value * float(np.sqrt((len(change) - 2) / (1 - value * value)))
    return InformationCoefficient(horizon, len(change), value, t)


def calibration(trades: Trades, *, bins: int = 10) -> Calibration:
    """Compare the confidence of entries with how often their trades won (profit above 0).

    Trades are sorted by confidence into `bins` groups of equal size (deciles); equal confidences
    are never parted, so that with few different values there are fewer and unequal groups.
    """
    if bins < 1:
        raise InvalidAnalysisError(f"Cannot calibrate with {bins} bins: at least one is needed.")
    confidence, won = trades.confidence, trades.results("profit") > 0
    if not len(trades):
        return Calibration((), None, None)
    group = _quantile_groups(confidence, bins)
    made = tuple(
        _calibration_bin(confidence[group == place], int(won[group == place].sum()))
        for place in np.unique(group)
    )
    gaps = [b.win_rate.count * abs(b.win_rate.value - b.mean_confidence) for b in made]
    brier = float(np.mean((confidence - won) ** 2))
    return Calibration(made, brier, sum(gaps) / len(trades))


def correlation(left: Floats, right: Floats) -> float | None:
    """Return Pearson's correlation; None when either has no deviation."""
    if deviation(left) is None or deviation(right) is None:
        return None
    a, b = left - left.mean(), right - right.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _markout_point(horizon: timedelta, marks: Floats) -> MarkoutPoint:
    spread = deviation(marks)
    return MarkoutPoint(
        horizon=horizon,
        count=len(marks),
        mean=float(marks.mean()) if len(marks) else None,
        standard_error=None if spread is None else spread / float(np.sqrt(len(marks))),
        hit_rate=Proportion.of(int((marks > 0).sum()), len(marks)),
    )


def _quantile_groups(values: Floats, groups: int) -> Integers:
    """Give each value its group by rank; equal values go by the lowest of their ranks."""
    lowest_rank = np.searchsorted(np.sort(values), values, side="left")
    return lowest_rank * groups // len(values)


def _calibration_bin(confidence: Floats, wins: int) -> CalibrationBin:
    win_rate = Proportion.of(wins, len(confidence))
    if win_rate is None:
        raise InvalidAnalysisError("Cannot calibrate a bin without trades.")
    return CalibrationBin(
        lowest=float(confidence.min()),
        highest=float(confidence.max()),
        mean_confidence=float(confidence.mean()),
        win_rate=win_rate,
    )
