"""The one asyncio engine behind both producers.

`publish` may be called from any thread; everything else happens on one event loop, where each
account has a sender of its own and all senders share the request slots.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from signal_persistence.batch import Lane, Record, time_ordered_id
from signal_persistence.callbacks import DeliveryCallback, Dispatcher
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import Delivery, DeliveryReport
from signal_persistence.errors import (
    BufferFullError,
    ConfigurationError,
    ForkedProducerError,
)
from signal_persistence.ledger import Ledger, ProducerStats
from signal_persistence.retry import Backoff
from signal_persistence.sender import LaneSender, Sending
from signal_persistence.settings import ProducerSettings
from signal_persistence.signal import Signal
from signal_persistence.transport import Transport
from signal_persistence.waiting import Pulse

_log: Final = logging.getLogger("signal_persistence")
_CANCEL_SECONDS: Final = 0.1
"""How long close() waits for requests to notice that they were cancelled."""

CallOnLoop = Callable[[Callable[[], object]], object]


class Engine:
    """Buffers, batches and sends the signals of one or several accounts."""

    def __init__(
        self,
        transport: Transport,
        credentials: Mapping[UUID | None, Credentials],
        settings: ProducerSettings,
        *,
        call_on_loop: CallOnLoop,
        dispatcher: Callable[[Callable[[], object]], Dispatcher],
        on_delivery: DeliveryCallback | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        entropy: random.Random | None = None,
    ) -> None:
        """`call_on_loop` runs a function on the engine's loop, from whatever thread it is called.

        `dispatcher` makes what runs callbacks, given what to call after each of them.
        """
        entropy = entropy or random.SystemRandom()
        lanes = [Lane(account_id, settings.batch_policy) for account_id in credentials]
        self._ledger = Ledger(lanes, settings.buffer_max_messages, settings.buffer_max_bytes)
        self._transport = transport
        self._call_on_loop = call_on_loop
        self._on_delivery = on_delivery
        self._clock = clock
        self._pulse = Pulse(clock)
        self._dispatcher = dispatcher(self._callback_done)
        self._sending = Sending(
            transport=transport,
            path=settings.path,
            ledger=self._ledger,
            slots=asyncio.Semaphore(settings.max_in_flight_requests),
            backoff=Backoff(
                settings.retry_backoff_ms / 1000,
                settings.retry_backoff_max_ms / 1000,
                entropy.random,
            ),
            delivery_timeout=settings.delivery_timeout_ms / 1000,
            clock=clock,
            new_id=lambda: time_ordered_id(wall_clock(), entropy.getrandbits(74)),
            settle=self._settle,
        )
        self._senders = {
            lane.account_id: LaneSender(lane, credentials[lane.account_id], self._sending)
            for lane in lanes
        }
        self._only = self._senders[lanes[0].account_id] if len(lanes) == 1 else None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = asyncio.Lock()
        self._ended = False
        self._pid = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._ledger.closed

    @property
    def forked(self) -> bool:
        """Whether this is a copy in a child of the process that made it."""
        return os.getpid() != self._pid

    @property
    def in_callback(self) -> bool:
        """Whether the caller is an on_delivery callback."""
        return self._dispatcher.is_current()

    def check_process(self) -> None:
        """Raise ForkedProducerError in a forked child."""
        if self.forked:
            raise ForkedProducerError

    def start(self) -> None:
        """Start the senders on the running loop, unless they are started."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(sender.run(), name=f"signal-lane-{account_id}")
                for account_id, sender in self._senders.items()
            ]

    def prepare(
        self, signal: Signal, account_id: UUID | None, on_delivery: DeliveryCallback | None
    ) -> tuple[LaneSender, Record]:
        """Check and encode a signal; the result is what `offer` puts into the buffer."""
        self.check_process()
        sender = self._only if account_id is None else self._senders.get(account_id)
        if sender is None:
            raise ConfigurationError(
                "Cannot publish the signal: this account has no credentials here; pass the "
                "account_id of one of the accounts that the producer was made with."
            )
        signal.validate()
        callback = on_delivery or self._on_delivery
        return sender, Record(signal.to_json(), 0.0, Delivery(signal), callback)

    def offer(self, sender: LaneSender, record: Record) -> bool:
        """Put the record into the buffer, unless it is full. Raises ClosedError when closed."""
        record.accepted_at = self._clock()
        wake = self._ledger.offer(sender.lane, record, self._dispatcher.waiting())
        if wake:
            self._call_on_loop(sender.wake.set)
        return wake is not None

    async def wait_for_room(self, record: Record, seconds: float) -> None:
        """Wait until the record may fit. Raises BufferFullError after `seconds`."""
        size = len(record.body)
        if not await self._pulse.until(lambda: self._has_room(size), seconds):
            raise self._buffer_full()

    async def flush(self, seconds: float | None) -> int:
        """Send everything published so far without lingering; return how many are unreported."""
        with self._ledger.lock:
            targets = [(lane, lane.flush()) for lane in self._ledger.lanes.values()]
        self._wake_senders()

        def left() -> int:
            return sum(max(0, target - lane.finished) for lane, target in targets)

        await self._pulse.until(lambda: left() == 0, seconds)
        return left()

    def stats(self) -> ProducerStats:
        """Return all counts of one moment."""
        return self._ledger.stats(self._dispatcher.waiting(), self._dispatcher.errors)

    async def close(self, seconds: float, *, in_callback: bool) -> list[DeliveryReport]:
        """Send what is left within `seconds`, then give up; return the reports of what was left.

        A second call returns an empty list, and waits for the first. `in_callback` says that a
        callback is calling: then nothing that waits for callbacks is waited for.
        """
        if in_callback and self._ledger.closed:
            return []
        self._ledger.close()
        async with self._closing:
            if self._ended:
                return []
            ends = self._clock() + seconds
            for sender in self._senders.values():
                sender.hurry()
            self._pulse.beat()
            await self.flush(max(0.0, seconds))
            abandoned = await self._end_senders()
            if not in_callback:
                await self._pulse.until(
                    lambda: not self._dispatcher.waiting(), ends - self._clock()
                )
            self._end_callbacks(in_callback)
            await self._close_transport()
            self._ended = True
            return abandoned

    async def _end_senders(self) -> list[DeliveryReport]:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CANCEL_SECONDS)
        return [report for sender in self._senders.values() for report in sender.abandon()]

    def _end_callbacks(self, in_callback: bool) -> None:
        left = self._dispatcher.waiting() - in_callback
        if left:
            _log.warning("close() did not wait for %d on_delivery callbacks", left)
        self._dispatcher.end()

    async def _close_transport(self) -> None:
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._transport.aclose()
        except Exception as error:
            _log.debug("Cannot close the connections cleanly: %s", type(error).__name__)

    def _settle(
        self, lane: Lane, records: Sequence[Record], reports: Sequence[DeliveryReport]
    ) -> None:
        self._ledger.settle(lane, records, reports)
        for record, report in zip(records, reports, strict=True):
            if record.callback is not None:
                self._dispatcher.put(record.callback, report)
        self._pulse.beat()

    def _callback_done(self) -> None:
        if self._pulse.watched:
            self._call_on_loop(self._pulse.beat)

    def _wake_senders(self) -> None:
        for sender in self._senders.values():
            sender.wake.set()

    def _has_room(self, size: int) -> bool:
        return self._ledger.has_room(size, self._dispatcher.waiting())

    def _buffer_full(self) -> BufferFullError:
        if self._ledger.outage_started_at is not None:
            return BufferFullError("disconnected", self._ledger.outage_started_at)
        if self._dispatcher.waiting() > self._ledger.pending():
            return BufferFullError("callbacks")
        return BufferFullError("backpressure")
