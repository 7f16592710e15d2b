"""Broadcasts by HTTP: a batch to many topics, or one message to one topic."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
from aiohttp import web

from local_stack.realtime.authorization import CheckFailure, Identity, TokenRefusal
from local_stack.realtime.protocol import Broadcast
from local_stack.realtime.session import Services

_log = logging.getLogger(__name__)

BLANK = "can't be blank"
TOO_LARGE = "Payload size exceeds tenant limit"


class RestBroadcasts:
    """The two forms of `POST /realtime/v1/api/broadcast`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def batch(self, request: web.Request) -> web.Response:
        """`{"messages": [{topic, event, payload, private}]}`; forbidden ones are left out."""
        try:
            identity = self._identify(request)
        except TokenRefusal:
            return _message(401, "Unauthorized")
        messages, errors = _parse_batch(await _body(request), self._services.limits.payload_bytes)
        if errors:
            return web.json_response({"errors": errors}, status=422)
        permitted: dict[str, bool] = {}
        for message in messages:
            if message.private and message.topic not in permitted:
                permitted[message.topic] = await self._may_write(message.topic, identity)
        for message in messages:
            if not message.private or permitted[message.topic]:
                self._publish(message.topic, message.private, message.broadcast())
        return web.Response(status=202)

    async def single(self, request: web.Request) -> web.Response:
        """The body is the payload; topic and event are in the path."""
        try:
            identity = self._identify(request)
        except TokenRefusal:
            return _message(401, "Unauthorized")
        topic, event = request.match_info["topic"], request.match_info["event"]
        is_binary = request.content_type == "application/octet-stream"
        if not is_binary and request.content_type != "application/json":
            text = (
                "Unsupported Media Type: send application/json or application/octet-stream, "
                f"not {request.content_type}"
            )
            return web.json_response({"error": text}, status=415)
        payload = await _body(request)
        if not is_binary and not _is_json(payload):
            return web.json_response({"errors": {"payload": ["is invalid"]}}, status=422)
        if len(payload) > self._services.limits.payload_bytes:
            return web.json_response({"errors": {"payload": [TOO_LARGE]}}, status=422)
        is_private = request.query.get("private") == "true"
        if is_private and not await self._may_write(topic, identity):
            return _message(403, "Unauthorized")
        self._publish(topic, is_private, Broadcast(event, payload, is_binary=is_binary))
        return web.Response(status=202)

    def _identify(self, request: web.Request) -> Identity:
        """The caller of a request. A user's token that is wrong is never taken as no token."""
        authenticator = self._services.authenticator
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return authenticator.identify_api_key(token.strip())
        key = request.headers.get("apikey") or request.query.get("apikey", "")
        return authenticator.identify_api_key(key)

    async def _may_write(self, topic: str, identity: Identity) -> bool:
        try:
            return await self._services.authorization.may_write(topic, identity)
        except CheckFailure as failure:
            _log.warning("Cannot broadcast on %s: %s", topic, failure)
            return False

    def _publish(self, topic: str, is_private: bool, broadcast: Broadcast) -> None:
        self._services.hub.publish(is_private=is_private, name=topic, broadcast=broadcast)


class _BatchMessage(msgspec.Struct):
    topic: str
    event: str
    payload: msgspec.Raw
    private: bool

    def broadcast(self) -> Broadcast:
        return Broadcast(self.event, bytes(self.payload))


def _parse_batch(body: bytes, max_payload: int) -> tuple[list[_BatchMessage], Mapping[str, object]]:
    """The messages of a batch, or what is wrong with it, in the shape of Ecto's errors."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        content = None
    entries = content.get("messages") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        return [], {"messages": [BLANK]}
    parsed = [_parse_message(entry, max_payload) for entry in entries]
    if any(errors for _, errors in parsed):
        return [], {"messages": [errors for _, errors in parsed]}
    return [message for message, _ in parsed if message is not None], {}


def _parse_message(
    entry: object, max_payload: int
) -> tuple[_BatchMessage | None, dict[str, list[str]]]:
    fields = entry if isinstance(entry, dict) else {}
    errors: dict[str, list[str]] = {}
    for name, kind in (("topic", str), ("event", str), ("payload", dict)):
        value = fields.get(name)
        if value is None or value == "":
            errors[name] = [BLANK]
        elif not isinstance(value, kind):
            errors[name] = ["is invalid"]
    private = fields.get("private", False)
    if not isinstance(private, bool):
        errors["private"] = ["is invalid"]
    payload = msgspec.json.encode(fields.get("payload"))
    if len(payload) > max_payload:
        errors["payload"] = [TOO_LARGE]
    if errors:
        return None, errors
    return _BatchMessage(fields["topic"], fields["event"], msgspec.Raw(payload), private), {}


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


async def _body(request: web.Request) -> bytes:
    return await request.read()


def _message(status: int, text: str) -> web.Response:
    return web.json_response({"message": text}, status=status)
