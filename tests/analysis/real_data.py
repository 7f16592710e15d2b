"""Real prices, and what the demo's strategies say about them, as stored signals in market time.

E-mini S&P 500 in minutes, bitcoin in quarters of an hour, the euro in hours; ten strategies each.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count, islice
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from demo.market_data import BITCOIN, E_MINI, EURO, SECONDS, Bar, BarBuilder
from demo.replay import STRATEGIES
from demo.strategies import Decision
from signal_persistence import StoredSignal
from signal_persistence.analysis import Bars, SignalTable
from signal_persistence.signal import signal_id

ACCOUNT = uuid5(NAMESPACE_URL, "account")
TRADERS = {name: uuid5(NAMESPACE_URL, name) for name in STRATEGIES}
MARKETS = {"ES": (E_MINI, "1m"), "BTC-USD": (BITCOIN, "15m"), "EUR/USD": (EURO, "1h")}
MOST_PRICES = 150_000
"""Trades of the E-mini that are read: more would only take longer."""
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)


@cache
def prices() -> dict[str, Bars]:
    """Return the bars of every market."""
    return {symbol: _in_columns(_bars(symbol), SECONDS[MARKETS[symbol][1]]) for symbol in MARKETS}


@cache
def stored_signals() -> tuple[StoredSignal, ...]:
    """Return every signal of every strategy, in the order of time."""
    made = [signal for symbol in MARKETS for signal in _signals(symbol)]
    made.sort(key=lambda signal: signal["generated_at"])
    return tuple(
        StoredSignal(seq=seq, **signal) for seq, signal in zip(count(1), made, strict=False)
    )


@cache
def table() -> SignalTable:
    """Return them in columns."""
    return SignalTable.of(stored_signals())


@cache
def _bars(symbol: str) -> list[Bar]:
    market, timeframe = MARKETS[symbol]
    builder = BarBuilder(SECONDS[timeframe])
    finest = islice(market.bars(), MOST_PRICES)
    return [bar for price in finest if (bar := builder.add(price)) is not None]


def _in_columns(bars: list[Bar], seconds: int) -> Bars:
    begins, opens, highs, lows, closes = zip(*bars, strict=True)
    at = [_moment(begin) for begin in begins]
    return Bars.of(at, opens, highs, lows, closes, length=seconds * _SECOND)


def _signals(symbol: str) -> Iterator[dict[str, Any]]:
    """Run the strategies over the bars; a signal is generated when its bar ends."""
    timeframe = MARKETS[symbol][1]
    for name, make in STRATEGIES.items():
        strategy = make()
        for bar in _bars(symbol):
            end = _moment(bar.at) + SECONDS[timeframe] * _SECOND
            for decision in strategy.on_bar(bar):
                yield _signal(TRADERS[name], symbol, timeframe, end, decision)


def _signal(
    trader_id: UUID, symbol: str, timeframe: str, end: datetime, decision: Decision
) -> dict[str, Any]:
    """Two signals of one instant need different times, so an exit comes just before the end."""
    at = end - _MICROSECOND if decision.action.startswith("exit") else end
    return {
        "signal_id": signal_id(ACCOUNT, trader_id, symbol, timeframe, at),
        "trader_id": trader_id,
        "symbol": symbol,
        "timeframe": timeframe,
        "generated_at": at,
        "action": decision.action,
        "confidence": decision.confidence,
        "price": decision.price,
        "stop_loss": decision.stop_loss,
        "take_profit": decision.take_profit,
        "status": "generated",
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
