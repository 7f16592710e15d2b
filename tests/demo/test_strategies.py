"""The strategies do what their names say, and equal a reference that looks at all bars anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice, pairwise
from statistics import fmean, pstdev
from uuid import UUID

import pytest

from demo.market_data import E_MINI, MARKETS, Bar
from demo.replay import STRATEGIES, SignalMaker, decisions
from demo.strategies import (
    Action,
    BollingerReversion,
    Decision,
    DonchianBreakout,
    MacdCross,
    MovingAverageCross,
    RsiReversal,
    Side,
    Strategy,
)
from tests.demo.test_indicators import smoothed

Reference = Callable[[Sequence[Bar], Side], Side]


def bars_of(closes: Sequence[float]) -> list[Bar]:
    return [Bar(60.0 * index, c, c + 0.25, c - 0.25, c) for index, c in enumerate(closes)]


def run(strategy: Strategy, bars: Sequence[Bar]) -> list[tuple[int, Decision]]:
    return [(index, made) for index, bar in enumerate(bars) for made in strategy.on_bar(bar)]


def actions(strategy: Strategy, closes: Sequence[float]) -> list[Action]:
    return [decision.action for _, decision in run(strategy, bars_of(closes))]


def averages_cross(bars: Sequence[Bar], held: Side) -> Side:
    closes = [bar.close for bar in bars]
    if len(closes) < 20 or fmean(closes[-5:]) == fmean(closes[-20:]):
        return held
    return "long" if fmean(closes[-5:]) > fmean(closes[-20:]) else "short"


def rsi_reverses(bars: Sequence[Bar], held: Side) -> Side:
    changes = [after.close - before.close for before, after in pairwise(bars)]
    if len(changes) < 14:
        return held
    gain = smoothed([max(change, 0.0) for change in changes])
    loss = smoothed([max(-change, 0.0) for change in changes])
    rsi = 50.0 if gain == loss else 100 * gain / (gain + loss)
    if rsi <= 30 or rsi >= 70:
        return "long" if rsi <= 30 else "short"
    return "flat" if (held, rsi >= 50) in {("long", True), ("short", False)} else held


def channel_breaks(bars: Sequence[Bar], held: Side) -> Side:
    *before, now = bars
    if len(before) < 20:
        return held
    if now.close > max(bar.high for bar in before[-20:]):
        return "long"
    if now.close < min(bar.low for bar in before[-20:]):
        return "short"
    if held == "long" and now.close < min(bar.low for bar in before[-10:]):
        return "flat"
    if held == "short" and now.close > max(bar.high for bar in before[-10:]):
        return "flat"
    return held


def bands_revert(bars: Sequence[Bar], held: Side) -> Side:
    closes = [bar.close for bar in bars[-20:]]
    if len(closes) < 20 or pstdev(closes) == 0:
        return held
    score = (closes[-1] - fmean(closes)) / pstdev(closes)
    if abs(score) >= 2:
        return "long" if score < 0 else "short"
    out = (held == "long" and score >= 0) or (held == "short" and score <= 0)
    return "flat" if out else held


def macd_crosses(bars: Sequence[Bar], held: Side) -> Side:
    def exponential(values: Sequence[float], length: int) -> list[float]:
        averaged = [values[0]]
        for value in values[1:]:
            averaged.append(averaged[-1] + 2 / (length + 1) * (value - averaged[-1]))
        return averaged

    closes = [bar.close for bar in bars]
    pairs = zip(exponential(closes, 12), exponential(closes, 26), strict=True)
    lines = [fast - slow for fast, slow in pairs]
    signal = exponential(lines, 9)[-1]
    if len(bars) <= 35 or lines[-1] == signal:
        return held
    return "long" if lines[-1] > signal else "short"


@pytest.mark.parametrize(
    ("strategy", "reference"),
    [
        (MovingAverageCross(5, 20), averages_cross),
        (RsiReversal(14, 30, 70), rsi_reverses),
        (DonchianBreakout(20, 10), channel_breaks),
        (BollingerReversion(20, 2.0), bands_revert),
        (MacdCross(12, 26, 9), macd_crosses),
    ],
    ids=lambda value: type(value).__name__ if not callable(value) else value.__name__,
)
def test_a_strategy_equals_its_reference_on_real_bars(
    strategy: Strategy, reference: Reference
) -> None:
    bars = [bar for name, bar in islice(E_MINI.completed_bars(), 9000) if name == "10s"][:500]
    held: Side = "flat"
    changes = 0
    for count in range(1, len(bars) + 1):
        wanted = reference(bars[:count], held)
        expected: list[Action] = []
        if wanted != held and held != "flat":
            expected.append("exit_long" if held == "long" else "exit_short")
        if wanted != held and wanted != "flat":
            expected.append("enter_long" if wanted == "long" else "enter_short")
        assert [made.action for made in strategy.on_bar(bars[count - 1])] == expected, count
        changes += wanted != held
        held = wanted
    assert changes >= 5


def test_a_rising_market_crosses_upwards_and_a_falling_one_reverses_the_position() -> None:
    closes = [*range(100, 130), *range(130, 90, -1)]
    assert actions(MovingAverageCross(), closes) == ["enter_long", "exit_long", "enter_short"]


def test_a_breakout_is_entered_and_left_at_the_nearer_extreme() -> None:
    closes = [100.0] * 25 + [105.0] * 12 + [104.0]
    assert actions(DonchianBreakout(), closes) == ["enter_long", "exit_long"]


def test_an_oversold_market_is_bought_and_sold_at_the_middle() -> None:
    closes = [100 + (index % 2) for index in range(20)] + [90.0, 80.0] + [100.0] * 3
    assert actions(RsiReversal(), closes)[:2] == ["enter_long", "exit_long"]


def test_a_market_that_does_not_move_is_left_alone() -> None:
    for make in STRATEGIES.values():
        assert actions(make(), [100.0] * 200) == []


def test_an_entry_carries_a_stop_against_it_and_a_target_with_it() -> None:
    for made in islice(decisions(list(STRATEGIES), list(MARKETS)), 2000):
        decision = made.decision
        assert 0.5 <= decision.confidence <= 1
        if decision.action.startswith("exit") or decision.stop_loss is None:
            continue
        assert decision.take_profit is not None
        up = decision.action == "enter_long"
        assert (decision.take_profit > decision.price) is up
        assert (decision.stop_loss < decision.price) is up


def test_every_signal_is_valid_and_no_two_share_a_natural_key_although_the_clock_stands() -> None:
    now = datetime(2026, 1, 5, tzinfo=UTC)
    ids = {trader: UUID(int=number) for number, trader in enumerate(STRATEGIES, start=1)}
    maker = SignalMaker(ids, lambda: now)
    made = islice(decisions(list(STRATEGIES), list(MARKETS)), 3000)
    signals = [maker.signal(decided) for decided in made]
    for signal in signals:
        signal.validate()
    account = UUID(int=7)
    assert len({signal.signal_id(account) for signal in signals}) == len(signals) == 3000
