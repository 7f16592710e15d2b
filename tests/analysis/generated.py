"""Signals and bars that hypothesis makes up: few prices, times that coincide, every action."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from signal_persistence.analysis import Bars, PairingRules, SignalTable
from signal_persistence.analysis.signal_table import ACTIONS

TRADERS = [UUID(int=1), UUID(int=2)]
SECOND = 1_000_000
STATUSES = ("generated", "executed", "closed", "expired", "cancelled", "rejected")

rules = st.builds(
    PairingRules,
    exit_closes=st.sampled_from(["all", "oldest"]),
    hedged=st.booleans(),
    per_timeframe=st.booleans(),
    only_executed=st.booleans(),
)


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""


@st.composite
def columns(
    draw: st.DrawFn, symbols: tuple[str, ...] = ("A", "B"), most: int = 40
) -> dict[str, list[Any]]:
    """Make the columns of a table; prices lie from 90 to 109, times on or between seconds.

    Each row is drawn as eight bytes: hypothesis makes and shrinks those fast.
    """
    count = draw(st.sampled_from([0, 2, most // 3, most]))
    drawn = draw(st.binary(min_size=8 * count, max_size=8 * count))
    rows = [drawn[place : place + 8] for place in range(0, len(drawn), 8)]
    return {
        "trader_id": [TRADERS[row[0] & 1] for row in rows],
        "symbol": [symbols[(row[0] >> 1) % len(symbols)] for row in rows],
        "timeframe": [("1m", "5m")[row[0] >> 7] for row in rows],
        "generated_at": [row[1] % 61 * SECOND // 2 for row in rows],
        "action": [ACTIONS[row[2] % len(ACTIONS)] for row in rows],
        "price": [90 + row[3] % 20 for row in rows],
        "status": [STATUSES[row[4] % len(STATUSES)] for row in rows],
        "stop_loss": [90 + row[5] % 20 if row[5] > 127 else None for row in rows],
        "take_profit": [90 + row[6] % 20 if row[6] > 127 else None for row in rows],
        "confidence": [row[7] % 11 / 10 for row in rows],
        "seq": list(range(1, count + 1)),
    }


@st.composite
def bars(draw: st.DrawFn, most: int = 25) -> Bars:
    """Make bars of one second, with holes."""
    count = draw(st.integers(1, most))
    drawn = draw(st.binary(min_size=6 * count, max_size=6 * count))
    rows = np.frombuffer(drawn, np.uint8).reshape(count, 6)
    low, some, other, high = np.sort(85.0 + rows[:, :4] % 31).T
    rises = rows[:, 4] % 2 == 0
    at = np.cumsum(1 + rows[:, 5] // 200) * SECOND
    first, last = np.where(rises, some, other), np.where(rises, other, some)
    return Bars.of(at, first, high, low, last, length=timedelta(seconds=1))


def table(made: dict[str, list[Any]]) -> SignalTable:
    """Put generated columns into a table."""
    return SignalTable.from_columns(made)
