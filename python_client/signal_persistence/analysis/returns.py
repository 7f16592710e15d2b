"""Returns by period and what they say of risk: Sharpe, Sortino, Calmar, drawdown.

The year has 365 days, and a period in which nothing happened has return 0: markets that rest at
weekends need no calendar, and annual figures of daily returns use √365 with the empty days in.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from signal_persistence.analysis.arrays import (
    Floats,
    Integers,
    Times,
    datetime_of,
    microseconds,
    time_of,
)
from signal_persistence.analysis.statistics import deviation
from signal_persistence.analysis.trades import Trades
from signal_persistence.errors import InvalidAnalysisError

DAY: Final = timedelta(days=1)
_YEAR: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True, eq=False)
class Returns:
    """Returns of periods that follow each other without gaps, as fractions.

    `end` is when each period ends, `every` how long one is.
    """

    end: Times
    value: Floats
    every: timedelta

    def __len__(self) -> int:
        return len(self.value)

    @property
    def periods_per_year(self) -> float:
        """How many periods a year of 365 days has."""
        return _YEAR / self.every

    def growth(self) -> Floats:
        """What 1 has become at the end of each period: Π (1 + r)."""
        return np.cumprod(1 + self.value, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest fall from a peak.

    `depth` is value / peak - 1, a negative fraction. The peak is the last one before the fall;
    `recovered_at` is when its value was reached again, None when it was not yet. `duration` runs
    from the peak to the recovery (or to the end of the data), `recovery` from the bottom to it.
    """

    depth: float
    peak_at: datetime
    bottom_at: datetime
    recovered_at: datetime | None
    duration: timedelta
    recovery: timedelta | None


@dataclass(frozen=True, slots=True)
class RiskStatistics:
    """Figures of n period returns r, with p periods a year and f risk-free per period.

    None where not defined: without periods, deviation, fall or loss, as each formula needs it, and
    for an annual return beyond the largest number.

    | figure | formula |
    | --- | --- |
    | `total_return` | Π(1 + r) - 1 |
    | `annual_return` | (Π(1 + r))^(p / n) - 1 (CAGR) |
    | `volatility` | s(r) √p, s with n - 1 |
    | `sharpe` | mean(r - f) / s(r - f) * √p (W. F. Sharpe, J. Portfolio Management 21, 1994) |
    | `sortino` | mean(r - f) / √(Σ min(r - f, 0)² / n) * √p (Sortino and Price, 1994) |
    | `calmar` | annual_return / abs(depth of the deepest drawdown) (T. W. Young, 1991) |
    """

    periods: int
    total_return: float
    annual_return: float | None
    volatility: float | None
    sharpe: float | None
    sortino: float | None
    calmar: float | None
    max_drawdown: Drawdown | None


def risk_statistics(returns: Returns, *, risk_free: float = 0.0) -> RiskStatistics:
    """Compute the figures of `returns`; `risk_free` is the annual rate, spread as rate / p.

    Raises InvalidAnalysisError for a return of -1 or less: after the loss of everything no
    figure of growth has a meaning.
    """
    value = returns.value
    if not np.isfinite(value).all() or (value <= -1).any():
        raise InvalidAnalysisError(
            "Cannot compute risk: each return must be above -1, or all capital was lost."
        )
    per_year = returns.periods_per_year
    excess = value - risk_free / per_year
    growth = float(np.prod(1 + value))
    annual = _annual_growth(growth, len(value) / per_year)
    deepest = max_drawdown(returns)
    return RiskStatistics(
        periods=len(value),
        total_return=growth - 1,
        annual_return=annual,
        volatility=_annual(deviation(value), per_year),
        sharpe=_over(excess, deviation(excess), per_year),
        sortino=_over(excess, _downside(excess), per_year),
        calmar=None if deepest is None or annual is None else annual / -deepest.depth,
        max_drawdown=deepest,
    )


def max_drawdown(returns: Returns) -> Drawdown | None:
    """Find the deepest fall of the compounded value, its start of 1 included; None without one."""
    if not len(returns):
        return None
    value = np.concatenate([[1.0], returns.growth()])
    at = np.concatenate([returns.end[:1] - _span(returns.every), returns.end])
    peak = np.maximum.accumulate(value)
    bottom = int(np.argmin(value / peak))
    depth = float(value[bottom] / peak[bottom] - 1)
    if depth == 0:
        return None
    top = int(np.flatnonzero(value[: bottom + 1] == peak[bottom])[-1])
    later = np.flatnonzero(value[bottom:] >= peak[bottom])
    recovered = at[bottom + later[0]] if len(later) else None
    end = at[-1] if recovered is None else recovered
    return Drawdown(
        depth=depth,
        peak_at=datetime_of(at[top]),
        bottom_at=datetime_of(at[bottom]),
        recovered_at=None if recovered is None else datetime_of(recovered),
        duration=datetime_of(end) - datetime_of(at[top]),
        recovery=None if recovered is None else datetime_of(recovered) - datetime_of(at[bottom]),
    )


def trade_returns(
    trades: Trades,
    *,
    every: timedelta = DAY,
    share: float = 1.0,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Returns:
    """Sum up the returns of closed trades by the period of their exit: share * Σ return.

    As if each trade had the same `share` of a capital that is not compounded. Periods are whole
    multiples of `every` since 1970 in UTC, from that of `start` (the first entry) to that before
    `end` (the one with the last exit). Trades without a known exit time cannot be placed:
    InvalidAnalysisError, as for trades that were closed outside of the range.
    """
    results = trades.results("return")
    exited_at = trades.exit_times()
    if not len(trades) and (start is None or end is None):
        raise InvalidAnalysisError("Cannot place no trades in time: give a start and an end.")
    width = microseconds(every)
    first = _period(trades.entered_at.min() if start is None else time_of(start), width)
    last = _period(exited_at.max(), width) if end is None else _period(time_of(end) - 1, width)
    place = exited_at.astype(np.int64) // width - first
    if ((place < 0) | (place > last - first)).any():
        raise InvalidAnalysisError("Cannot sum up: trades were closed outside of the range.")
    sums = np.bincount(place, weights=results, minlength=last - first + 1)
    return Returns(_ends(first, len(sums), width), np.asarray(share * sums, np.float64), every)


def equity_returns(at: Times, value: Floats, *, every: timedelta = DAY) -> Returns:
    """Return how an equity curve changed by period: value at the end / value at its beginning - 1.

    The value at an end is the last one known there. Periods are whole multiples of `every` since
    1970 in UTC; the first begins with the first value of the curve, the last may be cut short.
    """
    if len(value) == 0 or (value <= 0).any():
        raise InvalidAnalysisError(
            "Cannot take returns of this equity: it must be above 0 everywhere."
        )
    width = microseconds(every)
    first = _period(at[0], width)
    ends = _ends(first, _period(at[-1] - 1, width) - first + 1, width)
    known = value[np.searchsorted(at, ends, side="right") - 1]
    before = np.concatenate([value[:1], known[:-1]])
    return Returns(ends, known / before - 1, every)


def _annual_growth(growth: float, years: float) -> float | None:
    """Growth by year; None without a time, and for what is too large to be a number."""
    with suppress(OverflowError, ZeroDivisionError):
        return float(growth ** (1 / years) - 1)
    return None


def _over(excess: Floats, spread: float | None, per_year: float) -> float | None:
    return None if spread is None else float(excess.mean() / spread * np.sqrt(per_year))


def _annual(spread: float | None, per_year: float) -> float | None:
    return None if spread is None else float(spread * np.sqrt(per_year))


def _downside(excess: Floats) -> float | None:
    """The root mean square of what is below zero; None when nothing is, or of one period."""
    below = np.minimum(excess, 0)
    return float(np.sqrt(np.mean(below**2))) if len(excess) > 1 and below.any() else None


def _ends(first: int, count: int, width: int) -> Times:
    ends: Integers = (np.arange(first, first + count) + 1) * width
    return ends.astype("datetime64[us]")


def _period(time: np.datetime64, width: int) -> int:
    return int(time.astype(np.int64)) // width


def _span(every: timedelta) -> np.timedelta64:
    return np.timedelta64(microseconds(every), "us")
