"""Hand stored signals to other back-testing tools, as arrays beside the bars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from signal_persistence.analysis.arrays import Booleans, Floats, Integers, microseconds
from signal_persistence.analysis.bars import Bars
from signal_persistence.analysis.signal_table import LONG, SHORT, SignalTable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class SignalArrays:
    """What happens at each bar of one symbol: four masks, and the bars.

    `entries` and `exits` are for long positions, as vectorbt names them:
    `Portfolio.from_signals(arrays.bars.close, entries=arrays.entries, exits=arrays.exits,
    short_entries=arrays.short_entries, short_exits=arrays.short_exits, price=arrays.bars.open)`.
    A mask is true at the bar at whose open the signal is filled, so no tool may move it further.
    `unfilled` signals have no bar after them.
    """

    bars: Bars
    entries: Booleans
    exits: Booleans
    short_entries: Booleans
    short_exits: Booleans
    confidence: Floats
    unfilled: int

    def to_pandas(self) -> pd.DataFrame:
        """Return a frame with a UTC index: `Open` to `Close` as backtesting.py wants them.

        The masks are its columns `entries`, `exits`, `short_entries` and `short_exits`, and
        `confidence` is that of the last entry that is filled at the bar, NaN without one.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "Open": self.bars.open,
                "High": self.bars.high,
                "Low": self.bars.low,
                "Close": self.bars.close,
                "entries": self.entries,
                "exits": self.exits,
                "short_entries": self.short_entries,
                "short_exits": self.short_exits,
                "confidence": self.confidence,
            },
            index=pd.DatetimeIndex(self.bars.at, tz="UTC", name="at"),
        )


def signal_arrays(
    signals: SignalTable, bars: Bars, *, latency: timedelta = timedelta(0)
) -> SignalArrays:
    """Lay the signals of one trader and symbol on its bars: one symbol, and one position.

    A signal falls on the first bar that begins at or after `generated_at` plus the latency. Several
    of one kind on a bar are one. The tool decides what an exit and an entry on one bar mean.
    """
    at = signals.generated_at + np.timedelta64(microseconds(latency), "us")
    bar = bars.first_from(at)
    filled = bar < len(bars)

    def mask(side: int, *, is_entry: bool) -> Booleans:
        chosen = filled & (signals.side == side) & (signals.is_entry == is_entry)
        return _marked(bar[chosen], len(bars))

    confidence = np.full(len(bars), np.nan)
    entries = filled & signals.is_entry
    confidence[bar[entries]] = signals.confidence[entries]
    return SignalArrays(
        bars=bars,
        entries=mask(LONG, is_entry=True),
        exits=mask(LONG, is_entry=False),
        short_entries=mask(SHORT, is_entry=True),
        short_exits=mask(SHORT, is_entry=False),
        confidence=confidence,
        unfilled=int((~filled).sum()),
    )


def _marked(places: Integers, count: int) -> Booleans:
    marked = np.zeros(count, bool)
    marked[places] = True
    return marked
