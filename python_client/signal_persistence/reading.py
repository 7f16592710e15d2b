"""The values of reading: what is asked for (`SignalFilter`) and what comes back (`Page`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from signal_persistence.contract import CONTRACT, SYMBOL_TEXT
from signal_persistence.errors import InvalidQueryError
from signal_persistence.signal import StoredSignal

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SignalFilter:
    """Which signals a reader wants. None means any; a signal must meet every part that is set."""

    traders: frozenset[UUID] | None = None
    symbols: frozenset[str] | None = None
    timeframes: frozenset[str] | None = None
    actions: frozenset[str] | None = None
    min_confidence: float | None = None

    @classmethod
    def of(
        cls,
        *,
        traders: Iterable[UUID | str] | None = None,
        symbols: Iterable[str] | None = None,
        timeframes: Iterable[str] | None = None,
        actions: Iterable[str] | None = None,
        min_confidence: float | None = None,
    ) -> SignalFilter:
        """Build a filter from any iterables.

        Raises InvalidQueryError for what could only be a mistake: an empty list, which would
        match nothing, too many values, or a word that no signal can have.
        """
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise InvalidQueryError(
                f"Cannot filter by min_confidence={min_confidence}: it must be from 0 to 1."
            )
        return cls(
            traders=_distinct("traders", traders, _trader_id),
            symbols=_distinct("symbols", symbols, _one_of("symbol", SYMBOL_TEXT.fullmatch)),
            timeframes=_distinct(
                "timeframes", timeframes, _one_of("timeframe", CONTRACT.timeframes.__contains__)
            ),
            actions=_distinct("actions", actions, _one_of("action", CONTRACT.actions.__contains__)),
            min_confidence=min_confidence,
        )

    def matches(self, signal: StoredSignal) -> bool:
        """Tell what the database would: whether `signal` belongs to the answer."""
        return (
            (self.traders is None or signal.trader_id in self.traders)
            and (self.symbols is None or signal.symbol in self.symbols)
            and (self.timeframes is None or signal.timeframe in self.timeframes)
            and (self.actions is None or signal.action in self.actions)
            and (self.min_confidence is None or signal.confidence >= self.min_confidence)
        )

    def parameters(self) -> dict[str, Any]:
        """The parameters of `query_signals` for this filter; what is not set is left out."""
        parameters: dict[str, Any] = {}
        if self.traders is not None:
            parameters["traders"] = sorted(str(trader) for trader in self.traders)
        for name in ("symbols", "timeframes", "actions"):
            values = getattr(self, name)
            if values is not None:
                parameters[name] = sorted(values)
        if self.min_confidence is not None:
            parameters["min_confidence"] = self.min_confidence
        return parameters


class Page(msgspec.Struct, frozen=True):
    """One page of an answer.

    `next_cursor` asks for the page after this one and is None on the last. `last_seq` is the
    account's last seq in the same snapshot: after the last page by seq, everything of the filter
    up to it has been returned.
    """

    signals: tuple[StoredSignal, ...]
    next_cursor: str | None
    last_seq: int


class Broadcast(msgspec.Struct, frozen=True):
    """The event `signals_ingested`: a hint that seq `first_seq` to `last_seq` are stored."""

    first_seq: int
    last_seq: int
    broadcast_at: datetime
    signals: tuple[StoredSignal, ...] | None = None


def _distinct(
    name: str, values: Iterable[S] | None, parse: Callable[[S], T]
) -> frozenset[T] | None:
    if values is None:
        return None
    if isinstance(values, str):
        raise InvalidQueryError(f"Cannot filter by {name}={values!r}: pass a list of values.")
    distinct = frozenset(parse(value) for value in values)
    if not distinct:
        raise InvalidQueryError(f"Cannot filter by no {name}: leave {name} out to accept any.")
    limit = CONTRACT.limits.filter_values
    if len(distinct) > limit:
        raise InvalidQueryError(
            f"Cannot filter by {len(distinct)} {name}: at most {limit}; make several queries."
        )
    return distinct


def _trader_id(value: UUID | str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError:
        raise InvalidQueryError(f"Cannot filter by trader {value!r}: it is not a UUID.") from None


def _one_of(kind: str, is_valid: Callable[[str], object]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if not is_valid(value):
            raise InvalidQueryError(f"Cannot filter by {kind} {value!r}: no signal can have it.")
        return value

    return parse
