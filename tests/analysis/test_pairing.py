"""Signals become trades as the rules say, and nothing is lost on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_persistence import Outcome, SignalEvent, StoredSignal
from signal_persistence.analysis import (
    Pairing,
    PairingRules,
    SignalTable,
    Trades,
    pair_trades,
)
from tests.analysis import generated, real_data, reference

TRADER = UUID(int=7)
START = datetime(2026, 11, 22, 12, tzinfo=UTC)
EVERYTHING = [PairingRules(), PairingRules(exit_closes="oldest"), PairingRules(hedged=True)]


def signal(second: int, action: str, price: float, **more: Any) -> StoredSignal:
    given_: dict[str, Any] = {
        "signal_id": UUID(int=1000 + second),
        "seq": second + 1,
        "trader_id": TRADER,
        "symbol": "ES",
        "timeframe": "1m",
        "generated_at": START + timedelta(seconds=second),
        "action": action,
        "confidence": 0.5,
        "price": price,
        "status": "generated",
    }
    return StoredSignal(**(given_ | more))


def paired(*signals: StoredSignal, **rules: Any) -> Pairing:
    return pair_trades(SignalTable.of(signals), PairingRules(**rules))


def rows(pairing: Pairing) -> dict[int, tuple[float, Any]]:
    """By row of the entry: at which price and why it was closed."""
    trades = [*pairing.closed, *pairing.open]
    places = [*pairing.closed.signal, *pairing.open.signal]
    return {
        int(row): (trade.exit_price, trade.close_reason)
        for row, trade in zip(places, trades, strict=True)
    }


@pytest.mark.parametrize(
    ("actions", "rules", "closed_by"),
    [
        ("enter_long exit_long", {}, {0: 1}),
        ("enter_long enter_long exit_long", {}, {0: 2, 1: 2}),
        ("enter_long enter_long exit_long", {"exit_closes": "oldest"}, {0: 2, 1: None}),
        ("enter_long enter_short", {}, {0: 1, 1: None}),
        ("enter_long enter_short", {"hedged": True}, {0: None, 1: None}),
        ("enter_long enter_short exit_long exit_short", {"hedged": True}, {0: 2, 1: 3}),
        ("exit_long enter_long", {}, {1: None}),
        (
            "enter_long enter_long enter_short exit_short",
            {"exit_closes": "oldest"},
            {0: 2, 1: 2, 2: 3},
        ),
    ],
)
def test_the_rules_say_what_closes_a_lot(
    actions: str, rules: dict[str, Any], closed_by: dict[int, int | None]
) -> None:
    words = actions.split()
    signals = [signal(place, action, 100.0 + place) for place, action in enumerate(words)]
    found = {row: price for row, (price, _) in rows(paired(*signals, **rules)).items()}
    assert found == {
        row: None if closer is None else 100.0 + closer for row, closer in closed_by.items()
    }


def test_a_trade_says_what_happened() -> None:
    pairing = paired(
        signal(0, "enter_short", 200.0, confidence=0.75, stop_loss=210.0),
        signal(90, "exit_short", 190.0),
    )
    (trade,) = pairing.closed
    assert (trade.side, trade.entered_at, trade.exited_at) == (
        "short",
        START,
        START + timedelta(seconds=90),
    )
    assert (trade.profit, trade.return_, trade.confidence) == (10.0, 0.05, 0.75)
    assert (trade.close_reason, trade.fees, trade.quantity) == ("exit_signal", 0.0, 1.0)
    assert pairing.closed.r_multiples().tolist() == [1.0]
    assert pairing.closed[-1] == trade


def test_a_reversal_is_named() -> None:
    pairing = paired(signal(0, "enter_long", 100.0), signal(1, "enter_short", 90.0))
    assert rows(pairing) == {0: (90.0, "reversed"), 1: (None, None)}


def test_prices_and_times_are_those_of_execution_where_they_were_reported() -> None:
    entry = signal(0, "enter_long", 100.0, status="executed", outcome=Outcome(entry_price=101.0))
    exit_ = signal(9, "exit_long", 110.0, status="executed", outcome=Outcome(entry_price=109.0))
    executed_at = START + timedelta(seconds=2)
    table = SignalTable.of([entry, exit_], [event(1, entry, "executed", executed_at)])
    (trade,) = pair_trades(table).closed
    assert (trade.entry_price, trade.exit_price) == (101.0, 109.0)
    assert (trade.entered_at, trade.exited_at) == (executed_at, exit_.generated_at)


def test_a_reported_close_is_a_trade_that_no_exit_signal_closes_again() -> None:
    outcome = Outcome(
        entry_price=100.0, exit_price=103.0, close_reason="take_profit", return_=0.025, fees=9.0
    )
    entry = signal(0, "enter_long", 99.0, status="closed", outcome=outcome)
    closed_at = START + timedelta(seconds=5)
    table = SignalTable.of(
        [entry, signal(8, "exit_long", 90.0)], [event(1, entry, "closed", closed_at)]
    )
    pairing = pair_trades(table)
    (trade,) = pairing.closed
    assert (trade.close_reason, trade.exited_at) == ("take_profit", closed_at)
    assert (trade.exit_price, trade.return_, trade.profit) == (103.0, 0.025, 2.5)
    assert pairing.idle_exits == 1


def test_a_reported_close_without_a_return_is_valued_by_its_prices() -> None:
    outcome = Outcome(entry_price=100.0, exit_price=103.0, close_reason="manual")
    (trade,) = paired(signal(0, "enter_short", 99.0, status="closed", outcome=outcome)).closed
    assert (trade.profit, trade.exited_at) == (-3.0, None)


def test_cancelled_and_rejected_signals_do_not_count_and_expired_ones_do() -> None:
    pairing = paired(
        signal(0, "enter_long", 100.0, status="expired"),
        signal(1, "enter_long", 100.0, status="cancelled"),
        signal(2, "exit_long", 101.0, status="rejected"),
        signal(3, "exit_long", 102.0),
    )
    assert rows(pairing) == {0: (102.0, "exit_signal")}
    assert pairing.refused == 2


def test_only_executed_leaves_out_what_nobody_reported() -> None:
    pairing = paired(
        signal(0, "enter_long", 100.0),
        signal(1, "enter_long", 101.0, status="executed"),
        signal(2, "exit_long", 102.0, status="executed"),
        only_executed=True,
    )
    assert rows(pairing) == {1: (102.0, "exit_signal")}
    assert pairing.refused == 1


def test_no_signals_are_no_trades() -> None:
    pairing = paired()
    assert (len(pairing.closed), len(pairing.open), pairing.idle_exits) == (0, 0, 0)


@generated.unhurried
@given(generated.columns(), generated.rules)
def test_trades_are_those_of_a_queue_per_book(made: dict[str, Any], rules: PairingRules) -> None:
    table = generated.table(made)
    _equal_the_reference(table, rules)


@pytest.mark.parametrize("rules", EVERYTHING)
def test_trades_of_the_demo_are_those_of_a_queue_per_book(rules: PairingRules) -> None:
    _equal_the_reference(real_data.table(), rules)


def _equal_the_reference(table: SignalTable, rules: PairingRules) -> None:
    expected = reference.pairs(table, rules)
    pairing = pair_trades(table, rules)
    closed = {row: closer for row, closer in expected.closers.items() if closer is not None}
    assert sorted(pairing.closed.signal) == sorted(closed)
    assert list(pairing.open.signal) == sorted(set(expected.closers) - set(closed))
    assert (pairing.idle_exits, pairing.refused) == (expected.idle_exits, expected.refused)
    closers = np.array([closed[row] for row in pairing.closed.signal], int)
    assert (pairing.closed.exit_price == table.price[closers]).all()
    assert (pairing.closed.exited_at == table.generated_at[closers]).all()
    assert (np.diff(pairing.closed.exited_at.astype(int)) >= 0).all()


@generated.unhurried
@given(generated.columns(), generated.rules, st.permutations(generated.TRADERS))
def test_who_a_trader_is_changes_nothing_but_the_name(
    made: dict[str, Any], rules: PairingRules, permuted: list[UUID]
) -> None:
    other = dict(zip(generated.TRADERS, permuted, strict=True))
    renamed = made | {"trader_id": [other[trader] for trader in made["trader_id"]]}
    before = pair_trades(generated.table(made), rules).closed
    after = pair_trades(generated.table(renamed), rules).closed
    assert [(other[t.trader_id], t.profit) for t in before] == [
        (t.trader_id, t.profit) for t in after
    ]


@generated.unhurried
@given(generated.columns(), generated.rules)
def test_the_other_side_brings_the_negative(made: dict[str, Any], rules: PairingRules) -> None:
    swap = {"long": "short", "short": "long"}
    turned = [f"{a.split('_')[0]}_{swap[a.split('_')[1]]}" for a in made["action"]]
    before = pair_trades(generated.table(made), rules).closed
    after = pair_trades(generated.table(made | {"action": turned}), rules).closed
    assert _by_signal(before) == {row: -profit for row, profit in _by_signal(after).items()}


@generated.unhurried
@given(generated.columns(), generated.rules, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    made: dict[str, Any], rules: PairingRules, random: Any
) -> None:
    order = list(range(len(made["seq"])))
    random.shuffle(order)
    shuffled = {name: [values[place] for place in order] for name, values in made.items()}
    assert list(pair_trades(generated.table(made), rules).closed) == list(
        pair_trades(generated.table(shuffled), rules).closed
    )


def _by_signal(trades: Trades) -> dict[int, float]:
    return dict(zip(trades.signal.tolist(), trades.profit.tolist(), strict=True))


def event(seq: int, of: StoredSignal, status: str, at: datetime) -> SignalEvent:
    return SignalEvent(
        seq=seq,
        status=status,
        signal_seq=of.seq,
        occurred_at=at,
        received_at=at,
        signal_id=of.signal_id,
    )
