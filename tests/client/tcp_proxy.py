"""A TCP proxy that can swallow an answer: the work is done, the client never hears of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self


class TcpProxy:
    """Forwards to one port; while `cuts` is above zero, answers are cut off and counted down."""

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self.cut = 0
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in self._sockets:
            _hang_up(end)
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                service = socket.create_connection(self._target)
            except OSError:
                return
            self._sockets += [client, service]
            self._start(self._forward, client, service)
            self._start(self._answer, service, client)

    def _forward(self, client: socket.socket, service: socket.socket) -> None:
        for chunk in _chunks(client):
            service.sendall(chunk)
        _hang_up(service)

    def _answer(self, service: socket.socket, client: socket.socket) -> None:
        for chunk in _chunks(service):
            if self.cuts > 0:
                self.cuts -= 1
                self.cut += 1
                break
            try:
                client.sendall(chunk)
            except OSError:
                break
        _hang_up(client)
        _hang_up(service)


def _chunks(source: socket.socket) -> Iterator[bytes]:
    """Yield what arrives until either side hangs up."""
    return iter(lambda: _receive(source), b"")


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
