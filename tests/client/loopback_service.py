"""A real HTTP service on loopback that answers by a script, and fails in every way of a network."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Received:
    """A request that arrived whole; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Step:
    """What is sent for one request, and what then becomes of the connection.

    With `early` it happens when only the head of the request has been read.
    """

    data: bytes = b""
    then: Literal["keep", "close", "reset", "stall"] = "keep"
    early: bool = False


STALL = Step(then="stall")
CLOSE = Step(then="close")
RESET = Step(then="reset")


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Step:
    """Return a whole answer; an underscore in a header's name stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    fields = {"content-length": str(len(body))} | named
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Step(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + body)


def json_answer(value: object, status: int = 200, **headers: str) -> Step:
    return answer(status, json.dumps(value).encode(), content_type="application/json", **headers)


def accept_all(request: Received) -> Step:
    """Give the verdict of a service that stores every signal of a batch."""
    batch = request.json()
    count = len(batch["signals"])
    return json_answer(
        {
            "request_id": batch["request_id"],
            "accepted": count,
            "duplicate": 0,
            "rejected": 0,
            "first_seq": 1,
            "last_seq": count,
            "items": [],
        }
    )


@dataclass
class LoopbackService:
    """Plays one step of the script per request, then answers with `otherwise`.

    It refuses connections until `listen`, which entering it calls unless `refusing` is set.
    """

    otherwise: Callable[[Received], Step] = lambda request: answer()
    script: list[Step] = field(default_factory=list)
    refusing: bool = False
    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        # A port that is bound but not listening refuses, and nobody else can take it.
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loopback-service")
        self._server: asyncio.Server | None = None
        self._arrival = threading.Condition()

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Accept connections from now on."""
        self._server = self._run(asyncio.start_server(self._serve, sock=self._socket, ssl=self.tls))

    def wait_until_received(self, count: int) -> None:
        """Block until this many requests have arrived; a test on an event loop uses a thread."""
        with self._arrival:
            assert self._arrival.wait_for(lambda: len(self.received) >= count, timeout=10)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self.refusing:
            self.listen()
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
        self._socket.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            # asyncio.start_server logs a handler that ends cancelled.
            pass
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        step = self.script.pop(0) if self.script else None
        if step is None or not step.early:
            request = await _whole(head, reader)
            with self._arrival:
                self.received.append(request)
                self._arrival.notify_all()
            step = step or self.otherwise(request)
        writer.write(step.data)
        await writer.drain()
        if step.then == "stall":
            await reader.read()
        elif step.then == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif step.then == "close" and writer.can_write_eof():
            writer.write_eof()
            await reader.read()
        return step.then == "keep"


async def _whole(head: bytes, reader: asyncio.StreamReader) -> Received:
    request_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)
