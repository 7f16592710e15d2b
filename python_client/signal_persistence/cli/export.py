"""`signals export`: stored signals into a file, however many there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from signal_persistence.cli.options import (
    live_filter,
    takes,
    times_and_status,
    with_trader_ids,
)
from signal_persistence.client import SignalClient
from signal_persistence.export import ExportFormat, ExportOptions, ExportProgress
from signal_persistence.questions import ExportFilter

_FORMATS: Final[dict[str, ExportFormat]] = {
    "csv": "csv",
    "ndjson": "ndjson",
    "parquet": "parquet",
}
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(text: str) -> timedelta:
    """Read a span of time such as 90m, 12h, 7d or 4w."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if match is None:
        raise typer.BadParameter("use a number and m, h, d or w, such as 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@takes(live_filter, times_and_status)
def export(
    wanted: ExportFilter,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write; not stdout.")],
    form: Annotated[
        str | None,
        typer.Option("--format", help="csv, ndjson or parquet. Default: by the file's name."),
    ] = None,
    last: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="SPAN", help="Generated in the last 7d, 12h, …"),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="In CSV, leave symbols that look like formulas alone.")
    ] = False,
    compress: Annotated[bool, typer.Option("--compress", help="For a slow network.")] = False,
) -> None:
    """Write stored signals to a file. Cut off or killed, the same command goes on with it."""
    if last is not None and wanted.get("from_") is not None:
        raise typer.BadParameter("use --last or --from, not both")
    chosen = _format(form, file)
    with SignalClient.from_env() as client, client.query() as reader, _bar() as show:
        written = reader.export(
            file,
            ExportOptions(chosen, last, not raw, compress, show),
            **with_trader_ids(client, wanted),
        )
    typer.echo(f"{written.rows:,} signals, {written.bytes:,} bytes: {file}")


def _format(asked: str | None, file: Path) -> ExportFormat:
    name = asked or file.suffix.lstrip(".").lower() or "csv"
    if name not in _FORMATS:
        raise typer.BadParameter("the format is csv, ndjson or parquet: name it with --format")
    return _FORMATS[name]


@contextmanager
def _bar() -> Iterator[Callable[[ExportProgress], None]]:
    """Show on stderr, if that is a terminal, how far it is."""
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} signals"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("export", total=1.0, rows=0)
        yield lambda told: progress.update(task, completed=told.share, rows=told.rows)
