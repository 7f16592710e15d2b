"""Publish signals: `Producer` for threads, `AsyncProducer` for asyncio, over one engine."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast
from uuid import UUID

from signal_persistence.adoption import AdoptingEngine
from signal_persistence.agent.launch import Launcher
from signal_persistence.agent.worker import WorkerEngine, WorkerOutbox
from signal_persistence.callbacks import (
    DeliveryCallback,
    TaskDispatcher,
    ThreadDispatcher,
)
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import Delivery, DeliveryReport
from signal_persistence.engine import CallOnLoop, Engine
from signal_persistence.errors import (
    ClosedError,
    ConfigurationError,
    SpoolError,
    UndeliveredError,
)
from signal_persistence.ledger import ProducerStats
from signal_persistence.loop_thread import LoopThread
from signal_persistence.observer import ProducerObserver
from signal_persistence.outbox import MemoryOutbox, Outbox, SpoolOutbox, identities_of
from signal_persistence.settings import ProducerSettings, TransportName
from signal_persistence.signal import Signal
from signal_persistence.spool import FsyncPolicy, default_spool_directory, project_directory
from signal_persistence.transport import HttpTransport

_log: Final = logging.getLogger("signal_persistence")


class _ProducerBase:
    """What both faces share: the settings, and the engine that they make in each process."""

    _dispatcher: type[ThreadDispatcher] | type[TaskDispatcher]

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials | Mapping[UUID, Credentials],
        *,
        transport: TransportName = "edge",
        linger_ms: float = 100,
        batch_max_messages: int = 5_000,
        batch_max_bytes: int = 512 * 1024,
        max_in_flight_requests: int = 5,
        buffer_max_messages: int = 100_000,
        buffer_max_bytes: int = 64 * 1024 * 1024,
        max_block_ms: float = 1_000,
        delivery_timeout_ms: float | None = None,
        request_timeout_ms: float = 10_000,
        retry_backoff_ms: float = 100,
        retry_backoff_max_ms: float = 10_000,
        close_timeout_ms: float = 5_000,
        spool_dir: str | os.PathLike[str] | None = "auto",
        spool_fsync: FsyncPolicy = "interval",
        spool_fsync_interval_ms: float = 1_000,
        spool_max_bytes: int = 10 * 1024**3,
        dead_letters_max_bytes: int = 256 * 1024**2,
        agent: bool = False,
        on_delivery: DeliveryCallback | None = None,
        observer: ProducerObserver | None = None,
    ) -> None:
        """Make a producer; the network is not used before the first signal.

        `url` and `key` are the project's URL and its publishable key. `credentials` are those of
        one account, or a mapping from account id to each account's credentials: one account's
        signals are sent strictly in order, one request at a time, and accounts are sent side by
        side in up to `max_in_flight_requests` requests. What dead processes left in the spool is
        sent beside that, each slot in its own order.

        `spool_dir` is where signals are kept on disk until they are stored: "auto" is the
        environment's SIGNAL_SPOOL_DIR, or else signal-persistence/spool in the user's state
        directory; None keeps them in memory only.
        `spool_fsync` says what a loss of power may take: with "interval" the last
        `spool_fsync_interval_ms`, with "always" nothing that publish() returned for, with "never"
        what the system had not written yet. A killed process loses nothing with any of them.
        `spool_max_bytes` bounds the log of one process, `dead_letters_max_bytes` all dead letters.

        With `agent` one process sends the signals of all producers of this host that have it: the
        agent, which takes its credentials from the environment and is started when it is not there.
        When it cannot be had, this process sends its own. See docs/agent.md.

        `transport` is `"edge"` (the Edge Function) or `"rpc"` (the REST API). A batch is sent
        `linger_ms` after its first signal, or when it is full: how many signals that takes adapts
        to the service, up to `batch_max_messages`. When there is no room, publish() waits for up to
        `max_block_ms` and raises BufferFullError. Every failure that may pass is tried again with
        the same request_id, after pauses of up to `retry_backoff_max_ms`. A signal that is not
        stored after `delivery_timeout_ms` is given up; None is never with a spool, and 300,000
        without one.

        `on_delivery` is called with each signal's DeliveryReport, `observer` with what is measured.
        Raises ConfigurationError, SpoolError when the spool cannot be used, SpoolFullError.
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
            spool_dir=_directory(spool_dir),
            spool_fsync=spool_fsync,
            spool_fsync_interval_ms=spool_fsync_interval_ms,
            spool_max_bytes=spool_max_bytes,
            dead_letters_max_bytes=dead_letters_max_bytes,
        )
        if agent and self._settings.spool_dir is None:
            raise ConfigurationError("Cannot have an agent send what is in memory: set spool_dir.")
        self._agent = agent
        self._url = url
        self._key = key
        self._credentials = _by_account(credentials)
        self._on_delivery = on_delivery
        self._observer = observer
        self._in_parent = False
        self._engine_here = self._new_engine()
        _producers.add(self)
        self._begin()

    @property
    def published_fsn(self) -> int:
        """The number of the last signal that publish() took; with a spool it survives restarts."""
        return self._engine.published_fsn

    @property
    def acked_fsn(self) -> int:
        """Every signal up to this number is finished: stored, or a dead letter."""
        return self._engine.acked_fsn

    def stats(self) -> ProducerStats:
        """Return the counts of this moment; `accepted = delivered + dead_lettered + pending`."""
        return self._engine.stats()

    def __len__(self) -> int:
        """How many published signals have no report yet."""
        return self._engine.stats().pending

    def __bool__(self) -> bool:
        return True

    def __del__(self) -> None:
        engine: Engine | None = getattr(self, "_engine_here", None)
        if engine is not None and not engine.closed and not self._in_parent:
            _warn_unclosed(self, engine)
            self._finish_behind()

    @property
    def _engine(self) -> Engine:
        """The engine of this process: a forked child gets one of its own when it first needs it."""
        if self._in_parent:
            self._start_afresh()
        return self._engine_here

    def _start_afresh(self) -> None:
        with _fork_lock:
            if self._in_parent:
                self._engine_here.leave()
                self._engine_here = self._new_engine()
                self._in_parent = False
                self._begin()

    def _stay_in_parent(self) -> None:
        """In a forked child: what is here belongs to the parent, and must be left as it is."""
        if not self._in_parent:
            self._in_parent = True
            # Kept for ever: to tear down the copies would reach into the parent's event loop.
            _of_parents.append(self._belongings())

    def _belongings(self) -> tuple[object, ...]:
        return (self._engine_here,)

    def _new_engine(self) -> Engine:
        settings = self._settings
        http = HttpTransport(
            self._url,
            self._key,
            timeout=settings.request_timeout_ms / 1000,
            max_connections=settings.max_in_flight_requests,
        )
        outbox = self._new_outbox()
        make: Callable[..., Engine] = AdoptingEngine if outbox.keeps else Engine
        if self._agent:
            launcher = Launcher(self._project, self._url, self._key, settings)
            make = partial(WorkerEngine, launcher=launcher)
        return make(
            http,
            self._credentials,
            settings,
            call_on_loop=self._call_on_loop(),
            dispatcher=self._dispatcher,
            outbox=outbox,
            on_delivery=self._on_delivery,
            observer=self._observer,
        )

    def _new_outbox(self) -> Outbox:
        if self._settings.spool_dir is None:
            return MemoryOutbox()
        make = WorkerOutbox if self._agent else SpoolOutbox
        return make(self._project, identities_of(self._credentials), self._settings.spool)

    @property
    def _project(self) -> Path:
        """The project's directory in the spool."""
        assert self._settings.spool_dir is not None  # noqa: S101
        return project_directory(self._settings.spool_dir, self._url)

    def _call_on_loop(self) -> CallOnLoop:
        """Return what runs a function on the engine's loop; it must not hold on to `self`."""
        raise NotImplementedError

    def _close_engine(self, timeout: float | None) -> Coroutine[Any, Any, list[DeliveryReport]]:
        engine = self._engine_here
        seconds = self._settings.close_timeout_ms / 1000 if timeout is None else timeout
        return engine.close(seconds, in_callback=engine.in_callback)

    def _left(self, abandoned: Sequence[DeliveryReport]) -> int:
        """Raise UndeliveredError for what is lost; return how many signals stay in the spool."""
        if abandoned:
            raise UndeliveredError(abandoned)
        pending = self._engine_here.stats().pending
        if pending:
            _log.warning(
                "close() leaves %d signals in the spool for the next producer to send", pending
            )
        return pending

    def _begin(self) -> None:
        """Start the engine, if its loop is there already."""

    def _finish_behind(self) -> None:
        """Have what is pending sent, or kept, although nobody holds the producer any more."""


class Producer(_ProducerBase):
    """Publish signals from any thread; a background thread batches and sends them.

    Use it as a context manager: leaving it sends what is left. What cannot be sent in time stays in
    the spool; without one it is lost, and UndeliveredError says what. Callbacks run one after
    another on a thread of their own. In a forked child it starts afresh, with a slot of the spool
    and counts of its own; the signals published before the fork stay the parent's.
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
        """Put a signal into the spool (or buffer) and return the handle of its delivery.

        `account_id` may be left out when the producer serves one account. Blocks only while there
        is no room, and for the disk with spool_fsync="always". Raises InvalidSignalError,
        BufferFullError (SpoolFullError is one), SpoolError or ClosedError; then the signal was not
        taken. Only when the disk fails at the fdatasync of "always" it may be sent all the same.
        """
        engine = self._engine
        sender, record = engine.prepare(signal, account_id, on_delivery)
        if not engine.offer(sender, record):
            ends = time.monotonic() + self._settings.max_block_ms / 1000
            while not engine.offer(sender, record):
                self._loop.run(engine.wait_for_room(sender, record, ends - time.monotonic()))
        if engine.waits_for_disk:
            engine.await_durable(record)
        return cast(Delivery, record.delivery)

    def flush(self, timeout: float | None = None) -> int:
        """Send everything published before this call without lingering.

        Blocks up to `timeout` seconds (None: until all is reported) and returns how many of these
        signals have no report yet. Does not wait for callbacks, so a callback may call it.
        """
        engine = self._engine
        if engine.closed:
            return len(self)
        return self._loop.run(engine.flush(timeout))

    def await_acked(self, fsn: int, timeout: float | None = None) -> bool:
        """Block until every signal up to `fsn` is finished: stored, or a dead letter.

        Returns False after `timeout` seconds (None: no limit), and when the producer is closed.
        """
        engine = self._engine
        try:
            return self._loop.run(engine.await_acked(fsn, timeout))
        except ClosedError:
            return engine.acked_fsn >= fsn

    def close(self, timeout: float | None = None) -> int:
        """Send what is left within `timeout` seconds (None: close_timeout_ms) and end.

        Returns how many signals stay in the spool, to be sent by the next producer. Without a
        spool, raises UndeliveredError with the reports of the signals that were given up. Raises
        SpoolError when the disk failed; it is closed all the same. Closing again does nothing, and
        so does closing in a forked child that did not use the producer.
        """
        if self._in_parent:
            return 0
        _open_producers.discard(self)
        try:
            abandoned = self._loop.run(self._close_engine(timeout))
        except ClosedError:
            return self._left([])
        except SpoolError:
            self._loop.close()
            raise
        self._loop.close()
        return self._left(abandoned)

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
        self._loop.call_soon(self._engine_here.start)
        _open_producers.add(self)

    def _belongings(self) -> tuple[object, ...]:
        return (self._engine_here, self._loop)

    def _finish_behind(self) -> None:
        seconds = self._settings.close_timeout_ms / 1000
        self._loop.finish(partial(self._engine_here.close, seconds, in_callback=False))


class AsyncProducer(_ProducerBase):
    """Publish signals from one event loop, where they are batched and sent as well.

    Use it as an async context manager: leaving it sends what is left, as leaving a Producer does.
    Callbacks, plain or async, run one after another on a task.
    """

    _dispatcher = TaskDispatcher

    async def publish(
        self,
        signal: Signal,
        *,
        account_id: UUID | None = None,
        on_delivery: DeliveryCallback | None = None,
    ) -> Delivery:
        """Put a signal into the spool (or buffer) and return its delivery, which can be awaited.

        As `Producer.publish`; waits only while there is no room, never for the network.
        """
        engine = self._engine
        sender, record = engine.prepare(signal, account_id, on_delivery)
        engine.start()
        if not engine.offer(sender, record):
            ends = time.monotonic() + self._settings.max_block_ms / 1000
            while not engine.offer(sender, record):
                await engine.wait_for_room(sender, record, ends - time.monotonic())
        if engine.waits_for_disk:
            await asyncio.to_thread(engine.await_durable, record)
        return cast(Delivery, record.delivery)

    async def flush(self, timeout: float | None = None) -> int:
        """As `Producer.flush`, without blocking the event loop."""
        return await self._engine.flush(timeout)

    async def await_acked(self, fsn: int, timeout: float | None = None) -> bool:
        """As `Producer.await_acked`, without blocking the event loop."""
        return await self._engine.await_acked(fsn, timeout)

    async def close(self, timeout: float | None = None) -> int:
        """As `Producer.close`; callbacks that have not returned by then are cancelled."""
        if self._in_parent:
            return 0
        return self._left(await self._close_engine(timeout))

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

    def _finish_behind(self) -> None:
        self._engine_here.drop()


_open_producers: Final[weakref.WeakSet[Producer]] = weakref.WeakSet()
"""Those to close at exit."""
_producers: Final[weakref.WeakSet[_ProducerBase]] = weakref.WeakSet()
_of_parents: Final[list[tuple[object, ...]]] = []
_fork_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _fork_lock
    _fork_lock = threading.Lock()
    for producer in list(_producers):
        producer._stay_in_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _directory(spool_dir: str | os.PathLike[str] | None) -> Path | None:
    if spool_dir is None:
        return None
    return default_spool_directory() if spool_dir == "auto" else Path(spool_dir).absolute()


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
        if not producer._in_parent:
            _warn_unclosed(producer, producer._engine_here)
            with _first_error_wins(SystemExit()):
                producer.close()
