"""Every text of the server's catalogue leads to the reason that the scenarios tell."""

from __future__ import annotations

from typing import Any

import pytest

from signal_persistence.refusals import (
    pause_after_silence,
    pause_before_joining,
    reason_of,
    refuses_token,
)
from tests.client.live.scenarios import REFUSALS


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal["said"][:40])
def test_a_refusal_has_its_reason(refusal: dict[str, Any]) -> None:
    assert reason_of(refusal["said"]) == refusal["reason"]
    assert refuses_token(refusal["said"]) is refusal["renews_token"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("HTTP 401: ", "access_refused"),
        ("HTTP 429: ", "rate_limited"),
        ("HTTP 503: <html>", "connection_lost"),
        ("TimeoutError: ", "connection_lost"),
    ],
)
def test_a_handshake_that_a_gateway_refuses_is_known_by_its_status(said: str, reason: str) -> None:
    assert reason_of(said) == reason


def test_a_lost_connection_is_back_at_once_and_later_each_time_it_fails() -> None:
    pauses = [pause_before_joining(attempt, "1006", lambda: 1.0) for attempt in (1, 2, 3, 30)]
    assert pauses == [0.1, 0.2, 0.4, 3.0]


def test_a_restart_of_the_server_brings_everybody_back_spread() -> None:
    said = "CHANNEL_ERROR: received 1012 (service restart); then sent 1012 (service restart)"
    assert pause_before_joining(1, said, lambda: 0.0) == 0.0
    assert pause_before_joining(1, said, lambda: 1.0) == 3.0


def test_a_limit_is_given_time_and_more_of_it_each_time() -> None:
    said = "Too many messages per second"
    assert [pause_before_joining(attempt, said, lambda: 0.0) for attempt in (1, 2, 9)] == [2, 4, 4]


def test_channels_that_bring_nothing_are_joined_again_further_apart_each_time() -> None:
    assert [pause_after_silence(attempt, lambda: 1.0) for attempt in (1, 3, 9)] == [0.2, 0.8, 2.0]
    assert pause_after_silence(9, lambda: 0.0) == 0.0
