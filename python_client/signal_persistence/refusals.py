"""What Realtime says when it refuses or closes, and what follows: a reason, a pause, a token.

The texts are those of the server's source; tests/scenarios/live_delivery.json lists them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from signal_persistence.caller import pause_before
from signal_persistence.subscription import StateReason

_TOKEN: Final = ("JWT", "Jwt", "Token has expired")
_ACCESS: Final = (*_TOKEN, "Unauthorized", "permission", "API key is missing", "HTTP 401")
_RATE: Final = ("RateLimitReached", "rate limit", "Too many", "HTTP 429")
_EVERYONE: Final = ("(going away)", "(service restart)", "RealtimeRestarting", "HTTP 503")
_SPREAD_SECONDS: Final = 3.0
"""Ten thousand that come back within it are as many joins as a project may have in a second."""
_LONGEST_RATE_PAUSE: Final = 4.0
"""Half of the longest pause: in it, all connections of a plan are fewer joins than it allows."""
_LONGEST_UNHEARD_PAUSE: Final = 2.0
"""With the time a channel is given and a check, it is live 10 s after broadcasts come again."""


def reason_of(said: str) -> StateReason:
    """Return why the channel cannot be had, from what the server or the library said."""
    if any(sign in said for sign in _RATE):
        return StateReason.RATE_LIMITED
    if any(sign in said for sign in _ACCESS):
        return StateReason.ACCESS_REFUSED
    return StateReason.CONNECTION_LOST


def refuses_token(said: str) -> bool:
    """Tell whether another token may help."""
    return any(sign in said for sign in _TOKEN)


def pause_after_silence(attempt: int, randomness: Callable[[], float] = random.random) -> float:
    """Seconds before the next join, after `attempt` (1, 2, …) channels in a row brought nothing.

    A dead replication slot, or too much to do, strikes everybody at once: joining costs the server
    most, so the more joins were in vain, the further apart they are.
    """
    return randomness() * min(_LONGEST_UNHEARD_PAUSE, 0.1 * 2.0**attempt)


def pause_before_joining(
    attempt: int, said: str, randomness: Callable[[], float] = random.random
) -> float:
    """Seconds before the next join, after `attempt` (1, 2, …) in a row ended with these words."""
    if reason_of(said) is StateReason.RATE_LIMITED:
        # The limits of a project are averages over time.
        return (1.0 + randomness()) * min(2.0**attempt, _LONGEST_RATE_PAUSE)
    if any(sign in said for sign in _EVERYONE):
        return randomness() * _SPREAD_SECONDS
    return pause_before(attempt, randomness)
