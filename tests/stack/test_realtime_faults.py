"""Faults that a test injects through the admin endpoint, as a client sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from local_stack.keys import Keys
from local_stack.realtime.limits import Limits
from local_stack.settings import PUBLISHABLE_KEY
from tests.plugins.stack import RunningStack
from tests.stack.realtime_support import (
    DEADLINE,
    Caller,
    FaultAdmin,
    Server,
    Wire,
    caller_policies,
    realtime_server,
    send,
    wire,
)

SILENCE = 0.3
"""Seconds in which nothing may arrive: too short can only hide a failure, never make one."""


@pytest.fixture
def caller(stack: RunningStack) -> Caller:
    return Caller(Keys.load(stack.settings))


@pytest.fixture
async def database(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    async with caller_policies(stack.settings) as connection:
        yield connection


@pytest.fixture
async def server(stack: RunningStack) -> AsyncIterator[Server]:
    async with realtime_server(stack.settings) as server:
        yield server


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[FaultAdmin]:
    async with aiohttp.ClientSession() as session:
        yield FaultAdmin(session, server.url)


async def follow(client: Wire, caller: Caller, **broadcast: Any) -> None:
    """Join the caller's topic, and wait until messages of the database will arrive."""
    config = {"replication_ready": True, **broadcast}
    joined = await client.join(caller.readable, caller.token(), private=True, broadcast=config)
    assert joined["status"] == "ok"
    while (await client.receive())["event"] != "system":
        pass


async def next_numbers(client: Wire, count: int) -> list[int]:
    """The numbers of the next broadcasts, whatever else comes between them."""
    numbers: list[int] = []
    while len(numbers) < count:
        frame = await client.receive()
        if frame["event"] == "broadcast":
            numbers.append(frame["payload"]["payload"]["n"])
    return numbers


async def hears_nothing(client: Wire) -> bool:
    try:
        await client.socket.receive(timeout=SILENCE)
    except TimeoutError:
        return True
    return False


async def send_numbers(database: asyncpg.Connection, caller: Caller, *numbers: int) -> None:
    for n in numbers:
        await send(database, caller.readable, "e", {"n": n})


async def test_only_the_service_key_injects_faults(server: Server) -> None:
    url = f"{server.url}/local/realtime/faults"
    async with aiohttp.ClientSession() as session:
        for headers, status in (({}, 401), ({"apikey": PUBLISHABLE_KEY}, 403)):
            for method in ("GET", "POST", "DELETE"):
                answer = await session.request(method, url, headers=headers, json={"kind": "drop"})
                assert answer.status == status
        bearer = {"Authorization": f"Bearer {server.keys.service_role_key}"}
        answer = await session.post(url, headers=bearer, json={"kind": "flood"})
        assert answer.status == 400
        assert "Cannot inject the fault: Invalid enum value 'flood'" in await answer.text()


async def test_faults_are_listed_with_counters_until_they_are_healed(admin: FaultAdmin) -> None:
    first = await admin.inject("refuse_join", count=1, reason="Unauthorized: no")
    second = await admin.inject("drop", topic="t")
    assert [first, second] == await admin.faults()
    assert second == {"id": "2", "kind": "drop", "topic": "t", "struck": 0, "healed": False}
    assert [fault["healed"] for fault in await admin.heal()] == [True, True]
    assert await admin.faults() == []


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 4000])
async def test_sockets_close_with_the_code_that_is_asked_for(
    server: Server, admin: FaultAdmin, code: int
) -> None:
    async with wire(server.url) as struck, wire(server.url) as spared:
        await struck.join("struck")
        await spared.join("spared")
        assert (await admin.inject("close_sockets", code=code, topic="struck"))["struck"] == 1
        assert await struck.close_code() == code
        assert (await spared.join("again"))["status"] == "ok"


async def test_a_fault_closes_no_more_sockets_than_it_may(
    server: Server, admin: FaultAdmin
) -> None:
    async with wire(server.url) as one, wire(server.url) as two, wire(server.url) as three:
        for client in (one, two, three):
            await client.join("t")
        assert (await admin.inject("close_sockets", count=2))["struck"] == 2
        assert (await three.join("again"))["status"] == "ok"


async def test_a_handshake_is_refused_with_the_words_of_its_status(
    server: Server, admin: FaultAdmin
) -> None:
    await admin.inject("refuse_handshake", status=429, count=1)
    async with aiohttp.ClientSession() as session:
        answer = await session.get(
            f"{server.url}/realtime/v1/websocket", params={"apikey": PUBLISHABLE_KEY}
        )
        assert (answer.status, await answer.json()) == (429, {"error": "Too many connected users"})
    async with wire(server.url) as client:
        assert (await client.join("t"))["status"] == "ok"


@pytest.mark.parametrize(
    "reason",
    ["RealtimeRestarting: Realtime is restarting, please standby", "Unknown Error on Channel"],
)
async def test_a_join_is_refused_for_the_reason_that_is_given(
    server: Server, admin: FaultAdmin, reason: str
) -> None:
    await admin.inject("refuse_join", topic="t", reason=reason, count=1)
    async with wire(server.url) as client:
        assert (await client.join("another"))["status"] == "ok"
        assert await client.join("t") == {"status": "error", "response": {"reason": reason}}
        assert (await client.join("t"))["status"] == "ok"


@pytest.mark.parametrize(
    ("kind", "options", "frames"),
    [
        ("close_channel", {"message": "Too many messages per second"}, ["system", "phx_close"]),
        ("expire_token", {}, ["system", "phx_close"]),
        ("phx_error", {}, ["phx_error"]),
    ],
)
async def test_a_channel_ends_and_its_socket_stays(
    server: Server, admin: FaultAdmin, kind: str, options: dict[str, Any], frames: list[str]
) -> None:
    async with wire(server.url) as client:
        await client.join("t")
        await admin.inject(kind, **options)
        received = [await client.receive() for _ in frames]
        assert [frame["event"] for frame in received] == frames
        text = options.get("message", "Token has expired 0 seconds ago")
        assert received[0]["payload"].get("message", text) == text
        assert received[-1]["ref"] == "1"
        assert (await client.join("t"))["status"] == "ok"


async def test_a_frozen_socket_says_nothing_until_it_is_healed_and_then_everything(
    server: Server, admin: FaultAdmin, database: asyncpg.Connection, caller: Caller
) -> None:
    async with wire(server.url, shows_pongs=True) as frozen, wire(server.url) as flowing:
        await follow(frozen, caller)
        await flowing.join("t")
        await admin.inject("freeze", topic=caller.readable)
        await frozen.send("phoenix", "heartbeat", {})
        await frozen.socket.ping()
        await send_numbers(database, caller, 1, 2)
        assert (await flowing.join("other"))["status"] == "ok"
        assert await hears_nothing(frozen)
        await admin.heal()
        received = [await frozen.socket.receive(timeout=DEADLINE) for _ in range(4)]
    frames = [m.json() for m in received if m.type is aiohttp.WSMsgType.TEXT]
    assert sorted(frame["event"] for frame in frames) == ["broadcast", "broadcast", "phx_reply"]
    numbers = [f["payload"]["payload"]["n"] for f in frames if f["event"] == "broadcast"]
    assert numbers == [1, 2]
    assert [m.type for m in received].count(aiohttp.WSMsgType.PONG) == 1


async def test_a_frozen_socket_that_too_much_waits_for_is_closed_when_it_thaws(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    limits = Limits(outgoing_frames=3, close_seconds=DEADLINE)
    async with (
        realtime_server(stack.settings, limits) as server,
        aiohttp.ClientSession() as session,
        wire(server.url) as frozen,
        wire(server.url) as flowing,
    ):
        await follow(frozen, caller)
        await follow(flowing, caller)
        admin = FaultAdmin(session, server.url)
        await admin.inject("freeze", count=1)
        for n in range(5):
            await send_numbers(database, caller, n)
            assert await next_numbers(flowing, 1) == [n]
        await admin.heal()
        assert await frozen.close_code() == aiohttp.WSCloseCode.INTERNAL_ERROR


async def test_while_everything_is_frozen_no_handshake_is_answered(
    server: Server, admin: FaultAdmin
) -> None:
    await admin.inject("freeze")
    url = f"{server.url}/realtime/v1/websocket"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(TimeoutError):
            await session.get(
                url,
                params={"apikey": PUBLISHABLE_KEY},
                timeout=aiohttp.ClientTimeout(total=SILENCE),
            )
    await admin.heal()
    async with wire(server.url) as client:
        assert (await client.join("t"))["status"] == "ok"


async def test_a_socket_that_joins_a_frozen_topic_freezes(
    server: Server, admin: FaultAdmin
) -> None:
    await admin.inject("freeze", topic="t", seconds=SILENCE * 3)
    async with wire(server.url) as client:
        await client.send("realtime:t", "phx_join", {"config": {}})
        assert await hears_nothing(client)
        assert (await client.receive())["event"] == "phx_reply", "once the seconds are over"


async def test_heartbeats_are_dropped_and_nothing_else(server: Server, admin: FaultAdmin) -> None:
    async with wire(server.url) as client:
        await client.join("t")
        await admin.inject("drop_heartbeats", topic="t", count=1)
        await client.send("phoenix", "heartbeat", {})
        assert (await client.join("u"))["status"] == "ok"
        ref = await client.send("phoenix", "heartbeat", {})
        assert (await client.receive())["ref"] == ref


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [("drop", [2, 3]), ("duplicate", [1, 1, 2, 3]), ("reorder", [2, 1, 3]), ("delay", [2, 3, 1])],
)
async def test_broadcasts_of_the_database_meet_faults(
    server: Server,
    admin: FaultAdmin,
    database: asyncpg.Connection,
    caller: Caller,
    kind: str,
    numbers: list[int],
) -> None:
    options = {"ms": 500} if kind == "delay" else {}
    async with wire(server.url) as client:
        await follow(client, caller)
        await admin.inject(kind, topic=caller.readable, count=1, **options)
        await send_numbers(database, caller, 1, 2, 3)
        assert await next_numbers(client, len(numbers)) == numbers


async def test_a_garbled_frame_cannot_be_read_and_the_next_one_can(
    server: Server, admin: FaultAdmin, database: asyncpg.Connection, caller: Caller
) -> None:
    async with wire(server.url) as client:
        await follow(client, caller)
        await admin.inject("garble", count=1)
        await send_numbers(database, caller, 1, 2)
        with pytest.raises(json.JSONDecodeError):
            await client.receive()
        assert await next_numbers(client, 1) == [2]


async def test_stalled_replication_goes_on_from_where_it_stopped(
    server: Server, admin: FaultAdmin, database: asyncpg.Connection, caller: Caller
) -> None:
    async with wire(server.url) as client:
        await follow(client, caller)
        await admin.inject("stall_replication")
        await send_numbers(database, caller, 1, 2, 3)
        assert await hears_nothing(client)
        await admin.heal()
        assert await next_numbers(client, 3) == [1, 2, 3]


async def test_what_commits_without_a_slot_is_never_pushed_and_can_be_replayed(
    server: Server, admin: FaultAdmin, database: asyncpg.Connection, caller: Caller
) -> None:
    async with wire(server.url) as client, wire(server.url) as replaying:
        await follow(client, caller)
        await admin.inject("lose_slot")
        await client.join("t", broadcast={"replication_ready": True})
        assert await hears_nothing(client), "replication is not ready before it is healed"
        await send_numbers(database, caller, 1)
        await admin.heal()
        await follow(client, caller)
        await send_numbers(database, caller, 2)
        assert await next_numbers(client, 1) == [2]
        await follow_replayed(replaying, caller)
        assert await next_numbers(replaying, 2) == [1, 2]


async def follow_replayed(client: Wire, caller: Caller) -> None:
    replay = {"replay": {"since": 0}}
    joined = await client.join(caller.readable, caller.token(), private=True, broadcast=replay)
    assert joined["status"] == "ok"


async def test_a_server_stops_in_spite_of_its_faults(server: Server, admin: FaultAdmin) -> None:
    async with wire(server.url) as client:
        await client.join("t")
        await admin.inject("freeze")
        await admin.inject("lose_slot")
        stopping = asyncio.create_task(server.stop())
        assert await client.close_code() == aiohttp.WSCloseCode.SERVICE_RESTART
        await stopping
