"""One client's WebSocket: reads its frames in order, writes what waits for it, and bounds both."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from aiohttp import ClientError, WSCloseCode, WSMessage, WSMsgType, web

from local_stack.realtime.limits import Limits
from local_stack.realtime.protocol import (
    ClientMessage,
    Frame,
    ProtocolError,
    ServerMessage,
    Version,
    decode,
    encode,
)

_log = logging.getLogger(__name__)

Handle = Callable[[ClientMessage], Awaitable[None]]


class Connection:
    """A WebSocket that never blocks its senders: `send` queues, a task of its own writes.

    The socket answers neither a ping nor a close by itself, so that a frozen one does not either.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        abort: Callable[[], None],
        version: Version,
        limits: Limits,
    ) -> None:
        self.version = version
        self._socket = socket
        self._abort = abort
        self._limits = limits
        self._outgoing: deque[Frame] = deque()
        self._outgoing_bytes = 0
        self._wake = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._frozen_until: asyncio.Event | None = None

    def freeze(self, until: asyncio.Event) -> None:
        """Read and write nothing until then: what a peer sees whose packets are lost."""
        self._frozen_until = until

    def send(self, frame: Frame) -> None:
        """Queue a frame. A socket that reads too slowly to empty its queue is closed instead."""
        if self._closing is not None:
            return
        limits = self._limits
        self._outgoing.append(frame)
        self._outgoing_bytes += len(frame.data)
        if (
            len(self._outgoing) > limits.outgoing_frames
            or self._outgoing_bytes > limits.outgoing_bytes
        ):
            _log.warning("Closing a socket that does not read: %d bytes wait", self._outgoing_bytes)
            self._outgoing.clear()
            self._outgoing_bytes = 0
            self.close(WSCloseCode.INTERNAL_ERROR, "the client reads too slowly")
        self._wake.set()

    def send_message(self, message: ServerMessage) -> None:
        """Queue a message to this client alone."""
        self.send(encode(self.version, message))

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._closing = self._closing or (WSCloseCode.ABNORMAL_CLOSURE, "")
        self._wake.set()
        self._abort()

    def close(self, code: int, reason: str) -> None:
        """Close once what is queued is written; cut the connection if that takes too long."""
        if self._closing is None:
            self._closing = (code, reason)
            self._wake.set()
            asyncio.get_running_loop().call_later(self._limits.close_seconds, self._abort)

    async def run(self, handle: Handle) -> None:
        """Give every readable frame to `handle`, one after the other, until the socket closes."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read(handle)
        finally:
            self._closing = self._closing or (WSCloseCode.OK, "")
            self._wake.set()
            await writer

    async def _read(self, handle: Handle) -> None:
        while True:
            try:
                message: WSMessage = await self._socket.receive(timeout=self._limits.idle_seconds)
            except TimeoutError:
                self.close(WSCloseCode.OK, "no heartbeat")
                return
            await self.thawed()
            try:
                match message.type:
                    case WSMsgType.TEXT | WSMsgType.BINARY:
                        await handle(decode(self.version, message.data))
                    case WSMsgType.PING:
                        await self._socket.pong(message.data)
                    case WSMsgType.PONG:
                        pass
                    case _:
                        return
            except ProtocolError as error:
                _log.info("%s", error)
            except (ClientError, ConnectionError):
                return

    async def thawed(self) -> None:
        """Return when nothing freezes the socket any more."""
        while self._frozen_until is not None and not self._frozen_until.is_set():
            await self._frozen_until.wait()

    async def _write(self) -> None:
        try:
            while self._closing is None or self._outgoing:
                await self._wake.wait()
                self._wake.clear()
                await self.thawed()
                while self._outgoing:
                    frame = self._outgoing.popleft()
                    self._outgoing_bytes -= len(frame.data)
                    opcode = WSMsgType.TEXT if frame.is_text else WSMsgType.BINARY
                    await self._socket.send_frame(frame.data, opcode)
                    await self.thawed()
            code, reason = self._closing
            await self._socket.close(code=code, message=reason.encode())
        except (ClientError, ConnectionError):
            self._outgoing.clear()
            self._abort()
