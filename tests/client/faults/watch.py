"""Look at a producer's counts all the time: none may ever contradict another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from signal_persistence import Producer, ProducerStats
from tests.client.faults.journal import Journal

PAUSE_SECONDS = 0.001


def contradiction(stats: ProducerStats, before: ProducerStats | None = None) -> str | None:
    """Say what is wrong with counts, given those of an earlier moment; None when nothing is."""
    finished = stats.delivered + stats.dead_lettered
    if stats.accepted != finished + stats.pending:
        return (
            f"accepted {stats.accepted} ≠ delivered {stats.delivered} "
            f"+ dead-lettered {stats.dead_lettered} + pending {stats.pending}"
        )
    if stats.pending < 0:
        return f"pending is {stats.pending}"
    if before is None:
        return None
    for name in ("accepted", "delivered", "dead_lettered"):
        earlier, now = getattr(before, name), getattr(stats, name)
        if now < earlier:
            return f"{name} went back from {earlier} to {now}"
    return None


@contextmanager
def watching(producer: Producer, journal: Journal | None = None) -> Iterator[list[str]]:
    """Look at the counts until the block ends; yields the list of contradictions found."""
    found: list[str] = []
    ended = threading.Event()

    def look() -> None:
        before = None
        while not ended.wait(PAUSE_SECONDS):
            stats = producer.stats()
            wrong = contradiction(stats, before)
            before = stats
            if wrong:
                found.append(wrong)
            if journal is not None:
                journal.looked(violated=wrong is not None)

    watcher = threading.Thread(target=look, name="watch", daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
    assert not found, found[:3]
