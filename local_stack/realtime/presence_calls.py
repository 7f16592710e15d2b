"""What a client may do with presence on its channels, and what it is answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol

import msgspec

from local_stack.realtime.authorization import PRESENCE, CheckFailure
from local_stack.realtime.channels import Channel
from local_stack.realtime.protocol import ClientMessage
from local_stack.realtime.quotas import CallWindow
from local_stack.realtime.services import Services

_log = logging.getLogger(__name__)


class Client(Protocol):
    """A session, as seen from here."""

    def reply(self, message: ClientMessage, status: str, response: object) -> None: ...

    def push(self, channel: Channel, event: str, payload: object) -> None: ...

    def fail(self, channel: Channel, text: str) -> None: ...

    async def may_write(self, channel: Channel, extension: str) -> bool: ...


class PresenceCalls:
    """The presence of one client."""

    __slots__ = ("_client", "_services")

    def __init__(self, services: Services, client: Client) -> None:
        self._services = services
        self._client = client

    async def handle(
        self, channel: Channel, message: ClientMessage, asked: Mapping[str, object]
    ) -> None:
        """Do what a `presence` message asks for."""
        event, payload = asked.get("event"), asked.get("payload", {})
        if not self._may_call(channel):
            self._client.fail(channel, "Client presence rate limit exceeded")
            return
        match event.lower() if isinstance(event, str) else None:
            case "track" if isinstance(payload, dict):
                await self._track(channel, message, payload)
            case "track":
                text = "Presence track payload must be a map"
                self._client.reply(message, "error", {"reason": text})
            case "untrack":
                self._services.hub.untrack(channel)
                self._client.reply(message, "ok", {})
            case None:
                self._client.reply(message, "ok", {})
            case _:
                self._client.reply(message, "error", {})

    def send_state(self, channel: Channel) -> None:
        """Tell a channel with presence who is there."""
        if not channel.has_presence or not channel.hears(PRESENCE):
            return
        if not self._services.usage.may_tell_presence():
            self._client.fail(channel, "Too many presence messages per second")
            return
        self._client.push(channel, "presence_state", self._services.hub.presence_state(channel))

    async def _track(
        self, channel: Channel, message: ClientMessage, payload: Mapping[str, object]
    ) -> None:
        try:
            is_permitted = await self._may_track(channel)
        except CheckFailure as failure:
            _log.warning("Cannot track presence on %s: %s", channel.topic, failure)
            is_permitted = False
        if not channel.is_open:
            return
        if not is_permitted:
            self._client.reply(message, "error", {})
        elif len(msgspec.json.encode(payload)) > self._services.payload_bytes:
            self._client.fail(channel, "Track message size exceeded")
        elif not self._services.usage.may_tell_presence():
            self._client.fail(channel, "Too many presence messages per second")
        else:
            is_first, channel.has_presence = not channel.has_presence, True
            self._services.hub.track(channel, payload)
            self._client.reply(message, "ok", {})
            if is_first:  # it knows nobody who came before it
                self.send_state(channel)

    async def _may_track(self, channel: Channel) -> bool:
        """Ask for what a join without presence left open, then whether it may track."""
        if channel.config.is_private and not channel.has_presence:
            channel.may_read |= await self._services.authorization.readable(
                channel.name, channel.identity, (PRESENCE,)
            )
        return await self._client.may_write(channel, PRESENCE)

    def _may_call(self, channel: Channel) -> bool:
        plan = self._services.usage.plan
        if plan is None:
            return True
        if channel.presence_calls is None:
            channel.presence_calls = CallWindow()
        return channel.presence_calls.admits(time.monotonic(), plan)
