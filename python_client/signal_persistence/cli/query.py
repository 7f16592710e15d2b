"""`signals query`: stored signals, filtered."""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer

from signal_persistence.cli.options import (
    Actions,
    AfterSeq,
    From,
    MinConfidence,
    Symbols,
    Timeframes,
    To,
    Traders,
    trader_ids,
)
from signal_persistence.cli.output import Format, write_signals
from signal_persistence.client import SignalClient
from signal_persistence.contract import CONTRACT


class Sort(StrEnum):
    """In which order signals come."""

    NEWEST = "newest"
    SEQ = "seq"


def query(
    trader: Traders = None,
    symbol: Symbols = None,
    timeframe: Timeframes = None,
    action: Actions = None,
    min_confidence: MinConfidence = None,
    from_: From = None,
    to: To = None,
    after_seq: AfterSeq = None,
    sort: Annotated[
        Sort | None, typer.Option(help="Default: newest; seq (oldest first) with --after-seq.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 100,
    form: Annotated[Format, typer.Option("--format", help="How to write them.")] = Format.TABLE,
) -> None:
    """Write stored signals."""
    with SignalClient.from_env() as client, client.query() as reader:
        largest = CONTRACT.limits.page_size
        signals = reader.signals(
            traders=trader_ids(client, trader),
            symbols=symbol or None,
            timeframes=timeframe or None,
            actions=action or None,
            min_confidence=min_confidence,
            from_=from_,
            to=to,
            after_seq=after_seq,
            sort=sort.value if sort else None,
            # One more than is shown tells whether there are more.
            page_size=min(limit + 1, largest) if limit else largest,
        )
        write_signals(islice(signals, limit or None), form)
        if limit and next(signals, None) is not None:
            typer.echo(f"There are more than {limit}: raise --limit, 0 is all.", err=True)
