"""Indicators that take one value at a time, in constant time (or amortised constant)."""

from __future__ import annotations

from collections import deque
from math import sqrt


class SimpleAverage:
    """The mean of the last `length` values; None before there are that many."""

    def __init__(self, length: int) -> None:
        self._window: deque[float] = deque(maxlen=length)
        self._length = length
        self._sum = 0.0

    def add(self, value: float) -> float | None:
        if len(self._window) == self._length:
            self._sum -= self._window[0]
        self._window.append(value)
        self._sum += value
        return self._sum / self._length if len(self._window) == self._length else None


class ExponentialAverage:
    """The average with weight 2 / (length + 1) on the newest value, begun at the first."""

    def __init__(self, length: int) -> None:
        self._weight = 2 / (length + 1)
        self._value: float | None = None

    def add(self, value: float) -> float:
        previous = value if self._value is None else self._value
        self._value = previous + self._weight * (value - previous)
        return self._value


class WilderAverage:
    """Wilder's smoothing: the mean of the first `length` values, then 1 / length of each more."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._count = 0
        self._sum = 0.0
        self._value = 0.0

    def add(self, value: float) -> float | None:
        if self._count < self._length:
            self._count += 1
            self._sum += value
            self._value = self._sum / self._length
            return self._value if self._count == self._length else None
        self._value += (value - self._value) / self._length
        return self._value


class RelativeStrength:
    """Wilder's RSI of `length` changes, from 0 to 100; None before there are that many."""

    def __init__(self, length: int) -> None:
        self._gain = WilderAverage(length)
        self._loss = WilderAverage(length)
        self._last: float | None = None

    def add(self, close: float) -> float | None:
        if self._last is None:
            self._last = close
            return None
        change = close - self._last
        self._last = close
        gain = self._gain.add(max(change, 0.0))
        loss = self._loss.add(max(-change, 0.0))
        if gain is None or loss is None:
            return None
        return 50.0 if gain == loss else 100 * gain / (gain + loss)


class TrueRange:
    """Wilder's average true range of `length` bars."""

    def __init__(self, length: int) -> None:
        self._average = WilderAverage(length)
        self._last: float | None = None

    def add(self, high: float, low: float, close: float) -> float | None:
        last = close if self._last is None else self._last
        self._last = close
        return self._average.add(max(high, last) - min(low, last))


class Deviation:
    """Mean and population standard deviation of the last `length` values."""

    def __init__(self, length: int) -> None:
        self._window: deque[float] = deque(maxlen=length)
        self._length = length
        self._origin: float | None = None
        self._sum = 0.0
        self._squares = 0.0

    def add(self, value: float) -> tuple[float, float] | None:
        if self._origin is None:
            # Distances from the first value keep the squares small, and so the rounding.
            self._origin = value
        distance = value - self._origin
        if len(self._window) == self._length:
            oldest = self._window[0]
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._window.append(distance)
        self._sum += distance
        self._squares += distance * distance
        if len(self._window) < self._length:
            return None
        mean = self._sum / self._length
        variance = self._squares / self._length - mean * mean
        return self._origin + mean, sqrt(max(variance, 0.0))


class Highest:
    """The greatest of the last `length` values; None before there are that many."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._count = 0
        self._falling: deque[tuple[int, float]] = deque()

    def add(self, value: float) -> float | None:
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((self._count, value))
        self._count += 1
        if self._falling[0][0] <= self._count - 1 - self._length:
            self._falling.popleft()
        return self._falling[0][1] if self._count >= self._length else None


class Lowest:
    """The least of the last `length` values; None before there are that many."""

    def __init__(self, length: int) -> None:
        self._highest = Highest(length)

    def add(self, value: float) -> float | None:
        greatest = self._highest.add(-value)
        return None if greatest is None else -greatest
