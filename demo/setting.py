"""Set the stage through public interfaces: the local stack, the accounts and their traders."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx

from demo.display import say
from demo.plan import TIERS, TRADERS, DemoAccount, Endpoint
from signal_persistence import PasswordCredentials, SignalClient

REPOSITORY: Final = Path(__file__).resolve().parent.parent
STACK_NAME: Final = os.environ.get("SIGNAL_DEMO_STACK", "demo")
"""The stack of its own that a demonstration uses."""


class DemoError(Exception):
    """The demonstration cannot be held: the message says why, and what to do."""


@contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Hold the lock of the demonstration's stack, which would go down under a second one."""
    path = REPOSITORY / ".stack" / f"{STACK_NAME}.demo-lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(
                "Cannot hold the demonstration: another one uses the same stack; wait for its "
                "end, or give this one a stack of its own with SIGNAL_DEMO_STACK=NAME."
            ) from None
        yield


def start_stack() -> Endpoint:
    """Bring the stack of the demonstration up, or find it running, and say where it is.

    It holds nothing but earlier demonstrations, so what cannot start, because a migration was
    edited after it was applied for example, starts again from an empty database.
    """
    if STACK_NAME == "default":
        raise DemoError(
            "Cannot use the default stack: a demonstration may empty its stack and takes it down "
            "at the end; set SIGNAL_DEMO_STACK to another name, or leave it unset."
        )
    if not _stack("up"):
        say("Starting again from an empty database: the earlier demonstrations are deleted")
        if not _stack("reset"):
            raise DemoError(
                "Cannot start the local stack: the reason is above; "
                f"scripts/stack logs --name {STACK_NAME} says more."
            )
    command = _stack_command("status", "--json")
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    known = json.loads(answer.stdout)
    return Endpoint(known["api_url"], known["publishable_key"], known["service_role_key"])


def stop_stack() -> None:
    """Take the stack of the demonstration down; its data stay for the next time."""
    _stack("down")


def _stack(verb: str) -> bool:
    return subprocess.run(_stack_command(verb), stdout=sys.stderr, check=False).returncode == 0


def _stack_command(*words: str) -> list[str]:
    return [str(REPOSITORY / "scripts" / "stack"), *words, "--name", STACK_NAME]


def open_accounts(endpoint: Endpoint) -> dict[str, DemoAccount]:
    """Sign up a new account of every tier, so that each demonstration begins with full quotas."""
    with httpx.Client(base_url=endpoint.url, timeout=30) as http:
        return {tier: _open_account(endpoint, http, tier) for tier in TIERS}


def _open_account(endpoint: Endpoint, http: httpx.Client, tier: str) -> DemoAccount:
    email = f"demo-{tier}-{secrets.token_hex(6)}@example.com"
    password = secrets.token_urlsafe(16)
    account = _post(
        http,
        "/auth/v1/signup",
        {"apikey": endpoint.publishable_key},
        {"email": email, "password": password},
    )
    account_id = UUID(account["user"]["id"])
    operator = {
        "apikey": endpoint.service_role_key,
        "authorization": f"Bearer {endpoint.service_role_key}",
    }
    _post(
        http,
        "/rest/v1/rpc/set_account_tier",
        operator,
        {"account_id": str(account_id), "tier": tier},
    )
    credentials = PasswordCredentials(endpoint.url, endpoint.publishable_key, email, password)
    with SignalClient(endpoint.url, endpoint.publishable_key, credentials) as client:
        trader_ids = {name: client.create_trader(name).trader_id for name in TRADERS[tier]}
    return DemoAccount(tier, account_id, email, password, trader_ids)


def _post(http: httpx.Client, path: str, headers: dict[str, str], body: dict[str, Any]) -> Any:
    answer = http.post(path, headers=headers, json=body)
    if answer.is_error:
        raise DemoError(f"Cannot set the demonstration up: {path} answered {answer.text[:300]}")
    return answer.json() if answer.content else None
