"""An engine that delivers, beside its own signals, those of processes that have died.

What a process leaves is in its slot: its log and its journal. A slot is adopted by taking its
locks, so no two processes ever send it, and is delivered by an engine of its own, which goes on
where the dead one stopped. Whoever is killed over it leaves the rest to the next.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from signal_persistence.credentials import Credentials
from signal_persistence.engine import Engine
from signal_persistence.ledger import ProducerStats
from signal_persistence.outbox import SpoolOutbox
from signal_persistence.settings import ProducerSettings
from signal_persistence.transport import Transport

_log: Final = logging.getLogger("signal_persistence")

ADOPT_INTERVAL: Final = 30.0
"""Seconds between two looks for orphaned slots, give or take `_JITTER` of it."""
_JITTER: Final = 0.2
_AT_ONCE: Final = 4
"""How many orphans are delivered at once: each holds a batch or two of each account in memory, and
one whose account cannot be sent must not hold up all others."""
_COUNTED: Final = (
    *("accepted", "recovered", "delivered", "duplicates", "dead_lettered", "rejected", "failed"),
    *("pending", "pending_bytes", "on_disk", "spool_bytes", "batches", "attempts", "retries"),
)
"""What of the stats of an orphan counts as the producer's."""


class AdoptingEngine(Engine):
    """An Engine with a spool that looks for orphaned slots whose accounts it serves."""

    def __init__(
        self,
        transport: Transport,
        credentials: Mapping[UUID | None, Credentials],
        settings: ProducerSettings,
        *,
        outbox: SpoolOutbox,
        adopt_interval: float = ADOPT_INTERVAL,
        **options: Any,
    ) -> None:
        """`options` are those of Engine."""
        self._adopted: tuple[Counter[str], tuple[_Orphan, ...]] = (Counter(), ())
        """The counts of orphans that were delivered, and those that are not yet."""
        self._adopt_interval = adopt_interval
        self._spool_outbox = outbox
        self._transport_of_orphans = transport, credentials, settings
        self._options = options
        super().__init__(transport, credentials, settings, outbox=outbox, **options)

    def start(self) -> None:
        if not self._tasks:
            super().start()
            self._tasks.append(asyncio.create_task(self._adopt(), name="signal-adoption"))

    def stats(self) -> ProducerStats:
        delivered, orphans = self._adopted
        of_orphans = [orphan.stats() for orphan in orphans]
        counts = sum(map(_counts, of_orphans), delivered)
        own = super().stats()
        outages = [one.outage_started_at for one in (own, *of_orphans) if one.outage_started_at]
        return replace(
            own,
            outage_started_at=min(outages, default=None),
            **{name: getattr(own, name) + counts[name] for name in _COUNTED},
        )

    async def _adopt(self) -> None:
        """Deliver every orphan there is, and look for more now and then, until cancelled."""
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as deliveries:
            while True:
                await room.acquire()
                # On a thread: to recover a slot reads its whole log.
                orphan = await asyncio.to_thread(self._next_orphan)
                if orphan is not None:
                    deliveries.create_task(self._deliver(orphan, room))
                else:
                    room.release()
                    jitter = random.uniform(1 - _JITTER, 1 + _JITTER)
                    await asyncio.sleep(self._adopt_interval * jitter)

    def _next_orphan(self) -> _Orphan | None:
        """Adopt a slot, if there is one. On a thread, whose result may be dropped by close()."""
        try:
            outbox = self._spool_outbox.adopt()
            if outbox is None:
                return None
            orphan = self._open(outbox)
        except Exception:
            _log.exception("Cannot adopt what other processes left in the spool: trying again")
            return None
        with self._ledger.lock:
            if not self._ledger.closed:
                delivered, orphans = self._adopted
                self._adopted = delivered, (*orphans, orphan)
                return orphan
        outbox.close()
        return None

    def _open(self, outbox: SpoolOutbox) -> _Orphan:
        transport, credentials, settings = self._transport_of_orphans
        served = {account: credentials[account] for account in outbox.accounts}
        try:
            return _Orphan(transport, served, settings, outbox, self, self._options)
        except BaseException:
            outbox.close()
            raise

    async def _deliver(self, orphan: _Orphan, room: asyncio.Semaphore) -> None:
        try:
            orphan.start()
            await orphan.flush(None)
        except Exception:
            # A bug of ours must not stop the others: what is left is found again.
            _log.exception("Cannot deliver an adopted slot: trying again")
        await orphan.end()
        with self._ledger.lock:
            delivered, orphans = self._adopted
            left = tuple(other for other in orphans if other is not orphan)
            self._adopted = delivered + _finished_counts(orphan.stats()), left
        if orphan.stats().pending:
            await asyncio.sleep(self._adopt_interval)
        room.release()

    async def _end_senders(self) -> None:
        await super()._end_senders()
        _, orphans = self._adopted
        await asyncio.gather(*(orphan.end() for orphan in orphans))


class _Orphan(Engine):
    """The engine of an adopted slot: it publishes nothing, and ends when the slot is empty."""

    def __init__(
        self,
        transport: Transport,
        credentials: Mapping[UUID | None, Credentials],
        settings: ProducerSettings,
        outbox: SpoolOutbox,
        adopter: Engine,
        options: Mapping[str, Any],
    ) -> None:
        """`options` are those that the adopter was made with.

        They share the request slots, the pace, and what runs callbacks one after another.
        """
        # The observer is not told to attach: these counts are among those of the adopter.
        own = {"outbox": outbox, "dispatcher": lambda _: adopter._dispatcher, "observer": None}
        super().__init__(transport, credentials, settings, **{**options, **own})
        self._observer = adopter._observer
        self._pacing = self._sending.pacing = adopter._pacing
        self._sending.slots = adopter._sending.slots

    async def end(self) -> None:
        """Stop sending and let go of the slot. Ending again does nothing."""
        await self._end_senders()
        try:
            self._outbox.close()
        except Exception as error:
            _log.error("Cannot close an adopted slot cleanly: %s", error)


def _counts(stats: ProducerStats) -> Counter[str]:
    return Counter({name: getattr(stats, name) for name in _COUNTED})


def _finished_counts(stats: ProducerStats) -> Counter[str]:
    """Return what counts of a slot that was let go of: what is pending is another's from now on."""
    counts = _counts(stats)
    counts.subtract({"accepted": stats.pending, "recovered": stats.pending})
    for of_pending in ("pending", "pending_bytes", "on_disk", "spool_bytes"):
        del counts[of_pending]
    return counts
