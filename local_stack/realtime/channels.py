"""Channels and their subscribers: what a join asked for, and who gets a broadcast."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from local_stack.realtime.authorization import BROADCAST, PRESENCE, Identity
from local_stack.realtime.faults import Faults, garbled
from local_stack.realtime.presence import Diff, Listing, Presences
from local_stack.realtime.protocol import (
    Broadcast,
    Frame,
    ProtocolError,
    ServerMessage,
    Version,
    encode,
    encode_broadcast,
)
from local_stack.realtime.quotas import CallWindow, Usage

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
    presence_key: str = ""
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
            presence_key=_presence_key(presence.get("key")),
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

    def fail(self, channel: Channel, text: str) -> None: ...


@dataclass(slots=True, eq=False)
class Channel:
    """One socket's membership of one topic."""

    receiver: Receiver
    topic: str
    join_ref: str | None
    config: JoinConfig
    identity: Identity
    may_read: frozenset[str] = frozenset({BROADCAST})
    """The extensions that are heard here; on a public channel it is not asked."""
    may_write: dict[str, bool] = field(default_factory=dict)
    """By extension; unknown until it is needed, and again after a change of token."""
    replayed: frozenset[str] = frozenset()
    """The ids that this join was given by replay, and is not given again."""
    presence_key: str = ""
    """Named by its first track."""
    has_presence: bool = False
    """Asked for by the join, or by the first track."""
    presence_calls: CallWindow | None = None
    is_open: bool = True

    @property
    def name(self) -> str:
        """The topic without its prefix: what the database and its policies see."""
        return self.topic.removeprefix(TOPIC_PREFIX)

    @property
    def key(self) -> tuple[bool, str]:
        """What a broadcast has to name to come here."""
        return self.config.is_private, self.name

    def hears(self, extension: str) -> bool:
        return not self.config.is_private or extension in self.may_read


class Hub:
    """Finds the channels of a topic. A private topic and a public one never meet."""

    def __init__(self, faults: Faults, usage: Usage) -> None:
        self._faults = faults
        self._usage = usage
        self._channels: dict[tuple[bool, str], dict[Channel, None]] = {}
        self._presences: Presences[Channel] = Presences()

    def add(self, channel: Channel) -> None:
        self._channels.setdefault(channel.key, {})[channel] = None

    def remove(self, channel: Channel) -> None:
        channels = self._channels.get(channel.key)
        if channels is None:
            return
        channels.pop(channel, None)
        if not channels:
            del self._channels[channel.key]
        self.untrack(channel)

    def publish(
        self, *, is_private: bool, name: str, broadcast: Broadcast, sender: Channel | None = None
    ) -> None:
        """Give a broadcast to every subscriber but its sender, as far as faults let it."""
        self._usage.count_messages(1)
        key = (is_private, name)
        if key in self._channels:
            self._faults.pass_on(
                name, lambda is_garbled: self._deliver(key, broadcast, sender, is_garbled)
            )

    def presence_state(self, channel: Channel) -> Listing:
        """Everybody who tracks on the channel's topic."""
        return self._presences.state(channel.key)

    def track(self, channel: Channel, payload: Mapping[str, object]) -> None:
        """Tell the topic what this channel says of itself."""
        if not channel.presence_key:
            channel.presence_key = channel.config.presence_key or str(uuid.uuid1())
        diff = self._presences.track(channel.key, channel, channel.presence_key, payload)
        self._tell(channel.key, diff)

    def untrack(self, channel: Channel) -> None:
        """Tell the topic that this channel went, if it was there."""
        self._tell(channel.key, self._presences.untrack(channel.key, channel))

    def _deliver(
        self, key: tuple[bool, str], broadcast: Broadcast, sender: Channel | None, is_garbled: bool
    ) -> None:
        message_id = None if broadcast.meta is None else broadcast.meta.get("id")
        hearing = [
            channel
            for channel in self._channels.get(key, ())
            if channel is not sender
            and channel.hears(BROADCAST)
            and message_id not in channel.replayed
        ]
        frames: dict[Version, Frame | None] = {}  # encoded once per version
        for channel in hearing:
            version = channel.receiver.version
            if version not in frames:
                frame = _encoded(version, channel.topic, broadcast)
                frames[version] = garbled(frame) if frame and is_garbled else frame
            if (frame := frames[version]) is not None:
                channel.receiver.send(frame)
        self._usage.count_messages(len(hearing))
        self._close_over_quota(hearing)

    def _close_over_quota(self, channels: Iterable[Channel]) -> None:
        """Whoever gets a message while there are too many gets no more."""
        if self._usage.has_too_many_messages():
            for channel in channels:
                channel.receiver.fail(channel, "Too many messages per second")

    def _tell(self, key: tuple[bool, str], diff: Diff | None) -> None:
        if diff is None:
            return
        channels = [c for c in self._channels.get(key, ()) if c.hears(PRESENCE)]
        self._usage.count_presence(len(channels))
        for channel in channels:
            message = ServerMessage(channel.topic, "presence_diff", diff.payload())
            channel.receiver.send(encode(channel.receiver.version, message))


def _encoded(version: Version, topic: str, broadcast: Broadcast) -> Frame | None:
    try:
        return encode_broadcast(version, topic, broadcast)
    except ProtocolError as error:
        _log.warning("%s", error)
        return None


def _presence_key(key: object) -> str:
    """The key that the client names; empty if it names none."""
    if isinstance(key, bool):
        return str(key).lower()
    return str(key) if isinstance(key, str | int | float) else ""


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _flag(value: object) -> bool:
    return value is True or value == "true"
