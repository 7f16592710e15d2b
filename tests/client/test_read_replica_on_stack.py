"""Queries through a real hot standby: as fresh as was asked for, whatever it lacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signal_persistence import (
    AccessToken,
    AsyncSignalQuery,
    InvalidQueryError,
    Signal,
    SignalClient,
)
from tests.client.hot_standby import HotStandby
from tests.plugins.stack import MakeAccount, RunningStack


@pytest.fixture
async def replica(stack: RunningStack, tmp_path: Path) -> AsyncIterator[HotStandby]:
    async with HotStandby(stack.settings, tmp_path) as standby:
        yield standby


class Writer:
    """Publishes signals and tells the seq of the last."""

    def __init__(self, client: SignalClient) -> None:
        self._client = client
        self._trader_id = client.create_trader("replica").trader_id
        self._count = 0

    def publish(self, count: int) -> int:
        with self._client.producer(spool_dir=None, linger_ms=0) as producer:
            for _ in range(count):
                self._count += 1
                delivery = producer.publish(
                    Signal(
                        trader_id=self._trader_id,
                        symbol="ES",
                        timeframe="1m",
                        generated_at=datetime.now(UTC) - timedelta(seconds=self._count),
                        action="enter_long",
                        confidence=0.5,
                        price=1.0,
                        metadata={"tags": ['a "b", {c}\\']},
                    )
                )
            seq = delivery.result(30).seq
            assert seq is not None
            return seq


@pytest.mark.timeout(180)
async def test_reads_go_to_the_replica_unless_it_lacks_what_was_written(
    stack: RunningStack, make_account: MakeAccount, replica: HotStandby
) -> None:
    account = make_account("elite")
    credentials = AccessToken(account.access_token)
    with SignalClient(stack.api_url, stack.publishable_key, credentials) as client:
        writer = Writer(client)
        writer.publish(5)
        await replica.catch_up()
        await replica.hold_back()
        seq = writer.publish(2)
    project = stack.api_url, stack.publishable_key, credentials
    async with AsyncSignalQuery(*project, read_url=replica.url) as query:
        tags = ['a "b", {c}\\']
        stale = await query.page(tags=tags, symbols=["ES"], from_=datetime(2026, 1, 1, tzinfo=UTC))
        assert (stale.last_seq, len(stale.signals)) == (5, 5)
        assert len([s async for s in query.signals(page_size=2, sort="oldest")]) == 5
        fresh = await query.page(tags=tags, at_least_seq=seq)
        assert (fresh.last_seq, len(fresh.signals)) == (7, 7)
        assert (await query.count(exact=True)).count == 5
        prices = [row async for row in query.rows(["price"], page_size=2, at_least_seq=seq)]
        assert len(prices) == 7
        pages = [page async for page in query.pages(page_size=2, at_least_seq=6)]
        assert [len(page.signals) for page in pages] == [2, 2, 2, 1]
        with pytest.raises(InvalidQueryError, match="only come to 7"):
            await query.page(at_least_seq=8)
        await replica.catch_up()
        assert (await query.page()).last_seq == 7
