"""Publish signals: `Producer` for threads, `AsyncProducer` for asyncio, over one engine."""

from __future__ import annotations

import atexit
import logging
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from signal_persistence.callbacks import (
    DeliveryCallback,
    TaskDispatcher,
    ThreadDispatcher,
)
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import Delivery, DeliveryReport
from signal_persistence.engine import CallOnLoop, Engine
from signal_persistence.errors import ClosedError, ConfigurationError, UndeliveredError
from signal_persistence.ledger import ProducerStats
from signal_persistence.loop_thread import LoopThread
from signal_persistence.settings import ProducerSettings, TransportName
from signal_persistence.signal import Signal
from signal_persistence.transport import HttpTransport

_log: Final = logging.getLogger("signal_persistence")


class _ProducerBase:
    """What both faces share: the settings and the engine they make."""

    _dispatcher: type[ThreadDispatcher] | type[TaskDispatcher]

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials | Mapping[UUID, Credentials],
        *,
        transport: TransportName = "edge",
        linger_ms: float = 100,
        batch_max_messages: int = 500,
        batch_max_bytes: int = 512 * 1024,
        max_in_flight_requests: int = 5,
        buffer_max_messages: int = 100_000,
        buffer_max_bytes: int = 64 * 1024 * 1024,
        max_block_ms: float = 1_000,
        delivery_timeout_ms: float = 300_000,
        request_timeout_ms: float = 10_000,
        retry_backoff_ms: float = 100,
        retry_backoff_max_ms: float = 10_000,
        close_timeout_ms: float = 5_000,
        on_delivery: DeliveryCallback | None = None,
    ) -> None:
        """Make a producer; nothing is sent before the first signal.

        `url` and `key` are the project's URL and its publishable key. `credentials` are those of
        one account, or a mapping from account id to each account's credentials: one account's
        signals are sent strictly in order, one request at a time, and accounts are sent side by
        side in up to `max_in_flight_requests` requests.

        `transport` is `"edge"` (the Edge Function) or `"rpc"` (the REST API). A batch is sent
        `linger_ms` after its first signal, or when it is full. A buffer that stays full for
        `max_block_ms` makes publish() raise BufferFullError. A signal that is not stored
        `delivery_timeout_ms` after publish() is given up; until then every failure that may pass
        is tried again with the same request_id, after pauses of up to `retry_backoff_max_ms`.

        `on_delivery` is called with each signal's DeliveryReport.
        """
        self._settings = ProducerSettings(
            transport=transport,
            linger_ms=linger_ms,
            batch_max_messages=batch_max_messages,
            batch_max_bytes=batch_max_bytes,
            max_in_flight_requests=max_in_flight_requests,
            buffer_max_messages=buffer_max_messages,
            buffer_max_bytes=buffer_max_bytes,
            max_block_ms=max_block_ms,
            delivery_timeout_ms=delivery_timeout_ms,
            request_timeout_ms=request_timeout_ms,
            retry_backoff_ms=retry_backoff_ms,
            retry_backoff_max_ms=retry_backoff_max_ms,
            close_timeout_ms=close_timeout_ms,
        )
        http = HttpTransport(
            url,
            key,
            timeout=request_timeout_ms / 1000,
            max_connections=max_in_flight_requests,
        )
        self._engine = Engine(
            http,
            _by_account(credentials),
            self._settings,
            call_on_loop=self._call_on_loop(),
            dispatcher=self._dispatcher,
            on_delivery=on_delivery,
        )
        self._begin()

    def stats(self) -> ProducerStats:
        """Return the counts of this moment; `accepted = delivered + dead_lettered + pending`."""
        return self._engine.stats()

    def __len__(self) -> int:
        """How many published signals have no report yet."""
        return self._engine.stats().pending

    def __bool__(self) -> bool:
        return True

    def __del__(self) -> None:
        engine: Engine | None = getattr(self, "_engine", None)
        if engine is not None and not engine.closed and not engine.forked:
            _warn_unclosed(self, engine)
            self._finish_behind()

    def _call_on_loop(self) -> CallOnLoop:
        """Return what runs a function on the engine's loop; it must not hold on to `self`."""
        raise NotImplementedError

    def _close_engine(self, timeout: float | None) -> Coroutine[Any, Any, list[DeliveryReport]]:
        seconds = self._settings.close_timeout_ms / 1000 if timeout is None else timeout
        return self._engine.close(seconds, in_callback=self._engine.in_callback)

    def _begin(self) -> None:
        """Start the engine, if its loop is there already."""

    def _finish_behind(self) -> None:
        """Have what is pending sent although nobody holds the producer any more."""


class Producer(_ProducerBase):
    """Publish signals from any thread; a background thread batches and sends them.

    Use it as a context manager: leaving it sends what is left and raises UndeliveredError for what
    could not be sent. Callbacks run one after another on a thread of their own.
    """

    _dispatcher = ThreadDispatcher
    _loop: LoopThread

    def publish(
        self,
        signal: Signal,
        *,
        account_id: UUID | None = None,
        on_delivery: DeliveryCallback | None = None,
    ) -> Delivery:
        """Buffer a signal for sending and return the handle of its delivery.

        `account_id` may be left out when the producer serves one account. Blocks only while the
        buffer is full. Raises InvalidSignalError, BufferFullError, ClosedError or
        ForkedProducerError; then nothing was buffered.
        """
        engine = self._engine
        sender, record = engine.prepare(signal, account_id, on_delivery)
        if not engine.offer(sender, record):
            ends = time.monotonic() + self._settings.max_block_ms / 1000
            while not engine.offer(sender, record):
                self._loop.run(engine.wait_for_room(record, ends - time.monotonic()))
        return record.delivery

    def flush(self, timeout: float | None = None) -> int:
        """Send everything published before this call without lingering.

        Blocks up to `timeout` seconds (None: until all is reported) and returns how many of these
        signals have no report yet. Does not wait for callbacks, so a callback may call it.
        """
        self._engine.check_process()
        if self._engine.closed:
            return len(self)
        return self._loop.run(self._engine.flush(timeout))

    def close(self, timeout: float | None = None) -> None:
        """Send what is left within `timeout` seconds (None: close_timeout_ms) and end.

        Raises UndeliveredError with the reports of the signals that were given up. Closing again
        does nothing, and so does closing in a forked child.
        """
        if self._engine.forked:
            return
        _open_producers.discard(self)
        try:
            abandoned = self._loop.run(self._close_engine(timeout))
        except ClosedError:
            return
        self._loop.close()
        if abandoned:
            raise UndeliveredError(abandoned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _first_error_wins(error):
            self.close()

    def _call_on_loop(self) -> CallOnLoop:
        self._loop = LoopThread("signal-producer")
        return self._loop.call_soon

    def _begin(self) -> None:
        self._loop.call_soon(self._engine.start)
        _open_producers.add(self)

    def _finish_behind(self) -> None:
        seconds = self._settings.close_timeout_ms / 1000
        self._loop.finish(partial(self._engine.close, seconds, in_callback=False))


class AsyncProducer(_ProducerBase):
    """Publish signals from one event loop, where they are batched and sent as well.

    Use it as an async context manager: leaving it sends what is left and raises UndeliveredError
    for what could not be sent. Callbacks, plain or async, run one after another on a task.
    """

    _dispatcher = TaskDispatcher

    async def publish(
        self,
        signal: Signal,
        *,
        account_id: UUID | None = None,
        on_delivery: DeliveryCallback | None = None,
    ) -> Delivery:
        """Buffer a signal for sending and return its delivery, whose report can be awaited.

        As `Producer.publish`; waits only while the buffer is full, never for the network.
        """
        engine = self._engine
        sender, record = engine.prepare(signal, account_id, on_delivery)
        engine.start()
        if not engine.offer(sender, record):
            ends = time.monotonic() + self._settings.max_block_ms / 1000
            while not engine.offer(sender, record):
                await engine.wait_for_room(record, ends - time.monotonic())
        return record.delivery

    async def flush(self, timeout: float | None = None) -> int:
        """As `Producer.flush`, without blocking the event loop."""
        self._engine.check_process()
        return await self._engine.flush(timeout)

    async def close(self, timeout: float | None = None) -> None:
        """As `Producer.close`; callbacks that have not returned by then are cancelled."""
        if self._engine.forked:
            return
        abandoned = await self._close_engine(timeout)
        if abandoned:
            raise UndeliveredError(abandoned)

    async def __aenter__(self) -> Self:
        self._engine.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _first_error_wins(error):
            await self.close()

    def _call_on_loop(self) -> CallOnLoop:
        return _call_now


_open_producers: Final[weakref.WeakSet[Producer]] = weakref.WeakSet()


def _by_account(
    credentials: Credentials | Mapping[UUID, Credentials],
) -> dict[UUID | None, Credentials]:
    if not isinstance(credentials, Mapping):
        return {None: credentials}
    if not credentials:
        raise ConfigurationError("Cannot make a producer without the credentials of an account.")
    return dict(credentials.items())


def _call_now(callback: Callable[[], object]) -> None:
    callback()


@contextmanager
def _first_error_wins(error: BaseException | None) -> Iterator[None]:
    """Log what close() could not deliver rather than raise it over the error of the block."""
    try:
        yield
    except UndeliveredError as undelivered:
        if error is None:
            raise
        _log.error("%s", undelivered)


def _warn_unclosed(producer: _ProducerBase, engine: Engine) -> None:
    warnings.warn(
        f"Unclosed {type(producer).__name__} with {engine.stats().pending} signals pending: "
        "call close() or use it as a context manager.",
        ResourceWarning,
        source=producer,
        stacklevel=2,
    )


@atexit.register
def _close_at_exit() -> None:
    for producer in list(_open_producers):
        if not producer._engine.forked:
            _warn_unclosed(producer, producer._engine)
            with _first_error_wins(SystemExit()):
                producer.close()
