"""Returns and risk beside empyrical and pandas, on the trades and the equity of the demo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import empyrical
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from signal_persistence.analysis import (
    BacktestResult,
    InvalidAnalysisError,
    Returns,
    Trades,
    backtest,
    compare_traders,
    equity_returns,
    max_drawdown,
    pair_trades,
    risk_statistics,
    trade_returns,
    trade_statistics,
)
from tests.analysis import generated, real_data

EXACT: dict[str, Any] = {"rel": 1e-9, "abs": 1e-15}
DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


def daily(*values: float) -> Returns:
    ends = np.datetime64("2026-01-01", "us") + np.arange(1, len(values) + 1) * np.timedelta64(
        1, "D"
    )
    return Returns(ends, np.array(values, float), DAY)


@pytest.fixture(scope="module")
def replayed() -> BacktestResult:
    symbol = "BTC-USD"
    table, bars = real_data.table().of_symbol(symbol), real_data.prices()[symbol]
    return backtest(table, {symbol: bars}, capital=20_000.0)


@pytest.mark.parametrize("every", [DAY, timedelta(hours=1), timedelta(hours=4)])
@pytest.mark.parametrize("risk_free", [0.0, 0.04])
def test_risk_equals_that_of_empyrical(
    replayed: BacktestResult, every: timedelta, risk_free: float
) -> None:
    returns = replayed.equity.returns(every)
    risk = risk_statistics(returns, risk_free=risk_free)
    series, per_year = returns.value, timedelta(days=365) / every
    assert len(series) > 60
    per_period = risk_free / per_year
    for ours, theirs in (
        (risk.total_return, empyrical.cum_returns_final(series)),
        (risk.annual_return, empyrical.annual_return(series, annualization=per_year)),
        (risk.volatility, empyrical.annual_volatility(series, annualization=per_year)),
        (risk.sharpe, empyrical.sharpe_ratio(series, per_period, annualization=per_year)),
        (risk.sortino, empyrical.sortino_ratio(series, per_period, annualization=per_year)),
        (risk.calmar, empyrical.calmar_ratio(series, annualization=per_year)),
    ):
        assert ours == pytest.approx(theirs, **EXACT)
    assert risk.max_drawdown is not None
    assert risk.max_drawdown.depth == pytest.approx(empyrical.max_drawdown(series), **EXACT)


@generated.unhurried
@given(arrays(float, st.integers(2, 60), elements=st.integers(-20, 25).map(lambda n: n / 100)))
def test_any_drawdown_is_that_of_pandas(values: Any) -> None:
    returns = daily(*values)
    growth = pd.Series([1.0, *np.cumprod(1 + values)])
    falls = growth / growth.cummax() - 1
    deepest = max_drawdown(returns)
    if deepest is None:
        assert falls.min() == 0
        return
    assert deepest.depth == pytest.approx(falls.min(), rel=1e-12)
    bottom, top = (deepest.bottom_at - START).days, (deepest.peak_at - START).days
    assert falls[bottom] == pytest.approx(falls.min(), rel=1e-12)
    before = growth[: bottom + 1]
    assert top == before[before == before.max()].index[-1]
    later = [day for day in growth.index[bottom:] if growth[day] >= growth[top]]
    end = later[0] if later else len(values)
    assert deepest.recovered_at == (START + end * DAY if later else None)
    assert deepest.duration == (end - top) * DAY
    assert deepest.recovery == ((end - bottom) * DAY if later else None)


def test_a_drawdown_begins_at_the_last_peak_and_ends_when_its_value_is_back() -> None:
    deepest = max_drawdown(daily(0.1, -0.1, 0.05, -0.2, 0.6, 0.1))
    assert deepest is not None
    assert deepest.depth == pytest.approx(0.9 * 1.05 * 0.8 - 1)
    assert (deepest.peak_at, deepest.bottom_at) == (START + DAY, START + 4 * DAY)
    assert (deepest.recovered_at, deepest.recovery) == (START + 5 * DAY, DAY)
    assert deepest.duration == 4 * DAY


def test_the_first_fall_counts_from_the_start() -> None:
    deepest = max_drawdown(daily(-0.5, 0.2))
    assert deepest is not None
    assert (deepest.peak_at, deepest.depth, deepest.recovered_at) == (START, -0.5, None)


@pytest.mark.parametrize(
    ("values", "undefined"),
    [
        ((), {"annual_return", "volatility", "sharpe", "sortino", "calmar", "max_drawdown"}),
        ((0.1,), {"volatility", "sharpe", "sortino", "calmar", "max_drawdown"}),
        ((-0.1,), {"volatility", "sharpe", "sortino"}),
        ((0.1, 0.1, 0.1), {"volatility", "sharpe", "sortino", "calmar", "max_drawdown"}),
        ((0.1, 0.2), {"sortino", "calmar", "max_drawdown"}),
        ((0.1, -0.2), set()),
    ],
)
def test_what_is_not_defined_is_none(values: tuple[float, ...], undefined: set[str]) -> None:
    risk = risk_statistics(daily(*values))
    assert {name for name in risk.__slots__ if getattr(risk, name) is None} == undefined


def test_an_hour_that_would_make_a_year_beyond_all_numbers_has_no_annual_return() -> None:
    risk = risk_statistics(Returns(daily(0.5).end, np.array([0.5]), timedelta(hours=1)))
    assert (risk.total_return, risk.annual_return, risk.calmar) == (0.5, None, None)


def test_no_figure_survives_the_loss_of_everything() -> None:
    for value in (-1.0, -1.5, float("nan")):
        with pytest.raises(InvalidAnalysisError):
            risk_statistics(daily(0.1, value))
    with pytest.raises(InvalidAnalysisError):
        equity_returns(np.array([0, 1], "datetime64[us]"), np.array([1.0, 0.0]))


def test_returns_of_trades_are_their_sum_by_day_of_exit() -> None:
    trades = pair_trades(real_data.table()).closed.of_symbol("BTC-USD")
    returns = trade_returns(trades, share=0.01)
    sums = pd.Series(0.01 * trades.return_, index=trades.exited_at).resample("1D").sum()
    expected = sums.reindex(pd.DatetimeIndex(returns.end) - DAY, fill_value=0.0)
    assert returns.value == pytest.approx(expected.to_numpy(), rel=1e-9, abs=1e-15)
    assert returns.value.sum() == pytest.approx(sums.sum(), rel=1e-9)
    assert len(returns) == len(
        pd.date_range(trades.entered_at.min().astype("M8[D]"), sums.index[-1])
    )


def test_returns_of_an_equity_curve_are_those_of_its_last_values(replayed: BacktestResult) -> None:
    equity = replayed.equity
    curve = pd.Series(equity.value, index=equity.at)
    last = curve.resample("1D", closed="right", label="right").last().ffill()
    last = last[last.index > curve.index[0]]
    returns = equity.returns()
    changes = np.diff([20_000, *last]) / [20_000, *last[:-1]]
    assert (returns.end == last.index.to_numpy()).all()
    assert returns.value == pytest.approx(changes, rel=1e-9, abs=1e-13)
    assert 20_000 * returns.growth()[-1] == pytest.approx(equity.value[-1], rel=1e-9)


def test_trades_outside_of_the_range_are_not_left_out_silently() -> None:
    trades = pair_trades(real_data.table()).closed
    with pytest.raises(InvalidAnalysisError, match="outside"):
        trade_returns(trades, end=datetime(2017, 1, 1, tzinfo=UTC))
    nothing = trades.take(np.zeros(0, int))
    with pytest.raises(InvalidAnalysisError, match="no trades"):
        trade_returns(nothing)
    assert trade_returns(nothing, start=START, end=START + 3 * DAY).value.tolist() == [0, 0, 0]


def test_traders_are_compared_over_the_same_time_and_the_best_comes_first() -> None:
    trades = pair_trades(real_data.table()).closed.of_symbol("BTC-USD")
    found = compare_traders(trades, order="sharpe")
    figures = [each.risk.sharpe for each in found]
    assert figures == sorted(figures, key=lambda figure: -(figure or 0.0))
    assert {each.risk.periods for each in found} == {len(trade_returns(trades))}
    assert {each.trader_id for each in found} == set(real_data.TRADERS.values())
    for each in found:
        assert each.trades == trade_statistics(trades.of_trader(each.trader_id))


def test_traders_without_trades_come_last() -> None:
    trades = pair_trades(real_data.table()).closed
    lonely = trades.of_trader(trades.traders[3]).of_symbol("ES")
    found = compare_traders(lonely)
    assert found[0].trader_id == trades.traders[3]
    assert [each.trades.count for each in found[1:]] == [0] * 9
    assert [each.trader_id for each in found[1:]] == sorted(
        set(trades.traders) - {trades.traders[3]}
    )
    nothing = compare_traders(Trades(trades.traders, *_empty(trades)))
    assert {each.risk.periods for each in nothing} == {0}


def _empty(trades: Trades) -> list[Any]:
    nothing = trades.take(np.zeros(0, int))
    return [getattr(nothing, name) for name in Trades.__slots__[1:]]
