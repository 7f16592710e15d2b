"""Signals in columns: what every analysis reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

import numpy as np

from signal_persistence.advance import SignalEvent
from signal_persistence.analysis.arrays import (
    NOT_A_TIME,
    TIME,
    Booleans,
    Floats,
    Integers,
    Times,
    factorise,
    floats_of,
    times_of,
)
from signal_persistence.contract import CONTRACT
from signal_persistence.errors import InvalidAnalysisError
from signal_persistence.signal import Outcome, StoredSignal

LONG: Final = 1
SHORT: Final = -1
ACTIONS: Final = ("enter_long", "exit_long", "enter_short", "exit_short")
_SIDE_OF_ACTION: Final = np.array([LONG, LONG, SHORT, SHORT])
_IS_ENTRY: Final = np.array([True, False, True, False])
_STATUSES: Final = CONTRACT.statuses
_REASONS: Final = (*CONTRACT.close_reasons, None)
_NOTHING: Final = Outcome()


@dataclass(frozen=True, slots=True, eq=False)
class SignalTable:
    """Signals in columns, ordered by `generated_at` and then `seq`.

    `trader`, `symbol` and `timeframe` are places in `traders`, `symbols` and `timeframes`; `side`
    is 1 (long) or -1 (short). What is not known is NaN or NaT. The last columns are the
    lifecycle: at which prices and when a signal was executed and closed, what was reported as its
    return, and why it was closed (a place in `CLOSE_REASONS`).
    """

    traders: tuple[UUID, ...]
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    trader: Integers
    symbol: Integers
    timeframe: Integers
    generated_at: Times
    side: Integers
    is_entry: Booleans
    confidence: Floats
    price: Floats
    stop_loss: Floats
    take_profit: Floats
    status: Integers
    executed_price: Floats
    executed_at: Times
    closed_price: Floats
    closed_at: Times
    reported_return: Floats
    close_reason: Integers

    @classmethod
    def of(cls, signals: Iterable[StoredSignal], events: Iterable[SignalEvent] = ()) -> Self:
        """Put what a query yields into columns.

        Outcomes have prices but no times: pass the account's events (`SignalClient.events`) to
        know when signals were executed and closed.
        """
        rows = sorted(signals, key=lambda signal: (signal.generated_at, signal.seq))
        outcomes = [row.outcome or _NOTHING for row in rows]
        reached = {(e.signal_id, e.status): e.occurred_at for e in events if e.signal_id}
        return cls.from_columns(
            {
                "trader_id": [row.trader_id for row in rows],
                "symbol": [row.symbol for row in rows],
                "timeframe": [row.timeframe for row in rows],
                "generated_at": [row.generated_at for row in rows],
                "action": [row.action for row in rows],
                "confidence": [row.confidence for row in rows],
                "price": [row.price for row in rows],
                "stop_loss": [row.stop_loss for row in rows],
                "take_profit": [row.take_profit for row in rows],
                "status": [row.status for row in rows],
                "entry_price": [outcome.entry_price for outcome in outcomes],
                "executed_at": [reached.get((row.signal_id, "executed")) for row in rows],
                "exit_price": [outcome.exit_price for outcome in outcomes],
                "closed_at": [reached.get((row.signal_id, "closed")) for row in rows],
                "return": [outcome.return_ for outcome in outcomes],
                "close_reason": [outcome.close_reason for outcome in outcomes],
            }
        )

    @classmethod
    def from_columns(cls, columns: Any) -> Self:
        """Build a table of columns with the names of a signal's fields.

        `columns` is a mapping of sequences, or a frame of pandas, polars or Arrow. Needed are
        `trader_id`, `symbol`, `timeframe`, `generated_at` (aware datetimes, or datetime64 in UTC),
        `action`, `confidence` and `price`; `seq` orders what has the same time.
        """
        source = _Columns(columns)
        traders, trader = factorise(source.trader_ids())
        symbols, symbol = factorise(source.words("symbol"))
        timeframes, timeframe = factorise(source.words("timeframe"))
        action = source.codes("action", ACTIONS)
        table = cls(
            traders=traders,
            symbols=symbols,
            timeframes=timeframes,
            trader=trader,
            symbol=symbol,
            timeframe=timeframe,
            generated_at=source.times("generated_at"),
            side=_SIDE_OF_ACTION[action],
            is_entry=_IS_ENTRY[action],
            confidence=source.floats("confidence"),
            price=source.floats("price"),
            stop_loss=source.floats("stop_loss"),
            take_profit=source.floats("take_profit"),
            status=source.codes("status", _STATUSES, _STATUSES[0]),
            executed_price=source.floats("entry_price"),
            executed_at=source.times("executed_at"),
            closed_price=source.floats("exit_price"),
            closed_at=source.times("closed_at"),
            reported_return=source.floats("return"),
            close_reason=source.codes("close_reason", _REASONS, None),
        )
        table._check()
        order = np.lexsort((source.floats("seq"), table.generated_at))
        return table.take(order)

    def __len__(self) -> int:
        return len(self.price)

    def take(self, rows: Integers | Booleans) -> Self:
        """Return the table of some rows: places in ascending order, or a mask."""
        chosen = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        return replace(self, **chosen)

    def of_trader(self, trader_id: UUID) -> Self:
        """Return the signals of one trader."""
        return self.take(self.trader == _place(self.traders, trader_id))

    def of_symbol(self, symbol: str) -> Self:
        """Return the signals about one symbol."""
        return self.take(self.symbol == _place(self.symbols, symbol))

    def has_status(self, *statuses: str) -> Booleans:
        """Tell of each signal whether it has one of `statuses`."""
        return np.isin(self.status, [_STATUSES.index(status) for status in statuses])

    def _check(self) -> None:
        if len({len(getattr(self, name)) for name in ("trader", "generated_at", "price")}) > 1:
            raise InvalidAnalysisError("Cannot build a table: the columns differ in length.")
        if np.isnat(self.generated_at).any() or not np.isfinite(self.price).all():
            raise InvalidAnalysisError(
                "Cannot build a table: each signal needs a generated_at and a finite price."
            )


class _Columns:
    """One way to read columns of a mapping or of any frame; a column that is missing is empty."""

    def __init__(self, columns: Any) -> None:
        self._columns = columns
        named = getattr(columns, "column_names", None)  # Arrow
        if named is None:
            named = getattr(columns, "columns", None)  # pandas and polars
        self._names = set(columns if named is None else named)
        self._count = len(self._values("price"))

    def _values(self, name: str) -> Any:
        if name not in self._names:
            raise InvalidAnalysisError(f"Cannot build a table: the column {name} is missing.")
        return self._columns[name]

    def words(self, name: str) -> Sequence[str]:
        return [str(word) for word in _listed(self._values(name))]

    def trader_ids(self) -> Sequence[UUID]:
        values = _listed(self._values("trader_id"))
        parsed = {
            value: value if isinstance(value, UUID) else UUID(value)
            for value in dict.fromkeys(values)
        }
        return [parsed[value] for value in values]

    def codes(self, name: str, words: Sequence[Any], default: Any = "") -> Integers:
        """Return each word's place in `words`; a column that is missing is all `default`."""
        place = {word: index for index, word in enumerate(words)}
        if default != "" and name not in self._names:
            return np.full(self._count, place[default], np.int64)
        values = _listed(self._values(name))
        try:
            return np.fromiter(map(place.__getitem__, values), np.int64, len(values))
        except KeyError as unknown:
            raise InvalidAnalysisError(
                f"Cannot build a table: {unknown.args[0]!r} is no {name}."
            ) from None

    def floats(self, name: str) -> Floats:
        if name not in self._names:
            return np.full(self._count, np.nan)
        values = self._columns[name]
        return floats_of(values) if isinstance(values, list) else np.asarray(values, np.float64)

    def times(self, name: str) -> Times:
        if name not in self._names:
            return np.full(self._count, NOT_A_TIME, TIME)
        values = self._columns[name]
        if isinstance(values, list) and all(v is None or isinstance(v, datetime) for v in values):
            return times_of(values)
        return np.asarray(values, TIME)


def _listed(values: Any) -> Sequence[Any]:
    """Return a column as a list; arrays and frames of any library know a way of their own."""
    for name in ("to_pylist", "to_list", "tolist"):
        if hasattr(values, name):
            listed: Sequence[Any] = getattr(values, name)()
            return listed
    return list(values)


def _place(words: Sequence[Any], word: Any) -> int:
    return words.index(word) if word in words else -1
