"""Asks a read replica, which may be behind, and does not take reads down when it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from signal_persistence.credentials import Credentials
from signal_persistence.errors import ApiError, TransportError
from signal_persistence.transport import HttpTransport

T = TypeVar("T")

_RPC: Final = "/rest/v1/rpc/"
_LONGEST_PATH: Final = 8_000
"""Gateways refuse longer ones; what does not fit is asked of the primary."""
_LONGEST_SECONDS: Final = 2.0
"""What takes longer is asked of the primary: nobody waits the whole timeout for a replica first."""
_FIRST_REST: Final = 5.0
_LONGEST_REST: Final = 60.0
"""For so many seconds a replica that failed is left alone: each time twice as long, up to this."""

_log: Final = logging.getLogger("signal_persistence")


class ReadReplica:
    """The REST API of a read replica, which on Supabase answers GET alone.

    https://supabase.com/docs/guides/platform/read-replicas: Edge Functions and Auth are not there.
    """

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials,
        *,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is that of the replica, `key` the project's publishable key."""
        self._transport = HttpTransport(url, key, timeout=min(timeout, _LONGEST_SECONDS))
        self._credentials = credentials
        self._clock = clock
        self._works = False
        self._is_tried = False
        self._rest = 0.0
        self._rests_until = 0.0

    async def ask(
        self, function: str, parameters: Mapping[str, Any], decode: Callable[[bytes], T]
    ) -> T | None:
        """Return the answer; None when the primary has to be asked.

        What the replica finds wrong with a question proves nothing: it may not have the trader of
        a cursor yet, or not the rollups that make a question small enough.
        """
        path = f"{_RPC}{function}?{urlencode(_texts(parameters))}"
        if len(path) > _LONGEST_PATH or self._clock() < self._rests_until or self._is_tried:
            return None
        # While it is not known to work, one question at a time finds out; the others do not wait.
        tries = self._is_tried = not self._works
        try:
            return await self._answer(path, decode)
        finally:
            if tries:
                self._is_tried = False

    async def _answer(self, path: str, decode: Callable[[bytes], T]) -> T | None:
        try:
            token = await self._credentials.access_token()
        except (TransportError, ApiError):
            # No fault of the replica: on the way to the primary it is tried again, or raised.
            return None
        try:
            response = await self._transport.get(path, token)
            response.raise_for_status()
            answer: T | None = decode(response.body)
        except ApiError as error:
            if error.status != 400 or error.foreign:
                self._leave_alone(error)
                return None
            answer = None
        except (TransportError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._leave_alone(error)
            return None
        if self._clock() >= self._rests_until:
            self._works, self._rest = True, 0.0
        return answer

    def _leave_alone(self, error: Exception) -> None:
        if self._clock() < self._rests_until:
            return  # What was under way when another failed tells nothing new.
        if self._rest == 0.0:
            _log.warning("The read replica fails, so the primary is asked: %s", error)
        self._works = False
        self._rest = min(max(_FIRST_REST, 2 * self._rest), _LONGEST_REST)
        self._rests_until = self._clock() + self._rest

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


def _texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in parameters.items()}


def _text(value: Any) -> str:
    """Write a value as PostgreSQL reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) or not isinstance(value, Iterable):
        return str(value)
    return "{" + ",".join(map(_quoted, value)) + "}"


def _quoted(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
