"""What other tools are given leads them to the trades of the back-test."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from signal_persistence.analysis import SignalArrays, backtest, signal_arrays
from tests.analysis import real_data

SYMBOLS = ["ES", "BTC-USD", "EUR/USD"]


def traded(arrays: SignalArrays) -> list[tuple[int, int, int]]:
    """Trade as such a tool does: at each bar exits first, then entries. (side, from bar, to)."""
    trades, held, since = [], 0, 0
    for bar in range(len(arrays.bars)):
        leaves = {1: arrays.exits, -1: arrays.short_exits}
        if held and (leaves[held][bar] or {1: arrays.short_entries, -1: arrays.entries}[held][bar]):
            trades.append((held, since, bar))
            held = 0
        for side, entries in ((1, arrays.entries), (-1, arrays.short_entries)):
            if not held and entries[bar]:
                held, since = side, bar
    return trades


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_masks_lead_to_the_trades_of_the_back_test(symbol: str) -> None:
    bars = real_data.prices()[symbol]
    for trader in real_data.TRADERS.values():
        signals = real_data.table().of_symbol(symbol).of_trader(trader)
        closed = backtest(signals, {symbol: bars}, use_stops=False).closed
        bar_of = {time: bar for bar, time in enumerate(bars.at.tolist())}
        expected = [
            (side, bar_of[entered], bar_of[exited])
            for side, entered, exited in zip(
                closed.side.tolist(),
                closed.entered_at.tolist(),
                closed.exited_at.tolist(),
                strict=True,
            )
        ]
        found = traded(signal_arrays(signals, bars))
        # The masks of a bar have no order: a position that lasts no bar at all is not in them.
        assert found == [trade for trade in expected if trade[1] != trade[2]]


def test_a_frame_has_the_names_of_backtesting_and_vectorbt() -> None:
    bars = real_data.prices()["ES"]
    arrays = signal_arrays(real_data.table().of_symbol("ES"), bars)
    frame = arrays.to_pandas()
    assert list(frame.columns[:4]) == ["Open", "High", "Low", "Close"]
    assert frame["Close"].tolist() == bars.close.tolist()
    assert (frame["entries"] == arrays.entries).all()
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert str(frame.index.tz) == "UTC"
    assert frame["confidence"].notna().sum() == (arrays.entries | arrays.short_entries).sum()


def test_a_signal_after_the_last_bar_is_counted() -> None:
    bars = real_data.prices()["ES"]
    signals = real_data.table().of_symbol("ES")
    late = signal_arrays(signals, bars, latency=timedelta(hours=1))
    last = bars.at[-1] - np.timedelta64(1, "h")
    assert late.unfilled == (signals.generated_at > last).sum() > 0
