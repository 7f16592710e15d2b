"""One Realtime channel, from its join to its loss. The only module that touches the WebSocket.

The official `realtime` client stops for good after an exception in a callback, gives up after a
few reconnects and does not subscribe again after the server closed a channel. So each connection
is used once: whatever ends it is reported, and the caller opens another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from signal_persistence.credentials import Credentials
from signal_persistence.errors import SignalPersistenceError

if TYPE_CHECKING:
    from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates

EVENT: Final = "signals_ingested"
_REPLICATION_READY: Final = "Replication connection established"
_LOOK_EVERY: Final = 5.0
"""Seconds between looks at the token and at the health of the connection."""
_CLOSE_SECONDS: Final = 2.0
_TOKEN_REFUSALS: Final = ("JWT", "Jwt", "Token has expired")

_log = logging.getLogger(__name__)


class ChannelListener(Protocol):
    """Who is told what happens on a channel."""

    def on_joined(self) -> None: ...

    def on_replication_ready(self) -> None: ...

    def on_broadcast(self, payload: Mapping[str, Any]) -> None: ...


class LiveChannel:
    """Join a private topic and stay there as long as it lasts."""

    def __init__(
        self,
        url: str,
        key: str,
        topic: str,
        credentials: Credentials,
        listener: ChannelListener,
        *,
        timeout: float = 10.0,
    ) -> None:
        self._url = f"{url.rstrip('/')}/realtime/v1"
        self._key = key
        self._topic = topic
        self._credentials = credentials
        self._listener = listener
        self._timeout = timeout
        self._token_was_refused = False

    async def hold(self) -> str:
        """Join, report to the listener, and return why the channel was lost.

        Raises what connecting or asking for a token raises. Cancelling it closes the connection.
        """
        token = await self._credentials.access_token(refresh=self._token_was_refused)
        # Only here, so that those who never follow live need not wait for it to be imported; and
        # on a thread, so that the event loop does not wait either.
        realtime = await asyncio.to_thread(import_module, "realtime")
        client: AsyncRealtimeClient = realtime.AsyncRealtimeClient(
            self._url, token=self._key, auto_reconnect=False, timeout=int(self._timeout)
        )
        await client.set_auth(token)
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        channel = client.channel(
            self._topic,
            {
                "config": {
                    "broadcast": {"ack": False, "self": False, "replication_ready": True},
                    "presence": {"key": "", "enabled": False},
                    "private": True,
                }
            },
        )
        channel.on_broadcast(EVENT, self._guarded(lambda message: self._told(message["payload"])))
        channel.on_system(self._guarded(lambda system: self._system(system.message)))
        try:
            await client.connect()
            await channel.subscribe(lambda state, error: self._changed(lost, state, error))
            reason = await self._stay(client, lost, token)
        finally:
            await _abandon(client, channel)
        self._token_was_refused = any(sign in reason for sign in _TOKEN_REFUSALS)
        return reason

    async def _stay(
        self, client: AsyncRealtimeClient, lost: asyncio.Future[str], token: str
    ) -> str:
        while True:
            await asyncio.wait({lost}, timeout=_LOOK_EVERY)
            if lost.done():
                return lost.result()
            listening = client._listen_task
            if not client.is_connected or listening is None or listening.done():
                return "the connection stopped listening"
            token = await self._keep_fresh(client, token)

    async def _keep_fresh(self, client: AsyncRealtimeClient, token: str) -> str:
        """Give the server the next token before this one ends; it closes the channel otherwise."""
        try:
            current = await self._credentials.access_token()
        except SignalPersistenceError as error:
            _log.warning("Cannot renew the access token yet: %s", error)
            return token
        if current != token:
            await client.set_auth(current)
        return current

    def _changed(
        self,
        lost: asyncio.Future[str],
        state: RealtimeSubscribeStates,
        error: Exception | None,
    ) -> None:
        if state.name == "SUBSCRIBED":
            self._listener.on_joined()
        elif not lost.done():
            lost.set_result(f"{state.value}: {error}" if error else state.value)

    def _told(self, payload: Mapping[str, Any]) -> None:
        self._listener.on_broadcast(payload)

    def _system(self, message: str) -> None:
        if message == _REPLICATION_READY:
            self._listener.on_replication_ready()

    @staticmethod
    def _guarded(callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """An exception that reaches the library would end its listening without a word."""

        def call(argument: Any) -> None:
            try:
                callback(argument)
            except Exception:
                _log.exception("Cannot take in a message of the live channel")

        return call


async def _abandon(client: AsyncRealtimeClient, channel: AsyncRealtimeChannel) -> None:
    """Close the connection and stop the library's timers, which would join again."""
    channel.rejoin_timer.reset()
    channel.join_push.destroy()
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()
    except Exception as error:
        _log.debug("Closing the live connection failed: %r", error)
