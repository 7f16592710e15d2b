"""What the processes of a demonstration tell the one that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Ready:
    """The process is set up and waits for the start."""

    sender: str


@dataclass(frozen=True, slots=True)
class Published:
    """How far a publisher has come: `outcomes` counts "accepted" and the codes of the rest."""

    sender: str
    offered: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Observed:
    """How far the subscribers have come: for each account its state and number of signals."""

    sender: str
    counts: Mapping[str, int]
    states: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """The process ended with an error."""

    sender: str
    error: str


@dataclass(slots=True)
class PublisherResult:
    """What one publisher did, in the order of its calls and of its reports."""

    sender: str
    tier: str
    offered: list[UUID] = field(default_factory=list)
    accepted: list[UUID] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    ack_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Seen:
    """What one subscriber saw, in its order; a time is missing where no broadcast told of it."""

    signal_ids: list[UUID] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    live_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class FollowerResult:
    """What the subscribers of all accounts saw."""

    sender: str
    seen: dict[str, Seen]


Message = Ready | Published | Observed | Failed | PublisherResult | FollowerResult
