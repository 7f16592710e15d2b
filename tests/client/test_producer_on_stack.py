"""The producer against the real stack: stored exactly once, in order, whatever the network does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import psycopg2
import pytest

from signal_persistence import (
    AccessToken,
    AsyncProducer,
    AuthenticationError,
    DeliveryReport,
    PasswordCredentials,
    Producer,
    RejectedError,
    Signal,
)
from tests.client.tcp_proxy import TcpProxy
from tests.plugins.stack import Account, MakeAccount, RunningStack


class Trading:
    """An account with a trader, seen through the public API."""

    def __init__(self, stack: RunningStack, account: Account) -> None:
        self.account = account
        self.credentials = AccessToken(account.access_token)
        self.start = datetime.now(UTC) - timedelta(hours=2)
        self._database_url = stack.database_url
        self._client = httpx.Client(
            base_url=stack.api_url,
            timeout=30,
            headers={
                "apikey": stack.publishable_key,
                "authorization": f"Bearer {account.access_token}",
            },
        )
        created = self._client.post("/rest/v1/rpc/create_trader", json={"name": "prober"})
        self.trader_id = UUID(created.json()["trader_id"])

    def signal(self, number: int, **changes: Any) -> Signal:
        fields: dict[str, Any] = {
            "trader_id": self.trader_id,
            "symbol": "ES=F",
            "timeframe": "1m",
            "generated_at": self.start + timedelta(seconds=number),
            "action": "enter_long",
            "confidence": 0.75,
            "price": 5000.25 + number,
            "metadata": {"number": number},
        }
        return Signal(**fields | changes)

    def stored_over_http(self) -> list[dict[str, Any]]:
        """All signals by seq, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"sort": "seq", "after_seq": len(found), "page_size": 1000}
            page = self._client.post("/rest/v1/rpc/query_signals", json=query).json()
            found += page["signals"]
            if not page["signals"]:
                return found

    def stored_in_database(self) -> list[tuple[int, UUID]]:
        with psycopg2.connect(self._database_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select seq, signal_id::text from public.signals where account_id = %s"
                " order by seq",
                (str(self.account.account_id),),
            )
            rows = [(seq, UUID(signal_id)) for seq, signal_id in cursor.fetchall()]
        connection.close()
        return rows

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def trading(stack: RunningStack, make_account: MakeAccount) -> Iterator[Trading]:
    trading = Trading(stack, make_account("elite"))
    yield trading
    trading.close()


@pytest.mark.parametrize("transport", ["edge", "rpc"])
def test_two_thousand_signals_are_stored_exactly_once_in_order(
    stack: RunningStack, trading: Trading, transport: Any
) -> None:
    reports: list[DeliveryReport] = []
    signals = [trading.signal(number) for number in range(2000)]
    with Producer(
        stack.api_url,
        stack.publishable_key,
        trading.credentials,
        transport=transport,
        on_delivery=reports.append,
    ) as producer:
        for signal in signals:
            producer.publish(signal)
        assert producer.flush(60) == 0
        stats = producer.stats()
    assert (stats.accepted, stats.delivered, stats.pending) == (2000, 2000, 0)
    assert [report.signal for report in reports] == signals
    assert [report.seq for report in reports] == list(range(1, 2001))
    account_id = trading.account.account_id
    expected = [(seq, s.signal_id(account_id)) for seq, s in enumerate(signals, start=1)]
    assert trading.stored_in_database() == expected
    over_http = trading.stored_over_http()
    assert [(row["seq"], UUID(row["signal_id"])) for row in over_http] == expected
    assert [row["metadata"] for row in over_http] == [s.metadata for s in signals]
    assert [row["price"] for row in over_http] == [s.price for s in signals]


@pytest.mark.parametrize("transport", ["edge", "rpc"])
def test_a_batch_whose_answer_was_lost_is_sent_again_and_stored_once(
    stack: RunningStack, trading: Trading, transport: Any
) -> None:
    with (
        TcpProxy(stack.settings.api_port) as proxy,
        Producer(
            proxy.url,
            stack.publishable_key,
            trading.credentials,
            transport=transport,
            batch_max_messages=20,
            retry_backoff_ms=1,
        ) as producer,
    ):
        proxy.cuts = 3
        deliveries = [producer.publish(trading.signal(number)) for number in range(100)]
        assert producer.flush(30) == 0
        stats = producer.stats()
        assert proxy.cut == 3
    reports = [delivery.result(0) for delivery in deliveries]
    assert [report.status for report in reports] == ["accepted"] * 100
    assert [report.seq for report in reports] == list(range(1, 101))
    assert reports[0].attempts == 4
    assert (stats.retries, stats.delivered, stats.duplicates) == (3, 100, 0)
    assert [seq for seq, _ in trading.stored_in_database()] == list(range(1, 101))


def test_publishing_again_is_a_duplicate_and_a_bad_signal_is_rejected_by_name(
    stack: RunningStack, trading: Trading
) -> None:
    unknown = UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2")
    with Producer(stack.api_url, stack.publishable_key, trading.credentials) as producer:
        first = producer.publish(trading.signal(0))
        again = producer.publish(trading.signal(0, price=1.0))
        foreign = producer.publish(trading.signal(1, trader_id=unknown))
        old = producer.publish(trading.signal(-8 * 24 * 3600))
        last = producer.publish(trading.signal(2))
        assert producer.flush(30) == 0
    assert first.result(0).seq == 1
    assert again.result(0).status == "duplicate"
    assert last.result(0).seq == 2
    for delivery, code in ((foreign, "unknown_trader"), (old, "stale")):
        with pytest.raises(RejectedError) as caught:
            delivery.result(0)
        assert caught.value.code == code


def test_a_free_account_is_stopped_at_its_quota_with_the_right_code(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    trading = Trading(stack, make_account("free"))
    with Producer(stack.api_url, stack.publishable_key, trading.credentials) as producer:
        deliveries = [producer.publish(trading.signal(number)) for number in range(130)]
        assert producer.flush(30) == 0
    codes = [delivery.report.code if delivery.report else "?" for delivery in deliveries]
    assert codes == [None] * 100 + ["quota_exceeded"] * 30
    trading.close()


async def test_several_accounts_share_a_producer_and_nothing_leaks(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    tradings = [Trading(stack, make_account("pro")) for _ in range(3)]
    async with AsyncProducer(
        stack.api_url,
        stack.publishable_key,
        {trading.account.account_id: trading.credentials for trading in tradings},
        batch_max_messages=50,
    ) as producer:
        for number in range(200):
            for trading in tradings:
                account_id = trading.account.account_id
                await producer.publish(trading.signal(number), account_id=account_id)
        assert await producer.flush(60) == 0
    for trading in tradings:
        stored = trading.stored_over_http()
        assert [row["seq"] for row in stored] == list(range(1, 201))
        assert {row["trader_id"] for row in stored} == {str(trading.trader_id)}
        trading.close()


async def test_password_credentials_sign_in_and_renew(
    stack: RunningStack, trading: Trading
) -> None:
    account = trading.account
    credentials = PasswordCredentials(
        stack.api_url, stack.publishable_key, account.email, account.password
    )
    first = await credentials.access_token()
    second = await credentials.access_token(refresh=True)
    assert first != second
    async with AsyncProducer(stack.api_url, stack.publishable_key, credentials) as producer:
        delivery = await producer.publish(trading.signal(0))
        assert (await delivery).seq == 1
    wrong = PasswordCredentials(stack.api_url, stack.publishable_key, account.email, "wrong one")
    with pytest.raises(AuthenticationError):
        await wrong.access_token()


def test_a_refused_token_keeps_the_signals_until_the_credentials_are_repaired(
    stack: RunningStack, trading: Trading
) -> None:
    token = "not.a.token"
    with Producer(
        stack.api_url,
        stack.publishable_key,
        {trading.account.account_id: AccessToken(lambda: token)},
        linger_ms=0,
        retry_backoff_max_ms=50,
    ) as producer:
        delivery = producer.publish(trading.signal(0))
        assert producer.flush(0.5) == 1
        assert producer.stats().outage_started_at is not None
        token = trading.account.access_token
        assert delivery.result(30).seq == 1
