"""`signals tail`: signals as they are stored."""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer

from signal_persistence.cli.options import AfterSeq, live_filter, takes, with_trader_ids
from signal_persistence.cli.output import write_json
from signal_persistence.client import SignalClient
from signal_persistence.reading import SignalFilterOptions
from signal_persistence.signal import StoredSignal
from signal_persistence.subscriber import Subscriber

_INTERRUPTED = 130


class Format(StrEnum):
    """How signals are written."""

    LINE = "line"
    JSONL = "jsonl"


@takes(live_filter)
def tail(
    wanted: SignalFilterOptions,
    after_seq: AfterSeq = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many signals.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write them.")] = Format.LINE,
) -> None:
    """Follow the account's signals live, each once and in order, until Ctrl-C.

    At the end it says behind which seq to go on with --after-seq.
    """
    with SignalClient.from_env() as client:
        subscriber = client.subscriber(**with_trader_ids(client, wanted), after_seq=after_seq)
        with subscriber:
            typer.echo(f"Following behind seq {subscriber.cursor}.", err=True)
            _follow(subscriber, count, form)


def _follow(subscriber: Subscriber, count: int | None, form: Format) -> None:
    last = subscriber.cursor
    try:
        for signal in islice(subscriber, count):
            if form is Format.JSONL:
                write_json(signal)
            else:
                typer.echo(_line(signal))
            last = signal.seq
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        typer.echo(f"Go on with --after-seq {last}.", err=True)


def _line(signal: StoredSignal) -> str:
    return (
        f"{signal.seq} {signal.generated_at.isoformat()} {signal.symbol} {signal.timeframe} "
        f"{signal.action} {signal.confidence:g} {signal.price!r} {signal.trader_id}"
    )
