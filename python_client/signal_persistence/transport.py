"""The only module that speaks HTTP: one request in, one response or a TransportError out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from signal_persistence.contract import CONTRACT
from signal_persistence.errors import (
    ApiError,
    AuthenticationError,
    BatchTooLargeError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PermissionDeniedError,
    RequestTimeoutError,
    UnavailableError,
)

_RETRIABLE_STATUSES: Final = frozenset({408, 425, 429}) | frozenset(range(500, 600)) - {501, 505}
_KEEPALIVE_SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer of any status; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def raise_for_status(self) -> None:
        """Raise the ApiError that the answer spells, unless its status is 2xx."""
        if not 200 <= self.status < 300:
            raise self.error()

    def error(self) -> ApiError:
        """Read the error of an Edge Function, REST or Auth; any other body gives its status."""
        spelled = _spelled_error(self.body)
        code = spelled.catalogue_code or _code_of_status(self.status)
        known = CONTRACT.errors.get(code)
        message = spelled.sentence or (
            known.message if known else f"The service answered with HTTP status {self.status}."
        )
        return _error_class(self.status)(
            message,
            code=code,
            status=self.status,
            hint=spelled.hint,
            request_id=spelled.request_id,
            retry_after=self.retry_after(),
        )

    def retry_after(self) -> float | None:
        """Return the seconds that the service asks to wait, from `Retry-After` in either form."""
        text = self.headers.get("retry-after")
        if text is None:
            return None
        if text.strip().isdecimal():
            return float(text)
        try:
            moment = parsedate_to_datetime(text)
            now = parsedate_to_datetime(self.headers["date"])
        except (KeyError, ValueError):
            return None
        return max(0.0, (moment - now).total_seconds())


class Transport(Protocol):
    """What the engine and the queries need of HTTP."""

    async def post(
        self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None
    ) -> Response: ...

    async def aclose(self) -> None: ...


class HttpTransport:
    """HTTP/1.1 with a small pool of kept-alive connections to one Supabase project.

    It belongs to the event loop that first uses it.
    """

    def __init__(
        self, url: str, key: str, *, timeout: float = 10.0, max_connections: int = 10
    ) -> None:
        """`url` is the project's URL, `key` its publishable key, `timeout` is in seconds."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                "Cannot use this url: it must be the http(s) URL of the project."
            )
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"apikey": key, "accept": "application/json"},
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=_KEEPALIVE_SECONDS,
            ),
        )

    async def post(
        self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a JSON body as the owner of `token`; any status is a Response.

        Raises ConnectError when nothing was sent, RequestTimeoutError or ConnectionLostError when
        the service may have done the work.
        """
        sent = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return await self._request("POST", path, body, sent | dict(headers or {}))

    async def get(
        self, path: str, token: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Fetch `path` (query string included) as the owner of `token`; errors as in `post`."""
        sent = {"authorization": f"Bearer {token}"}
        return await self._request("GET", path, None, sent | dict(headers or {}))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Response:
        try:
            answer = await self._client.request(method, path, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise ConnectError(
                f"Cannot connect to {self._client.base_url.host}: {_reason(error)}; "
                "check the URL and the network."
            ) from error
        except httpx.TimeoutException as error:
            raise RequestTimeoutError from error
        except httpx.HTTPError as error:
            raise ConnectionLostError from error
        return Response(answer.status_code, answer.headers, answer.content)


class _SpelledError(msgspec.Struct, frozen=True):
    """Both shapes: `{code, message, request_id}` and REST's `{code, message, details, hint}`."""

    code: str | None = None
    message: str | None = None
    details: str | None = None
    hint: str | None = None
    request_id: str | None = None
    msg: str | None = None
    error_code: str | None = None

    @property
    def catalogue_code(self) -> str | None:
        """The REST API carries the catalogue's code in `details`, Auth in `error_code`."""
        for candidate in (self.details, self.code):
            if candidate in CONTRACT.errors:
                return candidate
        return self.error_code or self.code

    @property
    def sentence(self) -> str | None:
        return self.message or self.msg


def _spelled_error(body: bytes) -> _SpelledError:
    try:
        return msgspec.json.decode(body, type=_SpelledError)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _SpelledError()


def _code_of_status(status: int) -> str:
    if status == 401:
        return "unauthorized"
    if status == 413:
        return "batch_too_large"
    return "unavailable" if status in _RETRIABLE_STATUSES - {500} else "internal"


def _error_class(status: int) -> type[ApiError]:
    if status in _RETRIABLE_STATUSES:
        return UnavailableError
    by_status: dict[int, type[ApiError]] = {
        401: AuthenticationError,
        403: PermissionDeniedError,
        413: BatchTooLargeError,
    }
    return by_status.get(status, ApiError)


def _reason(error: Exception) -> str:
    return str(error) or "no connection in time"
