"""The wire format of Realtime, both versions, as pure functions.

Version 1.0.0 is a JSON object per frame (the Python client). Version 2.0.0 is a JSON array, and
broadcasts travel as binary frames: kind 3 from the client, kind 4 from the server (supabase-js).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

CLIENT_BROADCAST = 3
SERVER_BROADCAST = 4
ENCODING_BINARY = 0
ENCODING_JSON = 1
MAX_FIELD_BYTES = 255
"""Binary frames give the length of each text field in one byte."""

_JSON_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeError)


class ProtocolError(ValueError):
    """Cannot read or write a frame: it breaks the format of its protocol version."""


class Version(enum.StrEnum):
    V1 = "1.0.0"
    V2 = "2.0.0"


@dataclass(frozen=True, slots=True)
class Frame:
    """One WebSocket frame, ready to be written to any number of sockets."""

    data: bytes
    is_text: bool


@dataclass(frozen=True, slots=True)
class ClientBroadcast:
    """What a client asks to be broadcast: `payload` is JSON text, or any bytes when `is_binary`."""

    event: str
    payload: bytes
    is_binary: bool = False


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One frame from a client."""

    topic: str
    event: str
    payload: msgspec.Raw | ClientBroadcast
    ref: str | None = None
    join_ref: str | None = None

    def broadcast(self) -> ClientBroadcast:
        """The broadcast that this message carries, however its version framed it."""
        if isinstance(self.payload, ClientBroadcast):
            return self.payload
        try:
            body = _broadcast_decoder.decode(self.payload)
        except _JSON_ERRORS as error:
            raise ProtocolError(f"Cannot read a broadcast: {error}") from error
        return ClientBroadcast(body.event, bytes(body.payload))


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """One frame to one client; `payload` is anything that JSON can say."""

    topic: str
    event: str
    payload: object
    ref: str | None = None
    join_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Broadcast:
    """One message to every subscriber of a topic.

    `payload` is JSON text, or any bytes when `is_binary`; `meta` is absent from what clients sent.
    `as_text` asks for a version 2 text frame, the way hosted Realtime relays version 1 clients.
    """

    event: str
    payload: bytes
    is_binary: bool = False
    meta: Mapping[str, object] | None = None
    as_text: bool = False

    def body(self) -> dict[str, object]:
        """The broadcast as the JSON object that text frames carry."""
        body: dict[str, object] = {
            "event": self.event,
            "payload": msgspec.Raw(self.payload),
            "type": "broadcast",
        }
        if self.meta is not None:
            body["meta"] = self.meta
        return body


def decode(version: Version, data: str | bytes) -> ClientMessage:
    """Read one frame of a client: text as `str`, binary as `bytes`."""
    if isinstance(data, bytes):
        if version is Version.V1:
            raise ProtocolError("Cannot read a binary frame: version 1.0.0 has only text frames")
        return _decode_client_broadcast(data)
    decoder = _v1_decoder if version is Version.V1 else _v2_decoder
    try:
        frame = decoder.decode(data)
    except _JSON_ERRORS as error:
        raise ProtocolError(f"Cannot read a frame: {error}") from error
    return ClientMessage(frame.topic, frame.event, frame.payload, frame.ref, frame.join_ref)


def encode(version: Version, message: ServerMessage) -> Frame:
    """Write one message to one client. Version 1 has no `join_ref` and always a `ref`."""
    content: object
    if version is Version.V1:
        content = {
            "topic": message.topic,
            "event": message.event,
            "payload": message.payload,
            "ref": message.ref,
        }
    else:
        content = [message.join_ref, message.ref, message.topic, message.event, message.payload]
    return Frame(msgspec.json.encode(content), is_text=True)


def encode_broadcast(version: Version, topic: str, broadcast: Broadcast) -> Frame | None:
    """Write one broadcast for all sockets of a version; None if that version cannot carry it."""
    if version is Version.V1 and broadcast.is_binary:
        return None
    if version is Version.V1 or (broadcast.as_text and not broadcast.is_binary):
        return encode(version, ServerMessage(topic, "broadcast", broadcast.body()))
    encoding = ENCODING_BINARY if broadcast.is_binary else ENCODING_JSON
    meta = b"" if broadcast.meta is None else msgspec.json.encode(broadcast.meta)
    fields = (topic.encode(), broadcast.event.encode(), meta)
    header = bytes((SERVER_BROADCAST, *map(_field_length, fields), encoding))
    return Frame(b"".join((header, *fields, broadcast.payload)), is_text=False)


def _field_length(field: bytes) -> int:
    if len(field) > MAX_FIELD_BYTES:
        raise ProtocolError(
            f"Cannot write a broadcast: a topic, event or metadata of {len(field)} bytes is too "
            f"long; keep each within {MAX_FIELD_BYTES} bytes"
        )
    return len(field)


def _decode_client_broadcast(data: bytes) -> ClientMessage:
    header_size = 7
    if len(data) < header_size or data[0] != CLIENT_BROADCAST:
        raise ProtocolError("Cannot read a binary frame: it is not a broadcast of a client")
    encoding = data[6]
    if encoding not in (ENCODING_BINARY, ENCODING_JSON):
        raise ProtocolError(f"Cannot read a binary frame: there is no encoding {encoding}")
    fields: list[str] = []
    start = header_size
    for length in data[1:6]:
        if start + length > len(data):
            raise ProtocolError("Cannot read a binary frame: it is shorter than its header says")
        try:
            fields.append(data[start : start + length].decode())
        except UnicodeDecodeError as error:
            raise ProtocolError(f"Cannot read a binary frame: {error}") from error
        start += length
    join_ref, ref, topic, event, _metadata = fields
    payload = data[start:]
    if encoding == ENCODING_JSON:
        _check_json(payload)
    broadcast = ClientBroadcast(event, payload, is_binary=encoding == ENCODING_BINARY)
    return ClientMessage(topic, "broadcast", broadcast, ref or None, join_ref or None)


def _check_json(payload: bytes) -> None:
    try:
        msgspec.json.decode(payload)
    except _JSON_ERRORS as error:
        raise ProtocolError(f"Cannot read a broadcast: {error}") from error


class _V1Frame(msgspec.Struct):
    topic: str
    event: str
    payload: msgspec.Raw
    ref: str | None = None
    join_ref: str | None = None


class _V2Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: msgspec.Raw


class _BroadcastBody(msgspec.Struct):
    event: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")


_v1_decoder = msgspec.json.Decoder(_V1Frame)
_v2_decoder = msgspec.json.Decoder(_V2Frame)
_broadcast_decoder = msgspec.json.Decoder(_BroadcastBody)
