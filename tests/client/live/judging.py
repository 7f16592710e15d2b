"""Judge what subscribers saw by what is stored."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from signal_persistence import AsyncSignalLifecycle, AsyncSignalQuery, SignalEvent
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


async def events_of(stack: RunningStack, publisher: Publisher) -> list[SignalEvent]:
    """Return every event that the publisher's account stores, by seq."""
    async with AsyncSignalLifecycle(
        stack.api_url, stack.publishable_key, publisher.credentials
    ) as lifecycle:
        return [event async for event in lifecycle.events()]


def as_stored(seq: int) -> Stored:
    """An event as the checkers see it: by its seq, which is all that names it."""
    return Stored(UUID(int=seq), seq)


def judge(told: Iterable[tuple[str, AccountHistory]]) -> None:
    """Fail with every anomaly of the reads."""
    found = anomalies(dict(told), READS)
    assert {name: list_ for name, list_ in found.items() if list_} == {}
