"""Publish numbered signals for one account, and know which of them are stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from signal_persistence import (
    AsyncProducer,
    AsyncSignalLifecycle,
    PasswordCredentials,
    Signal,
    SignalChange,
    SignalClient,
)
from tests.plugins.stack import Account, RunningStack

FLUSH_SECONDS = 20.0


class Publisher:
    """Publish numbered signals for one account and remember their ids, in order."""

    def __init__(self, stack: RunningStack, account: Account, *, own_channel: bool = False) -> None:
        self._url = stack.api_url
        self._key = stack.publishable_key
        self.account = account
        self.credentials = PasswordCredentials(
            stack.api_url, stack.publishable_key, account.email, account.password
        )
        with SignalClient(self._url, self._key, self.credentials) as client:
            trader = client.create_trader("tester", own_channel=own_channel)
        self.trader_id = trader.trader_id
        self._next_at = datetime.now(UTC) - timedelta(hours=1)
        self.ids: list[UUID] = []
        self._stored: list[Signal] = []

    def another_trader(self) -> UUID:
        """Return a trader of the same account, without a channel of its own."""
        with SignalClient(self._url, self._key, self.credentials) as client:
            return client.create_trader("another").trader_id

    async def publish(self, count: int, *, batch: int = 50, **changed: Any) -> list[UUID]:
        """Store `count` signals in batches of `batch`; return their ids."""
        ids = []
        async with AsyncProducer(
            self._url, self._key, self.credentials, linger_ms=0, batch_max_messages=batch
        ) as producer:
            for _ in range(count):
                signal = self._signal(**changed)
                ids.append(signal.signal_id(self.account.account_id))
                self._stored.append(signal)
                await producer.publish(signal)
            assert await producer.flush(FLUSH_SECONDS) == 0
            stats = producer.stats()
        assert stats.delivered == count
        self.ids += ids
        return ids

    async def advance(self, count: int, *, batch: int = 50) -> None:
        """Report that the last `count` signals were analyzed, in requests of `batch`."""
        last = self._stored[len(self._stored) - count :]
        changes = [SignalChange.of(signal, "analyzed") for signal in last]
        async with AsyncSignalLifecycle(self._url, self._key, self.credentials) as lifecycle:
            for first in range(0, count, batch):
                verdict = await lifecycle.advance(changes[first : first + batch])
                assert verdict.accepted == len(changes[first : first + batch]), verdict

    def _signal(self, **changed: Any) -> Signal:
        self._next_at += timedelta(milliseconds=1)
        fields: dict[str, Any] = {
            "trader_id": self.trader_id,
            "symbol": "ES",
            "timeframe": "1m",
            "generated_at": self._next_at,
            "action": "enter_long",
            "confidence": 0.5,
            "price": 1640.25,
        }
        return Signal(**(fields | changed))
