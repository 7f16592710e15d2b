"""Connections are shared between callers: nothing of one request may show in the next."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.plugins.stack import MakeAccount, RunningStack
from tests.stack.rest_table import rest_schema, run_sql

REQUESTS = 300
SEED = 20261122


@pytest.fixture(scope="module", autouse=True)
def schema(stack: RunningStack) -> Iterator[None]:
    with rest_schema(stack.database_url):
        yield


async def test_every_request_is_answered_as_its_own_caller(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    accounts = [make_account() for _ in range(3)]
    callers: list[tuple[dict[str, str], tuple[str, str | None, str]]] = [
        (
            {"apikey": stack.publishable_key, "authorization": f"Bearer {account.access_token}"},
            ("authenticated", str(account.account_id), "8s"),
        )
        for account in accounts
    ]
    callers.append(({"apikey": stack.publishable_key}, ("anon", None, "3s")))
    callers.append(({"apikey": stack.secret_key}, ("service_role", None, "8s")))
    chance = random.Random(SEED)

    async def ask(client: httpx.AsyncClient) -> None:
        headers, (role, user_id, timeout) = chance.choice(callers)
        method, path = chance.choice(
            [
                ("POST", "/rpc/rest_whoami"),
                ("GET", "/rpc/rest_whoami"),
                ("POST", "/rpc/rest_fail"),
                ("GET", "/rest_items?select=id&limit=1"),
                ("POST", "/rest_items"),
            ]
        )
        body = {"code": "P0001"} if path == "/rpc/rest_fail" else {"id": 1}
        sent = body if method == "POST" and "whoami" not in path else None
        answer = await client.request(method, path, headers=headers, json=sent)
        match path:
            case "/rpc/rest_whoami":
                told = answer.json()
                assert (told["role"], told["uid"], told["timeout"]) == (role, user_id, timeout)
                assert told["method"] == method
            case "/rpc/rest_fail":
                assert answer.status_code == 400
            case "/rest_items":
                assert answer.status_code == (401 if role == "anon" else 409), answer.text
            case _:
                assert answer.status_code == (401 if role == "anon" else 200), answer.text

    base_url = f"{stack.api_url}/rest/v1"
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
        await asyncio.gather(*(ask(client) for _ in range(REQUESTS)))


def test_a_read_after_a_write_is_read_only_and_a_write_after_a_read_is_not(
    stack: RunningStack,
) -> None:
    headers = {"apikey": stack.secret_key}
    with httpx.Client(base_url=f"{stack.api_url}/rest/v1", headers=headers) as client:
        for _ in range(5):
            assert client.get("/rpc/rest_whoami").json()["read_only"] == "on"
            assert client.get("/rpc/rest_write").status_code == 405
            assert client.post("/rpc/rest_write").status_code == 204
            assert client.delete("/rest_items?id=eq.9000").status_code == 204


def test_a_function_that_was_replaced_is_called_as_it_is_now(stack: RunningStack) -> None:
    headers = {"apikey": stack.secret_key}
    with httpx.Client(base_url=f"{stack.api_url}/rest/v1", headers=headers) as client:
        for argument, kind in (("a", "integer"), ("b", "integer"), ("b", "text")):
            run_sql(
                stack.database_url,
                f"""
                drop function if exists public.rest_replaced(integer), public.rest_replaced(text);
                create function public.rest_replaced({argument} {kind}) returns {kind}
                language sql immutable as $$ select {argument} $$;
                grant execute on function public.rest_replaced({kind}) to service_role;
                notify pgrst, 'reload schema';
                """,
            )
            deadline = time.monotonic() + 5
            while (answer := client.post("/rpc/rest_replaced", json={argument: 5})).is_error:
                assert time.monotonic() < deadline, answer.text
            assert answer.json() == (5 if kind == "integer" else "5")
