"""Frame sequence numbers as ranges, so that the numbers of a batch stay short on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Ranges = tuple[tuple[int, int], ...]
"""Ascending ranges with both ends included: 1, 2, 3, 7 are ((1, 3), (7, 7))."""


def compact(numbers: Iterable[int]) -> Ranges:
    """Return ascending numbers as ranges."""
    ranges: list[tuple[int, int]] = []
    first = last = -1
    for number in numbers:
        if number != last + 1 or first < 0:
            if first >= 0:
                ranges.append((first, last))
            first = number
        last = number
    if first >= 0:
        ranges.append((first, last))
    return tuple(ranges)


def expand(ranges: Ranges) -> Iterator[int]:
    """Iterate over the numbers that the ranges stand for."""
    for first, last in ranges:
        yield from range(first, last + 1)
