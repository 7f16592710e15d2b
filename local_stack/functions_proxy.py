"""`/functions/v1/<name>`: check the caller's key as hosted does, then stream to the Deno worker."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from local_stack.keys import Keys, KeysError
from local_stack.rest_errors import RETRY_AFTER_SECONDS
from local_stack.rest_request import bearer_token
from local_stack.settings import StackSettings

MAX_BODY_BYTES = 10 * 1024 * 1024
BUFFERED_BODY_BYTES = 256 * 1024
"""Bodies up to this size are read whole and sent in one write: fewer wake-ups on the hot path."""
IDLE_SECONDS = 150.0  # hosted: a function that sends nothing for 150 s is answered with 504
REQUEST_ID = web.RequestKey("request_id", str)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# RFC 9110 7.6.1: these belong to one connection and are not passed on.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "host",
    }
)


_NEVER_ADDED = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)


class BodyTooLargeError(Exception):
    """Cannot pass the request on: its body is too large."""


class FunctionsProxy:
    """Pass requests on to the workers; `function_ports` of the settings says where they listen."""

    def __init__(self, settings: StackSettings, keys: Keys, config_file: Path) -> None:
        self._urls = {
            name: f"http://127.0.0.1:{port}" for name, port in settings.function_ports.items()
        }
        self._forwarded = {
            "X-Forwarded-Host": f"127.0.0.1:{settings.api_port}",
            "X-Forwarded-Port": str(settings.api_port),
            "X-Forwarded-Proto": "http",
        }
        self._keys = keys
        self._unverified = _functions_without_verification(config_file)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, force_close=False),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=5, sock_read=IDLE_SECONDS, ceil_threshold=1e9
            ),
            auto_decompress=False,
            skip_auto_headers=_NEVER_ADDED,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request below `/functions/v1/`."""
        name = request.match_info["resource"].partition("/")[0]
        url = self._urls.get(name)
        if url is None or not _NAME.fullmatch(name):
            return _error(404, "NOT_FOUND", "Requested function was not found")
        if request.method != hdrs.METH_OPTIONS and name not in self._unverified:
            refusal = self._verify_jwt(request)
            if refusal is not None:
                return refusal
        try:
            return await self._forward(request, name, url)
        except BodyTooLargeError:
            return _error(413, "PAYLOAD_TOO_LARGE", f"Bodies end at {MAX_BODY_BYTES} bytes")
        except TimeoutError:
            return _error(504, "IDLE_TIMEOUT", f"{name} sent nothing for {IDLE_SECONDS:.0f} s")
        except (aiohttp.ClientError, OSError):
            return _unavailable(name)

    def _verify_jwt(self, request: web.Request) -> web.Response | None:
        """Check what `verify_jwt = true` checks: a valid token, or any API key, on either header.

        That authenticates nobody who sends only an API key: the function must look for itself.
        """
        token = bearer_token(request)
        apikey = request.headers.get("apikey", "")
        if token:
            if self._keys.resolve_apikey(token) is not None:
                return None
            try:
                self._keys.verify_token(token)
            except KeysError:
                return _error(401, "UNAUTHORIZED_INVALID_JWT_FORMAT", "Invalid JWT")
            return None
        if self._keys.resolve_apikey(apikey) is not None:
            return None
        return _error(401, "UNAUTHORIZED_NO_AUTH_HEADER", "Missing authorization header")

    async def _forward(self, request: web.Request, name: str, url: str) -> web.StreamResponse:
        assert self._session is not None  # noqa: S101 (start() is called before any request)
        target = f"{url}{request.rel_url.raw_path_qs.removeprefix('/functions/v1')}"
        body = await _body(request)
        try:
            upstream = await self._session.request(
                request.method,
                URL(target, encoded=True),
                headers=self._request_headers(request),
                data=body,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError):
            if isinstance(body, BoundedBody) and body.exceeded:
                raise BodyTooLargeError from None
            raise
        async with upstream:
            headers = _end_to_end(upstream.headers)
            headers["x-sb-request-id"] = headers["sb-request-id"] = request[REQUEST_ID]
            headers["x-served-by"] = "supabase-edge-runtime"
            length = upstream.content_length
            if length is not None and length <= BUFFERED_BODY_BYTES and request.method != "HEAD":
                body = await upstream.read()
                return web.Response(status=upstream.status, body=body, headers=headers)
            return await _stream(request, upstream, headers)

    def _request_headers(self, request: web.Request) -> CIMultiDict[str]:
        headers = _end_to_end(request.headers)
        headers.update(self._forwarded)
        headers["X-Forwarded-For"] = request.remote or "127.0.0.1"
        headers["X-Forwarded-Path"] = request.path
        headers["sb-request-id"] = headers["x-sb-request-id"] = request[REQUEST_ID]
        return headers


class BoundedBody:
    """A request's body as a stream that breaks off beyond the limit."""

    def __init__(self, request: web.Request) -> None:
        self._content = request.content
        self.exceeded = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._content.iter_any():
            received += len(chunk)
            if received > MAX_BODY_BYTES:
                self.exceeded = True
                raise BodyTooLargeError
            yield chunk


async def _body(request: web.Request) -> bytes | BoundedBody | None:
    """Return a small body whole and a large or chunked one as a bounded stream."""
    if not request.body_exists:
        return None
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise BodyTooLargeError
    if length is not None and length <= BUFFERED_BODY_BYTES:
        return await request.content.readexactly(length)
    return BoundedBody(request)


async def _stream(
    request: web.Request, upstream: aiohttp.ClientResponse, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """Pass the worker's answer on as it comes; a worker that dies half-way cuts the connection.

    The length is sent only for a body that is passed on whole, so a client sees that it was cut.
    """
    response = web.StreamResponse(status=upstream.status, headers=headers)
    await response.prepare(request)
    try:
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
    except (aiohttp.ClientError, OSError, TimeoutError, asyncio.CancelledError):
        if request.transport is not None:
            request.transport.abort()
        raise
    await response.write_eof()
    return response


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    dropped = _HOP_BY_HOP | named
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in dropped
    )


def _functions_without_verification(config_file: Path) -> frozenset[str]:
    functions = tomllib.loads(config_file.read_text()).get("functions", {})
    return frozenset(
        name for name, options in functions.items() if options.get("verify_jwt") is False
    )


def _error(status: int, code: str, message: str) -> web.Response:
    headers = {"Access-Control-Allow-Origin": "*", "sb-error-code": code}
    return web.json_response({"code": code, "message": message}, status=status, headers=headers)


def _unavailable(name: str) -> web.Response:
    response = _error(503, "BOOT_ERROR", f"Cannot reach function {name}: its worker is down")
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
