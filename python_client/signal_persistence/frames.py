"""Signals as tables of Arrow, polars and pandas: each library is imported only where it is needed.

Columns are built by the libraries, from text that they parse or from lists that are filled in C:
a loop in Python over a million signals would take longer than to fetch them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from signal_persistence.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_EXTRAS: Final = {"pyarrow": "arrow", "polars": "polars", "pandas": "pandas"}
_BLOCK_BYTES: Final = 16 * 1024 * 1024


class _Line(msgspec.Struct, frozen=True, gc=False):
    """A signal as its columns need it: what stays text is not made into anything else."""

    signal_id: str
    seq: int
    trader_id: str
    symbol: str
    timeframe: str
    generated_at: datetime
    action: str
    confidence: float
    price: float
    stop_loss: float | None
    take_profit: float | None
    valid_until: datetime | None
    metadata: msgspec.Raw
    status: str
    outcome: dict[str, float | str] | None


class LifecyclePage(msgspec.Struct, frozen=True):
    """A Page whose signals are about to be put into columns."""

    signals: tuple[_Line, ...]
    next_cursor: str | None
    last_seq: int


decode_page: Final = msgspec.json.Decoder(LifecyclePage).decode


def require(library: str) -> None:
    """Raise ConfigurationError, which names the extra, unless a library and Arrow are there."""
    for name in ("pyarrow", library):
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigurationError(
                f"Cannot make a table without {name}: "
                f"pip install signal-persistence[{_EXTRAS[library]}]."
            ) from error


def open_csv(csv: Path) -> Any:
    """Return what reads an export in CSV as Arrow's record batches, a part of it at a time."""
    from pyarrow import csv as arrow_csv

    return arrow_csv.open_csv(csv, **_csv_options())


def read_csv(csv: Path) -> pyarrow.Table:
    """Return an export in CSV as one table."""
    from pyarrow import csv as arrow_csv

    return arrow_csv.read_csv(csv, **_csv_options()).unify_dictionaries()


def lifecycle_batch(page: LifecyclePage) -> pyarrow.RecordBatch:
    """Return the signals of a page, with what became of them, as a part of a table."""
    import pyarrow
    from pyarrow import compute

    signals, schema = page.signals, _lifecycle_schema()
    columns = {
        name: pyarrow.array(_values(name, signals), schema.field(name).type)
        for name in (*_types(), "status")
        if name != "metadata"
    }
    metadata = pyarrow.array(map(bytes, _values("metadata", signals)), pyarrow.binary())
    nothing = compute.equal(metadata, b"null")
    columns["metadata"] = compute.if_else(nothing, None, metadata).cast(pyarrow.string())
    outcomes = pyarrow.array(_values("outcome", signals), pyarrow.struct(_outcome_types()))
    columns |= dict(zip(_outcome_types(), outcomes.flatten(), strict=True))
    return pyarrow.record_batch([columns[name] for name in schema.names], schema)


def lifecycle_table(batches: Sequence[pyarrow.RecordBatch]) -> pyarrow.Table:
    """Return the parts as one table."""
    import pyarrow

    return pyarrow.Table.from_batches(batches, _lifecycle_schema()).unify_dictionaries()


def polars_frame(table: pyarrow.Table) -> polars.DataFrame:
    """Return the table as a frame of polars."""
    import polars

    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)  # noqa: S101
    return frame


def pandas_frame(table: pyarrow.Table) -> pandas.DataFrame:
    """Return the table as a frame of pandas."""
    frame: pandas.DataFrame = table.to_pandas()
    return frame


def _types() -> dict[str, Any]:
    """The columns of an export, by their Arrow types."""
    import pyarrow

    text, time = pyarrow.string(), pyarrow.timestamp("us", tz="UTC")
    repeated = pyarrow.dictionary(pyarrow.int32(), text)
    return {
        "signal_id": text,
        "seq": pyarrow.int64(),
        **dict.fromkeys(("trader_id", "symbol", "timeframe"), repeated),
        "generated_at": time,
        "action": repeated,
        **dict.fromkeys(("confidence", "price", "stop_loss", "take_profit"), pyarrow.float64()),
        "valid_until": time,
        "metadata": text,
    }


def _outcome_types() -> dict[str, Any]:
    """The fields of an outcome, by their Arrow types."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    return {
        "entry_price": number,
        "exit_price": number,
        "close_reason": text,
        "return": number,
        "fees": number,
        "reason": text,
    }


def _lifecycle_schema() -> pyarrow.Schema:
    import pyarrow

    status = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    return pyarrow.schema({**_types(), "status": status, **_outcome_types()})


def _csv_options() -> dict[str, Any]:
    from pyarrow import csv as arrow_csv

    return {
        "read_options": arrow_csv.ReadOptions(block_size=_BLOCK_BYTES),
        "convert_options": arrow_csv.ConvertOptions(
            column_types=_types(),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    }


def _values(name: str, signals: Sequence[_Line]) -> list[Any]:
    return list(map(attrgetter(name), signals))
