"""What a cache answers."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from signal_persistence.signal import StoredSignal


class CachedSignals(msgspec.Struct, frozen=True, gc=False):
    """The newest signals that were asked for, newest first, and how far they can be trusted.

    They are exactly what the database answers at `seq`: every signal that was asked for and has a
    seq up to it. `age` is how many seconds ago this was last known to be all there is, statuses
    included; of an answer that was loaded for this read, how long that took. `complete` says that
    all that match are here, not only the newest, `cached` that the answer was in memory.
    """

    signals: tuple[StoredSignal, ...]
    seq: int
    age: float
    complete: bool
    cached: bool


class Lack(StrEnum):
    """Why memory cannot answer a question."""

    ABSENT = "absent"
    """There is no entry, or it is older than the TTL."""
    BEHIND = "behind"
    """The entry does not have a write yet that the reader knows of."""
    STALE = "stale"
    """Following is not live, or was not for too long."""
    STATUSES = "statuses"
    """The signals are right, but it is too long ago that anybody looked what became of them."""
