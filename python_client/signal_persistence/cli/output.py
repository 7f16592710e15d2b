"""How answers are written: tables for people, JSON lines and CSV for programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signal_persistence.signal import StoredSignal

_WIDE: Final = 200
"""Columns of a table that goes into a file or a pipe."""
_IN_TABLE: Final = (
    "seq",
    "generated_at",
    "symbol",
    "timeframe",
    "action",
    "confidence",
    "price",
    "status",
    "trader_id",
)


class Format(StrEnum):
    """How signals are written."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


def write_signals(signals: Iterable[StoredSignal], form: Format) -> None:
    """Write signals to stdout; all but the table as they come."""
    if form is Format.TABLE:
        rows = ([_cell(getattr(signal, name)) for name in _IN_TABLE] for signal in signals)
        write_table(_IN_TABLE, rows)
    elif form is Format.JSONL:
        for signal in signals:
            write_json(signal)
    else:
        names = StoredSignal.__struct_fields__
        writer = csv.writer(_Stdout(), lineterminator="\n")
        writer.writerow(names)
        for signal in signals:
            plain = msgspec.to_builtins(signal)
            writer.writerow([_csv_cell(plain[name]) for name in names])


def write_json(value: Any) -> None:
    """Write one line of JSON to stdout."""
    typer.echo(msgspec.json.encode(value).decode())


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to stdout, with nothing in it that a terminal would obey."""
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


def printable(text: str) -> str:
    """Return a text from elsewhere without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def size(count: int) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:,.1f} GiB"


def _cell(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _csv_cell(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else value


class _Stdout:
    """The stdout of this moment as a file for `csv`."""

    def write(self, text: str) -> None:
        typer.echo(text, nl=False)
