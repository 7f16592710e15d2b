"""A replay in arrays is the same as one signal and one bar at a time, and the money adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_persistence.analysis import (
    BacktestResult,
    Bars,
    Costs,
    InvalidAnalysisError,
    PairingRules,
    SignalTable,
    backtest,
    trade_statistics,
)
from tests.analysis import generated, real_data, reference

COSTS = Costs(fee_rate=0.001, fee_per_fill=0.5, slippage_rate=0.002)
SECOND = timedelta(seconds=1)
costs = st.sampled_from([Costs(), COSTS, Costs(fee_rate=-0.0002), Costs(slippage_rate=0.01)])
OPENS = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]


def bars(opens: Sequence[float] = OPENS, **columns: Sequence[float]) -> Bars:
    """Six bars of a second that stay at their opens, but for `columns`."""
    prices = {name: columns.get(name, opens) for name in ("open_", "high", "low", "close")}
    return Bars.of(np.arange(6) * 1_000_000, **prices, length=SECOND)


def signals(*rows: tuple[float, str, float | None, float | None]) -> SignalTable:
    """Make signals of (second, action, stop_loss, take_profit)."""
    return SignalTable.from_columns(
        {
            "trader_id": [UUID(int=1)] * len(rows),
            "symbol": ["A"] * len(rows),
            "timeframe": ["1s"] * len(rows),
            "generated_at": [int(row[0] * 1_000_000) for row in rows],
            "action": [row[1] for row in rows],
            "confidence": [0.5] * len(rows),
            "price": [100.0] * len(rows),
            "stop_loss": [row[2] for row in rows],
            "take_profit": [row[3] for row in rows],
        }
    )


def only(result: BacktestResult) -> tuple[float, float | None, str | None]:
    (trade,) = [*result.closed, *result.open]
    return trade.entry_price, trade.exit_price, trade.close_reason


@generated.unhurried
@given(
    generated.columns(symbols=("A",), most=25),
    generated.bars(),
    generated.rules,
    costs,
    st.booleans(),
)
def test_a_replay_is_that_of_a_loop(
    made: dict[str, Any], bars: Bars, rules: PairingRules, costs: Costs, use_stops: bool
) -> None:
    table = generated.table(made)
    expected = list(reference.replay(table, bars, rules, costs, 500.0, use_stops=use_stops))
    found = backtest(
        table, {"A": bars}, rules=rules, costs=costs, capital=1e5, stake=500.0, use_stops=use_stops
    )
    for trades, lots in (
        (found.closed, {lot.row: lot for lot in expected if lot.exit_bar is not None}),
        (found.open, {lot.row: lot for lot in expected if lot.exit_bar is None}),
    ):
        assert sorted(trades.signal) == sorted(lots)
        for row, trade in zip(trades.signal.tolist(), trades, strict=True):
            lot = lots[row]
            assert trade.close_reason == lot.reason
            assert trade.entered_at == _time(bars, lot.entry_bar)
            assert trade.entry_price == pytest.approx(lot.entry, rel=1e-12)
            assert trade.exit_price == pytest.approx(lot.exit, rel=1e-12)
            assert trade.profit == pytest.approx(lot.profit(costs), rel=1e-9, abs=1e-9)
    assert found.equity.value[0] == 1e5
    expected_values = reference.equity(expected, bars, costs, 1e5)
    at_ends = found.equity.value[np.searchsorted(found.equity.at, bars.end)]
    assert at_ends == pytest.approx(expected_values, rel=1e-12)
    entries = reference.pairs(table, rules).closers
    assert found.unfilled == len(entries) - len(expected)


@pytest.mark.parametrize("use_stops", [True, False])
@pytest.mark.parametrize("rules", [PairingRules(), PairingRules("oldest", hedged=True)])
def test_profits_of_all_trades_are_the_change_of_equity(
    rules: PairingRules, use_stops: bool
) -> None:
    result = backtest(
        real_data.table(), real_data.prices(), rules=rules, costs=COSTS, use_stops=use_stops
    )
    assert len(result.closed) > 9_000
    change = result.equity.value[-1] - result.equity.value[0]
    assert change == pytest.approx(result.closed.profit.sum() + result.open.profit.sum(), rel=1e-9)
    assert len(result.equity.at) == len(np.unique(result.equity.at))


def test_symbols_are_replayed_apart_and_their_profits_add_up() -> None:
    table, prices = real_data.table(), real_data.prices()
    together = backtest(table, prices, costs=COSTS)
    apart = [backtest(table.of_symbol(symbol), prices, costs=COSTS) for symbol in prices]
    gains = sum(result.equity.value - 100_000 for result in apart)
    assert together.equity.value - 100_000 == pytest.approx(gains, rel=1e-9, abs=1e-6)
    assert len(together.closed) == sum(len(result.closed) for result in apart)


def test_who_a_trader_is_changes_nothing() -> None:
    table, prices = real_data.table(), real_data.prices()
    renamed = replace(table, traders=table.traders[::-1])
    before, after = backtest(table, prices), backtest(renamed, prices)
    assert (before.equity.value == after.equity.value).all()
    assert (before.closed.profit == after.closed.profit).all()


def test_the_other_side_loses_what_this_one_wins() -> None:
    table, prices = real_data.table(), real_data.prices()
    turned = replace(table, side=-table.side)
    before = backtest(table, prices, use_stops=False)
    after = backtest(turned, prices, use_stops=False)
    assert (before.closed.profit == -after.closed.profit).all()
    assert before.equity.value - 100_000 == pytest.approx(
        100_000 - after.equity.value, rel=1e-9, abs=1e-6
    )


def test_costs_take_what_they_say() -> None:
    table, prices = real_data.table(), real_data.prices()
    free = backtest(table, prices, use_stops=False)
    rate = backtest(table, prices, costs=Costs(fee_rate=0.001), use_stops=False)
    fixed = backtest(table, prices, costs=Costs(fee_per_fill=2.0), use_stops=False)
    slipped = backtest(table, prices, costs=Costs(slippage_rate=0.001), use_stops=False)
    turnover = free.closed.quantity * (free.closed.entry_price + free.closed.exit_price)
    assert free.closed.profit - rate.closed.profit == pytest.approx(0.001 * turnover, rel=1e-6)
    assert free.closed.profit - fixed.closed.profit == pytest.approx(4.0, rel=1e-9)
    assert (slipped.closed.profit < free.closed.profit).all()


def test_a_signal_is_filled_at_the_next_open_never_before() -> None:
    table = signals((0.5, "enter_long", None, None), (3, "exit_long", None, None))
    assert only(backtest(table, {"A": bars()})) == (101.0, 103.0, "exit_signal")
    later = backtest(table, {"A": bars()}, latency=timedelta(seconds=0.6))
    assert only(later) == (102.0, 104.0, "exit_signal")


def test_what_no_bar_follows_is_counted_or_stays_open() -> None:
    table = signals((4, "enter_long", None, None), (5.5, "exit_long", None, None))
    result = backtest(table, {"A": bars(close=[99.0] * 6)})
    assert only(result) == (104.0, 99.0, None)
    assert result.open.profit[0] == pytest.approx(1_000 * (99 / 104 - 1))
    assert backtest(signals((5.1, "enter_long", None, None)), {"A": bars()}).unfilled == 1
    assert backtest(table, {}).unfilled == 1


FALLS = bars(low=[100, 101, 98, 103, 104, 105])
RISES = bars(high=[100, 101, 108, 103, 104, 105])
GAPS_DOWN = bars([100, 103, 95, 96, 96, 96])
GAPS_UP = bars([100, 101, 120, 96, 96, 96])


@pytest.mark.parametrize(
    ("action", "stop", "target", "prices", "expected"),
    [
        ("enter_long", 99, None, FALLS, (99, "stop_loss")),
        ("enter_long", None, 107, RISES, (107, "take_profit")),
        ("enter_short", 107, None, RISES, (107, "stop_loss")),
        ("enter_short", None, 99, FALLS, (99, "take_profit")),
        ("enter_long", 99, None, GAPS_DOWN, (95, "stop_loss")),
        ("enter_long", None, 107, GAPS_UP, (120, "take_profit")),
        ("enter_short", 107, None, GAPS_UP, (120, "stop_loss")),
        ("enter_short", None, 99, GAPS_DOWN, (95, "take_profit")),
    ],
)
def test_stops_and_targets_close_at_their_price_or_beyond_a_gap_at_the_open(
    action: str,
    stop: float | None,
    target: float | None,
    prices: Bars,
    expected: tuple[float, str],
) -> None:
    result = backtest(signals((1, action, stop, target)), {"A": prices})
    assert only(result)[1:] == expected


def test_when_one_bar_reaches_both_the_stop_counts() -> None:
    table = signals((1, "enter_long", 99.0, 107.0))
    wide = bars(low=[90.0] * 6, high=[120.0] * 6)
    assert only(backtest(table, {"A": wide}))[1:] == (99.0, "stop_loss")
    assert only(backtest(table, {"A": wide}, use_stops=False))[2] is None


def test_the_exit_of_a_stopped_lot_closes_nothing_else() -> None:
    table = signals(
        (0, "enter_long", 100.5, None), (1, "enter_long", None, None), (3, "exit_long", None, None)
    )
    result = backtest(table, {"A": bars()}, rules=PairingRules("oldest"))
    assert [trade.close_reason for trade in result.closed] == ["stop_loss"]
    assert len(result.open) == 1


def test_money_cannot_be_staked_on_nothing() -> None:
    table = signals((0, "enter_long", None, None))
    free = bars(**{name: [0.0] * 6 for name in ("open_", "high", "low", "close")})
    with pytest.raises(InvalidAnalysisError, match="price of 0"):
        backtest(table, {"A": free})
    for stake, capital in ((0.0, 1.0), (1.0, 0.0)):
        with pytest.raises(InvalidAnalysisError, match="above 0"):
            backtest(table, {"A": bars()}, stake=stake, capital=capital)


def test_nothing_is_a_result_too() -> None:
    result = backtest(signals(), {"A": bars()})
    assert (len(result.closed), len(result.open)) == (0, 0)
    assert set(result.equity.value) == {100_000.0}
    assert trade_statistics(result.closed).count == 0
    assert len(backtest(signals(), {}).equity.at) == 0


def _time(bars: Bars, bar: int) -> datetime:
    moment: datetime = bars.at[bar].item()
    return moment.replace(tzinfo=UTC)
