"""Markout, calibration and information coefficient beside pandas and scipy, on real prices."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from signal_persistence.analysis import (
    Bars,
    InvalidAnalysisError,
    Proportion,
    Trades,
    calibration,
    forward_returns,
    information_coefficient,
    markout_curve,
    pair_trades,
)
from signal_persistence.analysis.arrays import ranks
from tests.analysis import generated, real_data

HORIZONS = [timedelta(minutes=minutes) for minutes in (-60, 0, 15, 60, 240)]
SYMBOLS = ["ES", "BTC-USD", "EUR/USD"]


def merged(symbol: str, horizon: timedelta, base: str) -> pd.DataFrame:
    """Join the entries of one symbol with the price that is known at the horizon."""
    table, bars = real_data.table().of_symbol(symbol), real_data.prices()[symbol]
    entries = table.take(table.is_entry)
    known = pd.DataFrame({"at": bars.end, "close": bars.close})
    frame = pd.DataFrame({"at": entries.generated_at, "price": entries.price})
    frame["claim"] = entries.side * entries.confidence
    frame["side"] = entries.side
    if base == "market":
        frame["price"] = pd.merge_asof(frame, known, on="at")["close"]
    frame["at"] += horizon
    frame = pd.merge_asof(frame, known, on="at")
    frame.loc[frame["at"] > bars.end[-1], "close"] = np.nan
    frame["change"] = (frame["close"] - frame["price"]) / frame["price"].abs()
    return frame


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("base", ["signal", "market"])
def test_the_markout_curve_is_an_as_of_join(symbol: str, base: Any) -> None:
    table = real_data.table().of_symbol(symbol)
    for point in markout_curve(table, real_data.prices(), HORIZONS, base=base):
        frame = merged(symbol, point.horizon, base)
        marks = (1e4 * frame["side"] * frame["change"]).dropna()
        assert point.count == len(marks) > 100
        assert point.mean == pytest.approx(marks.mean(), rel=1e-9, abs=1e-9)
        if marks.std() > 1e-9:
            assert point.standard_error == pytest.approx(marks.sem(), rel=1e-9)
            wins = int((marks > 0).sum())
            assert point.hit_rate == Proportion.of(wins, len(marks))


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("horizon", HORIZONS[3:])
def test_the_information_coefficient_is_spearmans(symbol: str, horizon: timedelta) -> None:
    frame = merged(symbol, horizon, "market").dropna()
    expected = stats.spearmanr(frame["claim"], frame["change"])
    found = information_coefficient(
        real_data.table().of_symbol(symbol), real_data.prices(), horizon
    )
    assert found.count == len(frame)
    assert found.value == pytest.approx(expected.statistic, rel=1e-9, abs=1e-12)
    assert found.t is not None
    assert 2 * stats.t.sf(abs(found.t), found.count - 2) == pytest.approx(expected.pvalue)


@generated.unhurried
@given(st.lists(st.integers(0, 8), max_size=30))
def test_ranks_are_those_of_scipy(values: list[int]) -> None:
    assert ranks(np.array(values, float)).tolist() == stats.rankdata(values).tolist()


def test_nothing_is_known_outside_of_the_bars() -> None:
    bars = Bars.of([0, 10], [1, 2], [1, 2], [1, 2], [1, 2], length=timedelta(microseconds=5))
    times = np.array([4, 5, 14, 15, 16], "datetime64[us]")
    assert bars.price_at(times).tolist() == pytest.approx([np.nan, 1, 1, 2, np.nan], nan_ok=True)


def test_signals_without_prices_have_no_forward_return() -> None:
    table = real_data.table()
    prices = {"ES": real_data.prices()["ES"]}
    known = ~np.isnan(forward_returns(table, prices, timedelta(0), base="market"))
    assert {table.symbols[place] for place in table.symbol[known]} == {"ES"}
    (point,) = markout_curve(table.of_symbol("BTC-USD"), prices, [timedelta(minutes=1)])
    assert (point.count, point.mean, point.standard_error, point.hit_rate) == (0, None, None, None)
    found = information_coefficient(table.of_symbol("BTC-USD"), prices, timedelta(minutes=1))
    assert (found.count, found.value, found.t) == (0, None, None)


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_calibration_is_that_of_pandas(bins: int) -> None:
    trades = pair_trades(real_data.table()).closed
    frame = pd.DataFrame({"confidence": trades.confidence, "won": trades.profit > 0})
    group = ((frame["confidence"].rank(method="min") - 1) * bins // len(frame)).astype(int)
    expected = frame.groupby(group).agg(
        low=("confidence", "min"),
        high=("confidence", "max"),
        mean=("confidence", "mean"),
        won=("won", "mean"),
        count=("won", "size"),
    )
    found = calibration(trades, bins=bins)
    rows = [
        (b.lowest, b.highest, b.mean_confidence, b.win_rate.value, b.win_rate.count)
        for b in found.bins
    ]
    assert np.array(rows) == pytest.approx(expected.to_numpy(), rel=1e-9)
    brier = ((frame["confidence"] - frame["won"]) ** 2).mean()
    assert found.brier_score == pytest.approx(brier, rel=1e-9)
    gap = (expected["count"] * (expected["won"] - expected["mean"]).abs()).sum() / len(frame)
    assert found.expected_error == pytest.approx(gap, rel=1e-9)


@generated.unhurried
@given(generated.columns(), st.integers(1, 12))
def test_every_trade_is_in_one_bin_and_equal_confidences_stay_together(
    made: dict[str, Any], bins: int
) -> None:
    trades = pair_trades(generated.table(made)).closed
    found = calibration(trades, bins=bins).bins
    assert sum(each.win_rate.count for each in found) == len(trades)
    assert len(found) <= bins
    edges = [edge for each in found for edge in (each.lowest, each.highest)]
    assert edges == sorted(edges)
    assert all(low.highest < high.lowest for low, high in pairwise(found))


def test_no_trades_are_not_calibrated() -> None:
    nothing: Trades = pair_trades(real_data.table()).closed.take(np.zeros(0, int))
    found = calibration(nothing)
    assert (found.bins, found.brier_score, found.expected_error) == ((), None, None)
    with pytest.raises(InvalidAnalysisError):
        calibration(nothing, bins=0)
