"""The stack's API gateway: `python -m local_stack.gateway <stack directory>`.

One process on loopback that answers `/rest/v1`, `/auth/v1`, `/functions/v1` and `/realtime/v1`,
and says of everything else that it is not imitated.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop
from aiohttp import web

from local_stack.auth import AuthApi, AuthConfig
from local_stack.functions_proxy import REQUEST_ID, FunctionsProxy
from local_stack.keys import Keys
from local_stack.realtime.server import Realtime
from local_stack.rest import ApiConfig, RestApi
from local_stack.rest_errors import not_implemented
from local_stack.settings import REPOSITORY, StackSettings

CONFIG_FILE = REPOSITORY / "supabase" / "config.toml"
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
SHUTDOWN_SECONDS = 3.0
ACCESS_LOG_SECONDS = 0.1
EXPOSED_HEADERS = (
    "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, "
    "Preference-Applied, Retry-After, Server, X-Total-Count, Link, x-sb-request-id, "
    "x-correlation-id"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
logger = logging.getLogger("gateway")


def build_app(settings: StackSettings) -> web.Application:
    """Wire the services of one stack into an application."""
    keys = Keys.load(settings)
    rest = RestApi(settings, keys, ApiConfig.load(CONFIG_FILE))
    auth = AuthApi(settings, keys, AuthConfig.load(CONFIG_FILE))
    functions = FunctionsProxy(settings, keys, CONFIG_FILE)
    realtime = Realtime(settings, keys)

    access_log = AccessLog()

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes(realtime.routes())
    for path, handler in (
        ("/rest/v1/{resource:.*}", _with_cors(rest.handle)),
        ("/auth/v1/{resource:.*}", _with_cors(auth.handle)),
        ("/functions/v1/{resource:.*}", functions.handle),
        ("/{resource:.*}", _with_cors(_refuse)),
    ):
        app.router.add_route("*", path, _logged(handler, access_log))

    async def services(_: web.Application) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(auth.stop)
            await rest.start()
            stack.push_async_callback(rest.stop)
            await functions.start()
            stack.push_async_callback(functions.stop)
            await realtime.start()
            # What lives as long as the process is no garbage: looking through it only adds pauses.
            gc.collect()
            gc.freeze()
            yield
            access_log.flush()

    async def say_goodbye(_: web.Application) -> None:
        # Sockets are handlers that never end: they are told before aiohttp waits for handlers.
        await realtime.stop()

    app.cleanup_ctx.append(services)
    app.on_shutdown.append(say_goodbye)
    return app


async def _refuse(request: web.Request) -> web.StreamResponse:
    service = "/".join(request.path.split("/")[:3])
    return not_implemented(service).response()


def _with_cors(handler: Handler) -> Handler:
    """Answer preflights as hosted's gateway does, and let a browser of any origin read."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=200, headers=_preflight_headers(request))
        response = await handler(request)
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
        return response

    return handle


def _preflight_headers(request: web.Request) -> dict[str, str]:
    asked = request.headers.get("Access-Control-Request-Headers", "")
    return {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT",
        "Access-Control-Allow-Headers": asked if asked.isprintable() and asked else "*",
        "Access-Control-Max-Age": "3600",
        "Vary": "Access-Control-Request-Headers",
    }


class AccessLog:
    """Writes the lines of a moment together: every write wakes the supervisor."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Keep a line for at most `ACCESS_LOG_SECONDS`."""
        if not self._lines:
            asyncio.get_running_loop().call_later(ACCESS_LOG_SECONDS, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what is kept."""
        sys.stdout.write("".join(self._lines))
        sys.stdout.flush()
        self._lines.clear()


def _logged(handler: Handler, access_log: AccessLog) -> Handler:
    """Give each request an id and write one compact line about it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        status = 500
        request_id = str(uuid.uuid4())
        request[REQUEST_ID] = request_id
        try:
            response = await handler(request)
            status = response.status
            if not response.prepared:
                response.headers["sb-request-id"] = request_id
                response.headers["x-sb-request-id"] = request_id
            return response
        except web.HTTPException as error:
            status = error.status
            return _json_error(error)
        except Exception:
            logger.exception("%s %s failed (%s)", request.method, request.path, request_id)
            return web.json_response({"message": "An unexpected error occurred"}, status=500)
        finally:
            elapsed = (time.perf_counter() - started) * 1000
            line = f"{request.method} {request.path!r} {status} {elapsed:.1f}ms {request_id}\n"
            access_log.add(line)

    return handle


def _json_error(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals (a body that is too large, …) in JSON."""
    message = f"Cannot answer the request: {error.reason}"
    return web.json_response({"code": str(error.status), "message": message}, status=error.status)


async def serve(settings: StackSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(
        build_app(settings),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=SHUTDOWN_SECONDS,
        keepalive_timeout=75,
        auto_decompress=False,  # a packed body is the function's to unpack
        max_line_size=MAX_HEADER_BYTES,  # long `in.(…)` filters
        max_field_size=MAX_HEADER_BYTES,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", settings.api_port, backlog=1024)
        await site.start()
        print(f"gateway listens on {settings.api_url}", flush=True)  # noqa: T201
        await stopped.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("Cannot start the gateway: give it the stack's directory")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(message)s")
    settings = StackSettings.load(Path(sys.argv[1]))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # a socket is a file
    try:
        uvloop.run(serve(settings))
    except OSError as error:
        sys.exit(f"Cannot start the gateway on port {settings.api_port}: {error.strerror or error}")


if __name__ == "__main__":
    main()
