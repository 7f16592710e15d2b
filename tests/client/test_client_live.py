"""One client for one account: its traders, its allowances, and what it makes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from signal_persistence import (
    ApiError,
    AsyncSignalQuery,
    ConfigurationError,
    Outcome,
    PasswordCredentials,
    Signal,
    SignalChange,
    SignalClient,
)
from tests.plugins.stack import Account, MakeAccount, RunningStack


def client_of(stack: RunningStack, account: Account) -> SignalClient:
    credentials = PasswordCredentials(
        stack.api_url, stack.publishable_key, account.email, account.password
    )
    return SignalClient(stack.api_url, stack.publishable_key, credentials)


@pytest.fixture
def client(stack: RunningStack, account: Account) -> Iterator[SignalClient]:
    with client_of(stack, account) as made:
        yield made


def signal(trader_id: UUID, number: int = 0) -> Signal:
    return Signal(
        trader_id=trader_id,
        symbol="BTC-USD",
        timeframe="15m",
        generated_at=datetime.now(UTC) - timedelta(minutes=30 - number),
        action="enter_long" if number % 2 else "exit_short",
        confidence=number / 10,
        price=43_548.77 + number,
        metadata={"number": number},
    )


def test_traders_are_created_once_listed_renamed_and_archived(client: SignalClient) -> None:
    trend = client.create_trader("trend")
    assert client.create_trader("trend") == trend
    own = client.create_trader("fast", own_channel=True)
    assert own.own_channel
    assert {trader.name for trader in client.list_traders()} == {"trend", "fast"}
    assert client.rename_trader(trend.trader_id, "slow").name == "slow"
    assert client.archive_trader(trend.trader_id).archived_at is not None
    assert [trader.name for trader in client.list_traders()] == ["fast"]
    assert len(client.list_traders(include_archived=True)) == 2


def test_a_query_and_a_subscriber_tell_what_became_of_a_signal(client: SignalClient) -> None:
    new = signal(client.create_trader("trend").trader_id)
    with client.subscriber() as live, client.producer(linger_ms=0) as producer:
        producer.publish(new).result(10)
        just_stored = next(live)
    assert (just_stored.status, just_stored.outcome) == ("generated", None)
    client.advance(
        [
            SignalChange.of(new, "executed", entry_price=100.0, reason="filled"),
            SignalChange.of(
                new, "closed", exit_price=110.0, close_reason="take_profit", return_=0.1, fees=0.0
            ),
        ]
    )
    with client.query() as query, client.subscriber(after_seq=0) as from_the_start:
        for read in (*query.signals(), next(from_the_start)):
            assert read.status == "closed"
            assert read.outcome == Outcome(
                entry_price=100.0,
                exit_price=110.0,
                close_reason="take_profit",
                return_=0.1,
                fees=0.0,
            )


def test_a_trader_that_does_not_exist_is_named_by_its_code(client: SignalClient) -> None:
    with pytest.raises(ApiError) as caught:
        client.rename_trader(uuid4(), "nobody")
    assert caught.value.code == "not_found"
    assert caught.value.status == 404


def test_the_account_tells_its_tier_and_what_is_left(
    client: SignalClient, account: Account
) -> None:
    trader_id = client.create_trader("trend").trader_id
    with client.producer(linger_ms=0) as producer:
        producer.publish(signal(trader_id)).result(10)
    known = client.account()
    assert known.account_id == account.account_id
    assert known.tier == "free"
    assert known.last_seq == known.day.used == 1
    assert known.day.limit == 100
    assert known.minute.limit is None


@pytest.mark.parametrize("transport", ["edge", "rpc"])
async def test_what_was_published_is_read_back_whole_whatever_the_pages(
    stack: RunningStack, make_account: MakeAccount, transport: str
) -> None:
    with client_of(stack, make_account()) as client:
        trader_id = client.create_trader("trend").trader_id
        published = [signal(trader_id, number) for number in range(10)]
        with client.producer(transport=transport) as producer:
            for one in published:
                producer.publish(one)
        with client.query(transport="edge" if transport == "edge" else "rpc") as query:
            newest = list(query.signals(page_size=3))
            by_seq = list(query.signals(sort="seq", page_size=4))
            some = list(query.signals(actions=["enter_long"], min_confidence=0.5))
        assert [stored.generated_at for stored in by_seq] == [s.generated_at for s in published]
        assert [stored.seq for stored in by_seq] == list(range(1, 11))
        assert newest == by_seq[::-1]
        assert [stored.confidence for stored in some] == [0.9, 0.7, 0.5]
        first = by_seq[0]
        for name in ("trader_id", "symbol", "timeframe", "action", "confidence", "price"):
            assert getattr(first, name) == getattr(published[0], name)
        assert first.metadata == {"number": 0}
        async with client.async_query() as asynchronous:
            assert isinstance(asynchronous, AsyncSignalQuery)
            answer = asynchronous.signals(
                sort="seq", from_=published[2].generated_at, to=published[5].generated_at
            )
            inside = [stored async for stored in answer]
        assert inside == by_seq[2:5]


def test_a_subscriber_of_the_client_follows_its_producer(client: SignalClient) -> None:
    trader_id = client.create_trader("trend").trader_id
    with client.subscriber() as subscriber, client.producer(linger_ms=0) as producer:
        delivery = producer.publish(signal(trader_id))
        followed = subscriber.get(10)
        assert followed is not None
        assert followed.seq == delivery.result(10).seq


def test_the_environment_makes_a_client(stack: RunningStack, account: Account) -> None:
    project = {"SUPABASE_URL": stack.api_url, "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key}
    signed_in = {"SIGNALS_EMAIL": account.email, "SIGNALS_PASSWORD": account.password}
    for identity in (signed_in, {"SIGNALS_ACCESS_TOKEN": account.access_token}):
        with SignalClient.from_env(project | identity) as client:
            assert client.account().account_id == account.account_id


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("SUPABASE_URL", "SUPABASE_URL is not set"),
        ("SUPABASE_ANON_KEY", "SUPABASE_PUBLISHABLE_KEY or SUPABASE_ANON_KEY is not set"),
        ("SIGNALS_PASSWORD", "SIGNALS_ACCESS_TOKEN, or SIGNALS_EMAIL with SIGNALS_PASSWORD"),
    ],
)
def test_what_the_environment_lacks_is_named(missing: str, named: str) -> None:
    environment = {
        "SUPABASE_URL": "http://project.test",
        "SUPABASE_ANON_KEY": "key",
        "SIGNALS_EMAIL": "a@example.com",
        "SIGNALS_PASSWORD": "secret",
    }
    del environment[missing]
    with pytest.raises(ConfigurationError, match=named):
        SignalClient.from_env(environment)
