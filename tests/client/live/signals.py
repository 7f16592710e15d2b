"""Signals and events with a given seq, for tests of what needs nothing else of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import UUID

from signal_persistence import SignalEvent
from signal_persistence.signal import StoredSignal

START = datetime(2026, 1, 5, tzinfo=UTC)


@cache
def signal(seq: int) -> StoredSignal:
    return StoredSignal(
        signal_id=UUID(int=seq),
        seq=seq,
        trader_id=UUID(int=7),
        symbol="ES" if seq % 3 else "BTC-USD",
        timeframe="1m",
        generated_at=START + timedelta(seconds=seq),
        action="enter_long",
        confidence=0.5,
        price=1640.25,
        status="generated",
    )


def event(seq: int, of: int | list[int]) -> SignalEvent:
    """The event `seq` of one signal, or of the first to the last that expired together."""
    runs = None if isinstance(of, int) else ((of[0], of[1]),)
    return SignalEvent(
        seq=seq,
        status="expired" if runs else "analyzed",
        signal_seq=of if isinstance(of, int) else of[0],
        occurred_at=START,
        received_at=START,
        expired_seqs=runs,
    )
