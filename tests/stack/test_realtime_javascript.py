"""The official JavaScript client, unmodified, against Realtime."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from local_stack.keys import Keys
from local_stack.settings import PUBLISHABLE_KEY
from tests.plugins.stack import RunningStack
from tests.stack.realtime_support import (
    DEADLINE,
    Caller,
    caller_policies,
    realtime_server,
    send,
    wire,
)

SCRIPT = Path(__file__).parent / "js" / "realtime.mjs"
READY = "Replication connection established"
PRIVATE: dict[str, Any] = {"private": True, "broadcast": {"replication_ready": True}}
VERSIONS = ["1.0.0", "2.0.0"]


class JavaScript:
    """One Node process with one client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, name: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()

    async def next(self, kind: str) -> Any:
        """The next `message`, `state`, `system` or `result`, leaving out what comes before."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            async for line in self._process.stdout:
                event = json.loads(line)
                if kind in event:
                    return event
        raise EOFError("the Node process ended")

    async def join(self, topic: str, **config: Any) -> None:
        """Join and wait until messages of the database will arrive."""
        await self.do("join", topic=topic, config={**PRIVATE, **config})
        assert (await self.next("state"))["state"] == "SUBSCRIBED"
        assert (await self.next("system"))["system"] == READY


@asynccontextmanager
async def javascript(
    url: str, token: str | None = None, version: str | None = None
) -> AsyncIterator[JavaScript]:
    options = {"url": url, "key": PUBLISHABLE_KEY, "token": token, "version": version}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        json.dumps(options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield JavaScript(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(DEADLINE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@pytest.fixture
def caller(stack: RunningStack) -> Caller:
    return Caller(Keys.load(stack.settings))


@pytest.fixture
async def database(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    async with caller_policies(stack.settings) as connection:
        yield connection


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_of_the_database_arrive_in_order_with_their_ids(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller, version: str
) -> None:
    async with javascript(stack.api_url, caller.token(), version) as client:
        await client.join(caller.readable)
        for n in range(5):
            await send(database, caller.readable, "é", {"n": n, "text": "ü☃"})
        messages = [(await client.next("message"))["message"] for _ in range(5)]
    assert [m["payload"]["n"] for m in messages] == list(range(5))
    assert {(m["type"], m["event"], m["payload"]["text"]) for m in messages} == {
        ("broadcast", "é", "ü☃")
    }
    assert all(m["meta"]["id"] == m["payload"]["id"] for m in messages)


async def test_a_policy_denies_the_topic_of_another_user(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with javascript(stack.api_url, Caller(caller.keys).token()) as client:
        await client.do("join", topic=caller.readable, config=PRIVATE)
        refused = await client.next("state")
    assert refused["state"] == "CHANNEL_ERROR"
    reason = "Unauthorized: You do not have permissions to read from this Channel topic: "
    assert reason + caller.readable in refused["reason"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_broadcasts_to_both_versions(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller, version: str
) -> None:
    async with (
        javascript(stack.api_url, caller.token(), version) as sender,
        javascript(stack.api_url, caller.token()) as receiver,
        wire(stack.api_url) as raw,
    ):
        await sender.join(caller.writable, broadcast={**PRIVATE["broadcast"], "ack": True})
        await receiver.join(caller.writable)
        await raw.join(caller.writable, caller.token(), private=True)
        await sender.do("send", topic=caller.writable, event="e", payload={"n": 1})
        assert (await sender.next("result"))["result"] == "ok"
        expected = {"type": "broadcast", "event": "e", "payload": {"n": 1}}
        assert (await receiver.next("message"))["message"] == expected
        assert (await raw.receive())["payload"] == expected


async def test_bytes_reach_version_2_as_they_were_sent(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with javascript(stack.api_url, caller.token()) as client:
        await client.join(caller.writable, broadcast={**PRIVATE["broadcast"], "self": True})
        await client.do("send", topic=caller.writable, event="e", payload={"bytes": [0, 255]})
        assert (await client.next("message"))["message"]["payload"] == {"bytes": [0, 255]}
        await database.execute(
            "select realtime.send_binary('\\x00ff'::bytea, 'e', $1, true)", caller.writable
        )
        assert (await client.next("message"))["message"]["payload"] == {"bytes": [0, 255]}


async def test_a_broadcast_by_http_reaches_subscribers(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with javascript(stack.api_url, caller.token()) as client:
        await client.join(caller.writable)
        await client.do("httpSend", topic=caller.writable, event="e", payload={"n": 1})
        message = (await client.next("message"))["message"]
    assert message == {"type": "broadcast", "event": "e", "payload": {"n": 1}}


async def test_a_channel_closes_when_its_token_expires(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with javascript(stack.api_url, caller.token(lifetime=3)) as client:
        await client.join(caller.readable)
        assert (await client.next("system"))["system"] == "Token has expired 0 seconds ago"
        assert (await client.next("state"))["state"] == "CLOSED"


async def test_set_auth_keeps_a_channel_open_beyond_its_first_token(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with (
        javascript(stack.api_url, caller.token(lifetime=3)) as client,
        javascript(stack.api_url, caller.token(lifetime=4)) as witness,
    ):
        await client.join(caller.readable)
        await witness.join(caller.readable)
        await client.do("setAuth", token=caller.token())
        assert (await witness.next("state"))["state"] == "CLOSED"
        await send(database, caller.readable, "still here", {})
        assert (await client.next("message"))["message"]["event"] == "still here"


async def test_a_client_leaves_and_joins_again(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with javascript(stack.api_url, caller.token()) as client:
        await client.join(caller.readable)
        await client.do("leave", topic=caller.readable)
        assert (await client.next("result"))["result"] == "ok"
        await send(database, caller.readable, "missed", {})
        await client.join(caller.readable)
        await send(database, caller.readable, "seen", {})
        assert (await client.next("message"))["message"]["event"] == "seen"


async def test_a_client_rejoins_after_the_server_restarts(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with (
        realtime_server(stack.settings) as server,
        javascript(server.url, caller.token()) as client,
    ):
        await client.join(caller.readable)
        await server.stop()
        await server.start()
        while (await client.next("system"))["system"] != READY:
            pass
        await send(database, caller.readable, "back", {})
        assert (await client.next("message"))["message"]["event"] == "back"


async def test_replayed_messages_are_told_from_live_ones(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    for n in range(2):
        await send(database, caller.readable, "old", {"n": n})
    replay = {**PRIVATE["broadcast"], "replay": {"since": 0, "limit": 1}}
    async with javascript(stack.api_url, caller.token()) as client:
        await client.do("join", topic=caller.readable, config={**PRIVATE, "broadcast": replay})
        old = (await client.next("message"))["message"]
        assert (await client.next("system"))["system"] == READY
        await send(database, caller.readable, "new", {"n": 2})
        new = (await client.next("message"))["message"]
    assert (old["payload"]["n"], old["meta"]["replayed"]) == (1, True)
    assert (new["payload"]["n"], "replayed" in new["meta"]) == (2, False)


async def test_clients_see_each_other_come_and_go(stack: RunningStack) -> None:
    topic, key = "realtime-test:present", {"presence": {"key": "ann"}}
    public = {"private": False}
    async with javascript(stack.api_url) as watching:
        await watching.do("join", topic=topic, config={**public, "presence": {"key": "bob"}})
        assert (await watching.next("state"))["state"] == "SUBSCRIBED"
        async with javascript(stack.api_url) as ann:
            await ann.do("join", topic=topic, config={**public, **key})
            assert (await ann.next("state"))["state"] == "SUBSCRIBED"
            await ann.do("track", topic=topic, payload={"mood": "calm"})
            assert (await ann.next("result"))["result"] == "ok"
            assert (await watching.next("joined"))["joined"] == ["ann", "calm"]
            await ann.do("leave", topic=topic)
            assert (await watching.next("left"))["left"] == ["ann", "calm"]
