"""`/functions/v1`: which requests reach a worker, what it is told, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web

from local_stack import ports
from local_stack.functions_proxy import MAX_BODY_BYTES, REQUEST_ID, FunctionsProxy
from local_stack.keys import Keys
from local_stack.settings import JWT_SECRET, PUBLISHABLE_KEY, SECRET_KEY, StackSettings
from tests.plugins.stack import RunningStack

CONFIG = "[functions.open]\nverify_jwt = false\n[functions.echo]\nverify_jwt = true\n"
APIKEY = {"apikey": PUBLISHABLE_KEY}


async def worker(request: web.Request) -> web.StreamResponse:
    """Stands where Deno stands: tells what it got, or answers in pieces."""
    if request.path.endswith("/pieces"):
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(3):
            await response.write(f"piece {number}\n".encode())
        return response
    if request.path.endswith("/break"):
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(b"x" * 500_000)
        assert request.transport is not None
        request.transport.abort()
        return response
    body = await request.read()
    told = {
        "path": request.path_qs,
        "method": request.method,
        "length": len(body),
        "head": body[:2].hex(),
        "headers": {name.lower(): value for name, value in request.headers.items()},
    }
    headers = {"x-from-worker": "yes", "access-control-allow-origin": "https://app.example"}
    return web.json_response(told, headers=headers)


@contextlib.asynccontextmanager
async def serving(app: web.Application, **options: Any) -> AsyncIterator[int]:
    runner = web.AppRunner(app, **options)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """The proxy before a worker that serves `echo` and `open`, and `down`, which does not run."""
    (tmp_path / "config.toml").write_text(CONFIG)
    workers = web.Application(client_max_size=2 * MAX_BODY_BYTES)
    workers.router.add_route("*", "/{path:.*}", worker)
    async with serving(workers, auto_decompress=False) as port:
        [closed] = ports.choose(1)
        settings = StackSettings(
            name="proxy",
            state_root=str(tmp_path),
            function_ports={"echo": port, "open": port, "down": closed},
        )
        functions = FunctionsProxy(settings, Keys.load(settings), tmp_path / "config.toml")
        await functions.start()

        async def handle(request: web.Request) -> web.StreamResponse:
            request[REQUEST_ID] = "the-request-id"
            return await functions.handle(request)

        gateway = web.Application()
        gateway.router.add_route("*", "/functions/v1/{resource:.*}", handle)
        async with (
            serving(gateway, auto_decompress=False) as gateway_port,
            aiohttp.ClientSession(f"http://127.0.0.1:{gateway_port}/functions/v1/") as session,
        ):
            yield session
        await functions.stop()


def token(**changes: object) -> dict[str, str]:
    claims = {"role": "authenticated", "exp": int(time.time()) + 3600} | changes
    return {"authorization": f"Bearer {jwt.encode(claims, JWT_SECRET, algorithm='HS256')}"}


@pytest.mark.parametrize(
    "headers",
    [
        APIKEY,
        {"apikey": SECRET_KEY},
        {"authorization": f"Bearer {PUBLISHABLE_KEY}"},
        {"authorization": f"Bearer {SECRET_KEY}"},
        token(),
    ],
    ids=["publishable", "secret", "publishable as bearer", "secret as bearer", "user token"],
)
async def test_keys_and_tokens_pass(proxy: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    async with proxy.post("echo", headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"apikey": "sb_publishable_other"},
        {"authorization": "Bearer junk"},
        token(exp=1),
        APIKEY | token(exp=1),
        {"authorization": "Basic abc"},
    ],
    ids=["nothing", "unknown key", "junk", "expired", "expired beside a key", "basic"],
)
async def test_a_function_that_verifies_tokens_is_not_reached_without_one(
    proxy: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with proxy.post("echo", headers=headers) as answer:
        assert answer.status == 401
        assert (await answer.json())["code"].startswith("UNAUTHORIZED")
    async with proxy.post("open", headers=headers) as answer:
        assert answer.status == 200


async def test_a_preflight_reaches_the_function(proxy: aiohttp.ClientSession) -> None:
    async with proxy.options("echo") as answer:
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"


async def test_an_unknown_function_is_404(proxy: aiohttp.ClientSession) -> None:
    async with proxy.post("nope", headers=APIKEY) as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "NOT_FOUND")


async def test_a_worker_that_is_down_is_503_with_retry_after(
    proxy: aiohttp.ClientSession,
) -> None:
    async with proxy.post("down", headers=APIKEY) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (await answer.json())["code"] == "BOOT_ERROR"


async def test_the_worker_sees_the_path_without_the_prefix_and_who_asked(
    proxy: aiohttp.ClientSession,
) -> None:
    headers = APIKEY | {"x-correlation-id": "abc", "connection": "x-hop", "x-hop": "1"}
    async with proxy.put("echo/a%2Fb?c=d%20e&c=f", headers=headers, data=b"hello") as answer:
        assert answer.headers["x-from-worker"] == "yes"
        assert answer.headers["x-sb-request-id"] == "the-request-id"
        told = await answer.json()
    assert (told["path"], told["method"], told["length"]) == ("/echo/a%2Fb?c=d%20e&c=f", "PUT", 5)
    seen = told["headers"]
    assert seen["x-correlation-id"] == "abc"
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["sb-request-id"] == "the-request-id"
    assert "x-hop" not in seen


async def test_a_packed_body_arrives_packed(proxy: aiohttp.ClientSession) -> None:
    packed = gzip.compress(b"x" * 10_000)
    headers = APIKEY | {"content-encoding": "gzip"}
    async with proxy.post("echo", headers=headers, data=packed) as answer:
        told = await answer.json()
    assert (told["length"], told["head"]) == (len(packed), "1f8b")


@pytest.mark.parametrize("size", [0, 1, 300_000, MAX_BODY_BYTES])
@pytest.mark.parametrize("chunked", [True, False])
async def test_bodies_up_to_the_limit_arrive_whole(
    proxy: aiohttp.ClientSession, size: int, chunked: bool
) -> None:
    data: Any = pieces(size) if chunked else io.BytesIO(bytes(size))
    async with proxy.post("echo", headers=APIKEY, data=data) as answer:
        assert (await answer.json())["length"] == size


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_beyond_the_limit_is_refused(
    proxy: aiohttp.ClientSession, chunked: bool
) -> None:
    size = MAX_BODY_BYTES + 1
    data: Any = pieces(size) if chunked else io.BytesIO(bytes(size))
    async with proxy.post("echo", headers=APIKEY, data=data) as answer:
        assert answer.status == 413


async def pieces(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 100_000):
        yield bytes(min(100_000, size - start))


async def test_an_answer_in_pieces_is_passed_on(proxy: aiohttp.ClientSession) -> None:
    async with proxy.get("echo/pieces", headers=APIKEY) as answer:
        assert await answer.text() == "piece 0\npiece 1\npiece 2\n"


async def test_an_answer_that_breaks_off_is_seen_to_break_off(
    proxy: aiohttp.ClientSession,
) -> None:
    async with proxy.get("echo/break", headers=APIKEY) as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_requests_at_once_do_not_mix(proxy: aiohttp.ClientSession) -> None:
    async def ask(number: int) -> None:
        async with proxy.post(f"echo/{number}", headers=APIKEY, data=bytes(number)) as answer:
            told = await answer.json()
        assert (told["path"], told["length"]) == (f"/echo/{number}", number)

    await asyncio.gather(*(ask(number) for number in range(60)))


async def test_the_stack_serves_its_functions(stack: RunningStack) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{stack.api_url}/functions/v1/query-signals"
        async with session.options(url, headers={"origin": "https://app.example"}) as answer:
            assert answer.status < 300
        async with session.get(url) as answer:
            assert answer.status == 401
