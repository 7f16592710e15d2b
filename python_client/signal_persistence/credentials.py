"""Who a request is made for: an access token, and where a fresh one comes from."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol, TypeVar, runtime_checkable
from uuid import UUID

import msgspec

from signal_persistence.contract import API_KEY_TEXT
from signal_persistence.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    RequestTimeoutError,
    TransportError,
    UnavailableError,
)
from signal_persistence.token import account_of
from signal_persistence.transport import Response

_REFRESH_AHEAD: Final = 0.2
"""A token is renewed when this share of its life is left."""
_PAUSE_AFTER_FAILURE: Final = 5.0
"""Seconds for which a token that could not be renewed yet, and still lives, is used further."""


@runtime_checkable
class Credentials(Protocol):
    """Where access tokens of one account come from; may be shared by threads and event loops.

    An attribute `identity` (a str, stable and no secret) is optional: a spool names by it whose
    signals it holds. See `identity_of`.
    """

    async def access_token(self, *, refresh: bool = False) -> str:
        """Return a token; `refresh` says that the last one was refused, so get another."""
        ...


def identity_of(credentials: Credentials) -> str | None:
    """Return the name that stays with the signals of these credentials, or None without one."""
    identity: str | None = getattr(credentials, "identity", None)
    return identity


class AccessToken:
    """A token that somebody else renews: given once, or asked for by a function at every use."""

    def __init__(self, token: str | Callable[[], str]) -> None:
        self._token = token

    @property
    def identity(self) -> str | None:
        """The account that the token names; None when a function is asked for it."""
        if not isinstance(self._token, str):
            return None
        try:
            return str(account_of(self._token))
        except AuthenticationError:
            return None

    async def access_token(self, *, refresh: bool = False) -> str:
        return self._token if isinstance(self._token, str) else self._token()

    def __repr__(self) -> str:
        return "AccessToken(…)"


class _Grant(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float


class _Session(_Grant, frozen=True):
    refresh_token: str


class _RenewedCredentials(ABC):
    """Keep one token fresh for callers in any number of threads and event loops.

    The token is renewed before it ends, by one caller while the others wait. A renewal that fails
    for a passing reason goes unnoticed while the token still lives.
    """

    _refresh_ahead_at_most = math.inf
    """Seconds before its end when a token is renewed at the earliest."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._grant: _Grant | None = None
        self._renew_at = 0.0
        self._ends_at = 0.0
        _renewed.add(self)

    async def access_token(self, *, refresh: bool = False) -> str:
        """Return a token that is still valid.

        Raises AuthenticationError when the credentials are refused, other ApiErrors and
        TransportErrors when the service cannot be asked.
        """
        grant = self._grant
        if grant is not None and not refresh and self._clock() < self._renew_at:
            return grant.access_token
        # A thread, because one lock must serve callers on several event loops.
        return await asyncio.to_thread(self._renew, grant, refresh)

    @abstractmethod
    def _obtain(self, last: _Grant | None) -> _Grant:
        """Ask the service for a token; `last` is the one before."""

    def _renew(self, last: _Grant | None, refused: bool) -> str:
        with self._lock:
            if self._grant is not None and self._is_fresh(last, refused):
                return self._grant.access_token
            try:
                grant = self._obtain(last)
            except (TransportError, UnavailableError):
                if last is None or refused or self._clock() >= self._ends_at:
                    raise
                self._renew_at = min(self._clock() + _PAUSE_AFTER_FAILURE, self._ends_at)
                return last.access_token
            ahead = min(grant.expires_in * _REFRESH_AHEAD, self._refresh_ahead_at_most)
            self._ends_at = self._clock() + grant.expires_in
            self._renew_at = self._ends_at - ahead
            self._grant = grant
            return grant.access_token

    def _is_fresh(self, last: _Grant | None, refused: bool) -> bool:
        """Whether another caller has just got a token, or found that this one must do for now."""
        return self._grant is not last or (not refused and self._clock() < self._renew_at)

    def _forget_lock(self) -> None:
        self._lock = threading.Lock()


_renewed: Final[weakref.WeakSet[_RenewedCredentials]] = weakref.WeakSet()


def _forget_locks() -> None:
    """In a forked child no thread is left that would release a lock which was held at the fork."""
    for credentials in list(_renewed):
        credentials._forget_lock()


os.register_at_fork(after_in_child=_forget_locks)


class PasswordCredentials(_RenewedCredentials):
    """Sign in with email and password, and keep the token fresh.

    The token is renewed before it ends. Callers in several threads and event loops share one
    sign-in: while one of them renews the token the others wait for it.
    """

    _refresh_ahead_at_most = 60.0

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
        super().__init__(clock)
        self._url = f"{url.rstrip('/')}/auth/v1/token"
        self._key = key
        self._email = email
        self._password = password
        self._timeout = timeout

    @property
    def identity(self) -> str:
        """A name for the user that tells nobody the email."""
        return f"user-{hashlib.sha256(self._email.lower().encode()).hexdigest()[:16]}"

    def _obtain(self, last: _Grant | None) -> _Grant:
        return self._refreshed(last) or self._signed_in()

    def _refreshed(self, session: _Grant | None) -> _Session | None:
        if not isinstance(session, _Session):
            return None
        answer = self._ask("refresh_token", {"refresh_token": session.refresh_token})
        return _decoded(answer, _Session) if answer.status == 200 else None

    def _signed_in(self) -> _Session:
        answer = self._ask("password", {"email": self._email, "password": self._password})
        # Auth refuses with 400, 403 or 422.
        _raise_for_refusal(answer)
        return _decoded(answer, _Session)

    def _ask(self, grant: str, body: Mapping[str, str]) -> Response:
        return _post(f"{self._url}?grant_type={grant}", self._key, body, self._timeout)

    def __repr__(self) -> str:
        return f"PasswordCredentials({self._email!r}, …)"


class ApiKeyCredentials(_RenewedCredentials):
    """Exchange an API key for short-lived tokens: how a process without a person signs in.

    A token is renewed when 80 % of its life is over, once for all threads and event loops. A key
    that was revoked is an AuthenticationError, at which a producer pauses and keeps its signals.
    """

    def __init__(
        self,
        url: str,
        key: str,
        api_key: str,
        *,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key` is the project's publishable key, `api_key` the account's (`sgk_…`).

        Raises ConfigurationError for text that is no API key.
        """
        super().__init__(clock)
        if not API_KEY_TEXT.fullmatch(api_key):
            raise ConfigurationError(
                "Cannot use this API key: a key is sgk_, 32 hexadecimal digits, _ and 64 more; "
                "copy it again as it was shown when it was made, or make another."
            )
        self._url = f"{url.rstrip('/')}/functions/v1/exchange-api-key"
        self._key = key
        self._api_key = api_key
        self._timeout = timeout

    @property
    def account_id(self) -> UUID:
        """The account that the key is of; the key itself names it."""
        return UUID(hex=self._api_key[4:36])

    @property
    def identity(self) -> str:
        """The account's id: it outlives the key, so a new key finds the signals of the old one."""
        return str(self.account_id)

    def _obtain(self, last: _Grant | None) -> _Grant:
        answer = _post(self._url, self._key, {"api_key": self._api_key}, self._timeout)
        _raise_for_refusal(answer)
        return _decoded(answer, _Grant)

    def __repr__(self) -> str:
        return f"ApiKeyCredentials(account {self.account_id}, …)"


G = TypeVar("G", bound=_Grant)


def _post(url: str, key: str, body: Mapping[str, str], timeout: float) -> Response:
    """Return the answer to a request for a token; raise what may pass."""
    # Imported only here: whoever brings tokens of their own need not wait for it.
    import httpx

    try:
        answer = httpx.post(url, json=body, headers={"apikey": key}, timeout=timeout)
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


def _raise_for_refusal(answer: Response) -> None:
    """Raise AuthenticationError for any 4xx: somebody may yet repair the account, password or key,
    so it is for us what 401 is everywhere else, and what is not sent yet waits."""
    if 400 <= answer.status < 500:
        raise replace(answer, status=401).error()


def _decoded(answer: Response, kind: type[G]) -> G:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # Something between here and the service answered in its place: that may pass.
        raise ConnectionLostError from error
