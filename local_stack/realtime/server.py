"""The Realtime stand-in as the gateway sees it: start, stop and routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from functools import partial

from aiohttp import WSCloseCode, web

from local_stack.keys import Keys
from local_stack.realtime.admin import Admin
from local_stack.realtime.authorization import (
    Authenticator,
    Authorization,
    CheckFailure,
    Identity,
    TokenRefusal,
)
from local_stack.realtime.channels import Hub
from local_stack.realtime.connection import Connection
from local_stack.realtime.faults import Faults, Kind
from local_stack.realtime.limits import Limits
from local_stack.realtime.protocol import Broadcast, Version
from local_stack.realtime.quotas import Usage
from local_stack.realtime.rest import RestBroadcasts
from local_stack.realtime.services import Services
from local_stack.realtime.session import Session
from local_stack.realtime.tail import DatabaseNotReady, Tail
from local_stack.settings import StackSettings

MAINTENANCE_SECONDS = 3600.0
_HANDSHAKE_TEXTS = {
    401: "Failed to validate JWT signature",
    403: "Realtime was disabled for this tenant",
    404: "Tenant not found",
    429: "Too many connected users",
    500: "Error connecting to Realtime",
}
"""What hosted Realtime says with these, for a fault that refuses handshakes."""
_MAINTAIN = "select local_stack.maintain_realtime_messages()"
_log = logging.getLogger(__name__)


class Realtime:
    """Serves `/realtime/v1`. It starts without a database and finds it when it is there."""

    def __init__(self, settings: StackSettings, keys: Keys, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._sessions: dict[Session, asyncio.Future[None]] = {}
        dsn = settings.socket_dsn("supabase_admin")
        faults = Faults(_later)
        usage = Usage(time.monotonic, self._limits.rate_bucket_seconds)
        hub = Hub(faults, usage)
        self._authorization = Authorization(dsn, self._limits)
        self._tail = Tail(
            dsn, partial(_publish, hub, usage), self._prepare, lambda: self._services.payload_bytes
        )
        self._services = Services(
            Authenticator(keys),
            self._authorization,
            hub,
            self._tail,
            self._limits,
            faults,
            usage,
        )
        self._maintenance: asyncio.Task[None] | None = None
        self._is_stopping = False

    def routes(self) -> list[web.RouteDef]:
        """What the gateway adds to its own routes; also where Realtime itself has them."""
        rest = RestBroadcasts(self._services)
        served = [web.get("/socket/websocket", self._websocket)]
        for root in ("/api/broadcast", "/realtime/v1/api/broadcast"):
            served.append(web.post(root, rest.batch))
            served.append(web.post(root + "/{topic}/events/{event}", rest.single))
        served.append(web.get("/realtime/v1/websocket", self._websocket))
        return served + Admin(self._services, self._sessions.keys()).routes()

    async def start(self) -> None:
        """Get ready for clients. As on hosted, the database is followed from the first of them."""
        await self._authorization.start()
        self._maintenance = asyncio.create_task(self._maintain(), name="realtime maintenance")

    async def stop(self) -> None:
        """Send every client away with 1012, which makes it come back later."""
        self._is_stopping = True
        self._services.faults.heal()
        for session in self._sessions:
            session.disconnect(WSCloseCode.SERVICE_RESTART)
        if self._sessions:
            await asyncio.wait(self._sessions.values(), timeout=self._limits.close_seconds + 0.5)
        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.gather(self._maintenance, return_exceptions=True)
        await self._tail.stop()
        await self._authorization.stop()

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        try:
            version = Version(request.query.get("vsn", Version.V1))
        except ValueError:
            return web.Response(status=403)
        try:
            await self._check_handshake()
            identity = self._identify(request)
        except _HandshakeRefused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)
        except TokenRefusal as refusal:
            return web.json_response({"error": refusal.handshake_text}, status=401)
        await self._follow_database()
        socket = web.WebSocketResponse(
            timeout=self._limits.close_seconds,
            max_msg_size=self._limits.frame_bytes,
            compress=False,
            autoping=False,
            autoclose=False,
        )
        await socket.prepare(request)
        connection = Connection(socket, partial(_abort, request), version, self._limits)
        session = Session(self._services, connection, identity)
        self._sessions[session] = ended = asyncio.get_running_loop().create_future()
        self._services.usage.connections += 1
        try:
            await session.run()
        finally:
            self._services.usage.connections -= 1
            del self._sessions[session]
            ended.set_result(None)
        return socket

    async def _check_handshake(self) -> None:
        """Refuse it, or hold it back, for reasons that no client can mend."""
        faults, usage = self._services.faults, self._services.usage
        if frozen := faults.strike((Kind.FREEZE,)):
            await frozen.ended.wait()
        if self._is_stopping:
            raise _HandshakeRefused(503, "Realtime is restarting, please standby")
        if struck := faults.strike((Kind.REFUSE_HANDSHAKE,)):
            status = struck.fault.status
            raise _HandshakeRefused(status, _HANDSHAKE_TEXTS.get(status, "Refused"))
        if not usage.has_room_for_connection():
            raise _HandshakeRefused(429, "Too many connected users")
        if usage.has_too_many_joins():
            raise _HandshakeRefused(429, "Too many joins per second")

    async def _follow_database(self) -> None:
        """Start the tail, and give it a moment: a client that joins misses nothing after that."""
        self._tail.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.first_tail_seconds):
                await self._tail.wait_until_streaming()

    def _identify(self, request: web.Request) -> Identity:
        key = request.query.get("apikey") or request.headers.get("x-api-key")
        if not key:
            raise TokenRefusal("InvalidJWTToken", "API key is missing")
        headers = {n.lower(): v for n, v in request.headers.items() if n.lower().startswith("x-")}
        return self._services.authenticator.identify_api_key(key, json.dumps(headers))

    async def _prepare(self) -> None:
        """Make the partitions that messages need; the tail connects after this."""
        try:
            async with self._authorization.connection() as connection:
                await connection.execute(_MAINTAIN)
        except CheckFailure as failure:
            raise DatabaseNotReady(str(failure.__cause__ or failure)) from failure

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(MAINTENANCE_SECONDS)
            try:
                await self._prepare()
            except DatabaseNotReady as error:
                _log.warning("Cannot maintain the partitions of realtime.messages: %s", error)


class _HandshakeRefused(Exception):  # noqa: N818
    """Cannot open a socket now."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _publish(hub: Hub, usage: Usage, is_private: bool, topic: str, broadcast: Broadcast) -> None:
    """Give a message of the database to its topic. Over the quota it is dropped, as on hosted."""
    if not usage.has_too_many_messages():
        hub.publish(is_private=is_private, name=topic, broadcast=broadcast)


def _later(seconds: float, action: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, action)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
