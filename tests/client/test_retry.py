"""What happens after a failed attempt, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_persistence import (
    ApiError,
    AuthenticationError,
    BatchTooLargeError,
    ConnectError,
    ConnectionLostError,
    PermissionDeniedError,
    RequestTimeoutError,
    SignalPersistenceError,
    UnavailableError,
)
from signal_persistence.retry import Backoff, Next, decide, is_down

unit = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), unit, st.floats(0.001, 10), st.floats(10, 1000))
def test_a_pause_is_full_jitter_below_a_doubling_bounded_ceiling(
    failures: int, luck: float, first: float, longest: float
) -> None:
    pause = Backoff(first, longest, lambda: luck).pause(failures)
    ceiling = min(longest, first * 2.0 ** min(failures - 1, 30))
    assert pause == luck * ceiling


@given(st.integers(1, 100), unit, st.floats(0, 1e6))
def test_retry_after_is_a_floor_and_does_not_bring_everybody_back_at_once(
    failures: int, luck: float, retry_after: float
) -> None:
    pause = Backoff(0.1, 10, lambda: luck).pause(failures, retry_after)
    assert pause >= retry_after
    assert pause <= max(10, retry_after + 0.1)
    if luck > 0:
        assert pause > retry_after or retry_after + 0.1 * luck == retry_after


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (ConnectError(), Next.RETRY),
        (RequestTimeoutError(), Next.RETRY),
        (ConnectionLostError(), Next.RETRY),
        (UnavailableError(status=503), Next.RETRY),
        (UnavailableError(status=429), Next.RETRY),
        (AuthenticationError(status=401), Next.RENEW),
        (BatchTooLargeError(status=413), Next.SPLIT),
        (BatchTooLargeError(status=413, foreign=True), Next.SPLIT),
        (PermissionDeniedError(status=403), Next.RETRY),
        (PermissionDeniedError(status=403, foreign=True), Next.RETRY),
        (ApiError(status=400, foreign=True), Next.RETRY),
        (ApiError(status=400), Next.GIVE_UP),
        (ApiError(status=409), Next.GIVE_UP),
    ],
)
def test_what_may_pass_is_retried_and_what_cannot_is_given_up(
    error: SignalPersistenceError, step: Next
) -> None:
    assert decide(error, renewed=False, messages=2) is step


def test_a_token_that_was_renewed_in_vain_waits_like_an_outage() -> None:
    assert decide(AuthenticationError(status=401), renewed=True, messages=1) is Next.RETRY


def test_one_signal_that_is_too_large_cannot_be_split() -> None:
    assert decide(BatchTooLargeError(status=413), renewed=False, messages=1) is Next.GIVE_UP
    foreign = BatchTooLargeError(status=413, foreign=True)
    assert decide(foreign, renewed=False, messages=1) is Next.RETRY


@pytest.mark.parametrize(
    ("error", "down"),
    [
        (ConnectError(), True),
        (UnavailableError(status=503), True),
        (UnavailableError(status=429, foreign=True), False),
        (ApiError(status=402, foreign=True), True),
        (PermissionDeniedError(status=403, foreign=True), True),
        (PermissionDeniedError(status=403), False),
        (ApiError(status=400), False),
        (AuthenticationError(status=401, foreign=True), False),
        (BatchTooLargeError(status=413, foreign=True), False),
    ],
)
def test_only_who_does_not_do_its_work_is_down(error: SignalPersistenceError, down: bool) -> None:
    assert is_down(error) is down
