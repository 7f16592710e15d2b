"""One Realtime channel, from its join to its loss. The only module that touches the WebSocket.

The official `realtime` client stops for good after an exception in a callback, gives up after a
few reconnects, does not subscribe again after the server closed a channel, and does not look
whether its heartbeats are answered. So each connection is used once: whatever ends it is reported,
and the caller opens another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from signal_persistence.credentials import Credentials
from signal_persistence.errors import SignalPersistenceError
from signal_persistence.refusals import reason_of, refuses_token
from signal_persistence.strand import STANDSTILL_SECONDS
from signal_persistence.subscription import StateReason

if TYPE_CHECKING:
    from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
    from realtime.message import SuccessSystemPayload

INGESTED: Final = "signals_ingested"
ADVANCED: Final = "signals_advanced"
_REPLICATION_READY: Final = "Replication connection established"
_CONNECT_SECONDS: Final = 4.0
_HEARTBEAT_SECONDS: Final = 1.5
"""A heartbeat is sent when nothing was heard for so long; a busy channel needs none."""
_SILENCE_SECONDS: Final = 4
"""A connection on which nothing was heard for so long, heartbeats unanswered, is lost."""
_JOIN_SECONDS: Final = 7
"""The same while it joins: the server thinks for 5 s before it refuses, and answers nothing."""
_TOKEN_SECONDS: Final = 5.0
"""Seconds between looks at whether the token was renewed."""
_CLOSE_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class ChannelListener(Protocol):
    """Who is told what happens on a channel."""

    def on_joined(self) -> None: ...

    def on_replication_ready(self) -> None: ...

    def on_broadcast(self, event: str, payload: Mapping[str, Any]) -> None: ...

    def on_lost(self, loss: Loss) -> None: ...


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a channel was lost: the reason of the state that follows, and what was said."""

    reason: StateReason
    said: str

    @classmethod
    def of(cls, error: BaseException) -> Loss:
        """The loss that an error means."""
        said = _said_by(error)
        return cls(reason_of(said), said)


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
        self._connection: _Connection | None = None

    async def hold(self) -> None:
        """Connect, join, report to the listener, and return when the channel was lost.

        Raises what asking for a token raises. Cancelling it closes the connection.
        """
        token = await self._credentials.access_token(refresh=self._token_was_refused)
        # Only here, so that those who never follow live need not wait for it to be imported; and
        # on a thread, so that the event loop does not wait either.
        realtime = await asyncio.to_thread(import_module, "realtime")
        client: AsyncRealtimeClient = realtime.AsyncRealtimeClient(
            self._url, token=self._key, auto_reconnect=False, timeout=int(self._timeout)
        )
        await client.set_auth(token)
        self._connection = connection = _Connection(client, self._topic, self._listener)
        try:
            loss = await connection.hold(lambda: self._renew_tokens(client, token))
        finally:
            self._connection = None
        self._token_was_refused = refuses_token(loss.said)

    def leave(self, loss: Loss) -> None:
        """Give up the connection there is, for this reason."""
        if self._connection is not None:
            self._connection.lose(loss)

    async def _renew_tokens(self, client: AsyncRealtimeClient, token: str) -> None:
        """Give the server each token before the last one ends; it closes the channel otherwise."""
        while True:
            await asyncio.sleep(_TOKEN_SECONDS)
            try:
                current = await self._credentials.access_token()
            except SignalPersistenceError as error:
                _log.warning("Cannot renew the access token yet: %s", error)
                continue
            if current != token:
                await client.set_auth(current)
                token = current


class _Connection:
    """One WebSocket with one channel, used once."""

    def __init__(self, client: AsyncRealtimeClient, topic: str, listener: ChannelListener) -> None:
        self._client = client
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[Loss] = self._loop.create_future()
        self._heard_at = self._loop.time()
        self._patience = _JOIN_SECONDS
        self._channel = client.channel(
            topic,
            {
                "config": {
                    "broadcast": {"ack": False, "self": False, "replication_ready": True},
                    "presence": {"key": "", "enabled": False},
                    "private": True,
                }
            },
        )
        for event in (INGESTED, ADVANCED):
            self._channel.on_broadcast(event, self._guarded(self._broadcast))
        self._channel.on_system(self._guarded(self._system))
        # The library sends heartbeats too seldom and drops their answers. To it this is a channel
        # that is never joined, on the topic of heartbeats: so answers come back to `_pulse`.
        self._heartbeats = type(self._channel)(client, "phoenix")
        client.channels[self._heartbeats.topic] = self._heartbeats

    async def hold(self, renew_tokens: Callable[[], Awaitable[None]]) -> Loss:
        """Connect, join and stay; return why it ended."""
        work: list[asyncio.Task[None]] = []
        try:
            await self._connect()
            work += [
                asyncio.create_task(self._reported(task))
                for task in (self._subscribe, self._listen_for_silence, renew_tokens)
            ]
            return await self._lost
        finally:
            for running in work:
                running.cancel()
            await self._abandon()

    def lose(self, loss: Loss) -> None:
        """End it; only the first reason counts."""
        if not self._lost.done():
            self._lost.set_result(loss)
            self._listener.on_lost(loss)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._client.connect()
        except Exception as error:
            self.lose(Loss.of(error))
        self._heard()

    async def _subscribe(self) -> None:
        await self._channel.subscribe(self._guarded(self._changed))

    async def _reported(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._lost.done():
            return
        try:
            await work()
        except Exception as error:
            self.lose(Loss.of(error))

    async def _listen_for_silence(self) -> None:
        sent_at = self._heard_at
        while not self._lost.done():
            now = self._loop.time()
            listening = self._client._listen_task
            if not self._client.is_connected or listening is None or listening.done():
                said = "the connection stopped listening"
                self.lose(Loss(StateReason.CONNECTION_LOST, said))
            elif now >= self._heard_at + self._patience:
                said = f"nothing was heard for {now - self._heard_at:.1f} s"
                self.lose(Loss(StateReason.SILENT, said))
            elif now >= max(sent_at, self._heard_at) + _HEARTBEAT_SECONDS:
                sent_at = now
                await self._pulse()
            else:
                next_look = max(sent_at, self._heard_at) + _HEARTBEAT_SECONDS
                next_look = min(next_look, self._heard_at + self._patience)
                await asyncio.sleep(next_look - now)
                late = self._loop.time() - next_look
                if late > STANDSTILL_SECONDS:
                    self._heard_at += late  # It was this process that did not listen.

    async def _pulse(self) -> None:
        """Send a heartbeat, and note its answer when it comes."""
        push = type(self._channel.join_push)(self._heartbeats, "heartbeat", {}, _SILENCE_SECONDS)
        answered = import_module("realtime").RealtimeAcknowledgementStatus.Ok
        push.receive(answered, lambda _: self._heard())
        await push.send()

    def _heard(self) -> None:
        self._heard_at = self._loop.time()

    def _changed(self, state: RealtimeSubscribeStates, error: Exception | None) -> None:
        self._heard()
        if state.name == "SUBSCRIBED":
            self._patience = _SILENCE_SECONDS
            self._listener.on_joined()
        else:
            said = f"{state.value}: {error}" if error else state.value
            self.lose(Loss(reason_of(said), said))

    def _broadcast(self, message: Mapping[str, Any]) -> None:
        self._heard()
        self._listener.on_broadcast(message["event"], message["payload"])

    def _system(self, system: SuccessSystemPayload) -> None:
        self._heard()
        if system.message == _REPLICATION_READY:
            self._listener.on_replication_ready()

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception that reaches the library would end its listening without a word."""

        def call(*arguments: Any) -> None:
            if self._lost.done():
                # What still comes while it closes must not be taken for the next one's.
                return
            try:
                callback(*arguments)
            except Exception:
                _log.exception("Cannot take in a message of the live channel")

        return call

    async def _abandon(self) -> None:
        """Close the connection and stop the library's timers, which would join again."""
        connection = self._client._ws_connection
        tasks = self._client._listen_task, self._client._heartbeat_task
        for channel in (self._channel, self._heartbeats):
            channel.rejoin_timer.reset()
            channel.join_push.destroy()
            for push in channel.messages_waiting_for_ack.values():
                push.destroy()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._client.close()
        except Exception as error:
            _log.debug("Closing the live connection failed: %r", error)
            if connection is not None:
                # Nobody answers any more; without this the socket would stay for minutes.
                connection.transport.abort()
            for task in tasks:
                if task is not None:
                    task.cancel()


def _said_by(error: BaseException) -> str:
    """What an error tells, and what the server said when it refused the handshake."""
    response = getattr(error, "response", None)
    if response is None:
        return f"{type(error).__name__}: {error}"
    body = bytes(getattr(response, "body", None) or b"").decode(errors="replace")
    return f"HTTP {response.status_code}: {body[:200]}"
