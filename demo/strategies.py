"""Five trading strategies. Each takes completed bars and says when to enter and to leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from demo.indicators import (
    Deviation,
    ExponentialAverage,
    Highest,
    Lowest,
    RelativeStrength,
    SimpleAverage,
    TrueRange,
)
from demo.market_data import Bar

Action = Literal["enter_long", "exit_long", "enter_short", "exit_short"]
Side = Literal["long", "flat", "short"]

STOP_RANGES: Final = 2.0
TARGET_RANGES: Final = 3.0
"""A stop lies this many average true ranges from the price, a target this many."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a strategy says about one bar, with the values that made it say so."""

    action: Action
    confidence: float
    price: float
    stop_loss: float | None
    take_profit: float | None
    because: Mapping[str, float]


class Strategy(Protocol):
    """One strategy on one market and timeframe."""

    def on_bar(self, bar: Bar) -> list[Decision]:
        """Take in the next completed bar; usually there is nothing to decide."""
        ...


class _Position:
    """Turn "be long now" into what has to be done about the position that there is."""

    def __init__(self) -> None:
        self.side: Side = "flat"
        self._range = TrueRange(14)
        self._width: float | None = None

    def see(self, bar: Bar) -> None:
        self._width = self._range.add(bar.high, bar.low, bar.close)

    def be(
        self, side: Side, bar: Bar, strength: float, because: Mapping[str, float]
    ) -> list[Decision]:
        """Take the side; `strength` from 0 to 1 becomes a confidence from 0.5 to 1."""
        if side == self.side:
            return []
        confidence = round(0.5 + 0.5 * min(max(strength, 0.0), 1.0), 4)
        told = {name: round(value, 6) for name, value in because.items()}
        decisions: list[Decision] = []
        if self.side != "flat":
            leave: Action = "exit_long" if self.side == "long" else "exit_short"
            decisions.append(Decision(leave, confidence, bar.close, None, None, told))
        if side != "flat":
            enter: Action = "enter_long" if side == "long" else "enter_short"
            stop, target = self._bracket(side, bar.close)
            decisions.append(Decision(enter, confidence, bar.close, stop, target, told))
        self.side = side
        return decisions

    def _bracket(self, side: Side, price: float) -> tuple[float | None, float | None]:
        if not self._width:
            return None, None
        direction = 1 if side == "long" else -1
        stop = price - direction * STOP_RANGES * self._width
        return round(stop, 6), round(price + direction * TARGET_RANGES * self._width, 6)


class MovingAverageCross:
    """Follow the trend: long while the fast average is above the slow one, else short."""

    def __init__(self, fast: int = 5, slow: int = 20) -> None:
        self._fast = SimpleAverage(fast)
        self._slow = SimpleAverage(slow)
        self._position = _Position()

    def on_bar(self, bar: Bar) -> list[Decision]:
        self._position.see(bar)
        fast, slow = self._fast.add(bar.close), self._slow.add(bar.close)
        if fast is None or slow is None or fast == slow:
            return []
        side: Side = "long" if fast > slow else "short"
        strength = 1000 * abs(fast - slow) / slow
        return self._position.be(side, bar, strength, {"fast": fast, "slow": slow})


class RsiReversal:
    """Expect a return: long when oversold, short when overbought, out at the middle."""

    def __init__(self, length: int = 14, low: float = 30, high: float = 70) -> None:
        self._rsi = RelativeStrength(length)
        self._low = low
        self._high = high
        self._position = _Position()

    def on_bar(self, bar: Bar) -> list[Decision]:
        self._position.see(bar)
        rsi = self._rsi.add(bar.close)
        if rsi is None:
            return []
        side = self._side_at(rsi)
        return self._position.be(side, bar, abs(rsi - 50) / 50, {"rsi": rsi})

    def _side_at(self, rsi: float) -> Side:
        held = self._position.side
        if rsi <= self._low:
            return "long"
        if rsi >= self._high:
            return "short"
        if (held == "long" and rsi >= 50) or (held == "short" and rsi <= 50):
            return "flat"
        return held


class DonchianBreakout:
    """Follow a breakout: enter beyond the extremes of `enter` bars, leave at those of `leave`."""

    def __init__(self, enter: int = 20, leave: int = 10) -> None:
        self._top, self._bottom = Highest(enter), Lowest(enter)
        self._exit_top, self._exit_bottom = Highest(leave), Lowest(leave)
        self._levels: tuple[float, float, float, float] | None = None
        self._position = _Position()

    def on_bar(self, bar: Bar) -> list[Decision]:
        self._position.see(bar)
        levels = self._levels
        top, bottom = self._top.add(bar.high), self._bottom.add(bar.low)
        exit_top, exit_bottom = self._exit_top.add(bar.high), self._exit_bottom.add(bar.low)
        if not (top is None or bottom is None or exit_top is None or exit_bottom is None):
            self._levels = (top, bottom, exit_top, exit_bottom)
        if levels is None:
            return []
        return self._decide(bar, *levels)

    def _decide(
        self, bar: Bar, top: float, bottom: float, exit_top: float, exit_bottom: float
    ) -> list[Decision]:
        """Compare with the levels of the bars before this one."""
        because = {"top": top, "bottom": bottom}
        strength = 0.5 if top == bottom else abs(bar.close - (top + bottom) / 2) / (top - bottom)
        if bar.close > top:
            return self._position.be("long", bar, strength, because)
        if bar.close < bottom:
            return self._position.be("short", bar, strength, because)
        held = self._position.side
        if (held == "long" and bar.close < exit_bottom) or (
            held == "short" and bar.close > exit_top
        ):
            return self._position.be("flat", bar, strength, because)
        return []


class BollingerReversion:
    """Expect a return: enter outside the bands of `width` deviations, leave at the mean."""

    def __init__(self, length: int = 20, width: float = 2.0) -> None:
        self._deviation = Deviation(length)
        self._width = width
        self._position = _Position()

    def on_bar(self, bar: Bar) -> list[Decision]:
        self._position.see(bar)
        known = self._deviation.add(bar.close)
        if known is None or known[1] == 0:
            return []
        mean, deviation = known
        score = (bar.close - mean) / deviation
        because = {"mean": mean, "deviation": deviation, "score": score}
        return self._position.be(self._side_at(score), bar, abs(score) / 4, because)

    def _side_at(self, score: float) -> Side:
        held = self._position.side
        if score <= -self._width:
            return "long"
        if score >= self._width:
            return "short"
        if (held == "long" and score >= 0) or (held == "short" and score <= 0):
            return "flat"
        return held


class MacdCross:
    """Follow momentum: long while the MACD line is above its signal line, else short."""

    def __init__(self, fast: int = 12, slow: int = 26, smooth: int = 9) -> None:
        self._fast = ExponentialAverage(fast)
        self._slow = ExponentialAverage(slow)
        self._smooth = ExponentialAverage(smooth)
        self._warming = slow + smooth
        self._position = _Position()

    def on_bar(self, bar: Bar) -> list[Decision]:
        self._position.see(bar)
        line = self._fast.add(bar.close) - self._slow.add(bar.close)
        signal = self._smooth.add(line)
        if self._warming > 0:
            self._warming -= 1
            return []
        if line == signal:
            return []
        side: Side = "long" if line > signal else "short"
        strength = 5000 * abs(line - signal) / bar.close
        return self._position.be(side, bar, strength, {"macd": line, "signal": signal})
