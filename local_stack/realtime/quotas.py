"""What a hosted plan allows to a project, and the counters that compare it with what happens.

Off unless a plan is chosen: a test of something else must not fail by them. The figures are those
of https://supabase.com/docs/guides/realtime/limits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits of one plan, per project."""

    connections: int
    joins_per_second: int
    messages_per_second: int
    """Each message counts once, and once more for every subscriber that gets it."""
    presence_per_second: int
    payload_kb: int
    presence_calls: int = 5
    presence_window_seconds: float = 30.0
    """A client may track and untrack so often in this time."""

    @property
    def payload_bytes(self) -> int:
        return self.payload_kb * 1000 + 500


PLANS = {
    "free": Plan(200, 100, 100, 20, 256),
    "pro": Plan(500, 500, 500, 50, 3_000),
    "team": Plan(10_000, 2_500, 2_500, 1_000, 3_000),
}


class RateMeter:
    """The average of a second over the last minute, in buckets, as hosted Realtime takes it.

    A limit is reached when a bucket ends at or above it, so a burst is noticed seconds late, and
    held against the project until the average is below again.
    """

    def __init__(self, clock: Clock, bucket_seconds: float = 5.0, buckets: int = 12) -> None:
        self._clock = clock
        self._bucket_seconds = bucket_seconds
        self._closed: deque[int] = deque([0], maxlen=buckets)
        self._open = 0
        self._opened_at = clock()

    def add(self, events: int = 1) -> None:
        self._close_buckets()
        self._open += events

    def per_second(self) -> float:
        self._close_buckets()
        return sum(self._closed) / len(self._closed) / self._bucket_seconds

    def _close_buckets(self) -> None:
        ended = int((self._clock() - self._opened_at) / self._bucket_seconds)
        for _ in range(min(ended, (self._closed.maxlen or 0) + 1)):
            self._closed.append(self._open)
            self._open = 0
        self._opened_at += ended * self._bucket_seconds


class Usage:
    """What a project uses, compared with its plan; without a plan everything is allowed."""

    def __init__(self, clock: Clock, bucket_seconds: float) -> None:
        self._clock = clock
        self._bucket_seconds = bucket_seconds
        self.connections = 0
        self.choose(None)

    def choose(self, plan: Plan | None) -> None:
        """Apply a plan from now on, with counters at zero."""
        self.plan = plan
        self._joins, self._messages, self._presence = (
            RateMeter(self._clock, self._bucket_seconds) for _ in range(3)
        )

    def has_room_for_connection(self) -> bool:
        return self.plan is None or self.connections < self.plan.connections

    def may_join(self) -> bool:
        """Count a join, unless there were too many."""
        if self.plan is None:
            return True
        if self._joins.per_second() >= self.plan.joins_per_second:
            return False
        self._joins.add()
        return True

    def has_too_many_joins(self) -> bool:
        return self.plan is not None and self._joins.per_second() >= self.plan.joins_per_second

    def count_messages(self, messages: int) -> None:
        if self.plan is not None:
            self._messages.add(messages)

    def has_too_many_messages(self) -> bool:
        plan = self.plan
        return plan is not None and self._messages.per_second() >= plan.messages_per_second

    def would_be_too_many(self, messages: int) -> bool:
        """Whether a batch of so many goes over what is left."""
        plan = self.plan
        return (
            plan is not None and self._messages.per_second() + messages > plan.messages_per_second
        )

    def rate_headers(self) -> dict[str, str]:
        """What an HTTP answer tells of the plan."""
        if self.plan is None:
            return {}
        used, limit = int(self._messages.per_second()), self.plan.messages_per_second
        return {
            "x-rate-rolling": str(used),
            "x-rate-limit": str(limit),
            "x-rate-limit-remaining": str(limit - used),
        }

    def may_tell_presence(self) -> bool:
        """Count a presence message, unless there were too many."""
        if self.plan is None:
            return True
        if self._presence.per_second() > self.plan.presence_per_second:
            return False
        self._presence.add()
        return True

    def count_presence(self, messages: int) -> None:
        if self.plan is not None:
            self._presence.add(messages)

    def payload_bytes(self, limit: int) -> int:
        """The largest payload: the plan's, or `limit` without a plan."""
        return limit if self.plan is None else self.plan.payload_bytes


class CallWindow:
    """How often one client tracked or untracked in its current window."""

    __slots__ = ("_calls", "_ends_at")

    def __init__(self) -> None:
        self._calls = 0
        self._ends_at = 0.0

    def admits(self, now: float, plan: Plan) -> bool:
        """Count a call, unless the window is full."""
        if now > self._ends_at:
            self._calls, self._ends_at = 0, now + plan.presence_window_seconds
        if self._calls >= plan.presence_calls:
            return False
        self._calls += 1
        return True
