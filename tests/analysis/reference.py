"""The definitions once more, one signal and one bar at a time: slow, and easy to believe."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from signal_persistence.analysis import Bars, Costs, PairingRules, SignalTable
from signal_persistence.analysis.signal_table import LONG, SHORT


@dataclass
class Paired:
    """Rows of entries with the row that closes each, None when nothing does."""

    closers: dict[int, int | None] = field(default_factory=dict)
    idle_exits: int = 0
    refused: int = 0


def pairs(signals: SignalTable, rules: PairingRules, reported: Any = None) -> Paired:
    """Go through the signals in order with a queue of lots for each book."""
    result = Paired()
    books: dict[Any, deque[int]] = defaultdict(deque)
    refused = ~signals.has_status("executed", "closed") if rules.only_executed else None
    if refused is None:
        refused = signals.has_status("cancelled", "rejected")
    for row in range(len(signals)):
        if refused[row]:
            result.refused += 1
            continue
        side = int(signals.side[row])
        key = (signals.trader[row], signals.symbol[row])
        key += (signals.timeframe[row],) if rules.per_timeframe else ()
        own, other = books[(*key, side)], books[(*key, -side)]
        if signals.is_entry[row]:
            if not rules.hedged:
                _close(result, other, row, len(other))
            if reported is None or not reported[row]:
                own.append(row)
                result.closers[row] = None
        else:
            result.idle_exits += not own
            _close(result, own, row, len(own) if rules.exit_closes == "all" else min(1, len(own)))
    return result


def _close(result: Paired, lots: deque[int], closer: int, count: int) -> None:
    for _ in range(count):
        result.closers[lots.popleft()] = closer


@dataclass(frozen=True)
class Lot:
    """One lot of a replay; `exit_bar` is None while it is open."""

    row: int
    side: int
    entry_bar: int
    exit_bar: int | None
    entry: float
    exit: float
    reason: str | None
    quantity: float

    def fees(self, costs: Costs, *, at_exit: bool) -> float:
        price = self.exit if at_exit else self.entry
        return costs.fee_rate * self.quantity * abs(price) + costs.fee_per_fill

    def profit(self, costs: Costs) -> float:
        fees = self.fees(costs, at_exit=False)
        if self.exit_bar is not None:
            fees += self.fees(costs, at_exit=True)
        return self.side * self.quantity * (self.exit - self.entry) - fees


def replay(
    signals: SignalTable,
    bars: Bars,
    rules: PairingRules,
    costs: Costs,
    stake: float,
    *,
    use_stops: bool,
) -> Iterator[Lot]:
    """Fill the lots of one symbol bar by bar."""
    for row, closer in sorted(pairs(signals, rules).closers.items()):
        entry_bar = _bar_from(bars, signals.generated_at[row])
        if entry_bar is None:
            continue
        exit_bar = None if closer is None else _bar_from(bars, signals.generated_at[closer])
        side = int(signals.side[row])
        entry = _worse(bars.open[entry_bar], side, costs)
        price, reason = float(bars.close[-1]), None
        if closer is not None and exit_bar is not None:
            price = _worse(bars.open[exit_bar], -side, costs)
            reason = "reversed" if signals.is_entry[closer] else "exit_signal"
        if use_stops:
            stop, target = signals.stop_loss[row], signals.take_profit[row]
            for bar in range(entry_bar, len(bars) if exit_bar is None else exit_bar):
                hit = _hit(bars, bar, side, stop, target, costs)
                if hit is not None:
                    exit_bar, (price, reason) = bar, hit
                    break
        yield Lot(row, side, entry_bar, exit_bar, entry, price, reason, stake / abs(entry))


def equity(lots: list[Lot], bars: Bars, costs: Costs, capital: float) -> list[float]:
    """Value the account at the end of each bar."""
    values = []
    for bar in range(len(bars)):
        value = capital
        for lot in lots:
            if lot.exit_bar is not None and lot.exit_bar <= bar:
                value += lot.profit(costs)
            elif lot.entry_bar <= bar:
                value += lot.side * lot.quantity * (bars.close[bar] - lot.entry)
                value -= lot.fees(costs, at_exit=False)
        values.append(value)
    return values


def _bar_from(bars: Bars, time: Any) -> int | None:
    return next((bar for bar in range(len(bars)) if bars.at[bar] >= time), None)


def _worse(price: float, direction: int, costs: Costs) -> float:
    return float(price + direction * costs.slippage_rate * abs(price))


def _hit(
    bars: Bars, bar: int, side: int, stop: float, target: float, costs: Costs
) -> tuple[float, str] | None:
    """Return the price at which a bar closes a lot, and why."""
    opens, low, high = float(bars.open[bar]), bars.low[bar], bars.high[bar]
    if side == LONG and low <= stop:
        return _worse(min(stop, opens), SHORT, costs), "stop_loss"
    if side == SHORT and high >= stop:
        return _worse(max(stop, opens), LONG, costs), "stop_loss"
    if side == LONG and high >= target:
        return max(float(target), opens), "take_profit"
    if side == SHORT and low <= target:
        return min(float(target), opens), "take_profit"
    return None
