"""Traders side by side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import numpy as np

from signal_persistence.analysis.arrays import TIME, datetime_of
from signal_persistence.analysis.returns import (
    DAY,
    Returns,
    RiskStatistics,
    risk_statistics,
    trade_returns,
)
from signal_persistence.analysis.statistics import TradeStatistics
from signal_persistence.analysis.trades import Trades

Order = Literal["expectancy", "total", "profit_factor", "sqn", "sharpe", "sortino", "calmar"]


@dataclass(frozen=True, slots=True)
class TraderPerformance:
    """What one trader's closed trades brought, by return, and what it risked for that."""

    trader_id: UUID
    trades: TradeStatistics
    risk: RiskStatistics


def compare_traders(
    trades: Trades,
    *,
    order: Order = "sqn",
    every: timedelta = DAY,
    share: float = 0.01,
    start: datetime | None = None,
    end: datetime | None = None,
) -> tuple[TraderPerformance, ...]:
    """Compute the figures of every trader over the same time; the highest `order` comes first.

    Every trader of the table is there, also without trades. The risk is that of `trade_returns`
    with the same parameters; without `start` and `end` the time is that of all trades together.
    Traders without the figure come last; equals are ordered by id. Of many traders one is first by
    luck too: look at the interval of the win rate and at whether |sqn| exceeds 2.
    """
    if len(trades) and start is None:
        start = datetime_of(trades.entered_at.min())
    if len(trades) and end is None:
        end = datetime_of(trades.exit_times().max()) + timedelta(microseconds=1)
    performances = []
    for place, trader_id in enumerate(trades.traders):
        own = trades.take(trades.trader == place)
        if start is None or end is None:
            returns = Returns(np.empty(0, TIME), np.empty(0), every)
        else:
            returns = trade_returns(own, every=every, share=share, start=start, end=end)
        performances.append(
            TraderPerformance(
                trader_id, TradeStatistics.of(own.results("return")), risk_statistics(returns)
            )
        )
    return tuple(sorted(performances, key=lambda each: _rank(each, order)))


def _rank(performance: TraderPerformance, order: Order) -> tuple[bool, float, UUID]:
    part = performance.risk if order in ("sharpe", "sortino", "calmar") else performance.trades
    figure: float | None = getattr(part, order)
    return figure is None, -(figure or 0.0), performance.trader_id
