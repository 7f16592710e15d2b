"""A Supabase project as the load test sees it: two keys, accounts, tokens and signals."""

from __future__ import annotations

import itertools
import json
import os
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "ES", "NQ", "EURUSD", "AAPL", "MSFT")
ACTIONS = ("enter_long", "exit_long", "enter_short", "exit_short")
TIMEFRAMES = ("1m", "5m", "15m", "1h")


class ProjectError(Exception):
    """Cannot prepare the project for a load."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The two API keys of a project; publishable and secret keys serve as well as legacy ones."""

    anon: str
    service_role: str

    @classmethod
    def from_environment(cls) -> Keys:
        anon = os.environ.get("SUPABASE_ANON_KEY", "")
        service_role = os.environ.get("SUPABASE_SERVICE_ROLE_KEY", "")
        if not anon or not service_role:
            raise ProjectError(
                "Cannot start the load test: SUPABASE_ANON_KEY and SUPABASE_SERVICE_ROLE_KEY "
                "must be set; copy them from the project's settings into .env"
            )
        return cls(anon, service_role)


@dataclass(frozen=True, slots=True)
class Account:
    """One account of the elite tier with one trader."""

    account_id: str
    trader_id: str
    access_token: str
    headers: Mapping[str, str]


class Call(Protocol):
    """Send one request to the project and return its JSON; raise ProjectError otherwise."""

    def __call__(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> Any: ...


def create_account(call: Call, keys: Keys) -> Account:
    """Create a confirmed user, sign in, raise the tier to elite and create a trader."""
    email = f"load-{uuid.uuid4().hex}@example.com"
    password = uuid.uuid4().hex
    admin = _headers(keys.service_role)
    new_user = {"email": email, "password": password, "email_confirm": True}
    account_id = call("POST", "/auth/v1/admin/users", new_user, admin)["id"]
    tier = {"account_id": account_id, "tier": "elite"}
    call("POST", "/rest/v1/rpc/set_account_tier", tier, admin)
    sign_in = {"email": email, "password": password}
    path = "/auth/v1/token?grant_type=password"
    session = call("POST", path, sign_in, {"apikey": keys.anon})
    token = session["access_token"]
    headers = {"apikey": keys.anon, "Authorization": f"Bearer {token}"}
    trader = call("POST", "/rest/v1/rpc/create_trader", {"name": "load test"}, headers)
    return Account(account_id, trader["trader_id"], token, headers)


def delete_account(call: Call, keys: Keys, account: Account) -> None:
    """Delete the user; the signals of the account stay, as always."""
    path = f"/auth/v1/admin/users/{account.account_id}"
    call("DELETE", path, None, _headers(keys.service_role))


def _headers(key: str) -> dict[str, str]:
    """Return the headers of a privileged call; a secret key (sb_secret_…) is no bearer token."""
    if key.startswith("sb_"):
        return {"apikey": key}
    return {"apikey": key, "Authorization": f"Bearer {key}"}


class SignalSource:
    """Random signals of one trader, each generated one microsecond after the one before."""

    def __init__(self, trader_id: str, seed: int) -> None:
        self._trader_id = trader_id
        self._random = random.Random(seed)
        self._start = datetime.now(UTC)
        self._microseconds = itertools.count()

    def batch(self, size: int) -> str:
        """Return the body of one ingest request with `size` signals."""
        body = {
            "request_id": str(uuid.uuid4()),
            "signals": [self._signal() for _ in range(size)],
        }
        return json.dumps(body, separators=(",", ":"))

    def _signal(self) -> dict[str, Any]:
        pick = self._random
        price = round(pick.uniform(10, 50_000), 2)
        at = self._start + timedelta(microseconds=next(self._microseconds))
        return {
            "trader_id": self._trader_id,
            "symbol": pick.choice(SYMBOLS),
            "timeframe": pick.choice(TIMEFRAMES),
            "generated_at": at.isoformat(timespec="microseconds"),
            "action": pick.choice(ACTIONS),
            "confidence": round(pick.random(), 4),
            "price": price,
            "stop_loss": round(price * 0.98, 2),
            "take_profit": round(price * 1.04, 2),
            "metadata": {"rsi": round(pick.uniform(0, 100), 1)},
        }
