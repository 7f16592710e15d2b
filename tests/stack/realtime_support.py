"""What the Realtime tests share: a server of their own, policies, tokens and a raw client."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
from aiohttp import web

from local_stack.keys import Keys
from local_stack.realtime.limits import Limits
from local_stack.realtime.server import Realtime
from local_stack.settings import PUBLISHABLE_KEY, SECRET_KEY, StackSettings

DEADLINE = 10.0
READ_PREFIX = "realtime-test:read:"
WRITE_PREFIX = "realtime-test:write:"
PRESENCE_PREFIX = "realtime-test:presence:"
"""Topics whose policies permit presence, and broadcasts only with a claim."""
# aiohttp's client waits this long for an answer to its close, even from a peer that is gone.
_CLOSE_TIMEOUT = aiohttp.ClientWSTimeout(ws_close=1.0)
_POLICIES = f"""
drop policy if exists realtime_test_reads on realtime.messages;
drop policy if exists realtime_test_writes on realtime.messages;
create policy realtime_test_reads on realtime.messages for select to authenticated
using (
  realtime.topic() = '{READ_PREFIX}' || (select auth.uid())
  or realtime.topic() = '{WRITE_PREFIX}' || (select auth.uid())
  or realtime.topic() = '{PRESENCE_PREFIX}' || (select auth.uid())
  and (extension = 'presence' or (select auth.jwt() ->> 'hears') = 'broadcasts')
);
create policy realtime_test_writes on realtime.messages for insert to authenticated
with check (
  realtime.topic() = '{WRITE_PREFIX}' || (select auth.uid())
  or realtime.topic() = '{PRESENCE_PREFIX}' || (select auth.uid()) and extension = 'presence'
)
"""
_NO_POLICIES = """
drop policy if exists realtime_test_reads on realtime.messages;
drop policy if exists realtime_test_writes on realtime.messages
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """A user who may read two topics of their own, write one, and be present on a third."""

    keys: Keys
    user_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def readable(self) -> str:
        return READ_PREFIX + self.user_id

    @property
    def writable(self) -> str:
        return WRITE_PREFIX + self.user_id

    @property
    def present(self) -> str:
        return PRESENCE_PREFIX + self.user_id

    def token(self, *, lifetime: float = 600, **claims: Any) -> str:
        base = {"sub": self.user_id, "role": "authenticated", "aud": "authenticated"}
        return self.keys.sign({**base, "exp": int(time.time() + lifetime), **claims})


@asynccontextmanager
async def caller_policies(settings: StackSettings) -> AsyncIterator[asyncpg.Connection]:
    """Policies for the topics of every `Caller`, and a connection of role `postgres`."""
    connection = await asyncpg.connect(settings.socket_dsn("postgres"))
    try:
        await connection.execute(_POLICIES)
        yield connection
    finally:
        await connection.execute(_NO_POLICIES)
        await connection.close()


async def send(
    connection: asyncpg.Connection, topic: str, event: str, payload: Any, private: bool = True
) -> None:
    """Broadcast from the database, as a trigger does."""
    await connection.execute(
        "select realtime.send($1::jsonb, $2, $3, $4)", json.dumps(payload), event, topic, private
    )


class Server:
    """A Realtime of the test's own, on the stack's database; it can be stopped and started."""

    def __init__(self, settings: StackSettings, limits: Limits) -> None:
        self.settings = settings
        self.keys = Keys.load(settings)
        self.limits = limits
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._realtime: Realtime | None = None

    @property
    def process_id(self) -> int:
        return os.getpid()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._realtime = Realtime(self.settings, self.keys, self.limits)
        application = web.Application(client_max_size=10_000_000)
        application.add_routes(self._realtime.routes())
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        await self._realtime.start()

    async def stop(self) -> None:
        if self._realtime is not None and self._runner is not None:
            await self._realtime.stop()
            await self._runner.cleanup()
            self._realtime = self._runner = None


@asynccontextmanager
async def realtime_server(
    settings: StackSettings, limits: Limits | None = None
) -> AsyncIterator[Server]:
    server = Server(settings, limits or Limits())
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Wire:
    """A version 1.0.0 client that shows every frame as it came."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._ref = 0

    async def send(self, topic: str, event: str, payload: Any) -> str:
        self._ref += 1
        ref = str(self._ref)
        frame = {"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": "1"}
        await self.socket.send_json(frame)
        return ref

    async def join(self, name: str, token: str | None = None, **config: Any) -> Any:
        """Join and return the payload of the reply."""
        payload = {"config": config, "access_token": token}
        ref = await self.send(f"realtime:{name}", "phx_join", payload)
        while True:
            frame = await self.receive()
            if frame["event"] == "phx_reply" and frame["ref"] == ref:
                return frame["payload"]

    async def receive(self) -> Any:
        return await self.socket.receive_json(timeout=DEADLINE)

    def abort(self) -> None:
        """Cut the connection without a word."""
        self.socket.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def close_code(self) -> int | None:
        """Read whatever is left until the server closes; the code it closed with."""
        async with asyncio.timeout(DEADLINE):
            async for _ in self.socket:
                pass
        return self.socket.close_code


class FaultAdmin:
    """The admin endpoint of one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._faults = f"{url}/local/realtime/faults"
        self._plan = f"{url}/local/realtime/plan"

    async def inject(self, kind: str, **options: Any) -> Any:
        return await self._answer("POST", self._faults, 201, {"kind": kind, **options})

    async def faults(self) -> Any:
        return (await self._answer("GET", self._faults, 200))["faults"]

    async def heal(self) -> Any:
        return (await self._answer("DELETE", self._faults, 200))["faults"]

    async def choose_plan(self, plan: str | None) -> None:
        await self._answer("PUT", self._plan, 200, {"plan": plan})

    async def _answer(self, method: str, url: str, status: int, body: Any = None) -> Any:
        headers = {"apikey": SECRET_KEY}
        async with self._session.request(method, url, json=body, headers=headers) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()


@asynccontextmanager
async def wire(
    url: str, key: str = PUBLISHABLE_KEY, *, shows_pongs: bool = False
) -> AsyncIterator[Wire]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{url}/realtime/v1/websocket",
            params={"apikey": key},
            timeout=_CLOSE_TIMEOUT,
            autoping=not shows_pongs,
        ) as socket,
    ):
        yield Wire(socket)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true, looking again whenever the loop has run."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE
    while not condition():
        if loop.time() > deadline:
            raise TimeoutError("the condition did not become true in time")
        await asyncio.sleep(0.01)
