"""What a cache is asked: the newest so many signals of a filter, in a span of time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from signal_persistence.contract import CONTRACT
from signal_persistence.errors import InvalidQueryError
from signal_persistence.questions import QueryOptions, query_parameters
from signal_persistence.reading import SignalFilter, SignalFilterOptions, require_known
from signal_persistence.signal import Signal, StoredSignal

_MEMORY: Final = 4096
"""So many ways of asking are remembered, so that a question need not be built anew each time."""

_SCALARS: Final = (str, float, int, datetime, timedelta)

Anchor = str | UUID | None


class QuestionOptions(SignalFilterOptions, total=False):
    """Which signals; everything left out is unrestricted.

    `from_` is inclusive and `to` exclusive, aware datetimes compared with `generated_at`. `within`
    is a span of time that ends now: use it rather than a `from_` that is another in each call.
    """

    from_: datetime | None
    to: datetime | None
    within: timedelta | None


@dataclass(frozen=True, slots=True)
class Question:
    """The newest `count` signals that match; equal questions have equal answers."""

    wanted: SignalFilter
    count: int
    from_: datetime | None
    to: datetime | None
    within: timedelta | None
    hashed: int = field(default=0, compare=False, repr=False)
    """Its hash, computed once: every read looks it up."""

    def __post_init__(self) -> None:
        parts = (self.wanted, self.count, self.from_, self.to, self.within)
        object.__setattr__(self, "hashed", hash(parts))

    def __hash__(self) -> int:
        return self.hashed

    @classmethod
    def of(cls, count: int, options: QuestionOptions) -> Question:
        """Build a question; raise InvalidQueryError for what cannot work."""
        require_known(options, QuestionOptions)
        most = CONTRACT.limits.page_size
        if not 1 <= count <= most:
            raise InvalidQueryError(f"Cannot read {count} signals: it must be from 1 to {most}.")
        from_, to, within = options.get("from_"), options.get("to"), options.get("within")
        if within is not None and (within <= timedelta() or from_ is not None or to is not None):
            raise InvalidQueryError(
                f"Cannot read within {within}: it must be more than 0, without from_ and to."
            )
        query_parameters({"from_": from_, "to": to})
        return cls(SignalFilter.of(options), count, from_, to, within)

    def query(self, now: datetime) -> QueryOptions:
        """The query that answers it at `now`."""
        span: QueryOptions = {
            "from_": self.from_ if self.within is None else now - self.within,
            "to": self.to,
            "sort": "newest",
            "page_size": self.count,
        }
        return cast(QueryOptions, {**self.wanted.options(), **span})

    def matches(self, signal: StoredSignal | Signal) -> bool:
        """Tell what the database would, but for `within`, which is cut when it is read."""
        return (
            self.wanted.matches(cast(StoredSignal, signal))
            and (self.from_ is None or signal.generated_at >= self.from_)
            and (self.to is None or signal.generated_at < self.to)
        )

    def anchors(self) -> Iterable[Anchor]:
        """Where to look it up for a signal: each signal that matches it has one of these."""
        return self.wanted.symbols or self.wanted.traders or (None,)


def anchors_of(symbol: str | None, trader_id: UUID | None) -> tuple[Anchor, ...]:
    """Under which anchors the questions are that such a signal may match."""
    return symbol, trader_id, None


class Questions:
    """Builds questions, and remembers them by how they were asked; for any thread."""

    def __init__(self) -> None:
        self._known: dict[Any, Question] = {}

    def of(self, count: int, options: QuestionOptions) -> Question:
        """Return the question; raise InvalidQueryError for what cannot work."""
        given: dict[str, Any] = dict(options)
        asked: Any = {
            name: value if value is None or isinstance(value, _SCALARS) else tuple(value)
            for name, value in given.items()
        }
        key = (count, *asked.items())
        question = self._known.get(key)
        if question is None:
            question = Question.of(count, asked)
            if len(self._known) >= _MEMORY:
                self._known = {}
            self._known[key] = question
        return question
