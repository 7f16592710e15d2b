"""Calls that may be repeated safely: with the current token, and again after a passing failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from signal_persistence.credentials import Credentials
from signal_persistence.errors import (
    AuthenticationError,
    ConnectionLostError,
    TransportError,
    UnavailableError,
)
from signal_persistence.transport import HttpTransport, Transport

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 3.0
LONGEST_RETRY_AFTER: Final = 30.0
"""A call does not wait for a Retry-After of more seconds than this: it raises the error."""


def pause_before(attempt: int, randomness: Callable[[], float] = random.random) -> float:
    """Seconds to wait after `attempt` (1, 2, …) failed: full jitter, doubling, bounded."""
    return randomness() * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt - 1, 10))


class Caller:
    """Post JSON to functions that change nothing, or change the same thing when repeated."""

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials,
        *,
        timeout: float = 10.0,
        attempts: int = 5,
        transport: Transport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        randomness: Callable[[], float] = random.random,
    ) -> None:
        self._transport = transport or HttpTransport(url, key, timeout=timeout)
        self._credentials = credentials
        self._attempts = attempts
        self._sleep = sleep
        self._randomness = randomness

    async def call(
        self, path: str, parameters: Mapping[str, Any], decode: Callable[[bytes], T]
    ) -> T:
        """Return the answer as `decode` reads it.

        Transport errors, an answer that cannot be read (a proxy's page, say), 408, 429 and 5xx
        are tried again, Retry-After being the least wait; a refused token is renewed once. Raises
        the last TransportError or ApiError, and at once an UnavailableError whose `retry_after`
        is more than LONGEST_RETRY_AFTER seconds: whoever called knows whether to wait that long.
        """
        body = msgspec.json.encode(parameters)
        refused: AuthenticationError | None = None
        attempt = 0
        while True:
            attempt += 1
            pause = pause_before(attempt, self._randomness)
            try:
                return await self._once(path, body, decode, refresh=refused is not None)
            except AuthenticationError as error:
                if refused is not None:
                    raise
                refused = error
                continue
            except UnavailableError as error:
                wanted = error.retry_after or 0.0
                if attempt >= self._attempts or wanted > LONGEST_RETRY_AFTER:
                    raise
                pause = max(pause, wanted)
            except TransportError:
                if attempt >= self._attempts:
                    raise
            await self._sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _once(
        self, path: str, body: bytes, decode: Callable[[bytes], T], *, refresh: bool
    ) -> T:
        token = await self._credentials.access_token(refresh=refresh)
        response = await self._transport.post(path, body, token)
        response.raise_for_status()
        try:
            return decode(response.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConnectionLostError(
                f"Cannot read the answer of {path}: it is not what the service sends; check the "
                "URL, and whether something between here and the service changes answers."
            ) from error
