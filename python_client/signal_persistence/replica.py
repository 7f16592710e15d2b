"""Asks a read replica, which may be behind, and does not take reads down when it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from signal_persistence.credentials import Credentials
from signal_persistence.errors import ApiError, TransportError, UnavailableError
from signal_persistence.transport import HttpTransport

T = TypeVar("T")

_RPC: Final = "/rest/v1/rpc/"
_LONGEST_PATH: Final = 8_000
"""Gateways refuse longer ones; what does not fit is asked of the primary."""
_REST_SECONDS: Final = 5.0
"""For so long a replica that failed is left alone."""

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
        self._transport = HttpTransport(url, key, timeout=timeout)
        self._credentials = credentials
        self._clock = clock
        self._rests_until = 0.0

    async def ask(
        self, function: str, parameters: Mapping[str, Any], decode: Callable[[bytes], T]
    ) -> T | None:
        """Return the answer; None when the primary has to be asked.

        Raises the ApiError of what the service itself finds wrong with the question.
        """
        path = f"{_RPC}{function}?{urlencode(_texts(parameters))}"
        if len(path) > _LONGEST_PATH or self._clock() < self._rests_until:
            return None
        try:
            response = await self._transport.get(path, await self._credentials.access_token())
            response.raise_for_status()
            return decode(response.body)
        except (TransportError, UnavailableError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._rests_until = self._clock() + _REST_SECONDS
            _log.warning("The read replica fails, so the primary is asked: %s", error)
        except ApiError as error:
            if error.status == 400 and not error.foreign:
                raise
        return None

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
