"""The pure part of the load test: how users share a rate, and when a run has failed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from loadtests.profiles import MAXIMUM_BATCH, PROFILES, Measured, Profile, scaled, violations

SUSTAINED = PROFILES["sustained"]
GOOD = Measured(
    seconds=300,
    accepted=500_000,
    requests=12_000,
    failures=0,
    p95_ms=9,
    p99_ms=40,
    query_p95_ms=20,
)


@pytest.mark.parametrize("name", PROFILES)
def test_users_together_send_the_rate_of_their_profile(name: str) -> None:
    profile = PROFILES[name]
    per_user = profile.batch_size * profile.requests_per_second
    assert per_user * profile.ingesting_users * 60 == pytest.approx(profile.signals_per_minute)


def test_a_scaled_profile_keeps_users_and_seconds() -> None:
    small = scaled(SUSTAINED, 0.1)
    assert small.signals_per_minute == 10_000
    assert (small.users, small.seconds) == (SUSTAINED.users, SUSTAINED.seconds)


def test_a_rate_that_needs_too_large_batches_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="raise --ingesting-users"):
        Profile(signals_per_minute=MAXIMUM_BATCH * 1000, seconds=10, ingesting_users=1)


@pytest.mark.parametrize("seconds", [0, -1, 3601])
def test_a_run_longer_than_an_access_token_lives_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="access token"):
        Profile(signals_per_minute=100, seconds=seconds)


def test_a_run_within_every_threshold_has_no_violation() -> None:
    assert violations(SUSTAINED, GOOD) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"p95_ms": 10.1}, "ingest p95 was 10.1 ms"),
        ({"p99_ms": 51.0}, "ingest p99 was 51 ms"),
        ({"query_p95_ms": 101.0}, "query p95 was 101 ms"),
        ({"failures": 2}, "2 of 12000 requests failed"),
        ({"accepted": 470_000}, "94,000 signals/min were accepted"),
        ({"requests": 0}, "no request was answered"),
    ],
)
def test_each_threshold_that_does_not_hold_is_named(change: dict[str, Any], sentence: str) -> None:
    found = violations(SUSTAINED, dataclasses.replace(GOOD, **change))
    assert len(found) == 1
    assert sentence in found[0]
