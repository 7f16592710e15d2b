"""The agent: the one process of a host that sends what all producers of a spool publish."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from signal_persistence.agent.doorbell import Doorbell
from signal_persistence.agent.forwarder import Forwarder
from signal_persistence.credentials import Credentials
from signal_persistence.errors import SpoolError, SpoolFullError
from signal_persistence.settings import ProducerSettings
from signal_persistence.spool import Journal, SenderSlot
from signal_persistence.spool.files import OS_FILES
from signal_persistence.transport import Transport
from signal_persistence.trying import Trying
from signal_persistence.waiting import wait

_log: Final = logging.getLogger("signal_persistence")

_LINGER_SHARE: Final = 0.25
"""While signals come the slots are looked at every such share of linger_ms, …"""
_LOOK_EVERY_LEAST: Final = 0.005
_LOOK_EVERY_MOST: Final = 0.025
"""… within these seconds, …"""
_QUIET_AFTER: Final = 0.05
"""… for so long after the last signal; more than workers leave between two rings."""
_POLL_EVERY: Final = 0.25
"""Seconds until a look that no ring asked for: what a lost ring costs at most."""
_ADOPT_EVERY: Final = 0.05
"""Seconds between two looks for new slots."""
_REFUSE_FOR: Final = 5.0
_CHORES_EVERY: Final = 1.0
_NO_CREDENTIALS: Final = "there are no credentials for all of its accounts"


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """What an agent does; the names of `settings` are those of `Producer`."""

    project: Path
    """The project's directory in the spool."""
    accounts: Mapping[str, Credentials]
    """Credentials by the identity that the spool knows an account by."""
    settings: ProducerSettings
    drain_seconds: float = 10.0
    """How long it goes on sending after it was asked to end."""
    idle_seconds: float | None = None
    """It ends when for so long no worker lived and nothing was left to send; None: never."""


class Agent:
    """Sends all slots of a spool whose accounts it has credentials for, until it is stopped."""

    def __init__(self, plan: AgentPlan, transport: Transport) -> None:
        self._plan = plan
        self._transport = transport
        share = plan.settings.linger_ms / 1000 * _LINGER_SHARE
        self._look_every = min(max(share, _LOOK_EVERY_LEAST), _LOOK_EVERY_MOST)
        self._rung = asyncio.Event()
        self._stopping = asyncio.Event()
        self._refused: dict[Path, float] = {}
        """Slots that cannot be sent from here, and when they are looked at again."""
        self._trying = Trying()

    def stop(self) -> None:
        """Have `run` drain and end."""
        self._stopping.set()
        self._rung.set()

    async def run(self, ready: Callable[[], object] = lambda: None) -> bool:
        """Send until stopped or idle; return False at once if another agent runs already.

        `ready` is called when workers may ring. Raises SpoolError, SpoolFullError.
        """
        folder = self._plan.project / "agent"
        OS_FILES.make_directory(folder)
        lock = OS_FILES.lock(folder / "agent.lock")
        if lock is None:
            return False
        try:
            await self._run_locked(folder, ready)
        finally:
            lock.release()
        return True

    async def _run_locked(self, folder: Path, ready: Callable[[], object]) -> None:
        plan = self._plan
        journal = Journal.open(folder / "journal", plan.settings.spool)
        forwarder = Forwarder(
            plan.project, self._transport, plan.accounts, plan.settings, journal=journal
        )
        doorbell = Doorbell(folder / "agent.sock", self._rung.set)
        try:
            self._adopt(forwarder)
            forwarder.start()
            ready()
            _log.info("The agent of %s sends %d slots", plan.project, len(forwarder.served))
            await self._serve(forwarder)
            left = await self._drain(forwarder)
            _log.info("The agent of %s ends; of what it read %d are left", plan.project, left)
        finally:
            doorbell.close()
            await forwarder.close()

    async def _serve(self, forwarder: Forwarder) -> None:
        """Read, and have sent what was read, until stopped or idle."""
        now = busy_at = needed_at = time.monotonic()
        adopt_at = chores_at = now
        while not self._stopping.is_set():
            # Cleared before looking, so that a ring in between is not missed.
            self._rung.clear()
            if now >= adopt_at:
                adopt_at = now + _ADOPT_EVERY
                self._adopt(forwarder)
            if forwarder.read():
                busy_at = now
            if now >= chores_at:
                chores_at = now + _CHORES_EVERY
                await self._do_chores(forwarder)
                needed_at = now if self._is_needed(forwarder) else needed_at
                if now - needed_at >= (self._plan.idle_seconds or math.inf):
                    return
            if now - busy_at < _QUIET_AFTER:
                await asyncio.sleep(self._look_every)
                now = time.monotonic()
            else:
                rung = await wait(self._rung, _POLL_EVERY)
                now = time.monotonic()
                busy_at = now if rung else busy_at

    async def _drain(self, forwarder: Forwarder) -> int:
        """Send what is there now, as far as the time goes; return how much of it is left."""
        ends = time.monotonic() + self._plan.drain_seconds
        self._adopt(forwarder)
        while True:
            read = forwarder.read()
            left = ends - time.monotonic()
            if left <= 0 or (await forwarder.flush(left) and not read):
                return forwarder.unfinished

    def _adopt(self, forwarder: Forwarder) -> None:
        """Take every slot that nobody else sends and whose accounts can be sent from here."""
        folder, now = self._plan.project / "slots", time.monotonic()
        mine = {served.slot.path for served in forwarder.served}
        names: Sequence[str] = self._trying.do(
            f"look into {folder}", lambda: OS_FILES.names(folder), ()
        )
        paths = [
            path
            for path in (folder / name for name in names)
            if path not in mine and now >= self._refused.get(path, 0.0)
        ]
        # Together, since only then a batch of several slots keeps its request_id; unless one of
        # them stops the others.
        if not self._adopt_together(forwarder, paths):
            for path in paths:
                self._adopt_together(forwarder, [path])

    def _adopt_together(self, forwarder: Forwarder, paths: Sequence[Path]) -> bool:
        """Take slots, or none of them; a single one that fails is refused. Say whether it went."""
        opened = [self._open(forwarder, path) for path in paths]
        slots = [slot for slot in opened if slot is not None]
        try:
            if slots:
                forwarder.adopt(slots)
        except Exception as error:
            if len(paths) == 1:
                self._refuse(paths[0], str(error))
            return False
        return True

    def _open(self, forwarder: Forwarder, path: Path) -> SenderSlot | None:
        with ExitStack() as undo:
            try:
                slot = SenderSlot.open(path)
                if slot is None:
                    return None
                undo.callback(slot.close)
                if forwarder.serves(slot.lanes()):
                    undo.pop_all()
                    return slot
                self._refuse(path, _NO_CREDENTIALS)
            except Exception as error:
                self._refuse(path, str(error))
        return None

    def _refuse(self, path: Path, reason: str) -> None:
        if path not in self._refused:
            _log.error("Cannot send slot %s, which is left as it is: %s", path, reason)
        # Not often: whoever else would send it must be able to take its lock.
        self._refused[path] = time.monotonic() + _REFUSE_FOR

    async def _do_chores(self, forwarder: Forwarder) -> None:
        for path in self._trying.do("release slots", forwarder.release_foreign, list[Path]()):
            self._refuse(path, _NO_CREDENTIALS)
        forwarder.trim()
        try:
            await forwarder.sync()
        except (SpoolError, SpoolFullError) as error:
            _log.error("Cannot sync the journal: trying again: %s", error)

    def _is_needed(self, forwarder: Forwarder) -> bool:
        return forwarder.unfinished > 0 or any(
            self._trying.do(f"see who writes {served.slot.path}", served.slot.writer_is_alive, True)
            for served in forwarder.served
        )
