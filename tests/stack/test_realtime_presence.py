"""Presence and the limits of a plan, as a client sees them."""

from __future__ import annotations

import asyncio
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

TOPIC = "realtime-test:presence"
ENABLED = {"enabled": True, "key": "ann"}


@pytest.fixture
def caller(stack: RunningStack) -> Caller:
    return Caller(Keys.load(stack.settings))


@pytest.fixture
async def database(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    async with caller_policies(stack.settings) as connection:
        yield connection


@pytest.fixture
async def server(stack: RunningStack) -> AsyncIterator[Server]:
    async with realtime_server(stack.settings, Limits(rate_bucket_seconds=0.05)) as server:
        yield server


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[FaultAdmin]:
    async with aiohttp.ClientSession() as session:
        yield FaultAdmin(session, server.url)


async def track(client: Wire, payload: Any, topic: str = TOPIC, event: str = "track") -> None:
    body = {"type": "presence", "event": event, "payload": payload}
    await client.send(f"realtime:{topic}", "presence", body)


async def of_event(client: Wire, event: str) -> Any:
    """The payload of the next frame of this event, leaving out what comes before."""
    while (frame := await client.receive())["event"] != event:
        pass
    return frame["payload"]


def moods(listing: Any) -> dict[str, list[str]]:
    return {key: [meta["mood"] for meta in listing[key]["metas"]] for key in listing}


async def test_everybody_is_told_who_comes_who_changes_and_who_goes(server: Server) -> None:
    async with wire(server.url) as watching:
        await watching.join(TOPIC, presence={"enabled": True, "key": "bob"})
        assert await of_event(watching, "presence_state") == {}
        async with wire(server.url) as ann:
            await ann.join(TOPIC, presence=ENABLED)
            await track(ann, {"mood": "calm"})
            came = await of_event(watching, "presence_diff")
            assert (moods(came["joins"]), came["leaves"]) == ({"ann": ["calm"]}, {})
            assert (await of_event(ann, "phx_reply")) == {"status": "ok", "response": {}}
            await track(ann, {"mood": "glad"})
            changed = await of_event(watching, "presence_diff")
            assert moods(changed["joins"]) == {"ann": ["glad"]}
            assert moods(changed["leaves"]) == {"ann": ["calm"]}
            first, second = (c["joins"]["ann"]["metas"][0] for c in (came, changed))
            assert second["phx_ref_prev"] == first["phx_ref"]
            async with wire(server.url) as late:
                await late.join(TOPIC, presence={"enabled": True})
                assert moods(await of_event(late, "presence_state")) == {"ann": ["glad"]}
            ann.abort()
        went = await of_event(watching, "presence_diff")
        assert (went["joins"], moods(went["leaves"])) == ({}, {"ann": ["glad"]})


async def test_untracking_and_leaving_are_both_told(server: Server) -> None:
    async with wire(server.url) as client, wire(server.url) as watching:
        await watching.join(TOPIC)
        await client.join(TOPIC, presence=ENABLED)
        for event in ("untrack", "phx_leave"):
            await track(client, {"mood": "calm"})
            assert moods((await of_event(watching, "presence_diff"))["joins"]) == {"ann": ["calm"]}
            if event == "untrack":
                await track(client, {}, event="untrack")
            else:
                await client.send(f"realtime:{TOPIC}", event, {})
            left = await of_event(watching, "presence_diff")
            assert moods(left["leaves"]) == {"ann": ["calm"]}


async def test_the_first_track_of_a_join_without_presence_enables_it(server: Server) -> None:
    async with wire(server.url) as client, wire(server.url) as ann:
        await ann.join(TOPIC, presence=ENABLED)
        await track(ann, {"mood": "calm"})
        await of_event(ann, "presence_diff")
        await client.join(TOPIC)
        await track(client, {"mood": "new"})
        state = moods(await of_event(client, "presence_state"))
    assert state.pop("ann") == ["calm"]
    assert list(state.values()) == [["new"]], "under a key of its own"


@pytest.mark.parametrize(
    ("event", "payload", "response"),
    [
        ("track", ["no map"], {"reason": "Presence track payload must be a map"}),
        ("wave", {}, {}),
    ],
)
async def test_what_presence_cannot_take_is_an_error(
    server: Server, event: str, payload: Any, response: Any
) -> None:
    async with wire(server.url) as client:
        await client.join(TOPIC)
        await track(client, payload, event=event)
        assert (await client.receive())["payload"] == {"status": "error", "response": response}


async def test_policies_decide_who_is_present_and_who_hears(
    server: Server, database: asyncpg.Connection, caller: Caller
) -> None:
    """The topic may be joined for its presence alone; the other one only without."""
    async with wire(server.url) as client:
        joined = await client.join(caller.present, caller.token(), private=True, presence=ENABLED)
        assert joined["status"] == "ok"
        assert await of_event(client, "presence_state") == {}
        await track(client, {"mood": "calm"}, caller.present)
        assert (await of_event(client, "phx_reply"))["status"] == "ok"

        await client.join(caller.readable, caller.token(), private=True)
        await track(client, {"mood": "calm"}, caller.readable)
        assert (await of_event(client, "phx_reply")) == {"status": "error", "response": {}}


async def test_a_channel_that_may_not_read_broadcasts_hears_none(
    server: Server, database: asyncpg.Connection, caller: Caller
) -> None:
    async with wire(server.url) as deaf, wire(server.url) as hearing:
        for client, hears in ((deaf, "nothing"), (hearing, "broadcasts")):
            await client.join(
                caller.present,
                caller.token(hears=hears),
                private=True,
                presence=ENABLED,
                broadcast={"replication_ready": True},
            )
            await of_event(client, "system")
        await send(database, caller.present, "e", {"n": 1})
        assert (await of_event(hearing, "broadcast"))["payload"]["n"] == 1
        await deaf.send("phoenix", "heartbeat", {})
        assert (await deaf.receive())["event"] == "phx_reply"


async def test_a_token_that_reads_less_than_the_one_before_closes_the_channel(
    server: Server, database: asyncpg.Connection, caller: Caller
) -> None:
    async with wire(server.url) as client:
        token = caller.token(hears="broadcasts")
        await client.join(caller.present, token, private=True, presence=ENABLED)
        new = {"access_token": caller.token()}
        await client.send(f"realtime:{caller.present}", "access_token", new)
        system = await of_event(client, "system")
        assert (await client.receive())["event"] == "phx_close"
    expected = "You no longer have permission to read from this Channel topic: "
    assert system["message"] == expected + caller.present


async def test_a_client_that_calls_presence_too_often_is_closed(
    server: Server, admin: FaultAdmin
) -> None:
    await admin.choose_plan("team")
    async with wire(server.url) as client:
        await client.join(TOPIC, presence=ENABLED)
        for n in range(6):
            await track(client, {"n": n})
        assert (await of_event(client, "system"))["message"] == (
            "Client presence rate limit exceeded"
        )
        assert (await client.receive())["event"] == "phx_close"


async def test_too_many_messages_close_whoever_gets_one_more(
    server: Server, admin: FaultAdmin
) -> None:
    await admin.choose_plan("free")
    async with wire(server.url) as client, asyncio.timeout(DEADLINE):
        await client.join(TOPIC, broadcast={"self": True})
        body = {"type": "broadcast", "event": "e", "payload": {}}
        for _ in range(500):
            await client.send(f"realtime:{TOPIC}", "broadcast", body)
        while (frame := await client.receive())["event"] == "broadcast":
            await client.send(f"realtime:{TOPIC}", "broadcast", body)
        assert frame["payload"]["message"] == "Too many messages per second"
        assert (await client.receive())["event"] == "phx_close"


async def test_too_many_joins_close_the_socket(server: Server, admin: FaultAdmin) -> None:
    await admin.choose_plan("free")
    async with wire(server.url) as client, asyncio.timeout(DEADLINE):
        for _ in range(500):
            await client.send(f"realtime:{TOPIC}", "phx_join", {"config": {}})
        while (frame := await client.receive())["payload"].get("status") != "error":
            await client.send(f"realtime:{TOPIC}", "phx_join", {"config": {}})
        reason = "ClientJoinRateLimitReached: Too many joins per second"
        assert frame["payload"]["response"] == {"reason": reason}
        assert await client.close_code() == aiohttp.WSCloseCode.GOING_AWAY


async def test_a_plan_limits_the_size_of_a_payload(server: Server, admin: FaultAdmin) -> None:
    await admin.choose_plan("free")
    async with wire(server.url) as client:
        await client.join(TOPIC, broadcast={"ack": True})
        body = {"type": "broadcast", "event": "e", "payload": {"text": "x" * 256_500}}
        await client.send(f"realtime:{TOPIC}", "broadcast", body)
        reply = await client.receive()
    assert reply["payload"] == {"status": "error", "response": "payload_size_exceeded"}


async def test_a_plan_limits_until_it_is_taken_back(server: Server, admin: FaultAdmin) -> None:
    url = f"{server.url}/realtime/v1/api/broadcast"
    message = {"topic": "t", "event": "e", "payload": {}}
    headers = {"apikey": PUBLISHABLE_KEY}
    statuses = []
    async with aiohttp.ClientSession() as session:
        for plan in (None, "free", None):
            await admin.choose_plan(plan)
            body = {"messages": [message] * 101}
            answer = await session.post(url, json=body, headers=headers)
            statuses.append(answer.status)
            if plan is not None:
                text = "Too many messages to broadcast, please reduce the batch size"
                assert await answer.json() == {"message": text}
                assert answer.headers["x-rate-limit-remaining"] == "100"
    assert statuses == [202, 429, 202]


async def test_by_http_the_plan_answers_before_anything_else(
    server: Server, admin: FaultAdmin
) -> None:
    await admin.choose_plan("free")
    url = f"{server.url}/realtime/v1/api/broadcast/t/events/e"
    async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE):
        status = 401
        while status == 401:
            good, wrong = {"apikey": PUBLISHABLE_KEY}, {"apikey": "wrong"}
            await asyncio.gather(*(session.post(url, json={}, headers=good) for _ in range(50)))
            answer = await session.post(url, json={}, headers=wrong)
            status = answer.status
        assert (status, await answer.json()) == (429, {"message": "Too many requests"})
