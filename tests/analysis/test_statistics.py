"""Figures of trades beside scipy, pandas and plain Python, on the trades of the demo."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
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
    PairingRules,
    Proportion,
    SignalTable,
    Trades,
    TradeStatistics,
    backtest,
    compare_traders,
    excursions,
    exposure,
    holding_times,
    pair_trades,
    trade_statistics,
)
from tests.analysis import generated, real_data

EXACT: dict[str, Any] = {"rel": 1e-9, "abs": 0}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SYMBOLS = ["ES", "BTC-USD", "EUR/USD"]


@pytest.fixture(scope="module")
def closed() -> Trades:
    return pair_trades(real_data.table()).closed


def statistics_of(*results: float) -> TradeStatistics:
    return TradeStatistics.of(np.array(results, float))


@pytest.mark.parametrize("measure", ["return", "profit"])
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_figures_equal_those_of_pandas(closed: Trades, symbol: str, measure: Any) -> None:
    trades = closed.of_symbol(symbol)
    series = pd.Series(trades.results(measure))
    won, lost = series[series > 0], series[series < 0]
    figures = trade_statistics(trades, measure=measure)
    assert len(won) > 100
    assert len(lost) > 100
    assert (figures.count, figures.wins, figures.losses) == (len(series), len(won), len(lost))
    assert figures.total == pytest.approx(series.sum(), rel=1e-9, abs=1e-12)
    assert figures.expectancy == pytest.approx(series.mean(), rel=1e-9, abs=1e-15)
    assert figures.average_win == pytest.approx(won.mean(), **EXACT)
    assert figures.average_loss == pytest.approx(lost.mean(), **EXACT)
    assert figures.payoff_ratio == pytest.approx(won.mean() / -lost.mean(), **EXACT)
    assert figures.profit_factor == pytest.approx(won.sum() / -lost.sum(), **EXACT)
    assert (figures.largest_win, figures.largest_loss) == (series.max(), series.min())
    quality = np.sqrt(len(series)) * series.mean() / series.std()
    assert figures.sqn == pytest.approx(quality, rel=1e-9, abs=1e-12)
    assert figures.sqn == pytest.approx(stats.ttest_1samp(series, 0).statistic, rel=1e-8)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_interval_of_the_win_rate_is_that_of_scipy(closed: Trades, symbol: str) -> None:
    figures = trade_statistics(closed.of_symbol(symbol))
    expected = stats.binomtest(figures.wins, figures.count).proportion_ci(0.95, "wilson")
    assert figures.win_rate is not None
    assert figures.win_rate.value == figures.wins / figures.count
    assert (figures.win_rate.low, figures.win_rate.high) == pytest.approx(expected, **EXACT)


@generated.unhurried
@given(st.integers(1, 500), st.integers(0, 500), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_any_proportion_lies_in_its_interval(count: int, part: int, level: float) -> None:
    successes = part % (count + 1)
    proportion = Proportion.of(successes, count, level)
    expected = stats.binomtest(successes, count).proportion_ci(level, "wilson")
    assert proportion is not None
    assert 0 <= proportion.low <= proportion.value <= proportion.high <= 1
    assert (proportion.low, proportion.high) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_streaks_are_runs_in_the_order_of_exits(closed: Trades) -> None:
    results = closed.return_
    figures = trade_statistics(closed)
    for sign, longest in (
        (1, figures.longest_winning_streak),
        (-1, figures.longest_losing_streak),
    ):
        runs = groupby(np.sign(results).tolist())
        assert longest == max(len(list(run)) for value, run in runs if value == sign)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ((), {"expectancy": None, "win_rate": None, "profit_factor": None, "sqn": None}),
        ((0.1,), {"expectancy": 0.1, "profit_factor": None, "payoff_ratio": None, "sqn": None}),
        ((0.1, 0.1), {"sqn": None, "average_loss": None, "largest_loss": None}),
        ((0.1, 0.1, 0.1), {"sqn": None}),
        ((-0.1, -0.2), {"profit_factor": 0.0, "payoff_ratio": None, "average_win": None}),
        ((0.0, 0.0), {"profit_factor": None, "wins": 0, "losses": 0, "expectancy": 0.0}),
        ((1.0, 0.0, 1.0), {"longest_winning_streak": 1, "longest_losing_streak": 0}),
        ((2.0, -1.0, -1.0, 2.0), {"profit_factor": 2.0, "longest_losing_streak": 2}),
    ],
)
def test_what_is_not_defined_is_none(results: tuple[float, ...], expected: dict[str, Any]) -> None:
    figures = statistics_of(*results)
    assert {name: getattr(figures, name) for name in expected} == expected


def test_a_breakeven_trade_is_neither_a_win_nor_a_loss() -> None:
    figures = statistics_of(1.0, 0.0, -1.0, 0.0)
    assert figures.win_rate is not None
    assert (figures.win_rate.value, figures.wins, figures.losses) == (0.25, 1, 1)


def test_open_trades_and_entries_at_zero_have_no_return() -> None:
    columns = {
        "trader_id": ["00000000-0000-0000-0000-000000000001"] * 3,
        "symbol": ["A"] * 3,
        "timeframe": ["1m"] * 3,
        "generated_at": [1, 2, 3],
        "action": ["enter_long", "exit_long", "enter_long"],
        "confidence": [0.5] * 3,
        "price": [0.0, 5.0, 5.0],
    }
    pairing = pair_trades(SignalTable.from_columns(columns))
    assert pairing.closed[0].return_ is None
    assert trade_statistics(pairing.closed, measure="profit").total == 5.0
    for trades in (pairing.closed, pairing.open):
        with pytest.raises(InvalidAnalysisError):
            trade_statistics(trades)


def test_holding_times_are_those_of_pandas(closed: Trades) -> None:
    spans = pd.Series(closed.exited_at - closed.entered_at)
    times = holding_times(closed)
    assert times is not None
    assert times.count == len(closed)
    assert times.mean / timedelta(seconds=1) == pytest.approx(spans.mean().total_seconds())
    assert times.median == spans.median().to_pytimedelta()
    assert (times.shortest, times.longest) == (spans.min(), spans.max())
    assert holding_times(closed.take(np.zeros(0, int))) is None


@generated.unhurried
@given(generated.columns(), generated.rules)
def test_exposure_is_the_share_of_moments_with_a_position(
    made: dict[str, Any], rules: PairingRules
) -> None:
    pairing = pair_trades(generated.table(made), rules)
    start, end = EPOCH + timedelta(seconds=5), EPOCH + timedelta(seconds=20)
    held = 0
    for half_second in range(10, 40):
        moment = np.datetime64(half_second * 500_000 + 1, "us")
        held += any(
            ((trades.entered_at <= moment) & ~(trades.exited_at <= moment)).any()
            for trades in (pairing.closed, pairing.open)
        )
    share = exposure(pairing.closed, pairing.open, start=start, end=end)
    assert share == pytest.approx(held / 30)


def test_exposure_counts_open_trades_and_refuses_exits_without_a_time() -> None:
    symbol = "ES"
    bars = real_data.prices()[symbol]
    table = real_data.table().of_symbol(symbol)
    result = backtest(table, {symbol: bars}, use_stops=False)
    first, last = (bars.at[place].item().replace(tzinfo=UTC) for place in (0, -1))
    both = exposure(result.closed, result.open, start=first, end=last)
    assert exposure(result.closed, start=first, end=last) <= both <= 1
    told = replace(result.closed, exited_at=np.full(len(result.closed), np.datetime64("NaT", "us")))
    for measure in (lambda: exposure(told, start=first, end=last), lambda: compare_traders(told)):
        with pytest.raises(InvalidAnalysisError, match="pass the events"):
            measure()


def test_exposure_needs_a_time_that_passes(closed: Trades) -> None:
    with pytest.raises(InvalidAnalysisError):
        exposure(closed, start=EPOCH, end=EPOCH)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_excursions_are_the_extremes_of_the_bars_between(closed: Trades, symbol: str) -> None:
    bars = real_data.prices()[symbol]
    trades = closed.of_symbol(symbol)
    found = excursions(trades, real_data.prices())
    frame = pd.DataFrame({"low": bars.low, "high": bars.high}, index=bars.at)
    length = np.timedelta64(bars.length)
    for row in range(0, len(trades), 7):
        within = frame.loc[trades.entered_at[row] : trades.exited_at[row] - length]
        ends = [trades.entry_price[row], trades.exit_price[row]]
        low, high = min([*ends, *within["low"]]), max([*ends, *within["high"]])
        moves = trades.side[row] * (np.array([low, high]) / trades.entry_price[row] - 1)
        assert found.adverse[row] == pytest.approx(moves.min(), rel=1e-9, abs=1e-12)
        assert found.favourable[row] == pytest.approx(moves.max(), rel=1e-9, abs=1e-12)


def test_excursions_lie_around_the_result(closed: Trades) -> None:
    found = excursions(closed, real_data.prices())
    assert (found.adverse <= np.minimum(closed.return_, 0) + 1e-12).all()
    assert (found.favourable >= np.maximum(closed.return_, 0) - 1e-12).all()


def test_excursions_are_unknown_where_the_bars_do_not_reach(closed: Trades) -> None:
    bars = real_data.prices()["ES"]
    half = len(bars) // 2
    columns = (bars.at, bars.open, bars.high, bars.low, bars.close)
    some = Bars.of(*(column[:half] for column in columns), length=bars.length)
    trades = closed.of_symbol("ES")
    known = ~np.isnan(excursions(trades, {"ES": some}).adverse)
    assert (known == (trades.exited_at <= some.end[-1])).all()
    assert np.isnan(excursions(trades, {}).adverse).all()
