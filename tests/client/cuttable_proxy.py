"""A TCP proxy in front of a real server, whose connections a test can cut and refuse."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class CuttableProxy:
    """Forward a loopback port to another; `cut` ends what is open, `block` refuses what is new."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._blocked = False
        self.connections = 0
        self._arrival = asyncio.Event()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """End every connection at once, as a network that fails does."""
        for writer in self._open:
            writer.transport.abort()

    async def connection_after(self, count: int) -> None:
        """Return once more than `count` connections have been made."""
        while self.connections <= count:
            self._arrival.clear()
            await self._arrival.wait()

    def block(self) -> None:
        """Cut, and refuse new connections until `unblock`."""
        self._blocked = True
        self.cut()

    def unblock(self) -> None:
        self._blocked = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._blocked:
            writer.transport.abort()
            return
        self.connections += 1
        self._arrival.set()
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        ends = {writer, server_writer}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, server_writer))
                group.create_task(_pump(server_reader, writer))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until either side is gone, then end the other."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()
