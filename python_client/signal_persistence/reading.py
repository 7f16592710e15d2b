"""The values of reading: what is asked for (`SignalFilter`) and what comes back (`Page`)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import (
    Any,
    Final,
    Generic,
    Required,
    SupportsFloat,
    SupportsIndex,
    TypedDict,
    TypeVar,
    cast,
)
from uuid import UUID

import msgspec

from signal_persistence.contract import CONTRACT, SYMBOL_TEXT
from signal_persistence.errors import InvalidQueryError
from signal_persistence.signal import Outcome, StoredSignal

S = TypeVar("S")
T = TypeVar("T")

_PRICE_MAGNITUDE: Final = CONTRACT.limits.price_magnitude


class SubjectOptions(TypedDict, total=False):
    """What signals are about; everything left out is unrestricted.

    A symbol must be one of `symbols` and begin with `symbol_prefix`.
    """

    traders: Iterable[UUID | str] | None
    symbols: Iterable[str] | None
    symbol_prefix: str | None
    timeframes: Iterable[str] | None
    actions: Iterable[str] | None


class SignalFilterOptions(SubjectOptions, total=False):
    """What can be told of a signal by itself, live as well as in the database.

    A signal has the tags that its metadata lists under "tags" (an array of strings); one of `tags`
    is enough. All bounds are inclusive. What becomes of a signal (`statuses`) is not here: it
    changes after the signal was seen, so no live reader and no cache can filter by it.
    """

    tags: Iterable[str] | None
    min_confidence: float | None
    max_confidence: float | None
    min_price: float | None
    max_price: float | None


@dataclass(frozen=True, slots=True)
class SignalFilter:
    """Which signals a reader wants. None means any; a signal must meet every part that is set."""

    traders: frozenset[UUID] | None = None
    symbols: frozenset[str] | None = None
    symbol_prefix: str | None = None
    timeframes: frozenset[str] | None = None
    actions: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    min_price: float | None = None
    max_price: float | None = None

    @classmethod
    def of(cls, options: SignalFilterOptions) -> SignalFilter:
        """Build a filter from any iterables; options of other names are not looked at.

        Raises InvalidQueryError for what could only be a mistake: an empty list or span, which
        would match nothing, too many values, or a word that no signal can have.
        """
        symbol, prefix = one_of("symbol", SYMBOL_TEXT.fullmatch), options.get("symbol_prefix")
        timeframe = one_of("timeframe", CONTRACT.timeframes.__contains__)
        action = one_of("action", CONTRACT.actions.__contains__)
        confidences = _span(
            "confidence", options.get("min_confidence"), options.get("max_confidence"), (0, 1)
        )
        prices = _span(
            "price",
            options.get("min_price"),
            options.get("max_price"),
            (-_PRICE_MAGNITUDE, _PRICE_MAGNITUDE),
        )
        return cls(
            traders=distinct("traders", options.get("traders"), _trader_id),
            symbols=distinct("symbols", options.get("symbols"), symbol),
            symbol_prefix=None if prefix is None else symbol(prefix),
            timeframes=distinct("timeframes", options.get("timeframes"), timeframe),
            actions=distinct("actions", options.get("actions"), action),
            tags=distinct("tags", options.get("tags"), one_of("tag", _is_tag)),
            min_confidence=confidences[0],
            max_confidence=confidences[1],
            min_price=prices[0],
            max_price=prices[1],
        )

    def options(self) -> SignalFilterOptions:
        """The options that make this filter."""
        return cast(
            SignalFilterOptions, {field.name: getattr(self, field.name) for field in fields(self)}
        )

    def matches(self, signal: StoredSignal) -> bool:
        """Tell what the database would: whether `signal` belongs to the answer."""
        return (
            (self.traders is None or signal.trader_id in self.traders)
            and (self.symbols is None or signal.symbol in self.symbols)
            and (self.symbol_prefix is None or signal.symbol.startswith(self.symbol_prefix))
            and (self.timeframes is None or signal.timeframe in self.timeframes)
            and (self.actions is None or signal.action in self.actions)
            and (self.min_confidence is None or signal.confidence >= self.min_confidence)
            and (self.max_confidence is None or signal.confidence <= self.max_confidence)
            and (self.min_price is None or signal.price >= self.min_price)
            and (self.max_price is None or signal.price <= self.max_price)
            and (self.tags is None or not self.tags.isdisjoint(_tags_of(signal)))
        )

    def parameters(self) -> dict[str, Any]:
        """The parameters of `query_signals` for this filter; what is not set is left out."""
        return {
            name: sorted(map(str, value)) if isinstance(value, frozenset) else value
            for name, value in self.options().items()
            if value is not None
        }


class Page(msgspec.Struct, frozen=True):
    """One page of an answer.

    `next_cursor` asks for the page after this one and is None on the last. `last_seq` is the
    account's last seq in the same snapshot: after the last page by seq, everything of the filter
    up to it has been returned.
    """

    signals: tuple[StoredSignal, ...]
    next_cursor: str | None
    last_seq: int


class SignalRow(TypedDict, total=False):
    """Some fields of a signal, with the types of StoredSignal; `seq` is always there."""

    signal_id: UUID
    seq: Required[int]
    trader_id: UUID
    symbol: str
    timeframe: str
    generated_at: datetime
    action: str
    confidence: float
    price: float
    stop_loss: float | None
    take_profit: float | None
    valid_until: datetime | None
    metadata: dict[str, Any] | None
    status: str
    outcome: Outcome | None


class RowPage(msgspec.Struct, frozen=True):
    """A Page of which only some fields were asked for."""

    signals: tuple[SignalRow, ...]
    next_cursor: str | None
    last_seq: int


class SignalCount(msgspec.Struct, frozen=True):
    """How many signals there are; unless `exact`, by what is known of segments and statistics."""

    count: int
    exact: bool


class Facet(msgspec.Struct, Generic[T], frozen=True):
    """A value that signals have, and how many of them."""

    value: T
    count: int


class Facets(msgspec.Struct, frozen=True):
    """What a menu of filters can offer: of each field the most frequent 100 values first."""

    symbols: tuple[Facet[str], ...]
    traders: tuple[Facet[UUID], ...]
    actions: tuple[Facet[str], ...]
    timeframes: tuple[Facet[str], ...]
    exact: bool


class Broadcast(msgspec.Struct, frozen=True):
    """The event `signals_ingested`: a hint that seq `first_seq` to `last_seq` are stored."""

    first_seq: int
    last_seq: int
    broadcast_at: datetime
    signals: tuple[StoredSignal, ...] | None = None


def require_known(options: Mapping[str, object], kind: Any) -> None:
    """Raise InvalidQueryError for an option that a TypedDict does not have.

    Without this, a filter with a slip of the pen in its name would be no filter.
    """
    for name in options.keys() - kind.__optional_keys__ - kind.__required_keys__:
        known = ", ".join(sorted(kind.__optional_keys__ | kind.__required_keys__))
        raise InvalidQueryError(f"Cannot ask with {name!r} here: there are {known}.")


def distinct(name: str, values: Iterable[S] | None, parse: Callable[[S], T]) -> frozenset[T] | None:
    """Return the different values of a list in a filter; raise InvalidQueryError for a mistake."""
    if values is None:
        return None
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidQueryError(f"Cannot filter by {name}={values!r}: pass a list of values.")
    found = frozenset(parse(value) for value in values)
    if not found:
        raise InvalidQueryError(f"Cannot filter by no {name}: leave {name} out to accept any.")
    limit = CONTRACT.limits.filter_values
    if len(found) > limit:
        raise InvalidQueryError(
            f"Cannot filter by {len(found)} {name}: at most {limit}; make several queries."
        )
    return found


def one_of(kind: str, is_valid: Callable[[str], object]) -> Callable[[str], str]:
    """Return what reads a word of a filter; it raises InvalidQueryError for one that is not."""

    def parse(value: str) -> str:
        if not isinstance(value, str) or not is_valid(value):
            raise InvalidQueryError(f"Cannot filter by {kind} {value!r}: no signal can have it.")
        return value

    return parse


def whole_number(name: str, value: object) -> int:
    """Return an int, whichever library's it is; raise InvalidQueryError for what is none."""
    try:
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass  # An array of numpy tells only now that it is not one number.
    raise InvalidQueryError(f"Cannot query {name} {value!r}: it must be a whole number.")


def utc_text(name: str, moment: datetime) -> str:
    """Write a time as the service reads it; raise InvalidQueryError for what cannot be one."""
    if not isinstance(moment, datetime):
        raise InvalidQueryError(f"Cannot query {name} {moment!r}: it must be a datetime.")
    if moment.utcoffset() is None:
        raise InvalidQueryError(f"Cannot query {name} {moment}: give it a time zone.")
    try:
        return moment.astimezone(UTC).isoformat()
    except OverflowError:
        raise InvalidQueryError(
            f"Cannot query {name} {moment}: in UTC it is outside the years 1 to 9999."
        ) from None


def _span(
    name: str, low: object, high: object, possible: tuple[float, float]
) -> tuple[float | None, float | None]:
    """Return both bounds; raise InvalidQueryError for one that is impossible, or an empty span."""
    least, most = _number(f"min_{name}", low), _number(f"max_{name}", high)
    for end, bound in (("min", least), ("max", most)):
        if bound is not None and not possible[0] <= bound <= possible[1]:
            raise InvalidQueryError(
                f"Cannot filter by {end}_{name}={bound}: it must be "
                f"from {possible[0]:g} to {possible[1]:g}."
            )
    if least is not None and most is not None and least > most:
        raise InvalidQueryError(
            f"Cannot filter by min_{name}={least} and max_{name}={most}: no signal has both."
        )
    return least, most


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, SupportsFloat) and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidQueryError(f"Cannot filter by {name}={value!r}: it must be a number.")


def _trader_id(value: UUID | str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise InvalidQueryError(f"Cannot filter by trader {value!r}: it is not a UUID.") from None


def _is_tag(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return value != "" and "\0" not in value


def _tags_of(signal: StoredSignal) -> Iterable[str]:
    tags = (signal.metadata or {}).get("tags")
    # The metadata of a signal that is still to be sent may have a tuple, which is an array too.
    return filter(_is_text, tags) if isinstance(tags, list | tuple) else ()


def _is_text(value: object) -> bool:
    return isinstance(value, str)
