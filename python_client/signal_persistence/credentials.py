"""Who a request is made for: an access token, and where a fresh one comes from."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from signal_persistence.errors import (
    ConnectError,
    ConnectionLostError,
    RequestTimeoutError,
    UnavailableError,
)
from signal_persistence.transport import Response

_REFRESH_AHEAD: Final = 0.2
"""A token is renewed when this share of its life is left, …"""
_REFRESH_AHEAD_AT_MOST: Final = 60.0
"""… but never earlier than this many seconds before its end."""


@runtime_checkable
class Credentials(Protocol):
    """Where access tokens of one account come from; may be shared by threads and event loops."""

    async def access_token(self, *, refresh: bool = False) -> str:
        """Return a token; `refresh` says that the last one was refused, so get another."""
        ...


class AccessToken:
    """A token that somebody else renews: given once, or asked for by a function at every use."""

    def __init__(self, token: str | Callable[[], str]) -> None:
        self._token = token

    async def access_token(self, *, refresh: bool = False) -> str:
        return self._token if isinstance(self._token, str) else self._token()

    def __repr__(self) -> str:
        return "AccessToken(…)"


class PasswordCredentials:
    """Sign in with email and password, and keep the token fresh.

    The token is renewed before it ends. Callers in several threads and event loops share one
    sign-in: while one of them renews the token the others wait for it.
    """

    def __init__(
        self,
        url: str,
        key: str,
        email: str,
        password: str,
        *,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = f"{url.rstrip('/')}/auth/v1/token"
        self._key = key
        self._email = email
        self._password = password
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._renew_at = 0.0

    async def access_token(self, *, refresh: bool = False) -> str:
        """Return a token that is still valid.

        Raises AuthenticationError when the password is refused, other ApiErrors and
        TransportErrors when the service cannot be asked.
        """
        session = self._session
        if session is not None and not refresh and self._clock() < self._renew_at:
            return session.access_token
        # A thread, because one lock must serve callers on several event loops.
        return await asyncio.to_thread(self._renew, session)

    def _renew(self, refused: _Session | None) -> str:
        with self._lock:
            if self._session is not None and self._session is not refused:
                return self._session.access_token
            session = self._refreshed(refused) or self._signed_in()
            ahead = min(session.expires_in * _REFRESH_AHEAD, _REFRESH_AHEAD_AT_MOST)
            self._renew_at = self._clock() + session.expires_in - ahead
            self._session = session
            return session.access_token

    def _refreshed(self, session: _Session | None) -> _Session | None:
        if session is None:
            return None
        answer = self._ask("refresh_token", {"refresh_token": session.refresh_token})
        return _session_from(answer) if answer.status == 200 else None

    def _signed_in(self) -> _Session:
        answer = self._ask("password", {"email": self._email, "password": self._password})
        if 400 <= answer.status < 500:
            # Auth refuses with 400, 403 or 422, for us what 401 is everywhere else: somebody may
            # yet repair the account or the password.
            raise replace(answer, status=401).error()
        return _session_from(answer)

    def _ask(self, grant: str, body: dict[str, Any]) -> Response:
        """Return the answer of Auth; raise what may pass."""
        # Imported only here: whoever brings tokens of their own need not wait for it.
        import httpx

        try:
            answer = httpx.post(
                self._url,
                params={"grant_type": grant},
                json=body,
                headers={"apikey": self._key},
                timeout=self._timeout,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ConnectError from error
        except httpx.TimeoutException as error:
            raise RequestTimeoutError from error
        except httpx.HTTPError as error:
            raise ConnectionLostError from error
        response = Response(answer.status_code, answer.headers, answer.content)
        problem = response.error() if response.status >= 400 else None
        if isinstance(problem, UnavailableError):
            raise problem
        return response

    def __repr__(self) -> str:
        return f"PasswordCredentials({self._email!r}, …)"


class _Session(msgspec.Struct, frozen=True):
    access_token: str
    refresh_token: str
    expires_in: float


def _session_from(answer: Response) -> _Session:
    try:
        return msgspec.json.decode(answer.body, type=_Session)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # Something between here and Auth answered in its place: that may pass.
        raise ConnectionLostError from error
