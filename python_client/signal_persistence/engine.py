"""The one asyncio engine behind both producers.

`publish` may be called from any thread; everything else happens on one event loop, where each
account has a sender of its own and all senders share the request slots. What is published is in the
outbox, which is on disk unless the producer has no spool, before `offer` returns.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

import msgspec

from signal_persistence.batch import Batch, Lane, Record, time_ordered_id
from signal_persistence.breaker import Breaker
from signal_persistence.callbacks import DeliveryCallback, Dispatcher, Job
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import Delivery, DeliveryReport, Fate
from signal_persistence.errors import (
    AbandonedError,
    BufferFullError,
    ConfigurationError,
    SpoolFullError,
)
from signal_persistence.ledger import Ledger, ProducerStats
from signal_persistence.observer import ProducerObserver
from signal_persistence.outbox import MemoryOutbox, Outbox
from signal_persistence.pacing import Pacing
from signal_persistence.retry import Backoff
from signal_persistence.sender import LaneSender, Sending
from signal_persistence.settings import ProducerSettings
from signal_persistence.signal import Signal
from signal_persistence.transport import Transport
from signal_persistence.waiting import Pulse

_log: Final = logging.getLogger("signal_persistence")
_CANCEL_SECONDS: Final = 0.1
"""How long close() waits for requests to notice that they were cancelled."""
_LOOK_AGAIN_SECONDS: Final = 0.05
"""How often a lane looks whether callbacks made room for what is on disk."""
_FSYNC_MARKS: Final = 100_000
"""How many signals may wait for the observer to hear that they are synced."""

CallOnLoop = Callable[[Callable[[], object]], object]


class Engine:
    """Keeps, batches and sends the signals of one or several accounts.

    It is the `Books` of its lane senders.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Mapping[UUID | None, Credentials],
        settings: ProducerSettings,
        *,
        call_on_loop: CallOnLoop,
        dispatcher: Callable[[Callable[[], object]], Dispatcher],
        outbox: Outbox | None = None,
        on_delivery: DeliveryCallback | None = None,
        observer: ProducerObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        entropy: random.Random | None = None,
    ) -> None:
        """`call_on_loop` runs a function on the engine's loop, from whatever thread it is called.

        `dispatcher` makes what runs callbacks, given what to call after each of them. `outbox` is
        closed with the engine; None keeps signals in memory only.
        """
        entropy = entropy or random.SystemRandom()
        self._outbox = outbox or MemoryOutbox()
        self._pacing = Pacing(
            first_messages=settings.first_batch_messages,
            most_messages=settings.batch_max_messages,
            most_requests=settings.max_in_flight_requests,
            slow=settings.slow_seconds,
        )
        policy = settings.batch_policy
        first = self._pacing.messages
        self._ledger = Ledger(
            [Lane(account_id, policy, most=first) for account_id in credentials],
            self._outbox,
            settings.buffer_max_messages,
            settings.buffer_max_bytes,
            on_delivery,
        )
        self._ledger.recover(clock())
        self._transport = transport
        self._call_on_loop = call_on_loop
        self._on_delivery = on_delivery
        self._observer = observer
        self._clock = clock
        self._pulse = Pulse(clock)
        self._dispatcher = dispatcher(self._callback_done)
        longest_pause = settings.retry_backoff_max_ms / 1000
        self._sending = Sending(
            transport=transport,
            path=settings.path,
            books=self,
            pacing=self._pacing,
            breaker=Breaker(
                clock,
                first_wait=min(1.0, longest_pause),
                longest_wait=longest_pause,
                callers=len(credentials),
            ),
            backoff=Backoff(settings.retry_backoff_ms / 1000, longest_pause, entropy.random),
            delivery_timeout=settings.delivery_timeout,
            clock=clock,
            new_id=lambda: time_ordered_id(wall_clock(), entropy.getrandbits(74)),
        )
        self._senders = {
            account_id: LaneSender(lane, credentials[account_id], self._sending)
            for account_id, lane in self._ledger.lanes.items()
        }
        self._only = next(iter(self._senders.values())) if len(self._senders) == 1 else None
        self._most_callbacks = settings.buffer_max_messages
        self._refused: SpoolFullError | None = None
        """Why the spool took no signal, until some are finished."""
        self._unsynced: deque[tuple[int, float]] = deque(maxlen=_FSYNC_MARKS)
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = asyncio.Lock()
        self._ended = False
        if observer is not None:
            observer.attached(self.stats)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._ledger.closed

    @property
    def keeps(self) -> bool:
        """Whether what close() leaves is sent by the next producer."""
        return self._outbox.keeps

    @property
    def waits_for_disk(self) -> bool:
        """Whether publish() has to call `await_durable`."""
        return self._outbox.waits

    @property
    def in_callback(self) -> bool:
        """Whether the caller is an on_delivery callback."""
        return self._dispatcher.is_current()

    @property
    def published_fsn(self) -> int:
        return self._outbox.published_fsn

    @property
    def acked_fsn(self) -> int:
        return self._ledger.acked_fsn()

    def start(self) -> None:
        """Start the senders on the running loop, unless they are started."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(sender.run(), name=f"signal-lane-{account_id}")
                for account_id, sender in self._senders.items()
            ]
            if self._observer is not None and self._outbox.keeps:
                self._tasks.append(asyncio.create_task(self._watch_fsync(), name="signal-fsync"))

    def prepare(
        self, signal: Signal, account_id: UUID | None, on_delivery: DeliveryCallback | None
    ) -> tuple[LaneSender, Record]:
        """Check and encode a signal; the result is what `offer` takes."""
        sender = self._only if account_id is None else self._senders.get(account_id)
        if sender is None:
            raise ConfigurationError(
                "Cannot publish the signal: this account has no credentials here; pass the "
                "account_id of one of the accounts that the producer was made with."
            )
        now = self._clock()
        signal.validate()
        body = signal.to_json()
        return sender, Record(body, now, 0, Delivery(signal), on_delivery or self._on_delivery)

    def offer(self, sender: LaneSender, record: Record) -> bool:
        """Take the record, unless there is no room. Raises ClosedError or SpoolError."""
        try:
            wake = self._ledger.offer(sender.lane, record, self._dispatcher.waiting())
        except SpoolFullError as full:
            self._refused = full
            return False
        if wake:
            self._call_on_loop(sender.wake.set)
        if wake is not None and self._observer is not None:
            self._tell_accepted(record)
        return wake is not None

    def await_durable(self, record: Record) -> None:
        """Return when the record is as safe as spool_fsync promises; blocks."""
        self._outbox.await_durable(record.fsn)

    async def wait_for_room(self, sender: LaneSender, record: Record, seconds: float) -> None:
        """Wait until the record may fit. Raises BufferFullError after `seconds`."""
        if not await self._pulse.until(lambda: self._has_room(sender.lane, record), seconds):
            raise self._buffer_full()

    async def flush(self, seconds: float | None) -> int:
        """Send everything published so far without lingering; return how many are unreported."""
        with self._ledger.lock:
            targets = [(lane, lane.flush()) for lane in self._ledger.lanes.values()]
        self._wake_senders()

        def left() -> int:
            return sum(max(0, target - lane.finished) for lane, target in targets)

        await self._pulse.until(lambda: left() == 0 or self._ended, seconds)
        return left()

    async def await_acked(self, fsn: int, seconds: float | None) -> bool:
        """Wait until everything up to `fsn` is finished, and say whether it is."""

        def is_acked() -> bool:
            return self._ledger.acked_fsn() >= fsn

        await self._pulse.until(lambda: is_acked() or self._ended, seconds)
        return is_acked()

    def stats(self) -> ProducerStats:
        """Return all counts of one moment."""
        sending = self._sending
        return self._ledger.stats(
            attempts=sending.attempts,
            retries=sending.retries,
            callbacks_waiting=self._dispatcher.waiting(),
            callback_errors=self._dispatcher.errors,
            outage_started_at=sending.outage_started_at,
            breaker=sending.breaker.state,
            batch_messages=self._pacing.messages,
            requests=sending.slots.taken,
        )

    async def close(self, seconds: float, *, in_callback: bool) -> list[DeliveryReport]:
        """Send what is left within `seconds`, then end.

        What is left then stays in the spool. Without one it is given up, and its reports are
        returned. A second call returns an empty list, and waits for the first. `in_callback` says
        that a callback is calling: then nothing that waits for callbacks is waited for.
        """
        if in_callback and self._ledger.closed:
            return []
        self._ledger.close()
        async with self._closing:
            if self._ended:
                return []
            ends = self._clock() + seconds
            # An attempt that is cut off at once would only leave its batch in doubt.
            for sender in self._senders.values() if seconds > 0 else ():
                sender.hurry()
            self._pulse.beat()
            await self.flush(max(0.0, seconds))
            await self._end_senders()
            abandoned = self._leave_rest()
            if not in_callback:
                await self._pulse.until(
                    lambda: not self._dispatcher.waiting(), ends - self._clock()
                )
            self._end_callbacks(in_callback)
            await self._close_transport()
            self._ended = True
            self._pulse.beat()
            self._outbox.close()
            self._tell_fsynced()
            return abandoned

    def drop(self) -> None:
        """Let go of the spool, unless it was started: then it goes on as long as its loop does."""
        if not self._tasks:
            self._outbox.close()

    def leave(self) -> None:
        """Give up this copy of the engine in a forked child: the signals stay the parent's."""
        self._ledger.leave()

    # The books of the lane senders:

    def due_at(self, lane: Lane) -> float | None:
        with self._ledger.lock:
            due = lane.due_at()
        waits_for_callbacks = lane.on_disk and not lane.resend and not lane.waiting
        if waits_for_callbacks and self._callbacks_are_full():
            return self._clock() + _LOOK_AGAIN_SECONDS
        return due

    async def take(self, lane: Lane) -> Batch | None:
        if lane.on_disk and not self._callbacks_are_full():
            # Reading takes no time worth a thread, but a long backlog must let others run.
            self._ledger.reload(lane, self._clock())
            await asyncio.sleep(0)
        batch = self._ledger.take(lane, self._pacing.messages, self._sending.new_id)
        if batch is not None and not batch.begun:
            try:
                await self._write(lambda: self._outbox.begin(lane, batch))
            except BaseException:
                self._ledger.put_back(lane)
                raise
            batch.begun = True
        return batch

    async def settle(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> None:
        await self._write(lambda: self._outbox.settle(lane, batch, fates, rest))
        for part in rest:
            part.begun = True
        self._finish(lane, batch, fates, rest)

    def _finish(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> list[DeliveryReport]:
        """Count the fates and tell everyone who asked for them; return the reports that it took."""
        now = self._clock()
        self._ledger.settle(lane, batch, fates, rest)
        reports: list[DeliveryReport] = []
        jobs: list[Job] = []
        for record, fate in zip(batch.records, fates, strict=False):
            if record.delivery or record.callback or self._observer:
                report = _report(record, fate, batch, lane.account_id, now)
                reports.append(report)
                if record.delivery is not None:
                    record.delivery.resolve(report)
                if record.callback is not None:
                    jobs.append((record.callback, report))
        if jobs:
            self._dispatcher.put(jobs)
        if self._observer is not None:
            self._observer.settled(reports)
        if self._outbox.keeps:
            self._outbox.finish_through(self._ledger.acked_fsn())
            self._refused = None
        self._pulse.beat()
        return reports

    async def _write(self, work: Callable[[], None]) -> None:
        """Write to the outbox, on a thread if that waits for the disk."""
        if self._outbox.waits:
            await asyncio.to_thread(work)
        else:
            work()

    async def _end_senders(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CANCEL_SECONDS)

    def _leave_rest(self) -> list[DeliveryReport]:
        """Leave what is unfinished in the spool, or report it as given up."""
        if self._outbox.keeps:
            self._ledger.leave()
            return []
        fate = Fate("failed", AbandonedError.code, AbandonedError.__doc__)
        reports = []
        for lane in self._ledger.lanes.values():
            for batch in self._ledger.drain(lane, self._sending.new_id):
                reports += self._finish(lane, batch, [fate] * len(batch.records), [])
        return reports

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

    def _callback_done(self) -> None:
        if self._pulse.watched:
            self._call_on_loop(self._pulse.beat)

    def _wake_senders(self) -> None:
        for sender in self._senders.values():
            sender.wake.set()

    def _callbacks_are_full(self) -> bool:
        return self._dispatcher.waiting() >= self._most_callbacks

    def _has_room(self, lane: Lane, record: Record) -> bool:
        if self._refused is not None and not self.closed:
            return False
        return self._ledger.has_room(lane, record, self._dispatcher.waiting())

    def _tell_accepted(self, record: Record) -> None:
        assert self._observer is not None  # noqa: S101
        self._observer.accepted(self._clock() - record.accepted_at)
        if self._outbox.keeps:
            self._unsynced.append((record.fsn, record.accepted_at))

    def _tell_fsynced(self) -> None:
        """Tell the observer which signals a loss of power cannot take any more."""
        durable, now, seconds = self._outbox.durable_fsn, self._clock(), []
        while self._unsynced and self._unsynced[0][0] <= durable:
            seconds.append(now - self._unsynced.popleft()[1])
        if seconds and self._observer is not None:
            self._observer.fsynced(seconds)

    async def _watch_fsync(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            self._tell_fsynced()

    def _buffer_full(self) -> BufferFullError:
        outage = self._sending.outage_started_at
        if self._refused is not None:
            return SpoolFullError(self._refused.reason, outage)
        if outage is not None:
            return BufferFullError("disconnected", outage)
        if self._dispatcher.waiting() > self._ledger.pending():
            return BufferFullError("callbacks")
        return BufferFullError("backpressure")


def _report(
    record: Record, fate: Fate, batch: Batch, account_id: UUID | None, now: float
) -> DeliveryReport:
    delivery = record.delivery
    return DeliveryReport(
        signal=delivery.signal if delivery is not None else _decode(record.body),
        account_id=account_id,
        status=fate.status,
        code=fate.code,
        message=fate.message,
        seq=fate.seq,
        request_id=batch.request_id if batch.attempts else None,
        attempts=batch.attempts,
        in_doubt=batch.in_doubt and fate.status == "failed",
        latency=now - record.accepted_at,
        round_trip=batch.round_trip,
        fsn=record.fsn,
    )


_decode: Final = msgspec.json.Decoder(Signal).decode
