"""A trader process as the edge functions see it: an account, its trader, and HTTP requests."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.plugins.stack import Account, RunningStack

Json = dict[str, Any]
TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Worker:
    """Calls the functions of one stack as one account that has one trader."""

    http: httpx.Client
    stack: RunningStack
    account: Account
    trader_id: str

    @classmethod
    def start(cls, http: httpx.Client, stack: RunningStack, account: Account) -> Worker:
        answer = http.post(
            "/rest/v1/rpc/create_trader",
            headers=_authorized(stack, account.access_token),
            json={"name": "functions test"},
        )
        answer.raise_for_status()
        return cls(http, stack, account, answer.json()["trader_id"])

    def signal(self, number: int = 0, **fields: object) -> Json:
        """Return a valid signal; another number gives another natural key."""
        generated_at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=number + 1)
        return {
            "trader_id": self.trader_id,
            "symbol": "BTC-USD",
            "timeframe": "1m",
            "generated_at": generated_at.isoformat(),
            "action": "enter_long",
            "confidence": 0.75,
            "price": 97250.5,
            **fields,
        }

    def signals(self, count: int) -> list[Json]:
        return [self.signal(number) for number in range(count)]

    def ingest(
        self,
        body: object,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """POST a body: bytes and text as they are, everything else as JSON."""
        content = body if isinstance(body, bytes | str) else json.dumps(body)
        return self.http.post(
            "/functions/v1/ingest-signals",
            content=content,
            headers={
                **self.headers(token),
                "content-type": "application/json",
                **(headers or {}),
            },
        )

    def query(
        self,
        path: str = "",
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        **parameters: object,
    ) -> httpx.Response:
        """GET the signals of a filter, or what a path below tells of them."""
        return self.http.get(
            f"/functions/v1/query-signals{path}",
            params=httpx.QueryParams(**parameters),
            headers={**self.headers(token), **(headers or {})},
        )

    def query_by_post(self, body: object, path: str = "") -> httpx.Response:
        return self.http.post(
            f"/functions/v1/query-signals{path}",
            content=json.dumps(body),
            headers={**self.headers(""), "content-type": "application/json"},
        )

    def export(self, *, token: str | None = "", **parameters: object) -> httpx.Response:
        """GET the export of a filter, whole."""
        return self.http.get(
            "/functions/v1/export-signals",
            params=httpx.QueryParams(**parameters),
            headers=self.headers(token) | {"accept-encoding": "identity"},
        )

    def stored(self) -> list[Json]:
        """Return the account's signals in seq order."""
        answer = self.query(sort="seq", page_size=1000)
        answer.raise_for_status()
        found: list[Json] = answer.json()["signals"]
        return found

    def headers(self, token: str | None = "") -> dict[str, str]:
        """Send the account's own token for an empty one, and none for None."""
        if token is None:
            return {"apikey": self.stack.publishable_key}
        return _authorized(self.stack, token or self.account.access_token)


def batch(signals: Iterable[object], request_id: str | None = None) -> Json:
    return {"request_id": request_id or str(uuid.uuid4()), "signals": list(signals)}


def _authorized(stack: RunningStack, token: str) -> dict[str, str]:
    return {"apikey": stack.publishable_key, "authorization": f"Bearer {token}"}
