"""`signals query`: stored signals, filtered, or how many they are."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Final, cast, get_args

import typer

from signal_persistence.cli.options import (
    AfterSeq,
    live_filter,
    takes,
    times_and_status,
    with_trader_ids,
)
from signal_persistence.cli.output import Format, write_signals
from signal_persistence.client import SignalClient
from signal_persistence.contract import CONTRACT
from signal_persistence.query import SignalQuery
from signal_persistence.questions import ExportFilter, QueryOptions, Selection, Sort

_LIMIT: Final = 100


@takes(live_filter, times_and_status)
def query(
    wanted: ExportFilter,
    after_seq: AfterSeq = None,
    until_seq: Annotated[int | None, typer.Option(min=0, help="Up to this seq.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="ORDER",
            help=f"{', '.join(get_args(Sort))}. Default: newest; seq with --after-seq.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help=f"At most so many; 0: all. Default: {_LIMIT}.")
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="How to write them. Default: table.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Only tell how many there are.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="With --count: do not estimate.")] = False,
) -> None:
    """Write stored signals, or with --count how many there are."""
    if exact and not count:
        raise typer.BadParameter("use --exact with --count")
    if count and (sort, limit, form) != (None, None, None):
        raise typer.BadParameter("use --count without --sort, --limit and --format")
    with SignalClient.from_env() as client, client.query() as reader:
        selection = cast(
            Selection,
            {**with_trader_ids(client, wanted), "after_seq": after_seq, "until_seq": until_seq},
        )
        if count:
            _write_count(reader, selection, exact)
        else:
            options = cast(QueryOptions, {**selection, "sort": sort})
            _write(reader, options, _LIMIT if limit is None else limit, form or Format.TABLE)


def _write_count(reader: SignalQuery, selection: Selection, exact: bool) -> None:
    counted = reader.count(exact=exact, **selection)
    typer.echo(counted.count)
    if not counted.exact:
        typer.echo("This is an estimate: --exact counts.", err=True)


def _write(reader: SignalQuery, options: QueryOptions, limit: int, form: Format) -> None:
    largest = CONTRACT.limits.page_size
    # One more than is shown tells whether there are more.
    options["page_size"] = min(limit + 1, largest) if limit else largest
    signals = reader.signals(**options)
    write_signals(islice(signals, limit or None), form)
    if limit and next(signals, None) is not None:
        typer.echo(f"There are more than {limit}: raise --limit, 0 is all.", err=True)
