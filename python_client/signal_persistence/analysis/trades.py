"""Trades: an entry with its exit. In columns inside, one frozen value each outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Final, Literal, Self
from uuid import UUID

import numpy as np

from signal_persistence.analysis.arrays import (
    Booleans,
    Floats,
    Integers,
    Times,
    datetime_of,
)
from signal_persistence.analysis.signal_table import LONG
from signal_persistence.contract import CONTRACT
from signal_persistence.errors import InvalidAnalysisError

CLOSE_REASONS: Final = (*CONTRACT.close_reasons, None)
"""Why a trade was closed, by the place that its column says; None: it is open."""

OPEN: Final = CLOSE_REASONS.index(None)

Measure = Literal["return", "profit"]
"""What a trade's result is: a fraction of the entry's value, or money of the quote currency."""


@dataclass(frozen=True, slots=True)
class Trade:
    """One lot from its entry to its exit; what is not known, or not yet, is None.

    `profit` is side * quantity * (exit_price - entry_price) - fees in the quote currency, with
    side 1 or -1, and `return_` is profit / (quantity * |entry_price|), a fraction: 0.05 is a gain
    of 5 %. A return that was reported is taken as it is, and the profit follows from it.
    """

    trader_id: UUID
    symbol: str
    side: Literal["long", "short"]
    entered_at: datetime | None
    exited_at: datetime | None
    entry_price: float
    exit_price: float | None
    quantity: float
    fees: float
    profit: float | None
    return_: float | None
    confidence: float
    stop_loss: float | None
    close_reason: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Trades in columns, in the order in which they were closed (open ones: entered).

    `signal` is the row of the entry in the table of signals. An open trade has no exit (NaN, NaT).
    """

    traders: tuple[UUID, ...]
    symbols: tuple[str, ...]
    signal: Integers
    trader: Integers
    symbol: Integers
    side: Integers
    entered_at: Times
    exited_at: Times
    entry_price: Floats
    exit_price: Floats
    quantity: Floats
    fees: Floats
    profit: Floats
    confidence: Floats
    stop_loss: Floats
    close_reason: Integers

    def __len__(self) -> int:
        return len(self.signal)

    def __iter__(self) -> Iterator[Trade]:
        return map(self._trade, range(len(self)))

    def __getitem__(self, row: int) -> Trade:
        return self._trade(range(len(self))[row])

    @property
    def return_(self) -> Floats:
        """Profit as a fraction of the entry's value; NaN for an entry at price 0."""
        return _quotient(self.profit, self.quantity * np.abs(self.entry_price))

    def results(self, measure: Measure = "return") -> Floats:
        """Return what each trade brought; raise InvalidAnalysisError when one has no result."""
        results = self.return_ if measure == "return" else self.profit
        if not np.isfinite(results).all():
            raise InvalidAnalysisError(
                f"Cannot take the {measure} of every trade: some are open, or were entered at "
                "price 0; measure closed trades, by profit if prices may be 0."
            )
        return results

    def exit_times(self) -> Times:
        """Return when each trade was closed; raise InvalidAnalysisError when one is not known.

        That of a trade whose close was reported is known from its event.
        """
        if np.isnat(self.exited_at).any():
            raise InvalidAnalysisError(
                "Cannot place every trade in time: some are open, or were reported as closed; "
                "for the latter pass the events to SignalTable.of()."
            )
        return self.exited_at

    def r_multiples(self) -> Floats:
        """Profit in units of the risk that was taken: quantity * |entry price - stop loss|.

        NaN for a trade without a stop loss (Van Tharp, Trade Your Way to Financial Freedom).
        """
        return _quotient(self.profit, self.quantity * np.abs(self.entry_price - self.stop_loss))

    def take(self, rows: Integers | Booleans) -> Self:
        """Return some of the trades: places in the wanted order, or a mask."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    def of_trader(self, trader_id: UUID) -> Self:
        """Return the trades of one trader."""
        return self.take(np.array([t == trader_id for t in self.traders], bool)[self.trader])

    def of_symbol(self, symbol: str) -> Self:
        """Return the trades of one symbol."""
        return self.take(np.array([s == symbol for s in self.symbols], bool)[self.symbol])

    def _trade(self, row: int) -> Trade:
        stake = self.quantity[row] * abs(self.entry_price[row])
        return Trade(
            trader_id=self.traders[self.trader[row]],
            symbol=self.symbols[self.symbol[row]],
            side="long" if self.side[row] == LONG else "short",
            entered_at=_moment(self.entered_at[row]),
            exited_at=_moment(self.exited_at[row]),
            entry_price=float(self.entry_price[row]),
            exit_price=_known(self.exit_price[row]),
            quantity=float(self.quantity[row]),
            fees=float(self.fees[row]),
            profit=_known(self.profit[row]),
            return_=_known(self.profit[row] / stake) if stake else None,
            confidence=float(self.confidence[row]),
            stop_loss=_known(self.stop_loss[row]),
            close_reason=CLOSE_REASONS[self.close_reason[row]],
        )


def _quotient(above: Floats, below: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    quotient = np.full(len(above), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def _moment(time: np.datetime64) -> datetime | None:
    return None if np.isnat(time) else datetime_of(time)


def _known(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


COLUMNS: Final = tuple(f.name for f in fields(Trades) if f.name not in ("traders", "symbols"))
