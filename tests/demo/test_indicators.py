"""Each incremental indicator equals its definition, computed anew for every value."""

from __future__ import annotations

from itertools import islice
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.indicators import (
    Deviation,
    ExponentialAverage,
    Highest,
    Lowest,
    RelativeStrength,
    SimpleAverage,
    TrueRange,
    WilderAverage,
)
from demo.market_data import BITCOIN

values = st.lists(
    st.floats(min_value=0.5, max_value=100_000, allow_nan=False, width=32), max_size=60
)
lengths = st.integers(1, 12)


def near(expected: float) -> object:
    return pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(values=values, length=lengths)
def test_simple_average_is_the_mean_of_the_window(values: list[float], length: int) -> None:
    average = SimpleAverage(length)
    for count, value in enumerate(values, start=1):
        window = values[max(0, count - length) : count]
        expected = near(fmean(window)) if count >= length else None
        assert average.add(value) == expected


@given(values=values, length=lengths)
def test_highest_and_lowest_are_those_of_the_window(values: list[float], length: int) -> None:
    highest, lowest = Highest(length), Lowest(length)
    for count, value in enumerate(values, start=1):
        window = values[max(0, count - length) : count]
        full = count >= length
        assert highest.add(value) == (max(window) if full else None)
        assert lowest.add(value) == (min(window) if full else None)


@given(
    values=st.lists(st.integers(1, 400_000).map(lambda cents: cents / 4), max_size=60),
    length=st.integers(2, 12),
)
def test_deviation_is_the_mean_and_population_deviation_of_the_window(
    values: list[float], length: int
) -> None:
    deviation = Deviation(length)
    for count, value in enumerate(values, start=1):
        window = values[max(0, count - length) : count]
        known = deviation.add(value)
        if count < length:
            assert known is None
        else:
            assert known is not None
            assert known[0] == near(fmean(window))
            assert known[1] == pytest.approx(pstdev(window), rel=1e-6, abs=1e-3)


@given(values=values, length=lengths)
def test_exponential_average_weighs_each_value_by_its_age(values: list[float], length: int) -> None:
    average = ExponentialAverage(length)
    weight = 2 / (length + 1)
    for count, value in enumerate(values, start=1):
        expected = values[0] * (1 - weight) ** (count - 1) + sum(
            weight * (1 - weight) ** (count - 1 - index) * values[index]
            for index in range(1, count)
        )
        assert average.add(value) == near(expected)


@given(values=values, length=lengths)
def test_wilder_average_begins_with_a_mean_and_then_smooths(
    values: list[float], length: int
) -> None:
    average = WilderAverage(length)
    for count, value in enumerate(values, start=1):
        answer = average.add(value)
        if count < length:
            assert answer is None
            continue
        expected = fmean(values[:length])
        for later in values[length:count]:
            expected = (expected * (length - 1) + later) / length
        assert answer == near(expected)


def test_relative_strength_and_true_range_equal_wilders_formulas_on_real_prices() -> None:
    bars = list(islice(BITCOIN.bars(), 400))
    rsi, true_range = RelativeStrength(14), TrueRange(14)
    changes: list[float] = []
    ranges: list[float] = []
    for index, bar in enumerate(bars):
        if index:
            changes.append(bar.close - bars[index - 1].close)
        last = bars[max(index - 1, 0)].close if index else bar.close
        ranges.append(max(bar.high - bar.low, abs(bar.high - last), abs(bar.low - last)))
        strength, width = rsi.add(bar.close), true_range.add(bar.high, bar.low, bar.close)
        assert width == (near(smoothed(ranges)) if len(ranges) >= 14 else None)
        if len(changes) < 14:
            assert strength is None
            continue
        gain = smoothed([max(change, 0.0) for change in changes])
        loss = smoothed([max(-change, 0.0) for change in changes])
        assert strength == near(100 - 100 / (1 + gain / loss))


def smoothed(values: list[float], length: int = 14) -> float:
    answer = fmean(values[:length])
    for value in values[length:]:
        answer = (answer * (length - 1) + value) / length
    return answer


def test_relative_strength_without_any_movement_is_in_the_middle() -> None:
    rsi = RelativeStrength(3)
    assert [rsi.add(10.0) for _ in range(5)] == [None, None, None, 50.0, 50.0]
