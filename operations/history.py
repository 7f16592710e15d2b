"""Old signals in CSV and Parquet files, as the JSON that private.import_signals takes.

What a signal may hold is decided in the database alone. So a value that cannot be read as what its
field is (a price of "n/a", a time without zone) goes there as it stands in the file, to be refused
with the code that ingest would give; only ways of writing the same value are made one here.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

CONTRACT: Final = json.loads(
    (Path(__file__).parents[1] / "supabase/functions/_shared/contract.json").read_text()
)
FIELDS: Final[frozenset[str]] = frozenset(CONTRACT["fields"])
REQUIRED: Final[frozenset[str]] = frozenset(CONTRACT["required"])
REFUSED: Final = "\N{REPLACEMENT CHARACTER}"
"""No field takes this text: it stands for values that JSON in the database cannot hold."""

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:(\.[0-9]{1,6})0*)?"
    r" ?(?:(Z|UTC)|([+-][0-9]{2}):?([0-9]{2})?)"
)


class HistoryError(Exception):
    """A file cannot be read, or does not say what its columns are."""


class Row(NamedTuple):
    """A row as it is in the file; `line` counts from 1, in a CSV file with the header."""

    line: int
    values: Sequence[Any]


class HistoryFile(Protocol):
    """A table of signals on disk."""

    path: Path
    columns: Sequence[str]

    def count(self) -> int:
        """Count the rows, which takes a reading of the file."""
        ...

    def rows(self) -> Iterator[Row]:
        """Iterate over the rows in their order, in bounded memory."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column a field is in, where it is not the one of its name; and what no column says."""

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()

    def places(self, file: HistoryFile) -> dict[str, int]:
        """Return the position of each field's column.

        Raises HistoryError when a required field has no column, or a column no field: nothing of
        a file is left out unless that was asked for.
        """
        named = {field: field for field in FIELDS - self.constants.keys() - self.columns.keys()}
        wanted = {column: field for field, column in {**named, **self.columns}.items()}
        places = {
            wanted[column]: place
            for place, column in enumerate(file.columns)
            if column in wanted and column not in self.ignored
        }
        if missing := (REQUIRED | self.columns.keys()) - places.keys() - self.constants.keys():
            raise HistoryError(
                f"Cannot import {file.path}: it has no column for {_listed(missing)}; name the "
                "column with --column FIELD=COLUMN, or a value for all rows with --set FIELD=VALUE."
            )
        if unused := set(file.columns) - wanted.keys() - self.ignored:
            raise HistoryError(
                f"Cannot import {file.path}: nothing says what its columns {_listed(unused)} are; "
                "use --column FIELD=COLUMN, or leave them out with --ignore COLUMN."
            )
        return places


def open_history(path: Path) -> HistoryFile:
    """Return the file by its suffix: .parquet, else CSV with a header in UTF-8."""
    try:
        return ParquetHistory(path) if path.suffix == ".parquet" else CsvHistory(path)
    except OSError as error:
        raise HistoryError(f"Cannot read {path}: {error.strerror}.") from error


class CsvHistory:
    """A CSV file (RFC 4180, UTF-8) whose first row names the columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: Sequence[str] = next((row.values for row in self._all_rows()), ())
        if len(set(self.columns)) < max(len(self.columns), 1):
            raise HistoryError(f"Cannot read {path}: its first line must name each column once.")

    def count(self) -> int:
        return sum(1 for _ in self.rows())

    def rows(self) -> Iterator[Row]:
        every = self._all_rows()
        next(every)
        yield from every

    def _all_rows(self) -> Iterator[Row]:
        # surrogateescape: a byte that is no UTF-8 spoils its field, not the file.
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            line = 1
            try:
                for values in reader:
                    if values:
                        yield Row(line, values)
                    line = reader.line_num + 1
            except csv.Error as error:
                raise HistoryError(f"Cannot read {self.path}, line {line}: {error}.") from error


class ParquetHistory:
    """A Parquet file; its rows count from 1. Needs pyarrow (the dependency group `parquet`)."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise HistoryError(
                f"Cannot read {path}: Parquet needs pyarrow; install the group `parquet`, or "
                "convert the file to CSV."
            ) from error
        self.path = path
        try:
            self._file = parquet.ParquetFile(path)
        except ArrowException as error:
            raise HistoryError(f"Cannot read {path}: {error}.") from error
        self.columns: Sequence[str] = self._file.schema_arrow.names

    def count(self) -> int:
        rows: int = self._file.metadata.num_rows
        return rows

    def rows(self) -> Iterator[Row]:
        import pyarrow as arrow

        first = 1
        for batch in self._file.iter_batches(batch_size=5000):
            columns = [
                # As text: a time in nanoseconds does not fit into a datetime.
                (
                    column.cast(arrow.string()) if arrow.types.is_timestamp(column.type) else column
                ).to_pylist()
                for column in batch.columns
            ]
            for line, values in enumerate(zip(*columns, strict=True), first):
                yield Row(line, values)
            first += batch.num_rows


class SignalReader:
    """Turn the rows of one file into signals, each as the text of a JSON object."""

    def __init__(self, file: HistoryFile, layout: Layout, trader_ids: Mapping[str, str]) -> None:
        self._trader_ids = trader_ids
        self._width = len(file.columns)
        self._places = list(layout.places(file).items())
        self._constants = {
            name: value
            for name, text in layout.constants.items()
            if (value := self._value(name, text)) is not None
        }

    def signal(self, values: Sequence[Any]) -> str:
        """Return the signal of a row. A row that lacks cells, or has too many, becomes a list."""
        if len(values) != self._width:
            return json.dumps([REFUSED])
        signal = dict(self._constants)
        for name, place in self._places:
            value = self._value(name, values[place])
            if value is not None:
                signal[name] = value
        return _encode(signal)

    def _value(self, name: str, value: Any) -> Any:
        """Return the JSON value of a field; None for an empty cell."""
        if value is None or value == "":
            return None
        if name == "trader_id" and isinstance(value, str):
            return self._trader_ids.get(value, value)
        return READ.get(name, _same)(value)


def _number(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, float | Decimal):
        value = float(value)
        return value if math.isfinite(value) else str(value)
    return value


def _time(value: Any) -> Any:
    if isinstance(value, str) and (found := _TIME.fullmatch(value)):
        day, clock, fraction, utc, hours, minutes = found.groups()
        zone = "Z" if utc else f"{hours}:{minutes or '00'}"
        return f"{day}T{clock}{fraction or ''}{zone}"
    return value


def _metadata(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return REFUSED
    return value


def _same(value: Any) -> Any:
    return value


READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "generated_at": _time,
    "valid_until": _time,
    "confidence": _number,
    "price": _number,
    "stop_loss": _number,
    "take_profit": _number,
    "metadata": _metadata,
}


def _encode(signal: Mapping[str, Any]) -> str:
    text = _storable_text(signal)
    if text is None:
        text = json.dumps(
            {
                name: REFUSED if _storable_text(value) is None else value
                for name, value in signal.items()
            },
            default=_plain,
        )
    return text


def _storable_text(value: Any) -> str | None:
    """Return the JSON of a value; None when jsonb would not take it."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
        text.encode()
    except (ValueError, RecursionError):
        return None
    # The text of a NUL is also that of a backslash before u0000: rare enough to look closer.
    return None if "\\u0000" in text and _has_nul(value) else text


def _has_nul(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_nul(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return any(_has_nul(each) for each in value)
    return isinstance(value, str) and "\0" in value


def _plain(value: Any) -> Any:
    """Return what json cannot write by itself: the values of nested Parquet columns."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise ValueError(f"Cannot write a {type(value).__name__} as JSON")


def _listed(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names))
