"""One answer in memory: the newest signals of a question, in order, as far as they are known."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import msgspec

from signal_persistence.advance import SignalEvent
from signal_persistence.cache.question import Question
from signal_persistence.cache.weight import weigh
from signal_persistence.manager.lifecycle import TRANSITIONS, outcome_after, status_at
from signal_persistence.signal import StoredSignal

ENTRY_BYTES: Final = 1500
"""What an entry takes besides its signals: itself, its question, and its places in the indexes."""
_PLACE_BYTES: Final = 16
"""Two references to a signal: in the list, and in the tuple that is handed out."""


class Entry:
    """The newest `count` of the signals that match, oldest first.

    Of a set that only grows, the newest N of all are the newest N of those that were the newest N
    before and of what came since. So adding each new signal keeps it what the database would
    answer. A signal never changes but for its status, which goes one way: an event that fits the
    status is the next of the signal's life, and one that does not is already in it.
    """

    __slots__ = (
        "_answer",
        "_expires_at",
        "_signals",
        "bytes",
        "cut",
        "events",
        "floor",
        "kept",
        "loaded_at",
        "question",
        "seq",
        "unread",
    )

    def __init__(self, question: Question, loaded_at: float) -> None:
        """`loaded_at` is when its query was begun."""
        self.question = question
        self.loaded_at = loaded_at
        self.seq = 0
        """It was loaded with everything up to this seq."""
        self.floor = 0
        """A reader knows that there is a signal of this seq, which matches."""
        self.kept = False
        """Whether it is answered with; before that it is loading."""
        self.events: list[SignalEvent] | None = []
        """While it is loading: those since its query was begun; None when they are not all here."""
        self.unread = 0
        """So many signals were merged into it since it was read."""
        self.cut = False
        """Whether older signals match too, beyond the newest `count`."""
        self.bytes = ENTRY_BYTES
        self._signals: list[StoredSignal] = []
        self._answer: tuple[StoredSignal, ...] | None = None
        self._expires_at: datetime | None = None

    def fill(self, signals: Iterable[StoredSignal], seq: int, *, cut: bool) -> None:
        """Take in what the database answered at `seq`, for what was there up to that."""
        since = [signal for signal in self._signals if signal.seq > seq]
        self._signals = sorted(signals, key=_order)
        self._answer = None
        self.bytes = ENTRY_BYTES + sum(weigh(each) + _PLACE_BYTES for each in self._signals)
        self.seq = seq
        self.cut = self.cut or cut
        for signal in since:
            self.add(signal)

    def add(self, signal: StoredSignal) -> None:
        """Add a signal that matches, unless it is here or older than all that are kept."""
        place = self._place(signal.generated_at, signal.seq)
        if place < len(self._signals) and self._signals[place].seq == signal.seq:
            return
        full = len(self._signals) >= self.question.count
        self.cut = self.cut or full
        if full and place == 0:
            return
        self._signals.insert(place, signal)
        self._answer = None
        self.bytes += weigh(signal) + _PLACE_BYTES
        if full:
            self.bytes -= weigh(self._signals.pop(0)) + _PLACE_BYTES

    def advance(self, event: SignalEvent) -> None:
        """Have the signal of an event, if it is here, reach the event's status."""
        assert event.generated_at is not None  # noqa: S101
        place = self._place(event.generated_at, event.signal_seq)
        if place < len(self._signals) and self._signals[place].seq == event.signal_seq:
            before = self._signals[place]
            after = advanced(before, event)
            self._signals[place] = after
            self._answer = None
            self.bytes += weigh(after) - weigh(before)

    def answer(self, clock: Callable[[], datetime]) -> tuple[tuple[StoredSignal, ...], bool]:
        """Return the signals at this time, newest first, and whether they are all that match."""
        within = self.question.within
        if self._answer is not None and self._expires_at is None and within is None:
            return self._answer, not self.cut
        now = clock()
        if self._answer is None or (self._expires_at is not None and self._expires_at <= now):
            self._answer = tuple(self._at(now))
        if within is None:
            return self._answer, not self.cut
        too_old = self._place(now - within, 0)
        if too_old == 0:
            return self._answer, not self.cut
        return self._answer[: len(self._answer) - too_old], True

    def _place(self, generated_at: datetime, seq: int) -> int:
        """Where such a signal is, or would be put: most often it is the newest."""
        if not self._signals or _order(self._signals[-1]) < (generated_at, seq):
            return len(self._signals)
        return bisect_left(self._signals, (generated_at, seq), key=_order)

    def _at(self, now: datetime) -> Iterable[StoredSignal]:
        """The signals with the statuses that the clock gives them, newest first."""
        self._expires_at = None
        for signal in reversed(self._signals):
            status = status_at(signal.status, signal.valid_until, now)  # type: ignore[arg-type]
            if status != signal.status:
                yield msgspec.structs.replace(signal, status=status)
                continue
            yield signal
            ends = signal.valid_until
            if ends is not None and ends > now and signal.status in ("generated", "analyzed"):
                self._expires_at = ends if self._expires_at is None else min(self._expires_at, ends)


def advanced(signal: StoredSignal, event: SignalEvent) -> StoredSignal:
    """Return `signal` after `event`, or as it is when it has had that event."""
    if event.status not in TRANSITIONS.get(signal.status, ()):
        return signal
    outcome = outcome_after(signal.outcome, event)  # type: ignore[arg-type]
    return msgspec.structs.replace(signal, status=event.status, outcome=outcome)


def _order(signal: StoredSignal) -> tuple[datetime, int]:
    """The order of the database: by time, and by seq within one instant."""
    return signal.generated_at, signal.seq
