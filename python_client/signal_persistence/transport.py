"""Speaks HTTP with the project: one request in, one response or a TransportError out."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec

from signal_persistence.contract import CONTRACT
from signal_persistence.errors import (
    ApiError,
    AuthenticationError,
    BatchTooLargeError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PermissionDeniedError,
    RequestTimeoutError,
    SignalPersistenceError,
    TransportError,
    UnavailableError,
)
from signal_persistence.logs import log_request, request_headers

_RETRIABLE_STATUSES: Final = frozenset({408, 425, 429}) | frozenset(range(500, 600)) - {501, 505}
_KEEPALIVE_SECONDS: Final = 20.0
_CONNECT_SECONDS: Final = 4.0
"""For all of it: name, TCP, TLS and the way through a proxy."""

_NOT_SENT: Final = (
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
)
"""What aiohttp raises while it makes a connection, and nowhere else. It writes a request only to a
connection that was made, so these prove that nothing was sent. Nothing else proves it."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer of any status; headers are looked up by their names in lower case."""

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
        code = spelled.catalogue_code
        foreign = code not in CONTRACT.errors
        if self.status == 404 and foreign:
            # A function that is being deployed again, a gateway's page.
            kind: type[ApiError] = UnavailableError
            message = "The service is not there: it answered with HTTP status 404; check the URL."
        else:
            kind = _error_class(self.status)
            known = CONTRACT.errors.get(code or _code_of_status(self.status))
            message = (
                known.message if known else f"The service answered with HTTP status {self.status}."
            )
        return kind(
            spelled.sentence or message,
            code=code or _code_of_status(self.status),
            status=self.status,
            hint=spelled.hint,
            request_id=spelled.request_id,
            retry_after=self.retry_after(),
            foreign=foreign,
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

    It belongs to the event loop that first uses it. A proxy is taken once, when it is made, from
    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY or the system's settings. Certificates are
    judged by what the system trusts, or by SSL_CERT_FILE and SSL_CERT_DIR.
    """

    def __init__(
        self, url: str, key: str, *, timeout: float = 10.0, max_connections: int = 10
    ) -> None:
        """`url` is the project's URL, `key` its publishable key, `timeout` is in seconds."""
        address = _address_of(url)
        self._base = url.rstrip("/")
        self._host = address.hostname
        self._proxy = _proxy_for(address)
        self._tls = _system_trust() if address.scheme == "https" else True
        self._headers = {
            "apikey": key,
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "user-agent": "signal-persistence-python",
        }
        self._timeout = timeout
        self._in_time = aiohttp.ClientTimeout(
            total=timeout,
            # Less than the total, or a failure to connect would be in doubt.
            connect=min(timeout / 2, _CONNECT_SECONDS),
            # Never rounded up to whole seconds.
            ceil_threshold=math.inf,
        )
        self._free = asyncio.Semaphore(max_connections)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def url(self) -> str:
        """The project's URL."""
        return self._base

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
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Forgotten, or the copy in a forked child: aiohttp would log an error of its own for it.
        session: aiohttp.ClientSession | None = getattr(self, "_session", None)
        if session is not None:
            session.detach()

    @asynccontextmanager
    async def stream(
        self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[tuple[Response, AsyncIterator[bytes]]]:
        """Send a JSON body; an answer of 2xx comes in parts, in a Response without a body.

        Any other status is a whole Response, and no part. Raises as `post` does, also while parts
        are read: when the connection breaks, or nothing comes for `timeout` seconds.
        """
        sent = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        unhurried = aiohttp.ClientTimeout(
            total=None, connect=_CONNECT_SECONDS, sock_read=self._timeout, ceil_threshold=math.inf
        )
        async with self._answered(
            "POST", path, body, sent | dict(headers or {}), unhurried
        ) as answer:
            whole = b"" if answer.ok else await answer.read()
            parts = answer.content.iter_any() if answer.ok else _no_parts()
            yield Response(answer.status, answer.headers, whole), parts

    async def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Response:
        try:
            async with self._answered(method, path, body, headers, self._in_time) as answer:
                return Response(answer.status, answer.headers, await answer.read())
        except SignalPersistenceError:
            raise
        except Exception as error:
            raise _lost(error) from error

    @asynccontextmanager
    async def _answered(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send a request; what is raised while its answer is read is a TransportError too."""
        session = self._opened()
        await self._until_free()
        sent = request_headers() | dict(headers)
        began = time.monotonic()
        try:
            async with session.request(
                method,
                self._base + path,
                data=body,
                headers=sent,
                allow_redirects=False,
                timeout=timeout,
            ) as answer:
                yield answer
                log_request(method, path, answer.status, time.monotonic() - began, sent)
        except _NOT_SENT as error:
            raise ConnectError(
                f"Cannot connect to {self._host}: {_reason(error)}; check the URL and the network."
            ) from error
        except TransportError:
            raise
        except TimeoutError as error:
            raise RequestTimeoutError from error
        except aiohttp.ClientError as error:
            raise _lost(error) from error
        finally:
            self._free.release()

    async def _until_free(self) -> None:
        """Wait for one of the connections, here and not in aiohttp, whose limit on making a
        connection would count the waiting too."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        except TimeoutError:
            raise ConnectError(
                "Cannot send the request: every connection was busy for too long; "
                "send fewer requests at once."
            ) from None

    def _opened(self) -> aiohttp.ClientSession:
        """Return the session of the running loop, which the first request opens."""
        if self._closed:
            raise ClosedError
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS, ssl=self._tls),
                headers=self._headers,
                proxy=self._proxy,
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(_one_attempt,),
            )
        elif loop is not self._loop:
            raise ConfigurationError(
                "Cannot use this on a second event loop: make another one there."
            )
        return self._session


class _Connector(aiohttp.TCPConnector):
    """Leaves its connections alone when it is dropped without having been closed.

    aiohttp's would unregister them from the event loop, and when that is the copy in a forked
    child, from the parent's too, which then never hears an answer on them.
    """

    def __del__(self, _warnings: object = None) -> None:
        """The sockets are closed with the objects that hold them."""


async def _no_parts() -> AsyncGenerator[bytes]:
    return
    yield b""


def _address_of(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        usable = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        usable = False
    if not usable or address.username is not None:
        raise ConfigurationError("Cannot use this url: it must be the http(s) URL of the project.")
    return address


def _proxy_for(address: SplitResult) -> str | None:
    """Return the URL of the proxy that the environment, or the system, names for an address."""
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(address.netloc):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigurationError(
            "Cannot use the proxy that the environment names: it must be an http(s) URL; name "
            "another in HTTPS_PROXY, or the project's host in NO_PROXY."
        )
    return proxy


def _system_trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _one_attempt(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET again by itself: only the caller knows whether it may."""
    try:
        return await handler(request)
    except _NOT_SENT:
        raise
    except aiohttp.ClientConnectionError as error:
        raise _lost(error) from error


def _lost(error: Exception) -> ConnectionLostError:
    return ConnectionLostError(
        "Cannot tell whether the service did the work: the connection broke before the answer "
        f"({type(error).__name__})."
    )


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
    return "unavailable" if status in (_RETRIABLE_STATUSES | {404}) - {500} else "internal"


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
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered with HTTP status {error.status}"
    return "no connection in time"
