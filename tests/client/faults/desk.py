"""Where the processes under test publish to: a project, accounts of it, a spool, journals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from signal_persistence import AccessToken, AsyncProducer, Credentials, Delivery, Producer, Signal
from tests.client.faults.journal import Journal


@dataclass(frozen=True)
class Desk:
    """All that a process needs to publish; it travels between processes as JSON.

    A stream is the signals of one journal. Its name is their symbol and its numbers are the
    microseconds of their times, so what is stored can be led back to the journal.
    """

    url: str
    key: str
    tokens: dict[UUID, str]
    """By account id."""
    traders: dict[UUID, UUID]
    """By account id."""
    start: datetime
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    """Of every producer, beside those that a process asks for."""

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def journals(self) -> Path:
        return self.folder / "journals"

    @property
    def account_id(self) -> UUID:
        """The one account of most tests."""
        return next(iter(self.tokens))

    def producer(self, *accounts: UUID, **settings: Any) -> Producer:
        """Make a producer of these accounts (none: of all)."""
        return Producer(self.url, self.key, self._credentials(accounts), **self._all(settings))

    def async_producer(self, **settings: Any) -> AsyncProducer:
        """Make a producer of all accounts on the running event loop."""
        return AsyncProducer(self.url, self.key, self._credentials(()), **self._all(settings))

    def _credentials(self, accounts: Sequence[UUID]) -> dict[UUID, Credentials]:
        return {account: AccessToken(self.tokens[account]) for account in accounts or self.tokens}

    def _all(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {"spool_dir": self.spool, "close_timeout_ms": 10_000} | self.settings | settings

    def stream(self, name: str, account_id: UUID | None = None) -> Stream:
        """Begin a stream of signals with a journal of its own."""
        self.journals.mkdir(parents=True, exist_ok=True)
        account_id = account_id or self.account_id
        return Stream(self, name, account_id, Journal(self.journals / f"{name}@{account_id}"))

    def signal(self, stream: str, number: int, account_id: UUID) -> Signal:
        """Return the signal with this number of a stream."""
        return Signal(
            trader_id=self.traders[account_id],
            symbol=stream,
            timeframe="1m",
            generated_at=self.start + timedelta(microseconds=number),
            action="enter_long",
            confidence=0.5,
            price=100 + number % 1000,
            metadata={"stream": stream, "number": number},
        )

    def to_json(self) -> str:
        return json.dumps(
            {
                "url": self.url,
                "key": self.key,
                "tokens": {str(account): token for account, token in self.tokens.items()},
                "traders": {str(account): str(trader) for account, trader in self.traders.items()},
                "start": self.start.isoformat(),
                "folder": str(self.folder),
                "settings": self.settings,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        value = json.loads(text)
        return cls(
            url=value["url"],
            key=value["key"],
            tokens={UUID(account): token for account, token in value["tokens"].items()},
            traders={UUID(account): UUID(trader) for account, trader in value["traders"].items()},
            start=datetime.fromisoformat(value["start"]).astimezone(UTC),
            folder=Path(value["folder"]),
            settings=value["settings"],
        )


@dataclass(frozen=True)
class Stream:
    """Signals that one process publishes to one account, and the journal that counts them."""

    desk: Desk
    name: str
    account_id: UUID
    journal: Journal

    def publish(self, producer: Producer, count: int = 1) -> list[Delivery]:
        """Publish the next signals; each is in the journal before the call and after it."""
        deliveries = []
        for _ in range(count):
            number = self.journal.offer()
            signal = self.desk.signal(self.name, number, self.account_id)
            deliveries.append(producer.publish(signal, account_id=self.account_id))
            self.journal.accept()
        return deliveries


MakeDesk = Callable[..., Desk]
