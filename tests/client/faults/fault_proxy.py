"""A proxy in front of a real service that fails, one request after the other, by a script.

It reads whole requests and whole answers, so a fault hits a known moment: before the service has
seen anything, in the middle of the request, or after the work is done and before it is known.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

PIECES: Final = 10
GATEWAY_PAGE: Final = b"<html><h1>Something went wrong</h1></html>"
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CHUNKED: Final = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")


class _GoneError(Exception):
    """One of the two ends hung up."""


@dataclass(frozen=True)
class Exchange:
    """One request that arrived whole, and the ways to go on with it."""

    proxy: FaultProxy
    client: asyncio.StreamWriter
    waiting: asyncio.StreamReader
    """Of the client: it ends when the client hangs up."""
    request: bytes

    async def forward(self) -> bytes:
        """Have the service do the work and return its whole answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.target_port)
        try:
            writer.write(self.request)
            answer = await _message(reader)
        finally:
            writer.close()
        self.proxy.forwarded += 1
        return answer

    async def send(self, data: bytes) -> None:
        self.client.write(data)
        await self.client.drain()

    async def send_slowly(self, data: bytes, seconds: float) -> None:
        size = -(-len(data) // PIECES)
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])
            await asyncio.sleep(seconds / PIECES)

    def reset(self) -> None:
        """End the connection so that the client gets an error, not an end."""
        _reset(self.client)
        raise _GoneError

    def end(self) -> None:
        """End the connection as after an answer."""
        self.client.close()
        raise _GoneError

    async def wait_until_given_up(self) -> None:
        """Say nothing for as long as the client waits."""
        await self.waiting.read()
        raise _GoneError


Fault = Callable[[Exchange], Awaitable[None]]


async def no_fault(exchange: Exchange) -> None:
    """Forward the request and its answer."""
    await exchange.send(await exchange.forward())


async def reset_before(exchange: Exchange) -> None:
    """The connection breaks before the service has seen anything."""
    exchange.reset()


async def reset_in_request(exchange: Exchange) -> None:
    """Half of the request reaches the service, then both connections break."""
    _, writer = await asyncio.open_connection("127.0.0.1", exchange.proxy.target_port)
    writer.write(exchange.request[: len(exchange.request) // 2])
    await writer.drain()
    _reset(writer)
    exchange.reset()


async def refuse(exchange: Exchange) -> None:
    """The connection breaks and for a while nobody listens."""
    await exchange.proxy.refuse(0.1)
    exchange.reset()


async def lose_answer(exchange: Exchange) -> None:
    """The service has committed, and the connection breaks before it can say so."""
    await exchange.forward()
    exchange.reset()


async def end_in_answer(exchange: Exchange) -> None:
    """The answer ends in the middle of its body."""
    answer = await exchange.forward()
    await exchange.send(answer[: (_body_start(answer) + len(answer)) // 2])
    exchange.end()


async def claim_longer_answer(exchange: Exchange) -> None:
    """The answer's content-length promises more than there is."""
    await exchange.send(_with_length(await exchange.forward(), +7))
    exchange.end()


async def claim_shorter_answer(exchange: Exchange) -> None:
    """The answer's content-length cuts its body off; the rest is noise on the connection."""
    await exchange.send(_with_length(await exchange.forward(), -7))


async def stall_before(exchange: Exchange) -> None:
    """A half-open connection: the request disappears and nothing ever comes back."""
    await exchange.wait_until_given_up()


async def stall_after(exchange: Exchange) -> None:
    """The service has committed, and the answer never comes."""
    await exchange.forward()
    await exchange.wait_until_given_up()


async def answer_slowly(exchange: Exchange) -> None:
    """The answer arrives in small pieces."""
    await exchange.send_slowly(await exchange.forward(), 0.1)


async def throttle(exchange: Exchange) -> None:
    """The request reaches the service in small pieces; the answer waits for it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", exchange.proxy.target_port)
    upstream = Exchange(exchange.proxy, writer, reader, exchange.request)
    await upstream.send_slowly(exchange.request, 0.1)
    answer = await _message(reader)
    exchange.proxy.forwarded += 1
    writer.close()
    await exchange.send(answer)


async def send_twice(exchange: Exchange) -> None:
    """Something on the way repeats the request while the first is being worked on."""
    first, _ = await asyncio.gather(exchange.forward(), exchange.forward())
    await exchange.send(first)


async def arrive_late(exchange: Exchange) -> None:
    """The client is told of a broken connection, and the request arrives all the same, later."""
    exchange.proxy.do_later(0.15, exchange.forward)
    exchange.reset()


async def answer_502(exchange: Exchange) -> None:
    """A gateway could not reach the service and answers with a page of its own."""
    await exchange.send(_page(502, "Bad Gateway"))


async def answer_504(exchange: Exchange) -> None:
    """The service has committed, and a gateway answers that it took too long."""
    await exchange.forward()
    await exchange.send(_page(504, "Gateway Timeout"))


async def answer_503(exchange: Exchange) -> None:
    """The service asks to come back later."""
    await exchange.send(_page(503, "Service Unavailable", "retry-after: 0\r\n"))


async def answer_403(exchange: Exchange) -> None:
    """A firewall lets nothing through."""
    await exchange.send(_page(403, "Forbidden"))


async def answer_400(exchange: Exchange) -> None:
    """The service has committed, and a filter puts a page of its own in place of the answer."""
    await exchange.forward()
    await exchange.send(_page(400, "Bad Request"))


async def answer_garbage(exchange: Exchange) -> None:
    """The service has committed, and what comes back is not HTTP."""
    await exchange.forward()
    await exchange.send(b"\x15\x03\x01\x00\x02\x02\x16 this is not HTTP\r\n\r\n")
    exchange.end()


async def answer_with_a_page(exchange: Exchange) -> None:
    """The service has committed, and a page with status 200 comes instead of the verdict."""
    await exchange.forward()
    await exchange.send(_page(200, "OK"))


async def hint_early(exchange: Exchange) -> None:
    """An informational answer comes before the answer."""
    answer = await exchange.forward()
    await exchange.send(b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n")
    await exchange.send(answer)


FAULTS: Final[tuple[Fault, ...]] = (
    reset_before,
    reset_in_request,
    refuse,
    lose_answer,
    end_in_answer,
    claim_longer_answer,
    claim_shorter_answer,
    stall_before,
    stall_after,
    answer_slowly,
    throttle,
    send_twice,
    arrive_late,
    answer_502,
    answer_504,
    answer_503,
    answer_403,
    answer_400,
    answer_garbage,
    answer_with_a_page,
    hint_early,
)


@dataclass
class FaultProxy:
    """Plays one fault of the script per request, then forwards everything."""

    target_port: int
    script: list[Fault] = field(default_factory=list)
    requests: int = 0
    """Requests that arrived from the client."""
    forwarded: int = 0
    """Requests that the service answered."""

    def __post_init__(self) -> None:
        # Bound and never listening, it keeps the port while the listener is away.
        self._port_holder = _bound(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def play(self, faults: Iterable[Fault]) -> None:
        """Add faults to the script, from any thread."""
        self._loop.call_soon_threadsafe(self.script.extend, list(faults))

    def forget(self) -> None:
        """Drop what is left of the script, from any thread."""
        self._loop.call_soon_threadsafe(self.script.clear)

    async def refuse(self, seconds: float) -> None:
        """Listen to nobody for a while; connections that exist go on."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        self.do_later(seconds, self._listen)

    def do_later(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        async def later() -> None:
            await asyncio.sleep(seconds)
            with suppress(OSError, asyncio.IncompleteReadError):
                await work()

        task: asyncio.Task[object] = self._loop.create_task(later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def finish_late_work(self) -> None:
        """Wait for what was put off."""
        self._run(self._finish())

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._port_holder.close()

    @property
    def _port(self) -> int:
        port: int = self._port_holder.getsockname()[1]
        return port

    def _run(self, work: Awaitable[object]) -> None:
        async def run() -> None:
            await work

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, sock=_bound(self._port))

    async def _finish(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _end(self) -> None:
        await self._finish()
        assert self._listener is not None
        self._listener.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await _message(reader)
                self.requests += 1
                fault = self.script.pop(0) if self.script else no_fault
                await fault(Exchange(self, writer, reader, request))
        except (OSError, asyncio.IncompleteReadError, _GoneError):
            pass
        except asyncio.CancelledError:
            # asyncio.start_server logs a handler that ends cancelled.
            pass
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one request or answer with its body, as it is on the wire."""
    head = await reader.readuntil(b"\r\n\r\n")
    if _CHUNKED.search(head):
        return head + await _chunks(reader)
    length = _LENGTH.search(head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(line, 16) + 2)
        body += line + chunk
        if chunk == b"\r\n":
            return body


def _body_start(answer: bytes) -> int:
    return answer.index(b"\r\n\r\n") + 4


def _with_length(answer: bytes, more: int) -> bytes:
    """Return a chunked or measured answer as one whose content-length is wrong by `more`."""
    start = _body_start(answer)
    head, body = answer[: start - 2], answer[start:]
    for pattern in (_LENGTH, _CHUNKED):
        head = pattern.sub(b"", head)
    return head + f"content-length: {len(body) + more}\r\n\r\n".encode() + body


def _page(status: int, reason: str, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: text/html\r\n{headers}"
    return f"{head}content-length: {len(GATEWAY_PAGE)}\r\n\r\n".encode() + GATEWAY_PAGE


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _reset(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
