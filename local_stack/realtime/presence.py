"""Presence: who says to be on a topic, and what its subscribers are told of that (Phoenix)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Meta = dict[str, object]
Listing = dict[str, dict[str, list[Meta]]]
"""Presence key → `{"metas": [...]}`, one for each channel that tracks under that key."""
Member = TypeVar("Member", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Diff:
    """What subscribers are told: who came and who went. A change is both."""

    joins: Listing
    leaves: Listing

    def payload(self) -> dict[str, object]:
        return {"joins": self.joins, "leaves": self.leaves}


@dataclass(slots=True)
class _Tracked:
    key: str
    payload: Mapping[str, object]
    meta: Meta


@dataclass(slots=True)
class Presences(Generic[Member]):
    """What each member (a channel) of each topic tracks: one payload at most."""

    _topics: dict[Hashable, dict[Member, _Tracked]] = field(default_factory=dict)

    def state(self, topic: Hashable) -> Listing:
        """Everybody on the topic."""
        listing: Listing = {}
        for tracked in self._topics.get(topic, {}).values():
            listing.setdefault(tracked.key, {"metas": []})["metas"].append(tracked.meta)
        return listing

    def track(
        self, topic: Hashable, member: Member, key: str, payload: Mapping[str, object]
    ) -> Diff | None:
        """Note what a member says of itself; None when it said so before."""
        tracked = self._topics.get(topic, {}).get(member)
        meta: Meta = {**payload, "phx_ref": _new_ref()}
        if tracked is None:
            self._topics.setdefault(topic, {})[member] = _Tracked(key, payload, meta)
            return Diff(_listing(key, meta), {})
        if tracked.payload == payload:
            return None
        before = tracked.meta
        meta["phx_ref_prev"] = before["phx_ref"]
        tracked.payload, tracked.meta = payload, meta
        return Diff(_listing(key, meta), _listing(key, before))

    def untrack(self, topic: Hashable, member: Member) -> Diff | None:
        """Forget a member; None when it tracked nothing."""
        members = self._topics.get(topic)
        tracked = None if members is None else members.pop(member, None)
        if members is not None and not members:
            del self._topics[topic]
        return None if tracked is None else Diff({}, _listing(tracked.key, tracked.meta))


def _listing(key: str, meta: Meta) -> Listing:
    return {key: {"metas": [meta]}}


def _new_ref() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(12)).decode()
