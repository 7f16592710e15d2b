"""Judge what subscribers saw by what is stored."""

from __future__ import annotations

from collections.abc import Iterable

from signal_persistence import AsyncSignalQuery
from tests.checkers.histories import (
    AccountHistory,
    Stored,
    anomalies,
    leaked,
    non_monotonic,
    skipped,
    unobserved,
)
from tests.client.publisher import Publisher
from tests.plugins.stack import RunningStack

READS = (unobserved, skipped, non_monotonic, leaked)


async def stored_of(stack: RunningStack, publisher: Publisher) -> list[Stored]:
    """Return everything that the publisher's account stores, by seq."""
    query = AsyncSignalQuery(stack.api_url, stack.publishable_key, publisher.credentials)
    async with query:
        return [
            Stored(signal.signal_id, signal.seq)
            async for signal in query.signals(after_seq=0, sort="seq")
        ]


def judge(told: Iterable[tuple[str, AccountHistory]]) -> None:
    """Fail with every anomaly of the reads."""
    found = anomalies(dict(told), READS)
    assert {name: list_ for name, list_ in found.items() if list_} == {}
