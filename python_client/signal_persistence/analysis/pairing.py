"""Pair entries with what closes them: first in, first out, in a book per trader, symbol and side.

A signal has no quantity, so each entry is one lot. Which signal closes which lot is found with
cumulative sums, without a loop over signals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from signal_persistence.analysis.arrays import Booleans, Floats, Integers, Times
from signal_persistence.analysis.signal_table import LONG, SHORT, SignalTable
from signal_persistence.analysis.trades import CLOSE_REASONS, OPEN, Trades

NO_EXIT: Final = -1
_BY_SIGNAL: Final = CLOSE_REASONS.index("exit_signal")
_BY_REVERSAL: Final = CLOSE_REASONS.index("reversed")


@dataclass(frozen=True, slots=True)
class PairingRules:
    """What a signal means for the lots that are open.

    `exit_closes`: an exit closes "all" open lots of its side, or the "oldest" one (scaling out).
    `hedged`: when false, an entry of the other side closes all lots of this side first (a
    reversal); when true both sides may be open at once. `per_timeframe`: each timeframe is a book
    of its own, for a trader that runs one strategy on several. `only_executed`: count signals that
    were reported as executed or closed; otherwise all that were not cancelled or rejected, also
    expired ones, because without reports every signal with `valid_until` expires.
    """

    exit_closes: Literal["all", "oldest"] = "all"
    hedged: bool = False
    per_timeframe: bool = False
    only_executed: bool = False


DEFAULT_RULES: Final = PairingRules()


@dataclass(frozen=True, slots=True)
class Pairing:
    """The trades of a table; every entry is in `closed`, in `open` or among the `refused`.

    `idle_exits` are exits that found nothing to close, `refused` the signals that do not count.
    """

    closed: Trades
    open: Trades
    idle_exits: int
    refused: int


@dataclass(frozen=True, slots=True)
class Matching:
    """Rows of entries beside the rows of the signals that close them (NO_EXIT when open)."""

    entry: Integers
    exit: Integers
    idle_exits: int
    refused: int


def pair_trades(signals: SignalTable, rules: PairingRules = DEFAULT_RULES) -> Pairing:
    """Make trades of signals and of what was reported of them.

    A lot is entered at the price at which its signal was executed, or else at the signal's; it is
    closed in the same way by the signal that closes it. An entry that was reported as closed is a
    trade of its own, with the reported exit and return, and no exit signal closes it again; when
    it was closed is known from events only. Quantities are 1 and fees 0: reported fees are those of
    a quantity that nobody reported, so they count as far as the reported return has them.
    """
    reported = signals.is_entry & signals.has_status("closed") & ~np.isnan(signals.closed_price)
    matching = match(signals, rules, leave_out=reported)
    own = np.flatnonzero(reported)
    entry = np.concatenate([matching.entry, own])
    exit_ = np.concatenate([matching.exit, np.full(len(own), NO_EXIT)])
    trades = _trades(signals, entry, exit_, reported[entry])
    closed = ~np.isnan(trades.exit_price)
    return Pairing(
        closed=trades.take(in_order_of_exit(trades.exited_at, trades.signal, closed)),
        open=trades.take(~closed),
        idle_exits=matching.idle_exits,
        refused=matching.refused,
    )


def match(
    signals: SignalTable, rules: PairingRules, *, leave_out: Booleans | None = None
) -> Matching:
    """Find the signal that closes each entry; entries in `leave_out` open no lot."""
    counted = _counted(signals, rules)
    book = signals.trader * len(signals.symbols) + signals.symbol
    if rules.per_timeframe:
        book = book * len(signals.timeframes) + signals.timeframe
    order = np.argsort(book, kind="stable")
    order = order[counted[order]]
    enters = signals.is_entry if leave_out is None else signals.is_entry & ~leave_out
    entries, exits = [], []
    idle_exits = 0
    for side in (LONG, SHORT):
        rows = order[_concerns(signals, enters, side, hedged=rules.hedged)[order]]
        lots = enters[rows] & (signals.side[rows] == side)
        single = ~signals.is_entry[rows] & (rules.exit_closes == "oldest")
        step = np.where(lots, 1, np.where(single, -1, -1 - len(rows)))
        entry, exit_, idle = _first_in_first_out(rows, step, book[rows])
        entries.append(entry)
        exits.append(exit_)
        idle_exits += int((~signals.is_entry[idle]).sum())
    entry, exit_ = np.concatenate(entries), np.concatenate(exits)
    in_order = np.argsort(entry, kind="stable")
    return Matching(entry[in_order], exit_[in_order], idle_exits, int((~counted).sum()))


def in_order_of_exit(exited_at: Times, signal: Integers, chosen: Booleans) -> Integers:
    """Return the chosen rows by time of exit, then of entry; unknown times come last."""
    rows = np.flatnonzero(chosen)
    return rows[np.lexsort((signal[rows], exited_at[rows]))]


def _counted(signals: SignalTable, rules: PairingRules) -> Booleans:
    if rules.only_executed:
        return signals.has_status("executed", "closed")
    return np.logical_not(signals.has_status("cancelled", "rejected"))


def _concerns(signals: SignalTable, enters: Booleans, side: int, *, hedged: bool) -> Booleans:
    """Tell which signals change the book of `side`."""
    own: Booleans = (signals.side == side) & (enters | ~signals.is_entry)
    other: Booleans = (signals.side != side) & signals.is_entry
    return own if hedged else own | other


def _first_in_first_out(
    rows: Integers, step: Integers, book: Integers
) -> tuple[Integers, Integers, Integers]:
    """Return the rows of lots, of what closes each, and of what closed nothing.

    `step` is how a signal changes the number of open lots, which never falls below 0: 1 opens one,
    -1 closes one, less than -len(rows) closes all. After each book stands a step that closes what
    is left, so that the k-th lot is closed by whoever closes the k-th, in all books together.
    """
    ends = np.append(np.flatnonzero(np.diff(book)) + 1, len(rows))
    step = np.insert(step, ends, -1 - len(rows))
    rows = np.insert(rows, ends, NO_EXIT)
    total = np.cumsum(step)
    held = total - np.minimum.accumulate(np.minimum(total, 0))
    before = np.append(0, held[:-1])
    opened = step == 1
    closed = before + opened - held
    lots = np.flatnonzero(opened)
    closers = np.searchsorted(np.cumsum(closed), np.arange(1, len(lots) + 1))
    return rows[lots], rows[closers], rows[(step < 0) & (closed == 0) & (rows != NO_EXIT)]


def _trades(signals: SignalTable, entry: Integers, exit_: Integers, reported: Booleans) -> Trades:
    """Put lots into columns; `reported` are those whose own close is known."""
    paired = exit_ != NO_EXIT
    price, at = _acted(signals)
    exit_price = np.where(paired, price[exit_], np.nan)
    exit_price[reported] = signals.closed_price[entry[reported]]
    exited_at = np.where(paired, at[exit_], np.datetime64("NaT", "us"))
    exited_at[reported] = signals.closed_at[entry[reported]]
    side = signals.side[entry]
    profit = side * (exit_price - price[entry])
    told = reported & ~np.isnan(signals.reported_return[entry])
    profit[told] = (signals.reported_return[entry] * np.abs(price[entry]))[told]
    reversed_ = paired & signals.is_entry[exit_]
    reason = np.where(paired, np.where(reversed_, _BY_REVERSAL, _BY_SIGNAL), OPEN)
    reason[reported] = signals.close_reason[entry[reported]]
    return Trades(
        traders=signals.traders,
        symbols=signals.symbols,
        signal=entry,
        trader=signals.trader[entry],
        symbol=signals.symbol[entry],
        side=side,
        entered_at=at[entry],
        exited_at=exited_at,
        entry_price=price[entry],
        exit_price=exit_price,
        quantity=np.ones(len(entry)),
        fees=np.zeros(len(entry)),
        profit=profit,
        confidence=signals.confidence[entry],
        stop_loss=signals.stop_loss[entry],
        close_reason=reason,
    )


def _acted(signals: SignalTable) -> tuple[Floats, Times]:
    """Return the price and time at which each signal was executed, or else generated."""
    price = np.where(np.isnan(signals.executed_price), signals.price, signals.executed_price)
    at = np.where(np.isnat(signals.executed_at), signals.generated_at, signals.executed_at)
    return price, at
