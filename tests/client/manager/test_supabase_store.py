"""What a manager reads of a project that has a read replica."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from signal_persistence import AccessToken, Producer, Signal, SignalClient
from signal_persistence.manager import SupabaseStore
from tests.client.loopback_service import LoopbackService
from tests.client.test_query_requests import SIGNAL, page

SOUGHT = Signal(
    trader_id=UUID(SIGNAL["trader_id"]),
    symbol="BTC-USD",
    timeframe="15m",
    generated_at=datetime(2026, 1, 5, 10, 15, 0, 123456, UTC),
    action="enter_long",
    confidence=1.0,
    price=1.0,
)


def test_a_manager_never_reads_a_replica_that_may_be_behind() -> None:
    with (
        LoopbackService(lambda request: page(SIGNAL)) as primary,
        LoopbackService(lambda request: page(last_seq=0)) as replica,
        SignalClient(primary.url, "key", AccessToken("t"), read_url=replica.url) as client,
        Producer(primary.url, "key", AccessToken("t"), spool_dir=None) as producer,
        SupabaseStore(client, producer) as store,
    ):
        found = store.find(SOUGHT)
        assert found is not None
        assert [signal.seq for signal in store.signals()] == [found.seq]
        assert not replica.received
