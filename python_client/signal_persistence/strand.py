"""One of the two rows that an account grows, its signals or their events. No I/O, no clock.

What a subscription has of it, and whether the channel tells of what is stored of it: each time the
database shows a seq that no broadcast has told of, one has to follow within a moment. Otherwise
broadcasts are missing, and stay so until the channel proves itself: by a broadcast that is there in
time for what the database has shown, or, after another join, by an answer that shows nothing that
was not pushed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from signal_persistence.coverage import Announcement, Answer, Coverage, Numbered, SeqQuery

T = TypeVar("T", bound=Numbered)


class Strand(Generic[T]):
    """The signals of an account, or their events."""

    def __init__(self, coverage: Coverage[T]) -> None:
        self.coverage = coverage
        self.missing = False
        self.behind: tuple[int, float] | None = None
        """What of it has to come, and since when that is known."""
        self._pushed = 0
        self._answerable_at: float | None = None
        self._unpushed: tuple[int, float] | None = None

    @property
    def is_answerable(self) -> bool:
        """Whether the channel has to tell of what is stored from now on."""
        return self._answerable_at is not None

    def deadlines(self) -> Iterator[float]:
        """The times at which `tick` changes something."""
        if self._unpushed is not None:
            yield self._unpushed[1]

    def tick(self, now: float) -> bool:
        """Tell whether a broadcast that had to come has not, by now."""
        if self._unpushed is None or now < self._unpushed[1]:
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
        self._unpushed = None

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

    def answer(self, query: SeqQuery, answer: Answer[T]) -> None:
        self.coverage.answer(query, answer)

    def shown(self, seq: int, now: float, lateness: float) -> None:
        """The database has shown that `seq` is stored: it was pushed, or will be in a moment."""
        if self._answerable_at is None:
            return
        if seq > self._pushed:
            self._unpushed = self._unpushed or (seq, now + lateness)
        elif now >= self._answerable_at + lateness:
            self.missing = False

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
