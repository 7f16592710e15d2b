"""The canary: one broadcast through the database and Realtime, and what is kept of it."""

from __future__ import annotations

import asyncio

import asyncpg
import httpx
import pytest

from tests.functions.worker import TIMEOUT_SECONDS
from tests.plugins.stack import Account, RunningStack

URL = "/functions/v1/realtime-canary"
CHECKS = """
select name, value, ok, hint from public.operations_health
where name like 'canary%' or name = 'broadcast_runway' order by name
"""


async def checks_of(stack: RunningStack) -> dict[str, asyncpg.Record]:
    connection = await asyncpg.connect(stack.database_url)
    try:
        return {row["name"]: row for row in await connection.fetch(CHECKS)}
    finally:
        await connection.close()


@pytest.mark.parametrize("kind", ["of the new kind", "legacy"])
def test_the_canary_comes_back_and_is_written_down(
    http: httpx.Client, stack: RunningStack, kind: str
) -> None:
    key = stack.secret_key if kind == "of the new kind" else stack.service_role_key
    answer = http.post(URL, headers={"apikey": key}, timeout=TIMEOUT_SECONDS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["error"] is None
    assert 0 < answer.json()["milliseconds"] < 20_000
    seen = asyncio.run(checks_of(stack))
    assert float(seen["canary_latency"]["value"]) == pytest.approx(
        answer.json()["milliseconds"], abs=0.1
    )
    assert seen["canary_age"]["value"] <= TIMEOUT_SECONDS
    assert all(seen[name]["ok"] for name in ("canary_age", "canary_failures", "broadcast_runway"))


def test_only_a_secret_key_sends_it(
    http: httpx.Client, stack: RunningStack, account: Account
) -> None:
    for headers in (
        {},
        {"apikey": stack.publishable_key},
        {"apikey": stack.anon_key, "authorization": f"Bearer {account.access_token}"},
        {"apikey": f"{stack.secret_key}x"},
    ):
        answer = http.post(URL, headers=headers)
        assert answer.status_code == 401, answer.text
        assert answer.json()["code"] == "unauthorized"
    assert http.get(URL, headers={"apikey": stack.secret_key}).status_code == 405
