"""Signals get into columns from a query or from any frame, the same and in order."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from signal_persistence import analysis
from signal_persistence.analysis import Bars, InvalidAnalysisError, SignalTable
from signal_persistence.analysis.signal_table import ACTIONS
from signal_persistence.contract import CONTRACT
from tests.analysis import real_data

FIELDS = (
    "trader_id", "symbol", "timeframe", "generated_at", "action", "confidence", "price",
    "stop_loss", "take_profit", "status", "seq",
)  # fmt: skip
NUMBERS = ("confidence", "price", "stop_loss", "take_profit", "seq")


def columns() -> dict[str, list[Any]]:
    made = {name: [getattr(row, name) for row in real_data.stored_signals()] for name in FIELDS}
    return made | {"trader_id": [str(trader_id) for trader_id in made["trader_id"]]}


def arrays() -> dict[str, Any]:
    made = columns()
    return {name: np.array(made[name], float) if name in NUMBERS else made[name] for name in FIELDS}


def equal(left: SignalTable, right: SignalTable) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=True)
        if isinstance(a, np.ndarray) and a.dtype == float
        else np.array_equal(a, b) or np.isnat(np.asarray(a)).all()
        for field in fields(SignalTable)
        for a, b in [(getattr(left, field.name), getattr(right, field.name))]
    )


@pytest.mark.parametrize("make", [columns, arrays, lambda: pd.DataFrame(columns()),
                                  lambda: pa.table(columns())],
                         ids=["lists", "arrays", "pandas", "arrow"])  # fmt: skip
def test_every_kind_of_columns_gives_the_table_of_the_query(make: Any) -> None:
    assert equal(SignalTable.from_columns(make()), real_data.table())


def test_the_table_is_in_the_order_of_time_and_then_of_seq() -> None:
    made = columns()
    backwards = {name: values[::-1] for name, values in made.items()}
    assert equal(SignalTable.from_columns(backwards), real_data.table())
    same_time = {name: values[:5][::-1] for name, values in made.items()}
    same_time["generated_at"] = same_time["generated_at"][:1] * 5
    same_time["confidence"] = [seq / 10 for seq in same_time["seq"]]
    confidence = SignalTable.from_columns(same_time).confidence
    assert confidence.tolist() == sorted(confidence)
    assert equal(SignalTable.of(real_data.stored_signals()[::-1]), real_data.table())


def test_a_part_of_the_table_is_a_table() -> None:
    table = real_data.table()
    trader = table.traders[0]
    part = table.of_symbol("ES").of_trader(trader)
    rows = [
        row for row in real_data.stored_signals() if row.symbol == "ES" and row.trader_id == trader
    ]
    assert part.price.tolist() == [row.price for row in rows]
    assert len(part) == len(rows) > 0
    assert len(table.of_symbol("none")) == 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"price": [1.0, float("nan")]}, "finite price"),
        ({"price": [1.0]}, "differ in length"),
        ({"generated_at": [datetime(2026, 1, 1, tzinfo=UTC), None]}, "needs a generated_at"),
        ({"action": ["enter_long", "buy"]}, "'buy' is no action"),
        ({"symbol": None}, "column symbol is missing"),
    ],
)
def test_what_is_no_signal_is_refused_with_the_reason(change: dict[str, Any], problem: str) -> None:
    made = {name: values[:2] for name, values in columns().items()} | change
    with pytest.raises(InvalidAnalysisError, match=problem):
        SignalTable.from_columns({name: v for name, v in made.items() if v is not None})


def test_no_signals_are_a_table() -> None:
    assert len(SignalTable.of([])) == 0


def test_the_actions_are_those_of_the_contract() -> None:
    assert set(ACTIONS) == CONTRACT.actions


@pytest.mark.parametrize(
    ("at", "price", "length"),
    [([1, 1], [1, 1], 1), ([2, 1], [1, 1], 1), ([1, 2], [1, float("inf")], 1), ([1, 2], [1], 1)],
)
def test_bars_that_cannot_be_are_refused(at: Any, price: Any, length: int) -> None:
    with pytest.raises(InvalidAnalysisError):
        Bars.of(at, price, price, price, price, length=timedelta(seconds=length))


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert sorted(analysis.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n)) == (
        analysis.__all__
    )
    for name in analysis.__all__:
        assert getattr(analysis, name).__doc__, name
