"""What a load test asks of a project: how much, for how long, and what it must answer."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

MAXIMUM_BATCH = 5000
"""Signals that one request may carry."""
MAXIMUM_SECONDS = 3000
"""Users sign in once, and an access token is valid for an hour."""
REQUEST_INTERVAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the measured part must hold, or the exit code is 1."""

    p95_ms: float = 10.0
    p99_ms: float = 50.0
    query_p95_ms: float = 100.0
    failure_ratio: float = 0.0001
    achieved_ratio: float = 0.95
    """Signals accepted, as a share of the signals that the profile asks for."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A load: signals a minute over `ingesting_users` accounts, with some readers beside."""

    signals_per_minute: float
    seconds: float
    ingesting_users: int = 20
    querying_users: int = 4
    queries_per_second: float = 2.0
    """Of each querying user."""
    warm_up_seconds: float = 8.0
    """Time in which users sign up, and of which nothing counts."""
    thresholds: Thresholds = Thresholds()

    def __post_init__(self) -> None:
        if self.batch_size > MAXIMUM_BATCH:
            raise ValueError(
                f"Cannot send {self.signals_per_minute:,.0f} signals/min from "
                f"{self.ingesting_users} users: their batches would exceed {MAXIMUM_BATCH} "
                "signals; raise --ingesting-users"
            )
        if not 0 < self.seconds <= MAXIMUM_SECONDS:
            raise ValueError(
                f"Cannot run for {self.seconds:g} s: choose more than 0 and at most "
                f"{MAXIMUM_SECONDS}, because an access token is valid for an hour"
            )

    @property
    def batch_size(self) -> int:
        per_second = self.signals_per_minute / 60 / self.ingesting_users
        return max(1, math.ceil(per_second * REQUEST_INTERVAL_SECONDS))

    @property
    def requests_per_second(self) -> float:
        """Of each ingesting user."""
        return self.signals_per_minute / 60 / self.ingesting_users / self.batch_size

    @property
    def users(self) -> int:
        return self.ingesting_users + self.querying_users


PROFILES = {
    "smoke": Profile(
        signals_per_minute=6_000,
        seconds=5,
        ingesting_users=2,
        querying_users=1,
        warm_up_seconds=3,
        thresholds=Thresholds(p95_ms=1000, p99_ms=2000, query_p95_ms=1000, achieved_ratio=0.5),
    ),
    "sustained": Profile(signals_per_minute=100_000, seconds=300),
    "burst": Profile(signals_per_minute=1_000_000, seconds=300),
}


def scaled(profile: Profile, scale: float) -> Profile:
    """Return `profile` with `scale` times its signals and queries, from as many users."""
    return dataclasses.replace(
        profile,
        signals_per_minute=profile.signals_per_minute * scale,
        queries_per_second=profile.queries_per_second * scale,
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What the measured part of a run came to."""

    seconds: float
    accepted: int
    requests: int
    failures: int
    p95_ms: float
    p99_ms: float
    query_p95_ms: float

    @property
    def signals_per_minute(self) -> float:
        return self.accepted * 60 / self.seconds


def violations(profile: Profile, measured: Measured) -> list[str]:
    """Return one sentence for each threshold that `measured` does not hold."""
    limits = profile.thresholds
    rate = measured.signals_per_minute
    wanted = profile.signals_per_minute * limits.achieved_ratio
    found = []
    if measured.requests == 0:
        found.append("no request was answered")
    elif measured.failures > measured.requests * limits.failure_ratio:
        found.append(
            f"{measured.failures} of {measured.requests} requests failed; "
            f"the limit is a share of {limits.failure_ratio:g}"
        )
    if rate < wanted:
        found.append(f"{rate:,.0f} signals/min were accepted; the floor is {wanted:,.0f}")
    for name, value, limit in (
        ("ingest p95", measured.p95_ms, limits.p95_ms),
        ("ingest p99", measured.p99_ms, limits.p99_ms),
        ("query p95", measured.query_p95_ms, limits.query_p95_ms),
    ):
        if value > limit:
            found.append(f"{name} was {value:g} ms; the limit is {limit:g} ms")
    return found
