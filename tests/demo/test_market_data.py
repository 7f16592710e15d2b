"""The packaged prices are read whole, and bars are what a straightforward grouping gives."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, islice, pairwise

import pytest

from demo.market_data import BITCOIN, E_MINI, EURO, MARKETS, SECONDS, Bar, Market


def grouped(prices: list[Bar], seconds: int) -> list[Bar]:
    """What a bar is, written down directly; the last one is never known to be complete."""
    bars = []
    for start, group in groupby(prices, key=lambda price: price.at - price.at % seconds):
        part = list(group)
        high, low = max(bar.high for bar in part), min(bar.low for bar in part)
        bars.append(Bar(start, part[0].open, high, low, part[-1].close))
    return bars


@pytest.mark.parametrize(
    ("market", "rows"), [(E_MINI, 500_000), (BITCOIN, 8_689), (EURO, 6_225)], ids=MARKETS
)
def test_a_market_is_read_whole_and_in_order_of_time(market: Market, rows: int) -> None:
    times = [bar.at for bar in market.bars()]
    assert len(times) == rows
    assert all(before <= after for before, after in pairwise(times))


@pytest.mark.parametrize("market", MARKETS.values(), ids=MARKETS)
def test_bars_are_the_prices_grouped_by_time(market: Market) -> None:
    prices = list(islice(market.bars(), 60_000))
    part = replace(market, read=lambda _: iter(prices))
    built: dict[str, list[Bar]] = {timeframe: [] for timeframe in market.timeframes}
    for timeframe, bar in part.completed_bars():
        built[timeframe].append(bar)
    for timeframe, bars in built.items():
        expected = grouped(prices, SECONDS[timeframe])
        assert bars == expected[: len(bars)]
        assert len(expected) - len(bars) <= 2, timeframe


def test_prices_that_are_not_installed_are_named() -> None:
    missing = Market("X", "no_such_package", "prices.csv", BITCOIN.read, ("15m",))
    with pytest.raises(FileNotFoundError, match=r"no_such_package/prices\.csv is not installed"):
        missing.bars()
