"""The answers in memory: what is kept, for how long, and when one may be given. No I/O.

Why an answer is always right. Signals are numbered by seq without gaps, in the order they were
committed, and never change. A query tells the seq up to which it saw everything. So an entry that
was loaded at seq L, with every later signal that matches merged into it up to seq A, is what the
database answers at A. Nothing can be missed in between: an entry is in the index from before its
query is sent, and whatever is followed from then on is merged into it, or found in it already.

Merging was chosen over invalidating: the newest N of a set that only grows follow from the newest
N before and the new signal alone (see Entry), at 5 microseconds each. To invalidate would cost a
query for every signal of a busy symbol, just when it is read most.

What becomes of signals is told by events with a seq of their own, which are merged in the same way.
Retention may drop a signal that is still kept here, for as long as the TTL.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from signal_persistence.advance import AdvanceVerdict, SignalEvent
from signal_persistence.cache.answer import CachedSignals, Lack
from signal_persistence.cache.entry import Entry, advanced
from signal_persistence.cache.question import Anchor, Question, anchors_of
from signal_persistence.cache.stats import CacheStats
from signal_persistence.reading import Page
from signal_persistence.signal import Signal, StoredSignal

BEYOND_EVERY_SEQ: Final = 2**53 - 1
_MOST_EVENTS: Final = 10_000
"""So many events are kept for signals that are still to come; beyond, these are not kept."""
_MOST_UNREAD: Final = 1_000
"""To merge so many signals into an answer that nobody reads costs as much as the next query."""


class AnswerMemory:
    """Answers by question: the least recently read make room, and none is older than `ttl`.

    Any thread may use it; a lock guards all of it.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        ttl: float,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """`clock` is a monotonic time in seconds, `now` the time of day."""
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._entries: OrderedDict[Question, Entry] = OrderedDict()
        self._index: dict[Anchor, dict[int, Entry]] = {}
        """Entries, those still loading included, by anchor and identity."""
        self._loading: set[Entry] = set()
        self._early: dict[int, list[SignalEvent]] = {}
        """Events by the seq of their signal, which is not followed yet."""
        self._bytes = 0
        self._seq: int | None = None
        self._stored = 0
        """The account is known to have come to this seq."""
        self._right_at = -math.inf
        self._event_seq: int | None = None
        self._events_wanted = 0
        self._events_at = -math.inf
        self._hits = 0
        self._misses: Counter[Lack] = Counter()
        self._loads = self._failed_loads = self._status_checks = self._merged = self._evicted = 0

    # Reading.

    def look(self, question: Question, at_least: int, max_stale: float) -> CachedSignals | Lack:
        """Return the answer, or why there is none that may be given."""
        with self._lock:
            entry = self._entries.get(question)
            if entry is None:
                return Lack.ABSENT
            clock = self._clock()
            if clock - entry.loaded_at >= self._ttl:
                self._drop(entry)
                return Lack.ABSENT
            seq = max(entry.seq, self._seq or 0)
            if seq < at_least or seq < entry.floor:
                return Lack.BEHIND
            age = clock - max(entry.loaded_at, self._right_at)
            if age > max_stale:
                return Lack.STALE
            status_age = clock - max(entry.loaded_at, self._events_at)
            if status_age > max_stale or self._events_wanted > (self._event_seq or 0):
                return Lack.STATUSES
            self._entries.move_to_end(question)
            entry.unread = 0
            self._hits += 1
            signals, complete = entry.answer(self._now)
            return CachedSignals(signals, seq, max(age, status_age, 0.0), complete, True)

    def missed(self, lack: Lack) -> None:
        """Count a read that memory could not answer."""
        with self._lock:
            self._misses[lack] += 1

    # Loading.

    def begin(self, question: Question) -> Entry:
        """Make an entry whose query is about to be sent; then `finish` or `abandon` it."""
        entry = Entry(question, self._clock())
        with self._lock:
            self._loads += 1
            entry.floor = self._stored
            self._loading.add(entry)
            self._put_in_index(entry)
        return entry

    def finish(self, entry: Entry, page: Page) -> CachedSignals | None:
        """Take in the answer of the query and return it.

        Returns None when it lacks what was known to be stored when it was asked, or a write of this
        process since then: it must be asked again.
        """
        with self._lock:
            self._loading.discard(entry)
            self._take_from_index(entry)
            if page.last_seq < entry.floor:
                return None
            events = entry.events
            if events is None:
                # Following began anew meanwhile, so what was merged is not all that followed.
                entry = Entry(entry.question, entry.loaded_at)
            entry.fill(page.signals, page.last_seq, cut=page.next_cursor is not None)
            seq = page.last_seq
            self._stored = max(self._stored, seq)
            if events is not None:
                seq = max(seq, self._seq or 0)
                for event in events:
                    entry.advance(event)
                self._keep(entry)
            signals, complete = entry.answer(self._now)
            return CachedSignals(signals, seq, self._clock() - entry.loaded_at, complete, False)

    def abandon(self, entry: Entry) -> None:
        """Forget an entry whose query failed."""
        with self._lock:
            self._failed_loads += 1
            self._loading.discard(entry)
            self._take_from_index(entry)

    # Following.

    def restart(self, seq: int, event_seq: int) -> None:
        """Follow from here on: what was loaded before may lack what was stored since."""
        with self._lock:
            self._forget()
            self._seq = self._stored = seq
            self._event_seq = event_seq
            self._events_wanted = 0

    def follow(self, signals: Sequence[StoredSignal]) -> bool:
        """Merge the next signals by seq; tell whether they were, and whether all before were."""
        with self._lock:
            for signal in signals:
                if self._seq is None or signal.seq != self._seq + 1:
                    self._lose()
                    return False
                for event in self._early.pop(signal.seq, ()):
                    signal = advanced(signal, event)
                self._merge(signal)
                self._seq = signal.seq
            self._stored = max(self._stored, self._seq or 0)
            self._make_room()
            return self._seq is not None

    def confirm(self) -> None:
        """Note that everything that is known to be stored has been merged by now."""
        with self._lock:
            self._right_at = self._clock()

    def lost(self) -> None:
        """Note that nothing is followed any more: no answer gets any younger."""
        with self._lock:
            self._lose()

    @property
    def event_seq(self) -> int | None:
        """All events up to this one are merged; None while nothing is followed."""
        return self._event_seq

    def advance(self, events: Sequence[SignalEvent], last_seq: int, asked_at: float) -> bool:
        """Merge the next events by seq; tell whether that were all there are.

        `asked_at` is when they were asked for, `last_seq` what the account had come to.
        """
        with self._lock:
            if self._event_seq is None:
                return True
            for event in events:
                if event.seq > self._event_seq:
                    self._advance_one(event)
                    self._event_seq = event.seq
            if self._event_seq < last_seq:
                return False
            self._status_checks += 1
            self._events_at = max(self._events_at, asked_at)
            return True

    # The own writes of this process.

    def stored(self, signal: Signal, seq: int | None) -> None:
        """Have every later answer of a question that the signal matches include it."""
        with self._lock:
            for entry in list(self._candidates(signal.symbol, signal.trader_id)):
                if not entry.question.matches(signal):
                    continue
                if seq is not None:
                    entry.floor = max(entry.floor, seq)
                elif entry.kept:
                    self._drop(entry)
                else:
                    entry.floor = BEYOND_EVERY_SEQ
            self._stored = max(self._stored, seq or 0)

    def changed(self, verdict: AdvanceVerdict) -> None:
        """Have every later answer show the changes that the verdict accepted."""
        with self._lock:
            self._events_wanted = max(self._events_wanted, verdict.last_seq or 0)

    def stats(self) -> CacheStats:
        """Return the counts of this moment."""
        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses={lack: self._misses[lack] for lack in Lack},
                loads=self._loads,
                failed_loads=self._failed_loads,
                status_checks=self._status_checks,
                merged=self._merged,
                evicted=self._evicted,
                entries=len(self._entries),
                bytes=self._bytes,
                seq=self._seq,
                age=self._clock() - self._right_at,
            )

    # With the lock held.

    def _candidates(self, symbol: str | None, trader_id: UUID | None) -> Iterator[Entry]:
        """The entries, loading ones included, that may ask for such a signal."""
        for anchor in anchors_of(symbol, trader_id):
            entries = self._index.get(anchor)
            if entries:
                yield from entries.values()

    def _merge(self, signal: StoredSignal) -> None:
        idle = []
        for entry in self._candidates(signal.symbol, signal.trader_id):
            if entry.question.matches(signal):
                before = entry.bytes
                entry.add(signal)
                self._reweigh(entry, before)
                self._merged += 1
                entry.unread += 1
                if entry.unread > _MOST_UNREAD and entry.kept:
                    idle.append(entry)
        for entry in idle:
            self._drop(entry)
            self._evicted += 1

    def _advance_one(self, event: SignalEvent) -> None:
        if event.generated_at is None:
            return  # An expiry: the clock has told it already.
        for entry in self._candidates(event.symbol, event.trader_id):
            if not entry.kept and entry.events is not None:
                entry.events.append(event)
                if len(entry.events) > _MOST_EVENTS:
                    entry.events = None
            before = entry.bytes
            entry.advance(event)
            self._reweigh(entry, before)
        if self._seq is None or event.signal_seq > self._seq:
            self._early.setdefault(event.signal_seq, []).append(event)
            if len(self._early) > _MOST_EVENTS:
                self._lose()

    def _reweigh(self, entry: Entry, before: int) -> None:
        if entry.kept:
            self._bytes += entry.bytes - before

    def _keep(self, entry: Entry) -> None:
        former = self._entries.get(entry.question)
        if former is not None:
            self._drop(former)
        if entry.bytes > self._max_bytes:
            return
        entry.kept = True
        self._entries[entry.question] = entry
        self._put_in_index(entry)
        self._bytes += entry.bytes
        self._make_room()

    def _make_room(self) -> None:
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries.values())))
            self._evicted += 1

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.question]
        self._bytes -= entry.bytes
        self._take_from_index(entry)

    def _put_in_index(self, entry: Entry) -> None:
        for anchor in entry.question.anchors():
            self._index.setdefault(anchor, {})[id(entry)] = entry

    def _take_from_index(self, entry: Entry) -> None:
        for anchor in entry.question.anchors():
            entries = self._index.get(anchor, {})
            entries.pop(id(entry), None)
            if not entries:
                self._index.pop(anchor, None)

    def _lose(self) -> None:
        self._forget()
        self._right_at = self._events_at = -math.inf
        self._seq = self._event_seq = None

    def _forget(self) -> None:
        """Drop all entries; those that are loading are answered with, and not kept."""
        self._entries.clear()
        self._index.clear()
        self._early.clear()
        self._bytes = 0
        for entry in self._loading:
            entry.events = None
            self._put_in_index(entry)
