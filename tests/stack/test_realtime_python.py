"""The official Python client, unmodified, against Realtime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from realtime import AsyncRealtimeChannel
from supabase import AsyncClient, create_async_client

from local_stack.keys import Keys
from local_stack.settings import PUBLISHABLE_KEY
from tests.plugins.stack import RunningStack
from tests.stack.realtime_support import (
    DEADLINE,
    Caller,
    caller_policies,
    eventually,
    realtime_server,
    send,
)


class Followed:
    """A channel that keeps what it got."""

    def __init__(self, channel: AsyncRealtimeChannel) -> None:
        self.channel = channel
        self.states: list[str] = []
        self.reasons: list[str] = []
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.systems: list[str] = []
        channel.on_broadcast("*", self.messages.put_nowait)
        channel.on_system(lambda payload: self.systems.append(payload.message))

    async def subscribe(self) -> Followed:
        await self.channel.subscribe(self._state)
        return self

    def _state(self, state: Any, error: Exception | None) -> None:
        self.states.append(str(state.value))
        self.reasons.append(str(error))

    async def next(self) -> Any:
        async with asyncio.timeout(DEADLINE):
            return await self.messages.get()


@asynccontextmanager
async def client(url: str, token: str | None = None) -> AsyncIterator[AsyncClient]:
    supabase = await create_async_client(url, PUBLISHABLE_KEY)
    if token is not None:
        await supabase.realtime.set_auth(token)
    try:
        yield supabase
    finally:
        await supabase.realtime.close()


def follow(supabase: AsyncClient, topic: str, **config: Any) -> Followed:
    """A private channel, unless `private=False`, that is told when replication is ready."""
    broadcast = {"ack": False, "self": False, "replication_ready": True}
    private = config.pop("private", True)
    settings: Any = {"config": {"broadcast": {**broadcast, **config}, "private": private}}
    return Followed(supabase.channel(topic, settings))


async def follow_ready(supabase: AsyncClient, topic: str, **config: Any) -> Followed:
    followed = await follow(supabase, topic, **config).subscribe()
    await eventually(lambda: "Replication connection established" in followed.systems)
    return followed


@pytest.fixture
def caller(stack: RunningStack) -> Caller:
    return Caller(Keys.load(stack.settings))


@pytest.fixture
async def database(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    async with caller_policies(stack.settings) as connection:
        yield connection


async def test_a_policy_lets_its_user_join_and_nobody_else(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    other = Caller(caller.keys)
    async with client(stack.api_url, caller.token()) as mine:
        assert (await follow(mine, caller.readable).subscribe()).states == ["SUBSCRIBED"]
        refused = await follow(mine, other.readable).subscribe()
    assert refused.states[0] == "CHANNEL_ERROR"
    expected = "Unauthorized: You do not have permissions to read from this Channel topic: "
    assert expected + other.readable in refused.reasons[0]


async def test_the_publishable_key_alone_joins_no_private_channel(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with client(stack.api_url) as anonymous:
        refused = await follow(anonymous, caller.readable).subscribe()
        public = await follow(anonymous, "realtime-test:public", private=False).subscribe()
    assert refused.states[0] == "CHANNEL_ERROR"
    assert public.states[0] == "SUBSCRIBED"


async def test_messages_of_the_database_arrive_in_commit_order(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with client(stack.api_url, caller.token()) as supabase:
        followed = await follow_ready(supabase, caller.readable)
        second = await asyncpg.connect(stack.settings.socket_dsn("postgres"))
        try:
            early, late = database.transaction(), second.transaction()
            await early.start()
            await send(database, caller.readable, "e", {"n": 3})
            await late.start()
            for n in (0, 1, 2):
                await send(second, caller.readable, "e", {"n": n})
            await late.commit()
            await send(database, caller.readable, "e", {"n": 4})
            await early.commit()
            await send(second, caller.readable, "e", {"n": 5})
        finally:
            await second.close()
        received = [(await followed.next())["payload"]["n"] for _ in range(6)]
    assert received == [0, 1, 2, 3, 4, 5]


async def test_a_rolled_back_message_is_never_seen(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with client(stack.api_url, caller.token()) as supabase:
        followed = await follow_ready(supabase, caller.readable)
        rolled_back = database.transaction()
        await rolled_back.start()
        await send(database, caller.readable, "e", {"n": 1})
        await rolled_back.rollback()
        await send(database, caller.readable, "e", {"n": 2})
        message = await followed.next()
    assert message["payload"]["n"] == 2


async def test_a_message_of_the_database_carries_its_id(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with client(stack.api_url, caller.token()) as supabase:
        followed = await follow_ready(supabase, caller.readable)
        await send(database, caller.readable, "signals", {"text": "ü☃"})
        message = await followed.next()
    stored = await database.fetchval(
        "select id::text from realtime.messages where topic = $1", caller.readable
    )
    assert message == {
        "event": "signals",
        "payload": {"text": "ü☃", "id": stored},
        "meta": {"id": stored},
    }


async def test_topics_are_isolated_and_private_never_meets_public(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    other = Caller(caller.keys)
    async with (
        client(stack.api_url, caller.token()) as mine,
        client(stack.api_url, other.token()) as theirs,
    ):
        followed = await follow_ready(mine, caller.readable)
        elsewhere = await follow_ready(theirs, other.readable)
        public = await follow_ready(theirs, caller.readable, private=False)
        await send(database, caller.readable, "private", {})
        await send(database, caller.readable, "public", {}, private=False)
        await send(database, other.readable, "other", {})
        received = [(await f.next())["event"] for f in (followed, elsewhere, public)]
        left = [f.messages.qsize() for f in (followed, elsewhere, public)]
    assert received == ["private", "other", "public"]
    assert left == [0, 0, 0]


async def test_a_client_broadcasts_where_it_may_write(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with (
        client(stack.api_url, caller.token()) as one,
        client(stack.api_url, caller.token()) as two,
    ):
        sender = await follow(one, caller.writable, self=True).subscribe()
        receiver = await follow(two, caller.writable).subscribe()
        await sender.channel.send_broadcast("hello", {"n": 1})
        assert (await receiver.next()) == {"event": "hello", "payload": {"n": 1}}
        assert (await sender.next()) == {"event": "hello", "payload": {"n": 1}}

        read_only = await follow(one, caller.readable).subscribe()
        listening = await follow_ready(two, caller.readable)
        await read_only.channel.send_broadcast("dropped", {})
        await read_only.channel.unsubscribe()  # handled after the broadcast before it
        await eventually(lambda: "CLOSED" in read_only.states)
        await send(database, caller.readable, "kept", {})
        assert (await listening.next())["event"] == "kept"


async def test_a_broadcast_by_http_reaches_subscribers(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with client(stack.api_url, caller.token()) as supabase:
        followed = await follow(supabase, caller.writable).subscribe()
        await followed.channel.http_send("by http", {"n": 1})
        message = await followed.next()
    assert message == {"event": "by http", "payload": {"n": 1}}


async def test_a_channel_closes_when_its_token_expires(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with client(stack.api_url, caller.token(lifetime=2)) as supabase:
        followed = await follow(supabase, caller.readable).subscribe()
        await eventually(lambda: "CLOSED" in followed.states)
    assert followed.states == ["SUBSCRIBED", "CHANNEL_ERROR", "CLOSED"]
    assert "Token has expired 0 seconds ago" in followed.reasons[1]


async def test_a_new_token_keeps_a_channel_open(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with client(stack.api_url, caller.token(lifetime=2)) as supabase:
        followed = await follow_ready(supabase, caller.readable)
        brief = await follow(supabase, "realtime-test:witness", private=False).subscribe()
        assert brief.states == ["SUBSCRIBED"]
        await followed.channel.push("access_token", {"access_token": caller.token()})
        await eventually(lambda: "CLOSED" in brief.states)
        await send(database, caller.readable, "still here", {})
        assert (await followed.next())["event"] == "still here"
    assert followed.states == ["SUBSCRIBED"]


async def test_set_auth_with_another_users_token_closes_the_channel(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with client(stack.api_url, caller.token()) as supabase:
        followed = await follow(supabase, caller.readable).subscribe()
        await supabase.realtime.set_auth(Caller(caller.keys).token())
        await eventually(lambda: "CLOSED" in followed.states)
    expected = "You do not have permissions to read from this Channel topic: "
    assert expected + caller.readable in followed.reasons[1]


async def test_after_leaving_nothing_arrives(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with (
        client(stack.api_url, caller.token()) as one,
        client(stack.api_url, caller.token()) as two,
    ):
        leaving = await follow_ready(one, caller.readable)
        staying = await follow_ready(two, caller.readable)
        await leaving.channel.unsubscribe()
        await eventually(lambda: "CLOSED" in leaving.states)
        await send(database, caller.readable, "late", {})
        await staying.next()
        assert leaving.messages.empty()


# The client reads a deprecated attribute of `websockets` there; an error would end the client.
@pytest.mark.filterwarnings("ignore:ConnectionClosed.(code|reason):DeprecationWarning")
async def test_a_client_rejoins_after_the_server_restarts(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    async with (
        realtime_server(stack.settings) as server,
        client(server.url, caller.token()) as supabase,
    ):
        followed = await follow_ready(supabase, caller.readable)
        await server.stop()
        await eventually(lambda: "CHANNEL_ERROR" in followed.states)
        followed.systems.clear()
        await server.start()
        await eventually(lambda: "Replication connection established" in followed.systems)
        await send(database, caller.readable, "back", {})
        assert (await followed.next())["event"] == "back"
    assert followed.states[-1] == "SUBSCRIBED"


async def test_replay_gives_the_last_messages_and_only_once(
    stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    for n in range(3):
        await send(database, caller.readable, "old", {"n": n})
    async with client(stack.api_url, caller.token()) as supabase:
        followed = await follow_ready(supabase, caller.readable, replay={"since": 0, "limit": 2})
        await send(database, caller.readable, "new", {"n": 3})
        messages = [await followed.next() for _ in range(3)]
    assert [m["payload"]["n"] for m in messages] == [1, 2, 3]
    assert [m["meta"].get("replayed", False) for m in messages] == [True, True, False]


async def test_clients_see_each_other_come_and_go(stack: RunningStack) -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    def present(supabase: AsyncClient, key: str) -> Any:
        config: Any = {"config": {"presence": {"key": key, "enabled": True}}}
        return supabase.channel("realtime-test:present", config)

    async with client(stack.api_url) as one, client(stack.api_url) as two:
        watching, ann = present(one, "bob"), present(two, "ann")
        watching.on_presence_join(lambda key, _, new: seen.put_nowait((key, new[0]["mood"])))
        watching.on_presence_leave(lambda key, _, left: seen.put_nowait((key, left[0]["mood"])))
        await watching.subscribe()
        await ann.subscribe()
        await ann.track({"mood": "calm"})
        async with asyncio.timeout(DEADLINE):
            assert await seen.get() == ("ann", "calm")
            await ann.untrack()
            assert await seen.get() == ("ann", "calm")
