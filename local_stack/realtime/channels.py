"""Channels and their subscribers: what a join asked for, and who gets a broadcast."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from local_stack.realtime.authorization import Identity
from local_stack.realtime.protocol import (
    Broadcast,
    Frame,
    ProtocolError,
    Version,
    encode_broadcast,
)

TOPIC_PREFIX = "realtime:"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JoinConfig:
    """What a client asks for when it joins. Whatever cannot be read has its default."""

    is_private: bool = False
    acknowledges: bool = False
    echoes: bool = False
    """The sender of a broadcast gets it too."""
    tells_replication_ready: bool = False
    replay: object = None
    has_presence: bool = False
    has_postgres_changes: bool = False
    token: str | None = None

    @classmethod
    def parse(cls, payload: object) -> JoinConfig:
        """Read the payload of `phx_join`."""
        payload = _object(payload)
        config = _object(payload.get("config"))
        broadcast = _object(config.get("broadcast"))
        presence = _object(config.get("presence"))
        token = payload.get("access_token", payload.get("user_token"))
        return cls(
            is_private=_flag(config.get("private")),
            acknowledges=_flag(broadcast.get("ack")),
            echoes=_flag(broadcast.get("self")),
            tells_replication_ready=_flag(broadcast.get("replication_ready")),
            replay=broadcast.get("replay"),
            has_presence=_flag(presence.get("enabled")),
            has_postgres_changes=bool(config.get("postgres_changes")),
            token=token if is_user_token(token) else None,
        )


def is_user_token(token: object) -> bool:
    """Whether a client gave a token of its own, rather than nothing or an opaque API key."""
    return isinstance(token, str) and token != "" and not token.startswith("sb_")


class Receiver(Protocol):
    """A socket, as seen by the hub."""

    @property
    def version(self) -> Version: ...

    def send(self, frame: Frame) -> None: ...


@dataclass(slots=True, eq=False)
class Channel:
    """One socket's membership of one topic."""

    receiver: Receiver
    topic: str
    join_ref: str | None
    config: JoinConfig
    identity: Identity
    may_write: bool | None = None
    """None until the first broadcast asks; asked again after a change of token."""
    replayed: frozenset[str] = frozenset()
    """The ids that this join was given by replay, and is not given again."""
    is_open: bool = True

    @property
    def name(self) -> str:
        """The topic without its prefix: what the database and its policies see."""
        return self.topic.removeprefix(TOPIC_PREFIX)


@dataclass(slots=True)
class Hub:
    """Finds the channels of a topic. A private topic and a public one never meet."""

    _channels: dict[tuple[bool, str], dict[Channel, None]] = field(default_factory=dict)

    def add(self, channel: Channel) -> None:
        self._channels.setdefault(_key(channel), {})[channel] = None

    def remove(self, channel: Channel) -> None:
        channels = self._channels.get(_key(channel))
        if channels is None:
            return
        channels.pop(channel, None)
        if not channels:
            del self._channels[_key(channel)]

    def publish(
        self, *, is_private: bool, name: str, broadcast: Broadcast, sender: Channel | None = None
    ) -> None:
        """Give a broadcast to every subscriber but its sender; encode it once per version."""
        channels = self._channels.get((is_private, name))
        if channels is None:
            return
        message_id = None if broadcast.meta is None else broadcast.meta.get("id")
        frames: dict[Version, Frame | None] = {}
        for channel in channels:
            if channel is sender or message_id in channel.replayed:
                continue
            version = channel.receiver.version
            if version not in frames:
                frames[version] = _encoded(version, channel.topic, broadcast)
            frame = frames[version]
            if frame is not None:
                channel.receiver.send(frame)


def _encoded(version: Version, topic: str, broadcast: Broadcast) -> Frame | None:
    try:
        return encode_broadcast(version, topic, broadcast)
    except ProtocolError as error:
        _log.warning("%s", error)
        return None


def _key(channel: Channel) -> tuple[bool, str]:
    return channel.config.is_private, channel.name


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _flag(value: object) -> bool:
    return value is True or value == "true"
