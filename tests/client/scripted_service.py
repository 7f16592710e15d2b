"""A transport that follows a script, with the memory of a service that stores each signal once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from signal_persistence import AccessToken, DeliveryReport, Signal
from signal_persistence.callbacks import DeliveryCallback, TaskDispatcher
from signal_persistence.contract import CONTRACT
from signal_persistence.engine import Engine
from signal_persistence.errors import ConnectError, ConnectionLostError, RequestTimeoutError
from signal_persistence.observer import ProducerObserver
from signal_persistence.outbox import SpoolOutbox
from signal_persistence.settings import ProducerSettings
from signal_persistence.transport import Response

TRADER = UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2")
START = datetime(2026, 1, 1, tzinfo=UTC)


def make_signal(number: int, **changes: Any) -> Signal:
    """Return a valid signal; different numbers have different natural keys."""
    fields: dict[str, Any] = {
        "trader_id": TRADER,
        "symbol": "BTC/USD",
        "timeframe": "1m",
        "generated_at": START + timedelta(seconds=number),
        "action": "enter_long",
        "confidence": 0.5,
        "price": 100.0 + number,
    }
    return Signal(**fields | changes)


def refusal(code: str) -> Response:
    """Return the answer by which the service refuses a whole batch."""
    known = CONTRACT.errors[code]
    body = {"code": code, "message": known.message, "request_id": None}
    return Response(known.status, {}, json.dumps(body).encode())


@dataclass(frozen=True)
class Request:
    """What one attempt carried."""

    at: float
    request_id: str
    keys: tuple[str, ...]
    token: str
    path: str


@dataclass
class ScriptedService:
    """Plays one step of the script per request, then "ok" for ever.

    A step is "ok", a code of the catalogue, an HTTP status (of somebody else's page), "refused"
    (never arrives), "timeout" and "lost" (nothing is done), "lost ack" and "late" (the work is
    done, the answer is not seen), "garbage" (done, but a proxy's page comes back), or a Response.
    The natural key is `generated_at` here.
    """

    script: list[Any] = field(default_factory=list)
    retry_after: str | None = None
    largest_batch: int = 5000
    delay: float = 0.0
    rejected: Mapping[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    stored: dict[str, dict[str, int]] = field(default_factory=dict)
    """Token → natural key → seq."""
    ledger: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    in_flight: dict[str, int] = field(default_factory=dict)
    most_in_flight: int = 0
    most_of_one_token: int = 0
    gate: asyncio.Event | None = None
    closed: bool = False

    async def post(
        self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        batch = json.loads(body)
        keys = tuple(signal["generated_at"] for signal in batch["signals"])
        now = asyncio.get_running_loop().time()
        self.requests.append(Request(now, batch["request_id"], keys, token, path))
        self.in_flight[token] = self.in_flight.get(token, 0) + 1
        self.most_in_flight = max(self.most_in_flight, sum(self.in_flight.values()))
        self.most_of_one_token = max(self.most_of_one_token, self.in_flight[token])
        try:
            return await self._answer(batch, body, token)
        finally:
            self.in_flight[token] -= 1

    async def _answer(self, batch: dict[str, Any], body: bytes, token: str) -> Response:
        step = self.script.pop(0) if self.script else "ok"
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(self.delay)
        if isinstance(step, Response):
            return step
        if isinstance(step, int):
            headers = {"retry-after": self.retry_after} if self.retry_after else {}
            return Response(step, headers, b'{"code":"x","message":"scripted","request_id":null}')
        if step in CONTRACT.errors:
            return refusal(step)
        if step == "refused":
            raise ConnectError
        if step == "timeout":
            raise RequestTimeoutError
        if step == "lost":
            raise ConnectionLostError
        if len(batch["signals"]) > self.largest_batch:
            return refusal("batch_too_large")
        verdict = self._store(batch, body, token)
        if step == "late":
            raise RequestTimeoutError
        if step == "lost ack":
            raise ConnectionLostError
        return Response(200, {}, b"<html>" if step == "garbage" else verdict)

    def _store(self, batch: dict[str, Any], body: bytes, token: str) -> bytes:
        request_id = batch["request_id"]
        if request_id in self.ledger:
            first_body, answer = self.ledger[request_id]
            assert first_body == body, "one request_id was used for two payloads"
            return answer
        stored = self.stored.setdefault(token, {})
        items = []
        first = len(stored) + 1
        for index, signal in enumerate(batch["signals"]):
            key = signal["generated_at"]
            if key in self.rejected:
                items.append({"index": index, "code": self.rejected[key], "message": "No."})
            elif key in stored:
                items.append({"index": index, "code": "duplicate", "message": "Known."})
            else:
                stored[key] = len(stored) + 1
        duplicates = sum(item["code"] == "duplicate" for item in items)
        accepted = len(batch["signals"]) - len(items)
        verdict = {
            "request_id": request_id,
            "accepted": accepted,
            "duplicate": duplicates,
            "rejected": len(items) - duplicates,
            "first_seq": first if accepted else None,
            "last_seq": first + accepted - 1 if accepted else None,
            "items": items,
        }
        self.ledger[request_id] = (body, json.dumps(verdict).encode())
        return self.ledger[request_id][1]

    async def aclose(self) -> None:
        self.closed = True


def make_engine(
    service: ScriptedService,
    *,
    accounts: Iterable[UUID | None] = (None,),
    on_delivery: DeliveryCallback | None = None,
    seed: int = 0,
    project: Path | None = None,
    observer: ProducerObserver | None = None,
    make: type[Engine] = Engine,
    **settings: Any,
) -> Engine:
    """Return an engine on the running (virtual) loop; each account's token is its id.

    `project` is the directory of its spool; without it, signals are in memory only.
    """
    entropy = random.Random(seed)
    accounts = list(accounts)
    made = ProducerSettings(spool_dir=project, **settings)
    identities = {account: str(account) for account in accounts}
    engine = make(
        service,
        {account: AccessToken(str(account)) for account in accounts},
        made,
        call_on_loop=_call_now,
        dispatcher=TaskDispatcher,
        outbox=SpoolOutbox(project, identities, made.spool) if project else None,
        on_delivery=on_delivery,
        observer=observer,
        clock=asyncio.get_running_loop().time,
        wall_clock=lambda: 1_767_225_600 + asyncio.get_running_loop().time(),
        entropy=entropy,
    )
    engine.start()
    return engine


def publish(
    engine: Engine,
    signal: Signal,
    account_id: UUID | None = None,
    on_delivery: DeliveryCallback | None = None,
) -> Any:
    """Publish without waiting for room, and return the delivery."""
    sender, record = engine.prepare(signal, account_id, on_delivery)
    assert engine.offer(sender, record), "the buffer is full"
    return record.delivery


async def close(engine: Engine, seconds: float) -> list[DeliveryReport]:
    """Close as the async face does."""
    return await engine.close(seconds, in_callback=engine.in_callback)


def _call_now(callback: Callable[[], object]) -> None:
    callback()
