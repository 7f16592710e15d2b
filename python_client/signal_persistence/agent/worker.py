"""The engine of a producer whose signals the agent of its host sends.

It publishes into its own slot and learns from the slot's results what became of each signal. Who
sends the slot may change under it: the agent, the next agent, or, when none can be had, a forwarder
in this very process. The results are the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from signal_persistence.agent.doorbell import Bell, Doorbell
from signal_persistence.agent.forwarder import Forwarder
from signal_persistence.agent.launch import Launcher
from signal_persistence.agent.results import Finished, Result, decode_result
from signal_persistence.batch import Batch, Lane
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import Fate
from signal_persistence.engine import Engine
from signal_persistence.errors import SpoolError, SpoolFullError
from signal_persistence.outbox import identities_of
from signal_persistence.settings import ProducerSettings
from signal_persistence.spool import (
    Frame,
    LogReader,
    SenderSlot,
    Slot,
    SpoolSettings,
    expand,
    read_journal,
)
from signal_persistence.spool.files import OS_FILES
from signal_persistence.transport import Transport
from signal_persistence.waiting import wait

_log: Final = logging.getLogger("signal_persistence")

_RING_EVERY: Final = 0.01
"""Seconds between two rings while signals are published; the agent looks for longer by itself."""
_POLL_EVERY: Final = 0.25
"""Seconds until a look at the results, and at the agent, that nothing asked for."""
_PATIENCE: Final = 10.0
"""Seconds that signals wait for an agent that takes the slot, until this process sends them."""
_LONGEST_PAUSE: Final = 2.0
"""Seconds between two attempts to start an agent, at most."""
_ALONE_EVERY: Final = 0.02
_LOOK_FOR_AGENT_EVERY: Final = 5.0
_READ_RESULTS: Final = 1_000
_READ_BYTES: Final = 1024**2
_SCAN_MESSAGES: Final = 10_000
_SCAN_BYTES: Final = 4 * 1024**2
_LOST: Final = Fate(
    "failed",
    "report_lost",
    "Cannot tell what became of the signal: its report is lost, or its frame on the disk damaged.",
)
_NO_RESULT: Final = Result(finished_through=0, in_doubt=True)


class WorkerOutbox:
    """The writer's half of a slot: appends, and rings for whoever sends."""

    keeps = True

    def __init__(
        self, project: Path, identities: Mapping[UUID | None, str], settings: SpoolSettings
    ) -> None:
        """`identities` are the names of the lanes on disk. Raises SpoolError, SpoolFullError."""
        self.slot: Final = Slot.open(project, list(identities.values()), settings, as_sender=False)
        self.results: Final = LogReader(self.slot.path / "results", self.slot.uuid)
        self.bell: Final = Bell(project / "agent" / "agent.sock")
        self.read_through = 0
        """The number of the last result that was read."""
        self.waits = settings.fsync == "always"
        self._log = self.slot.log
        self._identities = identities
        self._ring_at = 0.0
        self.await_durable = self._log.await_durable
        self.read = self._log.read
        self.finish_through = self._log.finish_through

    @property
    def published_fsn(self) -> int:
        return self._log.published_fsn

    @property
    def durable_fsn(self) -> int:
        return self._log.durable_fsn

    @property
    def disk_bytes(self) -> int:
        return self._log.size_bytes

    def append(self, lane: int, body: bytes) -> int:
        fsn = self._log.append(lane, body)
        now = time.monotonic()
        if now >= self._ring_at:
            self._ring_at = now + _RING_EVERY
            self.bell.ring()
        return fsn

    def recover(self, lanes: Iterable[Lane], now: float) -> int:
        """Give the lanes what former writers of the slot left and nobody has sent yet."""
        finished = self._read_finished()
        by_number = {self.slot.lane(self._identities[lane.account_id]): lane for lane in lanes}
        for number, lane in by_number.items():
            lane.number, lane.loaded = number, finished.through
        sent = _SentAlone(self.slot)
        fsn = finished.through
        while frames := self._log.read(fsn, _SCAN_MESSAGES, _SCAN_BYTES):
            for frame in frames:
                lane = by_number[frame.lane]
                if frame.fsn in finished or frame in sent:
                    lane.loaded = frame.fsn
                else:
                    lane.on_disk += 1
            fsn = frames[-1].fsn
        for lane in by_number.values():
            lane.published = lane.on_disk
        return sum(lane.on_disk for lane in by_number.values())

    def begin(self, lane: Lane, batch: Batch) -> None:
        raise NotImplementedError("the sender does this")

    def settle(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> None:
        raise NotImplementedError("the sender does this")

    def new_results(self) -> list[Frame]:
        """Return results that were not read yet. Raises SpoolError."""
        frames = self.results.read(self.read_through, _READ_RESULTS, _READ_BYTES)
        if frames:
            self.read_through = frames[-1].fsn
        return frames

    def close(self) -> None:
        self.bell.close()
        self.results.close()
        self.slot.close()

    def _read_finished(self) -> Finished:
        finished = Finished()
        while frames := self.new_results():
            for frame in frames:
                result = decode_result(frame.body)
                finished.add_runs(result.runs)
                finished.reach(result.finished_through)
        return finished


class _SentAlone:
    """What a process that was its own sender wrote down as finished, in the slot's journal."""

    def __init__(self, slot: Slot) -> None:
        state = read_journal(slot.path / "journal")
        self._begun = [state.begun.get((slot.uuid, identity), 0) for identity in slot.lanes]
        self._open = {
            fsn
            for batch in state.batches.values()
            for part in batch.parts
            if part.slot == slot.uuid
            for fsn in expand(part.fsns)
        }

    def __contains__(self, frame: Frame) -> bool:
        return frame.fsn <= self._begun[frame.lane] and frame.fsn not in self._open


class WorkerEngine(Engine):
    """An Engine that has its signals sent, instead of sending them."""

    def __init__(
        self,
        transport: Transport,
        credentials: Mapping[UUID | None, Credentials],
        settings: ProducerSettings,
        *,
        outbox: WorkerOutbox,
        launcher: Launcher,
        **options: Any,
    ) -> None:
        """`options` are those of Engine; transport and credentials are for want of an agent."""
        super().__init__(transport, credentials, settings, outbox=outbox, **options)
        identities = identities_of(credentials)
        self._accounts = {identities[account]: one for account, one in credentials.items()}
        self._settings = settings
        self._worker_outbox = outbox
        self._launcher = launcher
        self._lanes_by_number = {lane.number: lane for lane in self._ledger.lanes.values()}
        self._doorbell: Doorbell | None = None
        self._left_alone_since: float | None = None
        """Since when nobody sends the slot although something is to be sent."""

    def start(self) -> None:
        """Start listening for results on the running loop, unless that was done."""
        if not self._tasks:
            rung = asyncio.Event()
            self._doorbell = Doorbell(self._worker_outbox.slot.path / "worker.sock", rung.set)
            self._tasks = [
                asyncio.create_task(self._hear_results(rung), name="signal-results"),
                asyncio.create_task(self._keep_sender(), name="signal-agent-watch"),
            ]

    async def close(self, seconds: float, *, in_callback: bool) -> list[Any]:
        reports = await super().close(seconds, in_callback=in_callback)
        doorbell, self._doorbell = self._doorbell, None
        if doorbell is not None:
            doorbell.close()
        return reports

    def leave(self) -> None:
        super().leave()
        if self._doorbell is not None:
            self._doorbell.forget()
            self._doorbell = None

    async def _hear_results(self, rung: asyncio.Event) -> None:
        while True:
            rung.clear()
            try:
                read = 0 if self._callbacks_are_full() else self._read_results()
            except Exception:
                # A bug of ours must not stop the reports.
                _log.exception("Cannot read what became of signals: trying again")
                read = 0
            await (asyncio.sleep(0) if read else wait(rung, _POLL_EVERY))

    def _read_results(self) -> int:
        frames = self._worker_outbox.new_results()
        for frame in frames:
            self._learn(frame.lane, decode_result(frame.body))
        return len(frames)

    def _learn(self, number: int, result: Result) -> None:
        """Finish the signals that a result is about."""
        lane = self._lanes_by_number.get(number)
        if lane is not None:
            for run in result.runs:
                self._finish_through(lane, run.first_fsn - 1, _NO_RESULT, lambda _: _LOST)
                self._finish_through(lane, run.last_fsn, result, run.fate)
        for other in self._lanes_by_number.values():
            self._finish_through(other, result.finished_through, _NO_RESULT, lambda _: _LOST)

    def _finish_through(
        self, lane: Lane, fsn: int, result: Result, fate_of: Callable[[int], Fate]
    ) -> None:
        """Finish the signals of a lane up to `fsn` that are not finished yet."""
        now = self._clock()
        while count := self._load_through(lane, fsn, now):
            batch = self._ledger.take(lane, count, lambda: result.request_id or uuid4())
            assert batch is not None  # noqa: S101
            batch.attempts, batch.in_doubt = result.attempts, result.in_doubt
            batch.round_trip = result.round_trip
            self._finish(lane, batch, [fate_of(record.fsn) for record in batch.records], [])

    def _load_through(self, lane: Lane, fsn: int, now: float) -> int:
        """Return how many signals up to `fsn` are at the front of the lane in memory."""
        while lane.on_disk and not lane.waiting and lane.loaded < fsn:
            self._ledger.reload(lane, now)
        with self._ledger.lock:
            return sum(1 for _ in takewhile(lambda record: record.fsn <= fsn, lane.waiting))

    async def _keep_sender(self) -> None:
        """See to it that somebody sends the slot: the agent, a new agent, or this process."""
        tries = 0
        while True:
            try:
                tries = await self._look_after_sender(tries)
            except (SpoolError, SpoolFullError) as error:
                _log.error("Cannot have signals sent: trying again: %s", error)
            except Exception:
                _log.exception("Cannot have signals sent: trying again")
            await asyncio.sleep(_POLL_EVERY)

    async def _look_after_sender(self, tries: int) -> int:
        """Do what is to be done now; return how often an agent was started since one was there."""
        outbox = self._worker_outbox
        if not self._ledger.pending() or OS_FILES.is_locked(outbox.slot.path / "sender.lock"):
            self._left_alone_since = None
            return 0
        self._left_alone_since = self._left_alone_since or self._clock()
        is_there = outbox.bell.ring()
        waited = self._clock() - self._left_alone_since
        if waited > _PATIENCE or (self._launcher.hopeless and not is_there):
            _log.error("No agent sends these signals, see its log: sending them from here")
            await self._send_alone(until_agent=not is_there)
            return 0
        if is_there:
            return 0
        code = await self._launcher.start()
        if code:
            _log.error("Cannot start the agent (exit code %d): see its log", code)
        await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.1 * 2.0**tries)))
        return tries + 1

    async def _send_alone(self, *, until_agent: bool) -> None:
        """Send the slot from this process, until there is an agent."""
        slot = SenderSlot.open(self._worker_outbox.slot.path)
        if slot is None:
            return
        project = self._launcher.project
        forwarder = Forwarder(project, self._transport, self._accounts, self._settings)
        try:
            forwarder.adopt([slot])
            forwarder.start()
            await self._forward(forwarder, until_agent)
        finally:
            await forwarder.close()
            slot.close()

    async def _forward(self, forwarder: Forwarder, until_agent: bool) -> None:
        chores_at, look_at = self._clock(), self._clock() + _LOOK_FOR_AGENT_EVERY
        while True:
            read = forwarder.read()
            now = self._clock()
            if now >= chores_at:
                chores_at = now + 1.0
                forwarder.trim()
                await forwarder.sync()
            if until_agent and now >= look_at:
                look_at = now + _LOOK_FOR_AGENT_EVERY
                if self._worker_outbox.bell.ring():
                    _log.info("There is an agent again: it sends from here on")
                    return
            await asyncio.sleep(0 if read else _ALONE_EVERY)

    async def _end_senders(self) -> None:
        await super()._end_senders()
        if self._tasks:
            # A forwarder lets go of the slot: without that no agent could send what is left.
            await asyncio.wait(self._tasks, timeout=1.0)
