"""The Realtime wire format: what one side writes, the other side reads."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_stack.realtime.protocol import (
    Broadcast,
    ClientBroadcast,
    ProtocolError,
    ServerMessage,
    Version,
    decode,
    encode,
    encode_broadcast,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
short_texts = texts.filter(lambda text: len(text.encode()) <= 255)
refs = st.none() | st.text("0123456789", min_size=1, max_size=5)
objects = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts)
versions = st.sampled_from(Version)


def client_frame(
    version: Version, topic: str, event: str, payload: Any, ref: str | None, join_ref: str | None
) -> str:
    if version is Version.V1:
        fields = {"topic": topic, "event": event, "payload": payload}
        return json.dumps({**fields, "ref": ref, "join_ref": join_ref})
    return json.dumps([join_ref, ref, topic, event, payload])


def client_broadcast_frame(fields: list[str], encoding: int, payload: bytes) -> bytes:
    encoded = [field.encode() for field in fields]
    header = struct.pack("7B", 3, *map(len, encoded), encoding)
    return header + b"".join(encoded) + payload


def read_server_broadcast(data: bytes) -> tuple[str, str, Any, int, bytes]:
    """What @supabase/realtime-js reads from a binary frame."""
    kind, topic_size, event_size, meta_size, encoding = data[:5]
    assert kind == 4
    start, fields = 5, []
    for size in (topic_size, event_size, meta_size):
        fields.append(data[start : start + size].decode())
        start += size
    topic, event, meta = fields
    return topic, event, json.loads(meta) if meta else None, encoding, data[start:]


@given(versions, texts, texts, objects, refs, refs)
def test_a_text_frame_of_a_client_is_read_as_it_was_written(
    version: Version, topic: str, event: str, payload: Any, ref: str | None, join_ref: str | None
) -> None:
    message = decode(version, client_frame(version, topic, event, payload, ref, join_ref))
    assert (message.topic, message.event, message.ref, message.join_ref) == (
        topic,
        event,
        ref,
        join_ref,
    )
    assert not isinstance(message.payload, ClientBroadcast)
    assert json.loads(bytes(message.payload)) == payload


@given(short_texts, short_texts, refs, refs, objects)
def test_a_binary_broadcast_of_a_client_is_read_as_it_was_written(
    topic: str, event: str, ref: str | None, join_ref: str | None, payload: Any
) -> None:
    content = json.dumps(payload).encode()
    frame = client_broadcast_frame([join_ref or "", ref or "", topic, event, ""], 1, content)
    message = decode(Version.V2, frame)
    assert (message.topic, message.event) == (topic, "broadcast")
    assert (message.ref, message.join_ref) == (ref, join_ref)
    assert message.broadcast() == ClientBroadcast(event, content)


@given(texts, objects)
def test_a_broadcast_is_the_same_however_its_version_frames_it(event: str, payload: Any) -> None:
    body = {"type": "broadcast", "event": event, "payload": payload}
    for version in Version:
        message = decode(version, client_frame(version, "t", "broadcast", body, "1", "1"))
        assert message.broadcast().event == event
        assert json.loads(message.broadcast().payload) == payload


@given(st.binary(max_size=300))
def test_any_bytes_are_either_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert decode(Version.V2, data).event == "broadcast"


@given(versions, texts)
def test_any_text_is_either_read_or_refused(version: Version, text: str) -> None:
    with pytest.raises(ProtocolError):
        decode(version, text)


@pytest.mark.parametrize("version", Version)
def test_deep_nesting_is_refused(version: Version) -> None:
    for text in ("[" * 100_000, '{"topic":' + "[" * 100_000):
        with pytest.raises(ProtocolError):
            decode(version, text)


@given(short_texts, short_texts, objects, st.none() | st.uuids())
def test_a_broadcast_reaches_both_versions_alike(
    topic: str, event: str, payload: Any, message_id: object
) -> None:
    content = json.dumps(payload).encode()
    meta = None if message_id is None else {"id": str(message_id)}
    broadcast = Broadcast(event, content, meta=meta)
    v1 = encode_broadcast(Version.V1, topic, broadcast)
    v2 = encode_broadcast(Version.V2, topic, broadcast)
    assert v1 is not None
    assert v1.is_text
    assert v2 is not None
    assert not v2.is_text
    body = json.loads(v1.data)
    assert list(body) == ["topic", "event", "payload", "ref"]
    assert (body["topic"], body["event"], body["ref"]) == (topic, "broadcast", None)
    assert body["payload"]["type"] == "broadcast"
    assert read_server_broadcast(v2.data) == (topic, event, meta, 1, content)
    assert (body["payload"]["event"], body["payload"].get("meta")) == (event, meta)
    assert body["payload"]["payload"] == payload


def test_a_version_1_frame_has_a_ref_even_when_it_is_null_and_no_join_ref() -> None:
    message = ServerMessage("realtime:t", "system", {"status": "ok"}, join_ref="7")
    assert encode(Version.V1, message).data == (
        b'{"topic":"realtime:t","event":"system","payload":{"status":"ok"},"ref":null}'
    )


def test_a_version_2_frame_is_an_array() -> None:
    message = ServerMessage("realtime:t", "phx_reply", {}, ref="2", join_ref="1")
    assert encode(Version.V2, message).data == b'["1","2","realtime:t","phx_reply",{}]'


def test_binary_payloads_are_for_version_2_only() -> None:
    broadcast = Broadcast("e", b"\x00\xff", is_binary=True)
    assert encode_broadcast(Version.V1, "t", broadcast) is None
    frame = encode_broadcast(Version.V2, "t", broadcast)
    assert frame is not None
    assert read_server_broadcast(frame.data) == ("t", "e", None, 0, b"\x00\xff")


def test_a_topic_too_long_for_a_binary_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="256 bytes is too long"):
        encode_broadcast(Version.V2, "t" * 256, Broadcast("e", b"{}"))
