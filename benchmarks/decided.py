"""Signals as the demo's strategies decide them on real prices, and random ones beside them.

The replay of the demo gives 116,000 decisions in 45 hours of the E-mini's ticks, half of them exits
without stop and target; those on the other markets fall between them. Each copy is another account
whose prices are shifted by some ticks, so that more signals are no more alike than these. Times
are those of the market plus what a worker takes to decide.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final
from uuid import UUID

import msgspec

from demo.market_data import MARKETS, SECONDS
from demo.replay import STRATEGIES, Decided, SignalMaker, decisions
from signal_persistence import Signal

TICKS: Final = {"ES": 0.25, "BTC-USD": 0.5, "EUR/USD": 0.00001}
LATENCY_S: Final = (0.002, 0.010)
"""A worker takes at least the first, and the second more on average."""
SYMBOLS: Final = tuple(f"R{number}/USDT" for number in range(500))
ACTIONS: Final = ("enter_long", "exit_long", "enter_short", "exit_short")
KINDS: Final = ("realistic", "with_metadata", "random")
HOURS: Final = 45


@cache
def replay() -> Sequence[tuple[float, Decided]]:
    """Return every decision with the seconds from the first to the moment it is made."""
    made = []
    first = clock = 0.0
    for decided in decisions(tuple(STRATEGIES), tuple(MARKETS)):
        if decided.symbol == "ES":
            clock = max(clock, decided.bar.at + SECONDS[decided.timeframe])
            first = first or clock
        made.append((max(0.0, clock - first), decided))
    return made


@dataclass(frozen=True, slots=True)
class Copy:
    """The signals of one account: which copy of the replay, from when on, with which traders."""

    number: int
    starts: datetime
    trader_ids: Sequence[UUID]
    """As many as there are strategies."""

    def signals(self, kind: str) -> Iterator[Signal]:
        """Iterate over the signals of one of KINDS, in order of time."""
        return {
            "realistic": lambda: self._decided(metadata=False),
            "with_metadata": lambda: self._decided(metadata=True),
            "random": self._random,
        }[kind]()

    def _decided(self, *, metadata: bool) -> Iterator[Signal]:
        chance = random.Random(self.number)
        now = self.starts
        maker = SignalMaker(dict(zip(STRATEGIES, self.trader_ids, strict=True)), lambda: now)
        for seconds, decided in replay():
            least, more = LATENCY_S
            latency = least + chance.expovariate(1 / more)
            now = max(now, self.starts + timedelta(seconds=seconds + latency))
            signal = maker.signal(self._shifted(decided))
            yield signal if metadata else msgspec.structs.replace(signal, metadata=None)

    def _random(self) -> Iterator[Signal]:
        chance = random.Random(self.number)
        count = len(replay())
        for number in range(count):
            share = (number + chance.random()) / count
            at = self.starts + timedelta(hours=HOURS * share)
            price = chance.uniform(1, 100_000)
            yield Signal(
                trader_id=chance.choice(self.trader_ids),
                symbol=chance.choice(SYMBOLS),
                timeframe=chance.choice(tuple(SECONDS)),
                generated_at=at,
                action=chance.choice(ACTIONS),
                confidence=chance.random(),
                price=price,
                stop_loss=price * chance.random(),
                take_profit=price * (1 + chance.random()),
                valid_until=at + timedelta(seconds=chance.uniform(1, 86_400)),
            )

    def _shifted(self, decided: Decided) -> Decided:
        decision = decided.decision
        shift = TICKS[decided.symbol] * 10 * self.number
        return replace(
            decided,
            decision=replace(
                decision,
                price=round(decision.price + shift, 6),
                stop_loss=decision.stop_loss and round(decision.stop_loss + shift, 6),
                take_profit=decision.take_profit and round(decision.take_profit + shift, 6),
            ),
        )
