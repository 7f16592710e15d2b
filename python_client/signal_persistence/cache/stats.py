"""The counts of a cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from signal_persistence.cache.answer import Lack


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What a cache did since it was made, and what it holds, at one moment.

    Each read is one of `hits` or of `misses`, by their reason. `loads` counts queries of the
    database, of which reads that miss at the same time share one; `failed_loads` those that raised.
    `bytes` of memory are taken by the signals of `entries`. `evicted` entries had to make room, or
    nobody read them any more.
    `seq` is the last signal that was followed, None before the first. `age` is how many seconds ago
    the answers in memory were last known to be right, infinite when they never were.
    """

    hits: int
    misses: Mapping[Lack, int]
    loads: int
    failed_loads: int
    status_checks: int
    merged: int
    evicted: int
    entries: int
    bytes: int
    seq: int | None
    age: float

    @property
    def hit_ratio(self) -> float:
        """The share of reads that memory answered; 0 before the first read."""
        reads = self.hits + sum(self.misses.values())
        return self.hits / reads if reads else 0.0
