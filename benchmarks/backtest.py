"""scripts/bench backtest: a million signals replayed on real prices, and the steps around it.

The bars are seconds of the E-mini S&P 500. Each of ten traders generates at random times, one of
the four actions, with a stop and a target 0.05 % away. The signals are made before anything is
measured; figures are medians of the runs.

signals, bars    how many
seconds          per step: `columns` (lists into a table), `pairs` (trades at the signals' own
                 prices), `replay` (the back-test, with stops, fees and slippage), `figures` (of the
                 trades and of the equity's risk), `excursions`, `markout` (five horizons)
loop_seconds     what a loop in Python over signals and bars takes for the same replay: measured on
                 the first 100,000, per signal, times all of them
ratio            loop_seconds over `seconds.replay`
trades           how many the replay closed

It is well when the profits of all trades are the change of the equity, the loop finds the same
trades, and the replay takes less than 10 seconds for a million signals.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import numpy as np

from benchmarks.report import MINIMUM_RUNS, machine, medians, write
from demo.market_data import E_MINI, BarBuilder
from signal_persistence.analysis import (
    BacktestResult,
    Bars,
    Costs,
    SignalTable,
    backtest,
    excursions,
    markout_curve,
    pair_trades,
    risk_statistics,
    trade_statistics,
)

T = TypeVar("T")
COSTS = Costs(fee_rate=0.00002, fee_per_fill=0.0, slippage_rate=0.00001)
CAPITAL = 1e9
STAKE = 1_000.0
TRADERS = 10
DISTANCE = 0.0005
"""How far stop and target lie from the price, as a fraction."""
LOOPED_SIGNALS = 100_000
SECONDS_LIMIT = 10.0
HORIZONS = [timedelta(seconds=seconds) for seconds in (1, 10, 60, 600, 3600)]
SYMBOL = E_MINI.symbol


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when it is well."""
    options = _parse(argv)
    bars = _bars()
    columns = _columns(bars, options.signals)
    runs = [_run(columns, bars) for _ in range(options.runs)]
    table = SignalTable.from_columns(columns)
    result = _replay(table, bars)
    looped = _loop(table.take(np.arange(min(LOOPED_SIGNALS, len(table)))), bars)
    report = _report(options, bars, runs, result, looped)
    write(report, options.json)
    return 0 if report["ok"] else 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench backtest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--signals", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(argv)
    if options.signals <= 0 or options.runs <= 0:
        parser.error("--signals and --runs must be more than 0")
    return options


def _bars() -> Bars:
    builder = BarBuilder(1)
    made = [bar for price in E_MINI.bars() if (bar := builder.add(price)) is not None]
    at, opens, highs, lows, closes = zip(*made, strict=True)
    times = [datetime.fromtimestamp(each, UTC) for each in at]
    return Bars.of(times, opens, highs, lows, closes, length=timedelta(seconds=1))


def _columns(bars: Bars, count: int) -> dict[str, list[Any]]:
    """Make the columns of a table as lists, as a reader of pages has them."""
    random = np.random.default_rng(20261122)
    first, last = bars.at[[0, -1]].astype(np.int64)
    at = np.sort(random.integers(first, last, count))
    price = bars.close[np.maximum(bars.first_from(at.view("datetime64[us]")) - 1, 0)]
    places = random.integers(0, 4, count)
    side = np.where(places < 2, 1, -1)
    actions = ("enter_long", "exit_long", "enter_short", "exit_short")
    traders = [UUID(int=number) for number in range(1, TRADERS + 1)]
    return {
        "trader_id": [traders[number] for number in random.integers(0, TRADERS, count)],
        "symbol": [SYMBOL] * count,
        "timeframe": ["1s"] * count,
        "generated_at": at.tolist(),
        "action": [actions[place] for place in places],
        "confidence": random.random(count).tolist(),
        "price": price.tolist(),
        "stop_loss": (price * (1 - side * DISTANCE)).tolist(),
        "take_profit": (price * (1 + side * DISTANCE)).tolist(),
    }


def _run(columns: dict[str, list[Any]], bars: Bars) -> dict[str, float]:
    """Take every step once; return the seconds of each."""
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], T]) -> T:
        began = time.perf_counter()
        done = step()
        seconds[name] = time.perf_counter() - began
        return done

    table = timed("columns", lambda: SignalTable.from_columns(columns))
    timed("pairs", lambda: pair_trades(table))
    result = timed("replay", lambda: _replay(table, bars))
    timed("figures", lambda: _figures(result))
    timed("excursions", lambda: excursions(result.closed, {SYMBOL: bars}))
    timed("markout", lambda: markout_curve(table, {SYMBOL: bars}, HORIZONS))
    return seconds


def _replay(table: SignalTable, bars: Bars) -> BacktestResult:
    return backtest(table, {SYMBOL: bars}, costs=COSTS, capital=CAPITAL, stake=STAKE)


def _figures(result: BacktestResult) -> object:
    return trade_statistics(result.closed), risk_statistics(result.equity.returns())


@dataclass(frozen=True)
class Looped:
    """What the loop did: seconds for each signal, and whether the trades were the same."""

    seconds_per_signal: float
    same: bool


class Lot(NamedTuple):
    """An open lot of the loop."""

    row: int
    side: int
    entry: float
    stop: float
    target: float

    def profit(self, price: float) -> float:
        quantity = STAKE / self.entry
        fees = COSTS.fee_rate * quantity * (self.entry + price)
        return self.side * quantity * (price - self.entry) - fees


def _loop(table: SignalTable, bars: Bars) -> Looped:
    columns = (bars.at.astype(np.int64), bars.open, bars.high, bars.low)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    began = time.perf_counter()
    found = sorted(_looped_profits(table, rows))
    seconds = time.perf_counter() - began
    trades = _replay(table, bars).closed
    expected = sorted(zip(trades.signal.tolist(), trades.profit.tolist(), strict=True))
    same = len(found) == len(expected) and np.allclose(found, expected, rtol=1e-9)
    return Looped(seconds / len(table), bool(same))


def _looped_profits(
    table: SignalTable, bars: list[tuple[int, float, float, float]]
) -> Iterator[tuple[int, float]]:
    """Go through the bars, and at each through the signals before it: (row of entry, profit)."""
    times, traders, sides, enters, stops, targets = (
        column.tolist()
        for column in (
            table.generated_at.astype(np.int64), table.trader, table.side, table.is_entry,
            table.stop_loss, table.take_profit,
        )
    )  # fmt: skip
    held: list[list[Lot]] = [[] for _ in table.traders]
    row = 0
    for begin, first, high, low in bars:
        while row < len(times) and times[row] <= begin:
            side, own = sides[row], held[traders[row]]
            leaving = -side if enters[row] else side
            for lot in own:
                if lot.side == leaving:
                    yield lot.row, lot.profit(first * (1 - leaving * COSTS.slippage_rate))
            own[:] = [lot for lot in own if lot.side != leaving]
            if enters[row]:
                entry = first * (1 + side * COSTS.slippage_rate)
                own.append(Lot(row, side, entry, stops[row], targets[row]))
            row += 1
        for own in held:
            if own:
                yield from _stopped(own, first, high, low)


def _stopped(own: list[Lot], first: float, high: float, low: float) -> Iterator[tuple[int, float]]:
    """Close the lots whose stop or target lies within the bar; the stop counts first."""
    staying = []
    for lot in own:
        worst, best = (low, high) if lot.side > 0 else (high, low)
        if lot.side * worst <= lot.side * lot.stop:
            price = min(lot.stop, first) if lot.side > 0 else max(lot.stop, first)
            yield lot.row, lot.profit(price * (1 - lot.side * COSTS.slippage_rate))
        elif lot.side * best >= lot.side * lot.target:
            price = max(lot.target, first) if lot.side > 0 else min(lot.target, first)
            yield lot.row, lot.profit(price)
        else:
            staying.append(lot)
    own[:] = staying


def _report(
    options: argparse.Namespace,
    bars: Bars,
    runs: list[dict[str, float]],
    result: BacktestResult,
    looped: Looped,
) -> dict[str, Any]:
    seconds = {name: round(value, 3) for name, value in medians(runs).items()}
    loop_seconds = looped.seconds_per_signal * options.signals
    change = float(result.equity.value[-1]) - CAPITAL
    profit = float(result.closed.profit.sum() + result.open.profit.sum())
    adds_up = bool(np.isclose(change, profit, rtol=1e-9, atol=1e-6 * options.signals))
    quick = seconds["replay"] < SECONDS_LIMIT * max(1.0, options.signals / 1e6)
    return {
        "bench": "backtest",
        "machine": machine(),
        "runs": options.runs,
        "signals": options.signals,
        "bars": len(bars),
        "trades": len(result.closed),
        "seconds": seconds,
        "loop_seconds": round(loop_seconds, 1),
        "ratio": round(loop_seconds / seconds["replay"], 1),
        "adds_up": adds_up,
        "same_as_loop": looped.same,
        "ok": adds_up and looped.same and quick,
    }


if __name__ == "__main__":
    sys.exit(main())
