"""What one client may say on its socket, and what it is answered (Phoenix channels)."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec
from aiohttp import WSCloseCode

from local_stack.realtime.authorization import (
    BROADCAST,
    PRESENCE,
    CheckFailure,
    Identity,
    Refusal,
    expired_text,
)
from local_stack.realtime.channels import TOPIC_PREFIX, Channel, JoinConfig, is_user_token
from local_stack.realtime.connection import Connection
from local_stack.realtime.faults import Kind
from local_stack.realtime.presence_calls import PresenceCalls
from local_stack.realtime.protocol import (
    Broadcast,
    ClientMessage,
    Frame,
    ServerMessage,
    Version,
    encode_broadcast,
)
from local_stack.realtime.replay import replay_refused_on_public_channel, replayed_broadcasts
from local_stack.realtime.services import Services

PHOENIX_TOPIC = "phoenix"
_log = logging.getLogger(__name__)


class Session:
    """The channels of one socket. Messages are handled one at a time, in the order they came."""

    def __init__(self, services: Services, connection: Connection, identity: Identity) -> None:
        self._services = services
        self._connection = connection
        self._identity = identity
        self._presence = PresenceCalls(services, self)
        self._channels: dict[str, Channel] = {}
        self._timers: dict[Channel, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._no_channel: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve the client until its socket closes."""
        self._watch_for_no_channel()
        try:
            await self._connection.run(self._handle)
        finally:
            for channel in list(self._channels.values()):
                self._forget(channel)
            for task in self._tasks:
                task.cancel()
            if self._no_channel is not None:
                self._no_channel.cancel()

    def disconnect(self, code: int) -> None:
        """Tell every channel that the server wants the client to go, then close."""
        for channel in self._channels.values():
            self._system(channel, "ok", "Server requested disconnect")
        self._connection.close(code, "")

    @property
    def version(self) -> Version:
        return self._connection.version

    def send(self, frame: Frame) -> None:
        self._connection.send(frame)

    def fail(self, channel: Channel, text: str) -> None:
        """Close a channel with the reason that its client sees."""
        if channel.is_open:
            self._system(channel, "error", text)
            self._close(channel)

    # What faults do to it

    def channels_of(self, topic: str | None) -> list[Channel]:
        """Its channels, or those of one topic."""
        return [c for c in self._channels.values() if topic is None or c.name == topic]

    def crash(self, channel: Channel) -> None:
        """End a channel as if its process had crashed."""
        self._forget(channel)
        self.push(channel, "phx_error", {"reason": "channel_crash"}, ref=channel.join_ref)
        self._watch_for_no_channel()

    def close(self, code: int) -> None:
        self._connection.close(code, "")

    def abort(self) -> None:
        self._connection.abort()

    def freeze(self, until: asyncio.Event) -> None:
        self._connection.freeze(until)

    # Messages

    async def _handle(self, message: ClientMessage) -> None:
        if message.topic == PHOENIX_TOPIC:
            names = {channel.name for channel in self._channels.values()}
            if not self._services.faults.strike((Kind.DROP_HEARTBEATS,), names):
                self.reply(message, "ok", {})
            return
        if message.event == "phx_join" and message.topic.startswith(TOPIC_PREFIX):
            await self._join(message)
            return
        channel = self._channels.get(message.topic)
        if channel is None:
            if message.event == "phx_leave":
                self.reply(message, "ok", {})
            else:
                self.reply(message, "error", {"reason": "unmatched topic"})
            return
        match message.event:
            case "phx_leave":
                self.reply(message, "ok", {})
                self._close(channel)
            case "access_token":
                await self._change_token(channel, message)
            case "broadcast":
                await self._broadcast(channel, message)
            case "presence":
                await self._presence.handle(channel, message, _object(message))
            case _:
                _log.info("Ignoring the unknown event %r", message.event)

    # Joining and leaving

    async def _join(self, message: ClientMessage) -> None:
        name = message.topic.removeprefix(TOPIC_PREFIX)
        if frozen := self._services.faults.strike((Kind.FREEZE,), (name,)):
            self._connection.freeze(frozen.ended)
            await self._connection.thawed()
        previous = self._channels.get(message.topic)
        if previous is not None:
            self._close(previous)
        try:
            channel, replay = await self._admit(message)
        except Refusal as refusal:
            self.reply(message, "error", {"reason": str(refusal)})
            if refusal.code == "ClientJoinRateLimitReached":
                self.close(WSCloseCode.GOING_AWAY)
            return
        self._channels[channel.topic] = channel
        self._services.hub.add(channel)
        self._watch_for_no_channel()
        self.reply(message, "ok", {"postgres_changes": []})
        for broadcast in replay:
            self._send_replayed(channel, broadcast)
        self._presence.send_state(channel)
        self._watch_expiry(channel)
        if channel.config.tells_replication_ready:
            task = asyncio.create_task(self._tell_replication_ready(channel))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _admit(self, message: ClientMessage) -> tuple[Channel, list[Broadcast]]:
        """Decide on a join: the channel and what it replays, or a `Refusal`."""
        config = JoinConfig.parse(_object(message))
        channel = Channel(self, message.topic, message.join_ref, config, self._identity)
        channel.has_presence = config.has_presence
        self._check_join(channel)
        channel.identity = self._identify(config.token)
        if not config.is_private:
            if config.replay is not None:
                raise replay_refused_on_public_channel()
            return channel, []
        channel.may_read = await self._readable(channel, channel.identity)
        if config.replay is None:
            return channel, []
        if not channel.hears(BROADCAST):
            raise Refusal("Unauthorized", _no_permission(channel.name))
        authorization = self._services.authorization
        replay = await replayed_broadcasts(authorization, channel.name, config.replay)
        channel.replayed = frozenset(str(b.meta["id"]) for b in replay if b.meta)
        return channel, replay

    def _check_join(self, channel: Channel) -> None:
        """Refuse what no token could make right."""
        if not channel.name:
            raise Refusal("TopicNameRequired", "You must provide a topic name")
        if struck := self._services.faults.strike((Kind.REFUSE_JOIN,), (channel.name,)):
            code, _, text = struck.fault.reason.partition(": ")
            raise Refusal(code, text)
        if not self._services.usage.may_join():
            raise Refusal("ClientJoinRateLimitReached", "Too many joins per second")
        if len(self._channels) >= self._services.limits.channels_per_socket:
            raise Refusal("ChannelRateLimitReached", "Too many channels")
        if channel.config.has_postgres_changes:
            raise _not_supported("postgres_changes")

    async def _readable(self, channel: Channel, identity: Identity) -> frozenset[str]:
        """What the identity may hear on a private channel, or a `Refusal` if that is nothing."""
        extensions = (BROADCAST, PRESENCE) if channel.has_presence else (BROADCAST,)
        readable = await self._services.authorization.readable(channel.name, identity, extensions)
        if not readable:
            raise Refusal("Unauthorized", _no_permission(channel.name))
        return readable

    def _send_replayed(self, channel: Channel, broadcast: Broadcast) -> None:
        if not broadcast.is_binary:
            self.push(channel, "broadcast", broadcast.body())
        elif (
            frame := encode_broadcast(self._connection.version, channel.topic, broadcast)
        ) is not None:
            self._connection.send(frame)

    async def _tell_replication_ready(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(self._services.limits.replication_ready_seconds):
                await self._services.tail.wait_until_streaming()
        except TimeoutError:
            self.fail(channel, "Replication connection was not established in time")
            return
        if channel.is_open:
            self._system(channel, "ok", "Replication connection established")

    def _close(self, channel: Channel) -> None:
        self._forget(channel)
        self.push(channel, "phx_close", {}, ref=channel.join_ref)
        self._watch_for_no_channel()

    def _forget(self, channel: Channel) -> None:
        channel.is_open = False
        self._services.hub.remove(channel)
        if self._channels.get(channel.topic) is channel:
            del self._channels[channel.topic]
        timer = self._timers.pop(channel, None)
        if timer is not None:
            timer.cancel()

    # Tokens

    def _identify(self, token: str | None) -> Identity:
        """The identity of a channel: its own token's, or else that of the socket's API key."""
        headers = self._identity.headers_json
        return self._services.authenticator.identify(token or self._identity.token, headers)

    async def _change_token(self, channel: Channel, message: ClientMessage) -> None:
        token = _object(message).get("access_token")
        if not isinstance(token, str) or not is_user_token(token):
            return
        if token == channel.identity.token:
            return
        try:
            identity = self._identify(token)
            if channel.config.is_private:
                readable = await self._readable(channel, identity)
                if channel.may_read - readable:
                    raise Refusal("Unauthorized", _no_longer_permitted(channel.name))
                channel.may_read = readable
        except Refusal as refusal:
            self.fail(channel, refusal.text)
            return
        channel.identity = identity
        channel.may_write = {}
        self._watch_expiry(channel)

    def _watch_expiry(self, channel: Channel) -> None:
        """Close the channel when its token expires, looking again every few minutes."""
        previous = self._timers.pop(channel, None)
        if previous is not None:
            previous.cancel()
        if not channel.is_open:
            return
        left = channel.identity.verified.expires_at - time.time()
        if left <= 0:
            self.fail(channel, expired_text(int(-left)))
            return
        delay = min(self._services.limits.token_check_seconds, left)
        loop = asyncio.get_running_loop()
        self._timers[channel] = loop.call_later(delay, self._watch_expiry, channel)

    # Broadcasts of clients

    async def _broadcast(self, channel: Channel, message: ClientMessage) -> None:
        asked = message.broadcast()
        if len(asked.payload) > self._services.payload_bytes:
            if channel.config.acknowledges:
                self.reply(message, "error", "payload_size_exceeded")
            return
        try:
            if not await self.may_write(channel, BROADCAST):
                return  # hosted says nothing either
        except CheckFailure as failure:
            _log.warning("Cannot broadcast on %s: %s", channel.topic, failure)
            return
        if not channel.is_open:
            return
        self._services.hub.publish(
            is_private=channel.config.is_private,
            name=channel.name,
            broadcast=Broadcast(
                asked.event,
                asked.payload,
                is_binary=asked.is_binary,
                as_text=self._connection.version is Version.V1,
            ),
            sender=None if channel.config.echoes else channel,
        )
        if channel.config.acknowledges:
            self.reply(message, "ok", {})

    async def may_write(self, channel: Channel, extension: str) -> bool:
        """Whether the channel's identity may send; the database is asked once."""
        if not channel.config.is_private:
            return True
        if extension not in channel.may_write:
            authorization = self._services.authorization
            channel.may_write[extension] = await authorization.may_write(
                channel.name, channel.identity, extension
            )
        return channel.may_write[extension]

    # Writing to the client

    def reply(self, message: ClientMessage, status: str, response: object) -> None:
        payload = {"status": status, "response": response}
        self._connection.send_message(
            ServerMessage(message.topic, "phx_reply", payload, message.ref, message.join_ref)
        )

    def push(
        self, channel: Channel, event: str, payload: object, *, ref: str | None = None
    ) -> None:
        self._connection.send_message(
            ServerMessage(channel.topic, event, payload, ref, channel.join_ref)
        )

    def _system(self, channel: Channel, status: str, text: str) -> None:
        payload = {
            "extension": "system",
            "status": status,
            "message": text,
            "channel": channel.name,
        }
        self.push(channel, "system", payload)

    def _watch_for_no_channel(self) -> None:
        """Start or stop the clock of a socket that has joined nothing."""
        if self._no_channel is not None:
            self._no_channel.cancel()
            self._no_channel = None
        if not self._channels:
            self._no_channel = asyncio.get_running_loop().call_later(
                self._services.limits.no_channel_seconds, self._connection.close, 1000, "no channel"
            )


def _not_supported(feature: str) -> Refusal:
    return Refusal(
        "NotSupported",
        f"Cannot use {feature} on this channel: the local stack does not have it; "
        "leave it out, or use a hosted project",
    )


def _no_permission(name: str) -> str:
    return f"You do not have permissions to read from this Channel topic: {name}"


def _no_longer_permitted(name: str) -> str:
    return f"You no longer have permission to read from this Channel topic: {name}"


def _object(message: ClientMessage) -> dict[str, object]:
    """The payload as an object; whatever else it is counts as empty."""
    if not isinstance(message.payload, msgspec.Raw):
        return {}
    try:
        payload = msgspec.json.decode(message.payload)
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}
