"""A process without a person: it signs in with an API key, on the real stack."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg2
import pytest

from signal_persistence import (
    ApiKeyCredentials,
    AuthenticationError,
    ConfigurationError,
    NewApiKey,
    PasswordCredentials,
    PermissionDeniedError,
    Producer,
    Signal,
    SignalClient,
)
from tests.client.waiting import wait_until
from tests.plugins.stack import Account, RunningStack

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNAL_SPOOL_DIR", str(tmp_path))


@pytest.fixture
def owner(stack: RunningStack, account: Account) -> Iterator[SignalClient]:
    """The client of the person whose account it is."""
    credentials = PasswordCredentials(
        stack.api_url, stack.publishable_key, account.email, account.password
    )
    with SignalClient(stack.api_url, stack.publishable_key, credentials) as client:
        yield client


def machine_client(stack: RunningStack, key: NewApiKey) -> SignalClient:
    return SignalClient.from_env(
        {
            "SUPABASE_URL": stack.api_url,
            "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
            "SIGNAL_API_KEY": key.api_key,
        }
    )


def signal(trader_id: UUID, number: int = 0) -> Signal:
    return Signal(
        trader_id=trader_id,
        symbol="BTC-USD",
        timeframe="15m",
        generated_at=datetime.now(UTC) - timedelta(minutes=30 - number),
        action="enter_long",
        confidence=0.5,
        price=43_548.77,
    )


class Watched:
    """Credentials that count how often they were refused."""

    def __init__(self, credentials: ApiKeyCredentials) -> None:
        self._credentials = credentials
        self.identity = credentials.identity
        self.refusals = 0

    async def access_token(self, *, refresh: bool = False) -> str:
        try:
            return await self._credentials.access_token(refresh=refresh)
        except AuthenticationError:
            self.refusals += 1
            raise


def execute(stack: RunningStack, statement: str, *values: object) -> None:
    connection = psycopg2.connect(stack.database_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
    finally:
        connection.close()


def test_keys_are_made_listed_and_revoked(owner: SignalClient) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    made = owner.create_api_key("worker", ["signals:write"], expires_at=expires_at)
    assert made.api_key.endswith(made.hint)
    assert (made.name, made.scopes, made.expires_at) == ("worker", ("signals:write",), expires_at)
    [listed] = owner.list_api_keys()
    assert listed.key_id == made.key_id
    assert listed.last_used_at is listed.revoked_at is None

    assert owner.revoke_api_key(made.key_id).revoked_at is not None
    assert owner.list_api_keys() == []
    assert [key.key_id for key in owner.list_api_keys(include_dead=True)] == [made.key_id]
    with pytest.raises(ConfigurationError, match="time zone"):
        owner.create_api_key("worker", ["signals:write"], expires_at=datetime(2030, 1, 1))


def test_a_process_publishes_and_reads_with_a_key(
    stack: RunningStack, account: Account, owner: SignalClient
) -> None:
    key = owner.create_api_key("worker", ["signals:read", "signals:write"])
    with machine_client(stack, key) as client:
        trader_id = client.create_trader("trend").trader_id
        with client.subscriber() as subscriber, client.producer(linger_ms=0) as producer:
            delivery = producer.publish(signal(trader_id))
            followed = subscriber.get(PATIENCE)
            assert followed is not None
            assert followed.seq == delivery.result(PATIENCE).seq
        assert client.account().account_id == account.account_id
        with pytest.raises(PermissionDeniedError, match="keys:manage"):
            client.create_api_key("more", ["signals:read"])
    assert owner.list_api_keys()[0].last_used_at is not None


def test_a_key_that_may_only_write_publishes_and_reads_nothing(
    stack: RunningStack, owner: SignalClient
) -> None:
    key = owner.create_api_key("worker", ["signals:write"])
    with machine_client(stack, key) as client:
        trader_id = client.create_trader("trend").trader_id
        with client.producer(linger_ms=0) as producer:
            assert producer.publish(signal(trader_id)).result(PATIENCE).seq == 1
        with pytest.raises(PermissionDeniedError, match="signals:read"):
            client.list_traders()


def test_signals_wait_while_the_key_is_revoked(stack: RunningStack, owner: SignalClient) -> None:
    key = owner.create_api_key("worker", ["signals:write"])
    trader_id = owner.create_trader("trend").trader_id
    machine = Watched(ApiKeyCredentials(stack.api_url, stack.publishable_key, key.api_key))
    with Producer(stack.api_url, stack.publishable_key, machine, linger_ms=0) as producer:
        producer.publish(signal(trader_id, 1)).result(PATIENCE)
        owner.revoke_api_key(key.key_id)
        delivery = producer.publish(signal(trader_id, 2))
        wait_until(lambda: machine.refusals > 0)
        stats = producer.stats()
        assert (stats.accepted, stats.delivered, stats.pending) == (2, 1, 1)
        assert not delivery.done()
        execute(
            stack,
            "update private.api_keys set revoked_at = null where key_id = %s",
            str(key.key_id),
        )
        assert delivery.result(PATIENCE).seq == 2


async def test_a_revoked_key_is_an_authentication_error(
    stack: RunningStack, account: Account, owner: SignalClient
) -> None:
    key = owner.create_api_key("worker", ["signals:read"])
    credentials = ApiKeyCredentials(stack.api_url, stack.publishable_key, key.api_key)
    assert credentials.account_id == account.account_id
    token = await credentials.access_token()
    assert await credentials.access_token() == token
    owner.revoke_api_key(key.key_id)
    with pytest.raises(AuthenticationError) as caught:
        await credentials.access_token(refresh=True)
    assert caught.value.code == "invalid_api_key"


async def test_a_key_that_nobody_made_is_an_authentication_error(stack: RunningStack) -> None:
    unknown = f"sgk_{uuid4().hex}_{uuid4().hex}{uuid4().hex}"
    credentials = ApiKeyCredentials(stack.api_url, stack.publishable_key, unknown)
    with pytest.raises(AuthenticationError):
        await credentials.access_token()
