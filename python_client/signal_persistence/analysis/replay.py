"""Replay signals against bars: what they would have brought, with fees and slippage.

Nothing is known before its time: a signal is filled at the open of the first bar that begins at or
after `generated_at` plus the latency. All signals of a symbol are filled at once, in arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import numpy as np

from signal_persistence.analysis.arrays import (
    NOT_A_TIME,
    TIME,
    Booleans,
    Floats,
    Integers,
    Times,
    microseconds,
)
from signal_persistence.analysis.bars import Bars, LowestOf, rows_by_symbol
from signal_persistence.analysis.pairing import (
    DEFAULT_RULES,
    NO_EXIT,
    Matching,
    PairingRules,
    in_order_of_exit,
    match,
)
from signal_persistence.analysis.returns import DAY, Returns, equity_returns
from signal_persistence.analysis.signal_table import LONG, SHORT, SignalTable
from signal_persistence.analysis.trades import CLOSE_REASONS, COLUMNS, OPEN, Trades
from signal_persistence.errors import InvalidAnalysisError

_BY_SIGNAL: Final = CLOSE_REASONS.index("exit_signal")
_BY_REVERSAL: Final = CLOSE_REASONS.index("reversed")
_BY_STOP: Final = CLOSE_REASONS.index("stop_loss")
_BY_TARGET: Final = CLOSE_REASONS.index("take_profit")


@dataclass(frozen=True, slots=True)
class Costs:
    """What a fill costs.

    `fee_rate` is a fraction of what is filled (0.001 is 10 basis points), `fee_per_fill` money of
    the quote currency; both are paid at the entry and at the exit. `slippage_rate` is the fraction
    by which a fill at the market or at a stop is worse than the price; a take profit, which is a
    limit order, has none.
    """

    fee_rate: float = 0.0
    fee_per_fill: float = 0.0
    slippage_rate: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Equity:
    """What the account is worth: `value` in the quote currency, known from the time `at` on."""

    at: Times
    value: Floats

    def returns(self, every: timedelta = DAY) -> Returns:
        """Return the change by period: what `risk_statistics` takes."""
        return equity_returns(self.at, self.value, every=every)


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """What a replay brought.

    `closed` and `open` are the trades; an open one has the value of the last close: its profit is
    not realised, its fees are those of the entry. Equity begins with the capital at the beginning
    of the first bar and is known at the end of each, over all symbols together. So
    equity at the end - capital = Σ profit of closed and open trades.
    `unfilled` entries had no bar after them; `refused` and `idle_exits` are as in `Pairing`.
    """

    closed: Trades
    open: Trades
    equity: Equity
    unfilled: int
    idle_exits: int
    refused: int


@dataclass(frozen=True, slots=True)
class _Fills:
    """The lots of one symbol: at which bars and prices they were entered and left."""

    entry_bar: Integers
    exit_bar: Integers
    entry: Floats
    exit: Floats
    reason: Integers

    def close(self, lots: Integers, bar: Integers, price: Floats, reason: int) -> None:
        """Let some lots end earlier, within a bar."""
        self.exit_bar[lots], self.exit[lots], self.reason[lots] = bar, price, reason


def backtest(
    signals: SignalTable,
    prices: Mapping[str, Bars],
    *,
    rules: PairingRules = DEFAULT_RULES,
    costs: Costs = Costs(),
    capital: float = 100_000.0,
    stake: float = 1_000.0,
    latency: timedelta = timedelta(0),
    use_stops: bool = True,
) -> BacktestResult:
    """Fill `signals` at the bars of their symbols and follow the account's value.

    Each entry buys or sells for `stake` of the quote currency, which is not compounded; `capital`
    is where the equity begins, and nothing is refused for want of it. Entries are paired with exits
    by `rules`; what was reported of signals is not used. With `use_stops` a lot is closed as soon
    as a bar reaches its stop loss or take profit: at that price, or at the open of a bar that opens
    beyond it. When one bar reaches both, the stop counts. The exit signal of a lot that was
    stopped closes nothing else.

    Give bars that are finer than the signals' timeframe: a signal that comes a moment after a bar
    has begun is filled a whole bar later, and an entry with its exit on one bar is a trade that
    brings nothing but costs.
    """
    if stake <= 0 or capital <= 0:
        raise InvalidAnalysisError("Cannot replay: capital and stake must be above 0.")
    matching = match(signals, rules)
    at = signals.generated_at + np.timedelta64(microseconds(latency), "us")
    pieces: list[Trades] = []
    ledgers: list[tuple[Times, Floats]] = []
    for lots, bars in rows_by_symbol(signals.symbol[matching.entry], signals.symbols, prices):
        fills, rows = _fill(signals, matching, lots, bars, at, costs, use_stops=use_stops)
        trades = _trades(signals, rows, fills, bars, costs, stake)
        pieces.append(trades)
        ledgers.append((bars.end, _profit_at_each_bar(trades, fills, bars, costs)))
    trades = _joined(signals, pieces)
    open_ = trades.close_reason == OPEN
    return BacktestResult(
        closed=trades.take(in_order_of_exit(trades.exited_at, trades.signal, ~open_)),
        open=trades.take(np.flatnonzero(open_)[np.argsort(trades.signal[open_])]),
        equity=_equity(prices, ledgers, capital),
        unfilled=len(matching.entry) - len(trades),
        idle_exits=matching.idle_exits,
        refused=matching.refused,
    )


def _fill(
    signals: SignalTable,
    matching: Matching,
    lots: Integers,
    bars: Bars,
    at: Times,
    costs: Costs,
    *,
    use_stops: bool,
) -> tuple[_Fills, Integers]:
    """Find where each lot of one symbol is entered and left, and the rows of their entries."""
    entry_bar = bars.first_from(at[matching.entry[lots]])
    lots, entry_bar = lots[entry_bar < len(bars)], entry_bar[entry_bar < len(bars)]
    rows, closer = matching.entry[lots], matching.exit[lots]
    side = signals.side[rows]
    exit_bar = np.where(closer == NO_EXIT, len(bars), bars.first_from(at[closer]))
    reversed_ = signals.is_entry[closer] & (closer != NO_EXIT)
    reason = np.where(reversed_, _BY_REVERSAL, _BY_SIGNAL)
    reason[exit_bar == len(bars)] = OPEN
    exit_ = _worse(bars.open[np.minimum(exit_bar, len(bars) - 1)], -side, costs)
    exit_[reason == OPEN] = bars.close[-1] if len(bars) else np.nan
    entry = _worse(bars.open[entry_bar], side, costs)
    fills = _Fills(entry_bar, exit_bar, entry, exit_, reason)
    if use_stops:
        falls, rises = LowestOf(bars.low), LowestOf(-bars.high)
        _stop(signals, rows, fills, bars, costs, LONG, (falls, rises))
        _stop(signals, rows, fills, bars, costs, SHORT, (rises, falls))
    return fills, rows


def _stop(
    signals: SignalTable,
    rows: Integers,
    fills: _Fills,
    bars: Bars,
    costs: Costs,
    side: int,
    reaches: tuple[LowestOf, LowestOf],
) -> None:
    """Close the lots of one side at the first bar that reaches their stop or target.

    A short is a long of negated prices: there too the stop lies below. `reaches` finds the bars in
    which prices of that sign go against the lot, and for it.
    """
    own = np.flatnonzero(signals.side[rows] == side)
    open_ = side * bars.open
    stop, target = side * signals.stop_loss[rows[own]], side * signals.take_profit[rows[own]]
    first, end = fills.entry_bar[own], fills.exit_bar[own]
    against, for_ = reaches
    stop_bar = against.first_at_or_below(first, end, stop)
    target_bar = for_.first_at_or_below(first, end, -target)
    hit = (stop_bar < end) & (stop_bar <= target_bar)
    lots, bar = own[hit], stop_bar[hit]
    price = side * np.minimum(stop[hit], open_[bar])
    fills.close(lots, bar, _worse(price, np.full(len(lots), -side), costs), _BY_STOP)
    hit = (target_bar < end) & (target_bar < stop_bar)
    lots, bar = own[hit], target_bar[hit]
    fills.close(lots, bar, side * np.maximum(target[hit], open_[bar]), _BY_TARGET)


def _worse(price: Floats, direction: Integers, costs: Costs) -> Floats:
    """Return the price with slippage: higher for who buys (1), lower for who sells (-1)."""
    return price + direction * costs.slippage_rate * np.abs(price)


def _trades(
    signals: SignalTable, rows: Integers, fills: _Fills, bars: Bars, costs: Costs, stake: float
) -> Trades:
    if (fills.entry == 0).any():
        raise InvalidAnalysisError("Cannot stake money on a price of 0.")
    side = signals.side[rows]
    open_ = fills.reason == OPEN
    quantity = stake / np.abs(fills.entry)
    fees = _fee(quantity, fills.entry, costs)
    fees += np.where(open_, 0.0, _fee(quantity, fills.exit, costs))
    exited_at = np.full(len(rows), NOT_A_TIME, TIME)
    exited_at[~open_] = _exit_times(fills, bars)[~open_]
    return Trades(
        traders=signals.traders,
        symbols=signals.symbols,
        signal=rows,
        trader=signals.trader[rows],
        symbol=signals.symbol[rows],
        side=side,
        entered_at=bars.at[fills.entry_bar],
        exited_at=exited_at,
        entry_price=fills.entry,
        exit_price=fills.exit,
        quantity=quantity,
        fees=fees,
        profit=side * quantity * (fills.exit - fills.entry) - fees,
        confidence=signals.confidence[rows],
        stop_loss=signals.stop_loss[rows],
        close_reason=fills.reason,
    )


def _fee(quantity: Floats, price: Floats, costs: Costs) -> Floats:
    return costs.fee_rate * quantity * np.abs(price) + costs.fee_per_fill


def _exit_times(fills: _Fills, bars: Bars) -> Times:
    """An exit signal is filled when its bar begins; a stop is known to be hit when its bar ends."""
    last = np.minimum(fills.exit_bar, len(bars) - 1)
    within: Booleans = np.isin(fills.reason, (_BY_STOP, _BY_TARGET))
    return np.where(within, bars.end[last], bars.at[last])


def _profit_at_each_bar(trades: Trades, fills: _Fills, bars: Bars, costs: Costs) -> Floats:
    """Return the profit of all lots together, realised or not, at the end of each bar."""
    count = len(bars)
    exposed = trades.side * trades.quantity
    entry_fee = _fee(trades.quantity, trades.entry_price, costs)
    spent = exposed * trades.entry_price
    closed = trades.close_reason != OPEN
    realised = np.bincount(fills.entry_bar, -entry_fee, count)
    realised += np.bincount(fills.exit_bar[closed], (trades.profit + entry_fee)[closed], count)
    held = np.bincount(fills.entry_bar, exposed, count)
    held -= np.bincount(fills.exit_bar[closed], exposed[closed], count)
    cost = np.bincount(fills.entry_bar, spent, count)
    cost -= np.bincount(fills.exit_bar[closed], spent[closed], count)
    return np.cumsum(realised) + np.cumsum(held) * bars.close - np.cumsum(cost)


def _equity(
    prices: Mapping[str, Bars], ledgers: list[tuple[Times, Floats]], capital: float
) -> Equity:
    """Add up the profits of the symbols, each as last known, at the end of every bar."""
    begins = [bars.at[0] for bars in prices.values() if len(bars)]
    if not begins:
        return Equity(np.empty(0, TIME), np.empty(0))
    ends = [bars.end for bars in prices.values()]
    at = np.unique(np.concatenate([np.array([min(begins)], TIME), *ends]))
    value = np.full(len(at), capital)
    for end, profit in ledgers:
        known = np.searchsorted(end, at, side="right")
        value += np.append(0.0, profit)[known]
    return Equity(at, value)


def _joined(signals: SignalTable, pieces: list[Trades]) -> Trades:
    """Put the trades of the symbols into one table."""
    if not pieces:
        nothing = np.empty(0, np.int64)
        none = _Fills(nothing, nothing, np.empty(0), np.empty(0), nothing)
        bars = Bars.of([], [], [], [], [], length=timedelta(0))
        return _trades(signals, nothing, none, bars, Costs(), 1.0)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in COLUMNS
    }
    return replace(pieces[0], **columns)
