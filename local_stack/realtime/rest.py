"""Broadcasts by HTTP: a batch to many topics, or one message to one topic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from local_stack.realtime.authorization import CheckFailure, Identity, TokenRefusal
from local_stack.realtime.protocol import Broadcast
from local_stack.realtime.services import Services

BLANK = "can't be blank"
UNSUPPORTED = "Unsupported Media Type: send application/json or application/octet-stream, not "
TOO_LARGE = "Payload size exceeds tenant limit"
TOO_MANY = "Too many messages to broadcast, please reduce the batch size"
Handler = Callable[[web.Request], Awaitable[web.Response]]


class RestBroadcasts:
    """The two forms of `POST /realtime/v1/api/broadcast`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def batch(self, request: web.Request) -> web.Response:
        """`{"messages": [{topic, event, payload, private}]}`; forbidden ones are left out."""
        return await self._limited(self._batch, request)

    async def single(self, request: web.Request) -> web.Response:
        """The body is the payload; topic and event are in the path."""
        return await self._limited(self._single, request)

    async def _limited(self, handler: Handler, request: web.Request) -> web.Response:
        """Ask the plan first, and tell what is left of it, as on hosted."""
        usage = self._services.usage
        if usage.has_too_many_messages():
            response = _answer(429, {"message": "Too many requests"})
        else:
            response = await handler(request)
        response.headers.update(usage.rate_headers())
        return response

    async def _batch(self, request: web.Request) -> web.Response:
        try:
            identity = self._identify(request)
            messages, errors = _parse_batch(await request.read(), self._services.payload_bytes)
            if errors:
                return _answer(422, {"errors": errors})
            if self._services.usage.would_be_too_many(len(messages)):
                return _answer(429, {"message": TOO_MANY})
            private = {message.topic for message in messages if message.private}
            permitted = {topic for topic in private if await self._may_write(topic, identity)}
        except TokenRefusal:
            return _answer(401, {"message": "Unauthorized"})
        except CheckFailure as failure:
            return _answer(503, {"message": failure.text})
        for message in sorted(messages, key=_sending_order):
            if not message.private or message.topic in permitted:
                self._publish(message.topic, message.private, message.broadcast())
        return _answer(202)

    async def _single(self, request: web.Request) -> web.Response:
        topic, event = request.match_info["topic"], request.match_info["event"]
        is_binary = request.content_type == "application/octet-stream"
        is_private = request.query.get("private") == "true"
        try:
            identity = self._identify(request)
            if not is_binary and request.content_type != "application/json":
                return _answer(415, {"error": UNSUPPORTED + request.content_type})
            payload = await request.read()
            problem = _payload_problem(payload, is_binary, self._services.payload_bytes)
            if problem is not None:
                return _answer(422, {"errors": {"payload": [problem]}})
            if self._services.usage.would_be_too_many(1):
                return _answer(429, {"message": TOO_MANY})
            if is_private and not await self._may_write(topic, identity):
                return _answer(403, {"message": "Unauthorized"})
        except TokenRefusal:
            return _answer(401, {"message": "Unauthorized"})
        except CheckFailure as failure:
            return _answer(503, {"message": failure.text})
        self._publish(topic, is_private, Broadcast(event, payload, is_binary=is_binary))
        return _answer(202)

    def _identify(self, request: web.Request) -> Identity:
        """The caller of a request. A user's token that is wrong is never taken as no token."""
        authenticator = self._services.authenticator
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return authenticator.identify_api_key(token.strip())
        key = request.headers.get("apikey") or request.query.get("apikey", "")
        return authenticator.identify_api_key(key)

    async def _may_write(self, topic: str, identity: Identity) -> bool:
        return await self._services.authorization.may_write(topic, identity)

    def _publish(self, topic: str, is_private: bool, broadcast: Broadcast) -> None:
        self._services.hub.publish(is_private=is_private, name=topic, broadcast=broadcast)


class _BatchMessage(msgspec.Struct):
    topic: str
    event: str
    payload: msgspec.Raw
    private: bool

    def broadcast(self) -> Broadcast:
        return Broadcast(self.event, bytes(self.payload))


def _sending_order(message: _BatchMessage) -> tuple[bool, str]:
    """Public messages go first, as on hosted; then the private ones, topic by topic."""
    return message.private, message.topic if message.private else ""


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


def _payload_problem(payload: bytes, is_binary: bool, max_payload: int) -> str | None:
    if len(payload) > max_payload:
        return TOO_LARGE
    if is_binary:
        return None
    try:
        msgspec.json.decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return "is invalid"
    return None


def _answer(status: int, content: object = None) -> web.Response:
    """An answer that a browser of any origin may read."""
    headers = {"Access-Control-Allow-Origin": "*"}
    if content is None:
        return web.Response(status=status, headers=headers)
    return web.json_response(content, status=status, headers=headers)
