"""Where published signals are until they are finished: in memory, or in a slot of the spool."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID, uuid4

import msgspec

from signal_persistence.batch import Batch, Lane, Record
from signal_persistence.credentials import Credentials, identity_of
from signal_persistence.delivery import Fate
from signal_persistence.errors import ConfigurationError
from signal_persistence.spool import (
    DeadLetter,
    DeadLetters,
    Frame,
    Journal,
    JournalBatch,
    Part,
    Slot,
    SpoolSettings,
    compact,
)

DEAD_LETTERS: Final = "dead_letters"
_SCAN_MESSAGES: Final = 10_000
_SCAN_BYTES: Final = 4 * 1024 * 1024


class Outbox(Protocol):
    """Numbers signals, and remembers what a producer needs to go on after its process died.

    `append` may be called by any thread, the rest by one thread at a time.
    """

    @property
    def keeps(self) -> bool:
        """Whether what is left unfinished is sent by the next producer."""
        ...

    @property
    def waits(self) -> bool:
        """Whether writing waits for the disk, which nobody should do on an event loop."""
        ...

    @property
    def published_fsn(self) -> int:
        """The number of the last signal, 0 if there was none."""
        ...

    @property
    def durable_fsn(self) -> int:
        """Signals up to this number survive a loss of power."""
        ...

    @property
    def disk_bytes(self) -> int:
        """What it takes on disk."""
        ...

    def append(self, lane: int, body: bytes) -> int:
        """Take a signal and return its number. Raises SpoolFullError, SpoolError."""
        ...

    def await_durable(self, fsn: int) -> None:
        """Return when publish() may return for this signal."""
        ...

    def recover(self, lanes: Iterable[Lane], now: float) -> int:
        """Give the lanes what a former process left unfinished, and return how much that is."""
        ...

    def read(self, after_fsn: int, max_messages: int, max_bytes: int) -> list[Frame]:
        """Return signals of all lanes in order; an empty list if there are none after that."""
        ...

    def begin(self, lane: Lane, batch: Batch) -> None:
        """Write down which signals a request_id stands for."""
        ...

    def settle(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> None:
        """Write down that the first signals of a batch are finished, and what is left of it."""
        ...

    def finish_through(self, fsn: int) -> None:
        """Let go of everything up to `fsn`."""
        ...

    def close(self) -> None:
        """Keep what is not finished, if it keeps anything."""
        ...


class MemoryOutbox:
    """Gives numbers, and keeps nothing: the lanes hold all there is."""

    keeps = False
    waits = False
    disk_bytes = 0
    durable_fsn = 0

    def __init__(self) -> None:
        self.published_fsn = 0
        self._numbers = itertools.count(1)

    def append(self, lane: int, body: bytes) -> int:
        self.published_fsn = next(self._numbers)
        return self.published_fsn

    def await_durable(self, fsn: int) -> None: ...

    def recover(self, lanes: Iterable[Lane], now: float) -> int:
        return 0

    def read(self, after_fsn: int, max_messages: int, max_bytes: int) -> list[Frame]:
        return []

    def begin(self, lane: Lane, batch: Batch) -> None: ...

    def settle(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> None: ...

    def finish_through(self, fsn: int) -> None: ...

    def close(self) -> None: ...


class SpoolOutbox:
    """Keeps signals, batches and dead letters in a slot of the spool."""

    keeps = True

    def __init__(
        self,
        project: Path,
        identities: Mapping[UUID | None, str],
        settings: SpoolSettings,
        slot: Slot | None = None,
    ) -> None:
        """`identities` are the names of the lanes on disk, by the producer's account ids.

        Raises SpoolError, SpoolFullError.
        """
        self._slot = slot or Slot.open(project, list(identities.values()), settings)
        self._project = project
        self._settings = settings
        self._identities = identities
        self._log = self._slot.log
        self._journal = self._slot.journal
        self._dead_letters = DeadLetters(
            project / DEAD_LETTERS, self._slot.name, settings.dead_letters_max_bytes
        )
        self.waits = settings.fsync == "always"
        self.append = self._log.append
        self.await_durable = self._log.await_durable
        self.read = self._log.read
        self.finish_through = self._log.finish_through

    @property
    def accounts(self) -> Iterable[UUID | None]:
        """The accounts that the slot has lanes for."""
        return self._identities.keys()

    def adopt(self) -> SpoolOutbox | None:
        """Take what a process that has died left for some of these accounts, if there is any.

        Never the slot of this outbox: who looks while it is closed would keep it from the next
        producer here, whose signals would then overtake those that were left.
        """
        lanes = list(self._identities.values())
        slot = Slot.adopt(self._project, lanes, self._settings, other_than=self._slot.name)
        if slot is None:
            return None
        served = {
            account_id: identity
            for account_id, identity in self._identities.items()
            if identity in slot.lanes
        }
        return SpoolOutbox(self._project, served, self._settings, slot)

    @property
    def published_fsn(self) -> int:
        return self._log.published_fsn

    @property
    def durable_fsn(self) -> int:
        return self._log.durable_fsn

    @property
    def disk_bytes(self) -> int:
        return self._log.size_bytes

    def recover(self, lanes: Iterable[Lane], now: float) -> int:
        by_identity = {self._identities[lane.account_id]: lane for lane in lanes}
        for identity, lane in by_identity.items():
            lane.number = self._slot.lane(identity)
            begun = self._journal.begun_through(self._slot.uuid, identity)
            lane.loaded = max(begun, self._slot.recovered.acked_fsn)
        for begun_batch in self._journal.open_batches:
            batch = Batch(begun_batch.request_id, self._records(begun_batch, now))
            batch.in_doubt = batch.begun = True
            by_identity[begun_batch.lane].resend.append(batch)
        self._count_waiting(list(by_identity.values()))
        for lane in by_identity.values():
            lane.batched = sum(len(batch.records) for batch in lane.resend)
            lane.published = lane.batched + lane.on_disk
        return sum(lane.published for lane in by_identity.values())

    def begin(self, lane: Lane, batch: Batch) -> None:
        self._journal.begin(self._written(lane, batch))

    def settle(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> None:
        # In this order: after a crash in between, signals are sent again, and none is forgotten.
        places = batch.to_bury(fates)
        self._dead_letters.add(self._letters(lane, batch, fates, places))
        batch.buried.update(places)
        finish_in_journal(
            self._journal, batch, len(fates), rest, lambda part: self._written(lane, part)
        )

    def close(self) -> None:
        self._slot.close()

    def _records(self, batch: JournalBatch, now: float) -> list[Record]:
        parts = [part for part in batch.parts if part.slot == self._slot.uuid]
        frames = [frame for part in parts for frame in self._log.fetch(part.fsns)]
        return [Record(frame.body, now, frame.fsn) for frame in frames]

    def _count_waiting(self, lanes: Sequence[Lane]) -> None:
        """Count, for each lane, the signals that are in the log and in no batch yet."""
        if len(lanes) == 1:
            in_batches = sum(len(batch.records) for batch in lanes[0].resend)
            lanes[0].on_disk = self._slot.recovered.signals - in_batches
            return
        by_number = {lane.number: lane for lane in lanes}
        fsn = min(lane.loaded for lane in lanes)
        while frames := self._log.read(fsn, _SCAN_MESSAGES, _SCAN_BYTES):
            for frame in frames:
                lane = by_number[frame.lane]
                lane.on_disk += frame.fsn > lane.loaded
            fsn = frames[-1].fsn

    def _written(self, lane: Lane, batch: Batch) -> JournalBatch:
        part = Part(self._slot.uuid, compact(record.fsn for record in batch.records))
        return JournalBatch(batch.request_id, self._identities[lane.account_id], (part,))

    def _letters(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], places: Sequence[int]
    ) -> list[DeadLetter]:
        now = datetime.now(UTC)
        account = self._identities[lane.account_id]
        return [
            letter_of(account, self._slot.name, batch, batch.records[at], fates[at], now)
            for at in places
        ]


def letter_of(
    account: str, slot: str, batch: Batch, record: Record, fate: Fate, at: datetime
) -> DeadLetter:
    """Return what is kept of a signal that the service refused for good."""
    return DeadLetter(
        account=account,
        code=fate.code or "internal",
        message=fate.message or "",
        request_id=str(batch.request_id),
        at=at,
        slot=slot,
        fsn=record.fsn,
        signal=msgspec.Raw(record.body),
    )


def finish_in_journal(
    journal: Journal,
    batch: Batch,
    finished: int,
    rest: Sequence[Batch],
    written: Callable[[Batch], JournalBatch],
) -> None:
    """Write down that the first signals of a batch are finished, and in which batches the rest is.

    `written` is how the journal has a batch. Raises as `Journal.split` and `Journal.finish`.
    """
    if not rest:
        journal.finish(batch.request_id)
        return
    # The finished signals get an id of their own, since that of the batch stood for all.
    done = [Batch(uuid4(), batch.records[:finished])] if finished else []
    journal.split(batch.request_id, [written(part) for part in (*done, *rest)])
    for part in done:
        journal.finish(part.request_id)


def identities_of(
    credentials: Mapping[UUID | None, Credentials],
) -> dict[UUID | None, str]:
    """Return how each account is called on disk: by its id, or as its credentials say.

    Raises ConfigurationError for credentials that have no name of their own.
    """
    return {
        account_id: str(account_id) if account_id else _identity_of(one)
        for account_id, one in credentials.items()
    }


def _identity_of(credentials: Credentials) -> str:
    identity = identity_of(credentials)
    if identity is None:
        raise ConfigurationError(
            "Cannot keep signals in the spool: these credentials do not say whose they are; "
            "pass {account_id: credentials}, or spool_dir=None to keep signals in memory only."
        )
    return identity
