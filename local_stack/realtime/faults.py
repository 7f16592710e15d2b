"""Faults that a test asks for: what they may be, whom they strike, what becomes of a broadcast.

Nothing here touches a socket. Whoever could fail asks `Faults.strike`, and broadcasts go through
`Faults.pass_on`; without faults both cost a look at an empty list. `admin` makes them happen.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from local_stack.realtime.protocol import Frame

MAX_FAULTS = 1_000
ABORTED = 1006
"""The close code of a connection that ends without one."""


class Kind(enum.StrEnum):
    """What can be made to fail. docs: local_stack/README.md, "Faults"."""

    CLOSE_SOCKETS = "close_sockets"
    CLOSE_CHANNEL = "close_channel"
    PHX_ERROR = "phx_error"
    EXPIRE_TOKEN = "expire_token"  # noqa: S105
    REFUSE_HANDSHAKE = "refuse_handshake"
    REFUSE_JOIN = "refuse_join"
    FREEZE = "freeze"
    DROP_HEARTBEATS = "drop_heartbeats"
    DROP = "drop"
    DUPLICATE = "duplicate"
    DELAY = "delay"
    REORDER = "reorder"
    GARBLE = "garble"
    STALL_REPLICATION = "stall_replication"
    LOSE_SLOT = "lose_slot"


AT_ONCE = frozenset({Kind.CLOSE_SOCKETS, Kind.CLOSE_CHANNEL, Kind.PHX_ERROR, Kind.EXPIRE_TOKEN})
"""They happen to what is there now, and are over."""
OF_BROADCASTS = frozenset({Kind.DROP, Kind.DUPLICATE, Kind.DELAY, Kind.REORDER, Kind.GARBLE})
OF_REPLICATION = frozenset({Kind.STALL_REPLICATION, Kind.LOSE_SLOT})
_OPTIONS = {
    Kind.CLOSE_SOCKETS: "code",
    Kind.CLOSE_CHANNEL: "message",
    Kind.REFUSE_HANDSHAKE: "status",
    Kind.REFUSE_JOIN: "reason",
    Kind.DELAY: "ms",
}

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
_Code = Annotated[int, msgspec.Meta(ge=1000, le=4999)]
_Status = Annotated[int, msgspec.Meta(ge=400, le=599)]
_Milliseconds = Annotated[int, msgspec.Meta(gt=0, le=600_000)]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a test asks for. Without `count` and `seconds` it lasts until it is healed."""

    kind: Kind
    topic: str | None = None
    """A topic without `realtime:`; None is every topic."""
    count: _Count | None = None
    """So many times and no more."""
    seconds: _Seconds | None = None
    code: _Code = 1011
    message: str = "Realtime was unable to connect to the project database"
    reason: str = "UnableToConnectToProject: Realtime was unable to connect to the project database"
    status: _Status = 503
    ms: _Milliseconds = 1_000

    def may_strike(self, topics: Collection[str]) -> bool:
        return self.topic is None or self.topic in topics


class FaultError(ValueError):
    """Cannot inject a fault: it is not described as it has to be."""


def parse(body: bytes) -> Fault:
    """Read a fault, or raise `FaultError` that says which field is wrong."""
    try:
        fault = msgspec.json.decode(body, type=Fault)
        given = msgspec.json.decode(body, type=dict[str, Any]).keys()
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise FaultError(f"Cannot inject the fault: {error}") from error
    senseless = given - _fields(fault.kind)
    if senseless:
        raise FaultError(
            f"Cannot inject the fault: {fault.kind} has no {', '.join(sorted(senseless))}; it has "
            f"{', '.join(sorted(_fields(fault.kind)))}"
        )
    return fault


def _fields(kind: Kind) -> set[str]:
    fields = {"kind"}
    if kind not in AT_ONCE:
        fields.add("seconds")
    if kind not in OF_REPLICATION:
        fields.add("count")
    if kind not in OF_REPLICATION and kind is not Kind.REFUSE_HANDSHAKE:
        fields.add("topic")
    if option := _OPTIONS.get(kind):
        fields.add(option)
    return fields


@dataclass(slots=True, eq=False)
class ActiveFault:
    """A fault that was injected, and how often it struck."""

    id: str
    fault: Fault
    struck: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is healed: whoever it holds goes on."""

    def strike(self) -> bool:
        """Count a strike; False when the last one has been."""
        if self.struck == self.fault.count:
            return False
        self.struck += 1
        return True

    def describe(self) -> dict[str, Any]:
        asked: dict[str, Any] = msgspec.to_builtins(self.fault)
        return {"id": self.id, **asked, "struck": self.struck, "healed": self.ended.is_set()}


Deliver = Callable[[bool], None]
"""Gives a broadcast to its subscribers, garbled or not."""
Later = Callable[[float, Callable[[], None]], object]
"""Runs something after so many seconds."""


class Faults:
    """The faults of one server. `later` is the event loop's `call_later`, or a test's clock."""

    def __init__(self, later: Later) -> None:
        self._later = later
        self._ids = itertools.count(1)
        self._injected: list[ActiveFault] = []
        self._striking: list[ActiveFault] = []
        self._held: dict[str, tuple[ActiveFault, Deliver]] = {}
        """The broadcast of a topic that lets the next one overtake it."""

    def inject(self, fault: Fault) -> ActiveFault:
        """Begin a fault. What happens at once is for the caller to do, and to count."""
        if len(self._injected) == MAX_FAULTS:
            raise FaultError(f"Cannot inject the fault: there are {MAX_FAULTS} already; heal them")
        active = ActiveFault(str(next(self._ids)), fault)
        self._injected.append(active)
        if fault.kind not in AT_ONCE:
            self._striking.append(active)
        if fault.seconds is not None:
            self._later(fault.seconds, lambda: self.heal([active]))
        return active

    def heal(self, faults: Iterable[ActiveFault] | None = None) -> None:
        """End these faults, or all. What waits for its turn is delivered."""
        healed = set(self._injected if faults is None else faults)
        for active in healed:
            active.ended.set()
        self._striking = [active for active in self._striking if active not in healed]
        for topic, (active, deliver) in list(self._held.items()):
            if active in healed:
                del self._held[topic]
                deliver(False)

    def forget(self, topic: str | None = None) -> list[ActiveFault]:
        """Heal everything, or what was asked for this topic, and return it; it is not listed."""
        forgotten = [one for one in self._injected if topic in {None, one.fault.topic}]
        self.heal(forgotten)
        for active in forgotten:
            self._injected.remove(active)
        return forgotten

    def injected(self) -> list[ActiveFault]:
        """What was injected since `forget`, healed or not, oldest first."""
        return list(self._injected)

    def strike(self, kinds: Collection[Kind], topics: Collection[str] = ()) -> ActiveFault | None:
        """The oldest fault of these kinds that strikes now. It is counted."""
        for active in self._striking:
            if active.fault.kind in kinds and active.fault.may_strike(topics) and active.strike():
                return active
        return None

    def pass_on(self, topic: str, deliver: Deliver) -> None:
        """Deliver a broadcast as the faults of its topic have it."""
        if not self._striking and not self._held:
            deliver(False)
            return
        _, overtaken = self._held.pop(topic, (None, None))
        active = None if overtaken else self.strike(OF_BROADCASTS, (topic,))
        match active.fault.kind if active else None:
            case Kind.DROP:
                pass
            case Kind.DUPLICATE:
                deliver(False)
                deliver(False)
            case Kind.GARBLE:
                deliver(True)
            case Kind.REORDER if active:
                self._held[topic] = (active, deliver)
            case Kind.DELAY if active:
                self._later(active.fault.ms / 1000, lambda: deliver(False))
            case _:
                deliver(False)
        if overtaken:
            overtaken(False)


def garbled(frame: Frame) -> Frame:
    """The first half of a frame: no client can read it, and none may break on it."""
    half = frame.data[: len(frame.data) // 2]
    if frame.is_text:
        half = half.decode(errors="ignore").encode()
    return Frame(half, frame.is_text)
