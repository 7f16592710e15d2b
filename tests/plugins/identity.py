"""Checks in every test that the counts of every producer add up, whenever they change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from signal_persistence.engine import Engine
from signal_persistence.ledger import ProducerStats


def adds_up(stats: ProducerStats) -> bool:
    """Tell whether accepted = delivered + dead-lettered + pending, and their parts too."""
    return (
        stats.accepted == stats.delivered + stats.dead_lettered + stats.pending
        and stats.dead_lettered == stats.rejected + stats.failed
        and stats.duplicates <= stats.delivered
        and stats.recovered <= stats.accepted
        and min(stats.pending, stats.pending_bytes, stats.on_disk) >= 0
    )


@pytest.fixture(autouse=True)
def every_snapshot_adds_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look at each producer of this process after every batch that is settled, and at its end."""
    wrong: list[ProducerStats] = []

    def looking_after(name: str) -> None:
        original = getattr(Engine, name)

        def method(self: Engine, *arguments: Any, **options: Any) -> Any:
            stats = self.stats()
            if not adds_up(stats):
                wrong.append(stats)
            return original(self, *arguments, **options)

        monkeypatch.setattr(Engine, name, method)

    for name in ("flush", "settle", "close"):
        looking_after(name)
    yield
    assert not wrong
