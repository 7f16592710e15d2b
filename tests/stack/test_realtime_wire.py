"""Realtime, frame by frame: what official clients rarely do, and the exact words of answers."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import jwt
import pytest

from local_stack.keys import Keys
from local_stack.realtime.limits import Limits
from local_stack.settings import JWT_SECRET, PUBLISHABLE_KEY, SECRET_KEY
from tests.plugins.stack import Account, RunningStack
from tests.stack.realtime_support import (
    DEADLINE,
    Caller,
    Server,
    caller_policies,
    realtime_server,
    send,
    wire,
)

PUBLIC = "realtime-test:public"


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


def hs256(secret: str = JWT_SECRET, **claims: Any) -> str:
    return jwt.encode(claims, secret, algorithm="HS256")


def refused_tokens() -> dict[str, tuple[str, str, str]]:
    """Each wrong token, and what a handshake and a join answer to it."""
    later = int(time.time()) + 600
    missing = "Fields `role` and `exp` are required in JWT"
    signature = "Failed to validate JWT signature"
    return {
        "no role": (hs256(exp=later), missing, f"InvalidJWTToken: {missing}"),
        "no exp": (hs256(role="anon"), missing, f"InvalidJWTToken: {missing}"),
        "forged": (
            hs256("another secret of at least 32 characters", role="anon", exp=later),
            signature,
            f"JwtSignatureError: {signature}",
        ),
        "no jwt": (
            "nonsense",
            "The token provided is not a valid JWT",
            "MalformedJWT: The token provided is not a valid JWT",
        ),
    }


@pytest.mark.parametrize("name", refused_tokens())
async def test_a_wrong_token_is_refused_at_the_handshake_and_at_the_join(
    stack: RunningStack, name: str
) -> None:
    token, handshake_text, join_reason = refused_tokens()[name]
    url = f"{stack.api_url}/realtime/v1/websocket"
    async with aiohttp.ClientSession() as session:
        answer = await session.get(url, params={"apikey": token})
        assert (answer.status, await answer.json()) == (401, {"error": handshake_text})
    async with wire(stack.api_url) as client:
        reply = await client.join(PUBLIC, token)
    assert reply == {"status": "error", "response": {"reason": join_reason}}


async def test_an_expired_token_is_refused_with_its_age(stack: RunningStack) -> None:
    token = hs256(role="anon", exp=int(time.time()) - 100)
    async with wire(stack.api_url) as client:
        reply = await client.join(PUBLIC, token)
    reason = reply["response"]["reason"]
    assert reason.startswith("InvalidJWTToken: Token has expired 10")
    assert reason.endswith(" seconds ago")
    async with aiohttp.ClientSession() as session:
        url = f"{stack.api_url}/realtime/v1/websocket"
        answer = await session.get(url, params={"apikey": token})
        assert await answer.json() == {"error": "Token has expired"}


async def test_a_handshake_needs_an_api_key_and_a_known_version(stack: RunningStack) -> None:
    url = f"{stack.api_url}/realtime/v1/websocket"
    async with aiohttp.ClientSession() as session:
        answer = await session.get(url)
        assert (answer.status, await answer.json()) == (401, {"error": "API key is missing"})
        answer = await session.get(url, params={"apikey": PUBLISHABLE_KEY, "vsn": "3.0.0"})
        assert answer.status == 403


async def test_every_kind_of_key_opens_a_socket(stack: RunningStack, caller: Caller) -> None:
    keys = (PUBLISHABLE_KEY, SECRET_KEY, stack.anon_key, stack.service_role_key, caller.token())
    for key in keys:
        async with wire(stack.api_url, key) as client:
            assert (await client.join(PUBLIC))["status"] == "ok"


async def test_a_secret_key_reads_every_private_channel(
    stack: RunningStack, caller: Caller
) -> None:
    async with wire(stack.api_url, SECRET_KEY) as client:
        assert (await client.join(caller.readable, private=True))["status"] == "ok"


async def test_a_session_of_auth_opens_the_topics_of_its_user_only(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller, account: Account
) -> None:
    user = Caller(caller.keys, str(account.account_id))
    async with wire(stack.api_url) as client:
        own = await client.join(user.readable, account.access_token, private=True)
        other = await client.join(caller.readable, account.access_token, private=True)
    assert (own["status"], other["status"]) == ("ok", "error")


async def test_the_first_frames_of_a_join(stack: RunningStack) -> None:
    async with wire(stack.api_url) as client:
        payload = {"config": {"broadcast": {"replication_ready": "true"}, "private": "false"}}
        await client.send(f"realtime:{PUBLIC}", "phx_join", payload)
        assert await client.receive() == {
            "topic": f"realtime:{PUBLIC}",
            "event": "phx_reply",
            "payload": {"status": "ok", "response": {"postgres_changes": []}},
            "ref": "1",
        }
        assert await client.receive() == {
            "topic": f"realtime:{PUBLIC}",
            "event": "system",
            "payload": {
                "extension": "system",
                "status": "ok",
                "message": "Replication connection established",
                "channel": PUBLIC,
            },
            "ref": None,
        }


async def test_a_heartbeat_is_answered_with_its_ref_even_when_that_is_null(
    stack: RunningStack,
) -> None:
    async with wire(stack.api_url) as client:
        for ref in ("7", None):
            heartbeat: dict[str, Any] = {
                "topic": "phoenix",
                "event": "heartbeat",
                "payload": {},
                "ref": ref,
            }
            await client.socket.send_json(heartbeat)
            assert await client.receive() == {
                "topic": "phoenix",
                "event": "phx_reply",
                "payload": {"status": "ok", "response": {}},
                "ref": ref,
            }


@pytest.mark.parametrize(
    ("topic", "config", "reason"),
    [
        ("realtime:", {}, "TopicNameRequired: You must provide a topic name"),
        ("elsewhere", {}, "unmatched topic"),
        (
            "realtime:t",
            {"broadcast": {"replay": {"since": 0}}},
            "UnableToReplayMessages: Replay is not allowed for public channels",
        ),
        (
            "realtime:t",
            {"postgres_changes": [{"event": "*", "schema": "public"}]},
            "NotSupported: Cannot use postgres_changes on this channel: the local stack does not "
            "have it; leave it out, or use a hosted project",
        ),
    ],
)
async def test_a_join_that_cannot_be_served_says_why(
    stack: RunningStack, topic: str, config: dict[str, Any], reason: str
) -> None:
    async with wire(stack.api_url) as client:
        await client.send(topic, "phx_join", {"config": config})
        reply = await client.receive()
    assert reply["payload"] == {"status": "error", "response": {"reason": reason}}


@pytest.mark.parametrize("replay", [{"since": "yesterday"}, {"since": 10**30}, 5, {"limit": 3}])
async def test_wrong_replay_params_are_refused(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller, replay: Any
) -> None:
    async with wire(stack.api_url) as client:
        reply = await client.join(
            caller.readable, caller.token(), private=True, broadcast={"replay": replay}
        )
    reason = "UnableToReplayMessages: Replay params are not valid"
    assert reply == {"status": "error", "response": {"reason": reason}}


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [({}, range(2, 27)), ({"limit": 100}, range(2, 27)), ({"limit": 0}, range(26, 27))],
)
async def test_replay_is_the_last_25_at_most_in_the_order_they_were_sent(
    server: Server,
    database: asyncpg.Connection,
    caller: Caller,
    asked: dict[str, int],
    numbers: range,
) -> None:
    for n in range(27):
        await send(database, caller.readable, "e", {"n": n})
    async with wire(server.url) as client:
        replay = {"since": 0, **asked}
        await client.join(
            caller.readable, caller.token(), private=True, broadcast={"replay": replay}
        )
        received = [(await client.receive())["payload"] for _ in numbers]
    assert [body["payload"]["n"] for body in received] == list(numbers)
    assert all(body["meta"]["replayed"] for body in received)


async def test_a_second_join_of_a_topic_closes_the_first(stack: RunningStack) -> None:
    async with wire(stack.api_url) as client:
        await client.join(PUBLIC)
        await client.send(f"realtime:{PUBLIC}", "phx_join", {"config": {}})
        frames = [await client.receive() for _ in range(2)]
    assert [(f["event"], f["ref"]) for f in frames] == [("phx_close", "1"), ("phx_reply", "2")]


async def test_leaving_is_answered_and_then_closes(stack: RunningStack) -> None:
    async with wire(stack.api_url) as client:
        await client.join(PUBLIC)
        await client.send(f"realtime:{PUBLIC}", "phx_leave", {})
        frames = [await client.receive() for _ in range(2)]
        assert [(f["event"], f["ref"]) for f in frames] == [("phx_reply", "2"), ("phx_close", "1")]
        await client.send(f"realtime:{PUBLIC}", "broadcast", {"event": "e", "payload": {}})
        reply = await client.receive()
    assert reply["payload"]["response"] == {"reason": "unmatched topic"}


async def test_frames_that_cannot_be_read_are_ignored(stack: RunningStack) -> None:
    async with wire(stack.api_url) as client:
        for text in ("", "nonsense", "[]", '{"topic": 1}'):
            await client.socket.send_str(text)
        await client.socket.send_bytes(b"\x03\x00")
        assert (await client.join(PUBLIC))["status"] == "ok"


async def test_a_broadcast_is_acknowledged_when_asked_for(stack: RunningStack) -> None:
    async with wire(stack.api_url) as client:
        await client.join(PUBLIC, broadcast={"ack": True, "self": True})
        body = {"type": "broadcast", "event": "e", "payload": {"n": 1}}
        await client.send(f"realtime:{PUBLIC}", "broadcast", body)
        broadcast, reply = await client.receive(), await client.receive()
    assert broadcast["payload"] == {"event": "e", "payload": {"n": 1}, "type": "broadcast"}
    assert reply["payload"] == {"status": "ok", "response": {}}


async def test_a_broadcast_comes_back_to_its_sender_only_when_asked_for(
    stack: RunningStack,
) -> None:
    async with wire(stack.api_url) as client:
        await client.join(PUBLIC, broadcast={"ack": True})
        await client.send(f"realtime:{PUBLIC}", "broadcast", {"event": "e", "payload": {}})
        assert (await client.receive())["event"] == "phx_reply"


async def test_a_broadcast_over_the_limit_is_refused(server: Server) -> None:
    async with wire(server.url) as client:
        await client.join(PUBLIC, broadcast={"ack": True, "self": True})
        text = "x" * server.limits.payload_bytes
        body = {"type": "broadcast", "event": "e", "payload": {"text": text}}
        await client.send(f"realtime:{PUBLIC}", "broadcast", body)
        reply = await client.receive()
    assert reply["payload"] == {"status": "error", "response": "payload_size_exceeded"}


async def test_a_frame_over_the_limit_closes_the_socket(stack: RunningStack) -> None:
    limits = Limits(frame_bytes=1000)
    async with realtime_server(stack.settings, limits) as server, wire(server.url) as client:
        await client.socket.send_str("x" * 1001)
        assert await client.close_code() == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_socket_has_at_most_its_number_of_channels(stack: RunningStack) -> None:
    limits = Limits(channels_per_socket=2)
    async with realtime_server(stack.settings, limits) as server, wire(server.url) as client:
        replies = [await client.join(f"{PUBLIC}:{n}") for n in range(3)]
        again = await client.join(f"{PUBLIC}:0")
    assert again["status"] == "ok", "joining again is not one more channel"
    assert [reply["status"] for reply in replies] == ["ok", "ok", "error"]
    assert replies[2]["response"]["reason"] == "ChannelRateLimitReached: Too many channels"


async def test_a_silent_socket_and_one_without_channels_are_closed(stack: RunningStack) -> None:
    for limits in (Limits(idle_seconds=0.1), Limits(no_channel_seconds=0.1)):
        async with realtime_server(stack.settings, limits) as server, wire(server.url) as client:
            assert await client.close_code() == aiohttp.WSCloseCode.OK


@pytest.mark.parametrize(
    ("close_seconds", "code"),
    [(5, aiohttp.WSCloseCode.INTERNAL_ERROR), (0.01, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)],
    ids=["reads again in time", "reads too late"],
)
async def test_a_socket_that_does_not_read_is_closed_and_the_others_are_not(
    stack: RunningStack, database: asyncpg.Connection, close_seconds: float, code: int
) -> None:
    limits = Limits(outgoing_bytes=1_000_000, close_seconds=close_seconds)
    async with (
        realtime_server(stack.settings, limits) as server,
        wire(server.url) as reading,
        wire(server.url) as stuck,
    ):
        await stuck.join(PUBLIC)
        await reading.join(PUBLIC, broadcast={"replication_ready": True})
        assert (await reading.receive())["event"] == "system"
        for n in range(200):
            await send(database, PUBLIC, "e", {"n": n, "x": "x" * 100_000}, private=False)
            assert (await reading.receive())["payload"]["payload"]["n"] == n
        assert await stuck.close_code() == code


async def test_a_server_that_stops_says_goodbye_with_1012(stack: RunningStack) -> None:
    async with realtime_server(stack.settings) as server, wire(server.url) as client:
        await client.join(PUBLIC)
        stopping = asyncio.create_task(server.stop())
        frame = await client.receive()
        code = await client.close_code()
        await stopping
    assert frame["payload"]["message"] == "Server requested disconnect"
    assert code == aiohttp.WSCloseCode.SERVICE_RESTART


async def test_without_a_database_a_private_join_says_so(
    stack: RunningStack, caller: Caller
) -> None:
    settings = dataclasses.replace(stack.settings, database_port=1)
    limits = Limits(replication_ready_seconds=0.1)
    async with realtime_server(settings, limits) as server, wire(server.url) as client:
        reply = await client.join(caller.readable, caller.token(), private=True)
        reason = reply["response"]["reason"]
        assert reason == (
            "UnableToConnectToProject: Realtime was unable to connect to the project database"
        )
        await client.join(PUBLIC, broadcast={"replication_ready": True})
        system, close = await client.receive(), await client.receive()
    assert system["payload"]["message"] == "Replication connection was not established in time"
    assert (system["payload"]["status"], close["event"]) == ("error", "phx_close")


async def test_replication_comes_back_after_it_was_cut(
    server: Server, database: asyncpg.Connection
) -> None:
    async with wire(server.url) as client:
        await client.join(PUBLIC, broadcast={"replication_ready": True})
        assert (await client.receive())["event"] == "system"
        superuser = await asyncpg.connect(server.settings.socket_dsn("supabase_admin"))
        await superuser.execute(
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
            " where slot_name ~ ('realtime_messages_replication_slot_' || $1 || '_')",
            str(server.process_id),
        )
        await superuser.close()
        await client.join(f"{PUBLIC}:again", broadcast={"replication_ready": True})
        assert (await client.receive())["event"] == "system"
        await send(database, PUBLIC, "back", {}, private=False)
        assert (await client.receive())["payload"]["event"] == "back"


async def test_the_write_ahead_log_of_other_tables_is_not_kept(
    server: Server, database: asyncpg.Connection
) -> None:
    async with wire(server.url) as client:
        await client.join(PUBLIC, broadcast={"replication_ready": True})
        assert (await client.receive())["event"] == "system"
    start = await database.fetchval("select pg_current_wal_lsn()")
    is_behind = True
    async with asyncio.timeout(DEADLINE):
        while is_behind:
            await database.execute("select pg_logical_emit_message(false, 'test', 'x')")
            is_behind = await database.fetchval(
                "select bool_or(confirmed_flush_lsn <= $1) from pg_replication_slots"
                " where slot_name ~ ('realtime_messages_replication_slot_' || $2 || '_')",
                start,
                str(server.process_id),
            )
    assert is_behind is False, "there is a slot, and it has moved on"


class TestByHttp:
    """Broadcasts by HTTP, whose client says what the answer is."""

    @pytest.fixture
    async def session(self, stack: RunningStack) -> AsyncIterator[aiohttp.ClientSession]:
        base = f"{stack.api_url}/realtime/v1/api/"
        async with aiohttp.ClientSession(base, raise_for_status=False) as session:
            yield session

    async def test_a_batch_reaches_every_topic_it_may_write(
        self,
        stack: RunningStack,
        database: asyncpg.Connection,
        caller: Caller,
        session: aiohttp.ClientSession,
    ) -> None:
        topics = [(PUBLIC, False), (caller.readable, True), (caller.writable, True)]
        messages = [
            {"topic": topic, "event": "e", "payload": {"n": n}, "private": private}
            for n, (topic, private) in enumerate(topics)
        ]
        async with wire(stack.api_url) as client:
            for topic, private in topics:
                await client.join(topic, caller.token(), private=private)
            answer = await session.post(
                "broadcast", json={"messages": messages}, headers=bearer(caller.token())
            )
            received = [(await client.receive())["payload"]["payload"]["n"] for _ in range(2)]
        assert (answer.status, await answer.read()) == (202, b"")
        assert received == [0, 2]

    async def test_a_private_topic_without_write_permission_is_forbidden(
        self, database: asyncpg.Connection, caller: Caller, session: aiohttp.ClientSession
    ) -> None:
        for topic, status in ((caller.writable, 202), (caller.readable, 403)):
            answer = await session.post(
                f"broadcast/{topic}/events/e?private=true", json={}, headers=bearer(caller.token())
            )
            assert answer.status == status
        assert await answer.json() == {"message": "Unauthorized"}

    async def test_an_unknown_caller_is_unauthorized(self, session: aiohttp.ClientSession) -> None:
        for path in ("broadcast", "broadcast/t/events/e"):
            for headers in ({}, bearer("nonsense"), {"apikey": "sb_publishable_wrong"}):
                answer = await session.post(path, json={}, headers=headers)
                assert (answer.status, await answer.json()) == (401, {"message": "Unauthorized"})

    async def test_a_wrong_batch_is_explained(self, session: aiohttp.ClientSession) -> None:
        headers = {"apikey": PUBLISHABLE_KEY}
        answer = await session.post("broadcast", json={}, headers=headers)
        assert answer.status == 422
        assert await answer.json() == {"errors": {"messages": ["can't be blank"]}}
        messages = [{"topic": "t", "payload": [], "private": 1}]
        answer = await session.post("broadcast", json={"messages": messages}, headers=headers)
        assert answer.status == 422
        problems = {
            "event": ["can't be blank"],
            "payload": ["is invalid"],
            "private": ["is invalid"],
        }
        assert await answer.json() == {"errors": {"messages": [problems]}}

    async def test_a_single_message_is_json_or_bytes(self, session: aiohttp.ClientSession) -> None:
        statuses = []
        for kind in ("application/json", "application/octet-stream", "text/plain"):
            headers = {"apikey": PUBLISHABLE_KEY, "Content-Type": kind}
            answer = await session.post("broadcast/t/events/e", data=b"{}", headers=headers)
            statuses.append(answer.status)
        assert statuses == [202, 202, 415]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_broadcasts_of_the_database_survive_a_burst(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    """Thousands of rows of one transaction reach a client that reads, in order."""
    async with wire(stack.api_url) as client:
        config = {"replication_ready": True}
        await client.join(caller.readable, caller.token(), private=True, broadcast=config)
        assert (await client.receive())["event"] == "system"
        await database.execute(
            "select realtime.send(jsonb_build_object('n', n), 'e', $1, true)"
            " from generate_series(0, 4999) as n",
            caller.readable,
        )
        async with asyncio.timeout(DEADLINE):
            received = [(await client.receive())["payload"]["payload"]["n"] for _ in range(5000)]
    assert received == list(range(5000))
