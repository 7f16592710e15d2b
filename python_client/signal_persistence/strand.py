"""One of the two rows that an account grows, its signals or their events. No I/O, no clock.

What a subscription has of it, and whether the channel tells of what is stored of it: each time the
database shows a seq that no broadcast has told of, one has to follow within a moment. Otherwise
broadcasts are missing, and stay so until the channel proves itself: by a broadcast that is there in
time for what the database has shown, or, after another join, by an answer that shows nothing that
was not pushed.

A page alone does not tell how long broadcasts are put together just now: what it shows that was
not pushed is only asked about, when its time is over.
"""

from __future__ import annotations

import math
from typing import Final, Generic, TypeVar

from signal_persistence.coverage import Announcement, Answer, Coverage, Numbered, SeqQuery

T = TypeVar("T", bound=Numbered)

STANDSTILL_SECONDS: Final = 0.25
"""If a tick is later than that, this process stood still, and what has come is not read yet."""


class Strand(Generic[T]):
    """The signals of an account, or their events."""

    def __init__(self, coverage: Coverage[T]) -> None:
        self.coverage = coverage
        self.missing = False
        self.behind: tuple[int, float] | None = None
        """What of it has to come, and since when that is known."""
        self.proven_at = 0.0
        """What was stored until then is known to be stored."""
        self._pushed = 0
        self._answerable_at: float | None = None
        self._unpushed: tuple[int, float] | None = None
        self._waited_again = False
        self._doubtful: tuple[int, float] | None = None

    @property
    def is_answerable(self) -> bool:
        """Whether the channel has to tell of what is stored from now on."""
        return self._answerable_at is not None

    @property
    def deadline(self) -> float:
        """When `tick` finds a broadcast missing."""
        return math.inf if self._unpushed is None else self._unpushed[1]

    @property
    def ask_at(self) -> float:
        """When to ask about what a page showed and no broadcast has told of."""
        return math.inf if self._doubtful is None else self._doubtful[1]

    def tick(self, now: float) -> bool:
        """Tell whether a broadcast that had to come has not, by now."""
        if self._unpushed is None or now < self._unpushed[1]:
            return False
        if now > self._unpushed[1] + STANDSTILL_SECONDS and not self._waited_again:
            self._waited_again = True
            self._unpushed = self._unpushed[0], now + STANDSTILL_SECONDS
            return False
        self._unpushed = None
        self.missing = True
        return True

    def joined(self) -> None:
        """What was stored until here need not be told of, and has to be fetched."""
        self.not_answerable()
        self.coverage.doubt()

    def not_answerable(self) -> None:
        """From here on the channel need not have told of what is stored."""
        self._answerable_at = None
        self._unpushed = self._doubtful = None

    def become_answerable(self, last_seq: int, now: float) -> None:
        """The channel has to tell of what is stored after `last_seq`."""
        self._pushed = max(self._pushed, last_seq)
        self._answerable_at = now

    def broadcast(self, message: Announcement[T], *, joined: bool) -> None:
        """Take in what the channel brought."""
        self.coverage.broadcast(message)
        if joined:
            self._pushed = max(self._pushed, message.last_seq)
        if self._unpushed is not None and self._unpushed[0] <= self._pushed:
            self._unpushed = None
            self.missing = False
        if self._doubtful is not None and self._doubtful[0] <= self._pushed:
            self._doubtful = None

    def answer(self, query: SeqQuery, answer: Answer[T]) -> None:
        self.coverage.answer(query, answer)

    def proven(self, at: float) -> None:
        """All that was stored at this moment is known to be stored."""
        self.proven_at = max(self.proven_at, at)

    def shows_unpushed(self, seq: int, asked_at: float, lateness: float) -> bool:
        """Tell whether the database, in showing `seq`, has shown more than the channel told of."""
        if self._answerable_at is None or asked_at < self._answerable_at:
            return False
        if seq <= self._pushed and asked_at >= self._answerable_at + lateness:
            self.missing = False
        return seq > self._pushed

    def expect(self, seq: int, until: float) -> None:
        """The channel has to tell of `seq` by then."""
        if self._unpushed is None:
            self._unpushed = seq, until
            self._waited_again = False

    def ask_about(self, seq: int, at: float) -> None:
        """Unless the channel tells of `seq` by then, a check has to say how long it may take."""
        self._doubtful = self._doubtful or (seq, at)

    def checked(self, asked_at: float, until: float) -> None:
        """A check was asked at this time: what was to be asked about has to come by `until`."""
        if self._doubtful is not None and asked_at >= self._doubtful[1]:
            self.expect(self._doubtful[0], until)
            self._doubtful = None

    def has_pushed(self, seq: int) -> bool:
        """Whether the channel has told of this seq, or need not."""
        return seq <= self._pushed

    def judge(self, now: float) -> None:
        """Note since when it lacks something."""
        if not self.coverage.is_behind:
            self.behind = None
        elif self.behind is None or self.coverage.has(self.behind[0]):
            # Under a steady flow something is always missing: what counts is for how long.
            self.behind = self.coverage.furthest, now
