"""Which signals, or events, a subscription has, lacks and may hand out. No I/O, no clock.

The account's seq has no gaps, so `covered`, the highest seq below which nothing of the filter is
missing, tells everything. A broadcast that continues `covered` extends it; anything else only
shows how far the account has come (`known`), and a query by seq closes the distance. Whatever is
dropped, repeated or reordered, each item is handed out once and in seq order. Events have a seq of
their own, of which the same holds.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from signal_persistence.errors import SubscriptionError
from signal_persistence.signal import StoredSignal

BEYOND_EVERY_SEQ: Final = 2**53 - 1
"""A query after it returns no signal, only where the account is. JavaScript can hold no more."""
SMALLEST_PAGE: Final = 10
"""A service that does not answer is not asked for fewer at once."""
MOST_ANNOUNCED: Final = 1000
"""Beyond so many broadcasts whose signals are still to come, the times of more are not kept."""


class Numbered(Protocol):
    """A signal or an event: it has a place in the order of its account."""

    @property
    def seq(self) -> int: ...


T = TypeVar("T", bound=Numbered)


@dataclass(frozen=True, slots=True)
class SeqQuery:
    """A query that would bring the subscription forward."""

    after_seq: int
    page_size: int
    doubt: int
    """What was in doubt when it was asked: a complete answer settles it up to here."""

    def page_size_after(self, unanswered: int) -> int:
        """Half as many each time that it went unanswered: fewer may be answered in time."""
        return min(self.page_size, max(self.page_size >> unanswered, SMALLEST_PAGE))


@dataclass(frozen=True, slots=True)
class Observation:
    """A signal as it reached the subscriber.

    `broadcast_at` is the database's time of the broadcast that carried or announced the signal,
    None when it was found without one.
    """

    signal: StoredSignal
    broadcast_at: datetime | None


@dataclass(frozen=True, slots=True)
class Announcement(Generic[T]):
    """A broadcast: `first_seq` to `last_seq` are stored; `items` are these, when it has them."""

    first_seq: int
    last_seq: int
    at: datetime
    items: Sequence[T] | None


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The answer to a query: all of the filter up to `through_seq`.

    `last_seq` is the account's in the same snapshot: when it is reached, that is all there is.
    """

    items: Sequence[T]
    through_seq: int
    last_seq: int

    @property
    def is_complete(self) -> bool:
        return self.through_seq >= self.last_seq


class Coverage(Generic[T]):
    """Turn broadcasts and answers, in whatever order they come, into each item once, by seq."""

    def __init__(
        self,
        matches: Callable[[T], bool],
        *,
        after_seq: int | None,
        buffer_size: int,
        page_size: int,
    ) -> None:
        self._matches = matches
        self._buffer_size = buffer_size
        self._page_size = page_size
        self._ready: deque[tuple[T, datetime | None]] = deque()
        self._covered = after_seq
        self._known = after_seq or 0
        self._ahead: list[tuple[int, int, Announcement[T]]] = []
        self._ahead_items = 0
        self._announced: list[tuple[int, int, datetime]] = []
        self._arrivals = 0
        self._doubt = 1
        self._settled = 0

    @property
    def cursor(self) -> int | None:
        """Everything of the filter up to this seq has been handed out; None before it is known."""
        try:
            return self._ready[0][0].seq - 1
        except IndexError:  # Not asked before: another thread may read this while one takes.
            return self._covered

    @property
    def buffered(self) -> int:
        """How many items wait to be taken."""
        return len(self._ready)

    @property
    def next(self) -> T | None:
        """What would be taken next."""
        return self._ready[0][0] if self._ready else None

    @property
    def is_settled(self) -> bool:
        """Whether an answer has come since the last doubt."""
        return self._settled >= self._doubt

    @property
    def is_behind(self) -> bool:
        """Whether something is, or may be, stored that is not here."""
        return self._covered is None or self._covered < self._known or not self.is_settled

    @property
    def is_full(self) -> bool:
        """Whether the reader has to take items before more are fetched."""
        room = self._buffer_size - len(self._ready)
        return room * 2 < self._buffer_size

    @property
    def furthest(self) -> int:
        """The highest seq that is known to be stored."""
        return self._known

    def has(self, seq: int) -> bool:
        """Whether nothing of the filter up to this seq is missing."""
        return self._covered is not None and self._covered >= seq

    def doubt(self) -> None:
        """What is stored until now may not all be known: only a query can tell."""
        self._doubt += 1

    def known(self, last_seq: int) -> None:
        """The account has come at least this far."""
        self._known = max(self._known, last_seq)

    def broadcast(self, message: Announcement[T]) -> None:
        """Take in a broadcast: its items if they come next, else only that they exist."""
        self.known(message.last_seq)
        self._forget_announced((self._covered or 0) + 1)
        if len(self._announced) < MOST_ANNOUNCED:
            announced = (message.first_seq, message.last_seq, message.at)
            heapq.heappush(self._announced, announced)
        if self._covered is None or message.first_seq > self._covered + 1:
            self._keep_for_later(message)
        else:
            self._extend(message)
            self._use_what_was_kept()

    def answer(self, query: SeqQuery, answer: Answer[T]) -> None:
        """Take in the answer to `query`, however long ago it was asked."""
        self.known(answer.last_seq)
        if self._covered is None:
            self._covered = answer.last_seq
        elif query.after_seq > self._covered:
            return  # It asked where the present is, which an earlier answer has told.
        elif answer.last_seq < query.after_seq:
            raise SubscriptionError(
                f"Cannot follow after seq {query.after_seq}: the account has only come to "
                f"{answer.last_seq}; start without after_seq, or with 0 for everything."
            )
        if self._append(answer.items):
            self._covered = max(self._covered, answer.through_seq)
            if answer.is_complete:
                self._settled = max(self._settled, query.doubt)
        self._use_what_was_kept()

    def next_query(self) -> SeqQuery | None:
        """The query to make now, or None when nothing is missing or the buffer has no room."""
        if not self.is_behind or self.is_full:
            return None
        after_seq = BEYOND_EVERY_SEQ if self._covered is None else self._covered
        room = self._buffer_size - len(self._ready)
        return SeqQuery(after_seq, min(self._page_size, room), self._doubt)

    def take(self) -> tuple[T, datetime | None] | None:
        """Hand out the next item and the time of its broadcast, or None when there is none yet."""
        return self._ready.popleft() if self._ready else None

    def _append(self, items: Iterable[T]) -> bool:
        """Append what is new, in order; tell whether there was room for all of it."""
        for item in items:
            if self._covered is not None and item.seq <= self._covered:
                continue
            if self._matches(item):
                if len(self._ready) >= self._buffer_size:
                    return False
                self._ready.append((item, self._announced_at(item.seq)))
            self._covered = item.seq
        return True

    def _announced_at(self, seq: int) -> datetime | None:
        """When the item was broadcast, as far as that is known."""
        self._forget_announced(seq)
        if self._announced and self._announced[0][0] <= seq:
            return self._announced[0][2]
        return None

    def _forget_announced(self, seq: int) -> None:
        """Forget the broadcasts that only tell of items before `seq`."""
        while self._announced and self._announced[0][1] < seq:
            heapq.heappop(self._announced)

    def _extend(self, message: Announcement[T]) -> None:
        """Use a broadcast as far as it continues without a gap."""
        for item in message.items or ():
            follows = self._covered is not None and item.seq <= self._covered + 1
            if not follows or not self._append((item,)):
                return

    def _keep_for_later(self, message: Announcement[T]) -> None:
        size = len(message.items or ())
        if size and self._ahead_items + size <= self._buffer_size:
            self._arrivals += 1
            heapq.heappush(self._ahead, (message.first_seq, self._arrivals, message))
            self._ahead_items += size

    def _use_what_was_kept(self) -> None:
        while self._ahead and self._covered is not None and self._ahead[0][0] <= self._covered + 1:
            _, _, message = heapq.heappop(self._ahead)
            self._ahead_items -= len(message.items or ())
            self._extend(message)
