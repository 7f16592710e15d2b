"""Replay markets through strategies: bars in, an endless stream of signals out.

Market time is sped up as much as the wanted rate of signals needs. So a signal's `generated_at`
is the wall clock when it is generated, unique per natural key, and market time is in metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, zip_longest
from typing import Final
from uuid import UUID

from demo.market_data import MARKETS, SECONDS, Bar, Market
from demo.strategies import (
    BollingerReversion,
    Decision,
    DonchianBreakout,
    MacdCross,
    MovingAverageCross,
    RsiReversal,
    Strategy,
)
from signal_persistence import Signal

STRATEGIES: Final[Mapping[str, Callable[[], Strategy]]] = {
    "average-cross-5-20": lambda: MovingAverageCross(5, 20),
    "average-cross-10-50": lambda: MovingAverageCross(10, 50),
    "rsi-7": lambda: RsiReversal(7, 25, 75),
    "rsi-14": lambda: RsiReversal(14, 30, 70),
    "donchian-20-10": lambda: DonchianBreakout(20, 10),
    "donchian-10-5": lambda: DonchianBreakout(10, 5),
    "bollinger-20-2": lambda: BollingerReversion(20, 2.0),
    "bollinger-10-1.5": lambda: BollingerReversion(10, 1.5),
    "macd-12-26-9": lambda: MacdCross(12, 26, 9),
    "macd-5-13-6": lambda: MacdCross(5, 13, 6),
}
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision together with whose it is and what it is about."""

    trader: str
    symbol: str
    timeframe: str
    bar: Bar
    decision: Decision


def decisions(traders: Sequence[str], symbols: Sequence[str]) -> Iterator[Decided]:
    """Replay the markets side by side, once: every decision of every trader on every timeframe."""
    replays = [_replay(MARKETS[symbol], traders) for symbol in symbols]
    for side_by_side in zip_longest(*replays):
        yield from chain.from_iterable(made for made in side_by_side if made is not None)


def _replay(market: Market, traders: Sequence[str]) -> Iterator[list[Decided]]:
    strategies = {
        timeframe: [(trader, STRATEGIES[trader]()) for trader in traders]
        for timeframe in market.timeframes
    }
    for timeframe, bar in market.completed_bars():
        made = [
            Decided(trader, market.symbol, timeframe, bar, decision)
            for trader, strategy in strategies[timeframe]
            for decision in strategy.on_bar(bar)
        ]
        if made:
            yield made


class SignalMaker:
    """Make signals of decisions; two about the same never get the same `generated_at`."""

    def __init__(self, trader_ids: Mapping[str, UUID], now: Callable[[], datetime]) -> None:
        self._trader_ids = trader_ids
        self._now = now
        self._last: dict[tuple[str, str, str], datetime] = {}

    def signal(self, decided: Decided) -> Signal:
        key = (decided.trader, decided.symbol, decided.timeframe)
        now = self._now()
        last = self._last.get(key)
        generated_at = now if last is None or now > last else last + _MICROSECOND
        self._last[key] = generated_at
        decision = decided.decision
        return Signal(
            trader_id=self._trader_ids[decided.trader],
            symbol=decided.symbol,
            timeframe=decided.timeframe,
            generated_at=generated_at,
            action=decision.action,
            confidence=decision.confidence,
            price=decision.price,
            stop_loss=decision.stop_loss,
            take_profit=decision.take_profit,
            valid_until=generated_at + timedelta(seconds=SECONDS[decided.timeframe]),
            metadata={
                "strategy": decided.trader,
                "market_time": datetime.fromtimestamp(decided.bar.at, UTC).isoformat(),
                **decision.because,
            },
        )
