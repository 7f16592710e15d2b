"""`signals publish`: one signal from options, or JSON lines."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, BinaryIO, Final

import msgspec
import typer

from signal_persistence.cli.options import SpoolDirectory, moment, trader_ids
from signal_persistence.client import SignalClient
from signal_persistence.contract import CONTRACT
from signal_persistence.delivery import DeliveryReport
from signal_persistence.errors import BufferFullError, ConfigurationError, InvalidSignalError
from signal_persistence.producer import Producer
from signal_persistence.signal import Signal, from_json_object, problem_of

_NEEDED: Final = ("trader", "symbol", "timeframe", "action", "confidence", "price")
_LONGEST_LINE: Final = CONTRACT.limits.batch_bytes
"""Bytes; a longer line is no signal, and is refused in pieces."""
Moment = Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME")]
Lines = Iterable[tuple[int, Signal | InvalidSignalError]]


def publish(
    file: Annotated[
        typer.FileBinaryRead | None,
        typer.Argument(help="JSON lines, a signal each; - is stdin. Without it: the options."),
    ] = None,
    trader: Annotated[str | None, typer.Option(help="The trader's id or name.")] = None,
    create_trader: Annotated[
        bool, typer.Option("--create-trader", help="Create the trader if there is none.")
    ] = False,
    symbol: Annotated[str | None, typer.Option(help="Such as BTC-USD.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Such as 15m.")] = None,
    action: Annotated[str | None, typer.Option(help="Such as enter_long.")] = None,
    confidence: Annotated[float | None, typer.Option(help="0 to 1.")] = None,
    price: Annotated[float | None, typer.Option()] = None,
    generated_at: Moment = None,
    valid_until: Moment = None,
    stop_loss: Annotated[float | None, typer.Option()] = None,
    take_profit: Annotated[float | None, typer.Option()] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to deliver the last.")] = 30.0,
    spool_dir: SpoolDirectory = None,
) -> None:
    """Publish one signal from the options, or every line of a file or of stdin.

    Signals go through the spool: what cannot be delivered in time stays there, and the next
    producer or agent of this host sends it (exit code 75). A line that is no valid signal is
    named and passed over (exit code 1).
    """
    given = {
        "trader": trader,
        "symbol": symbol,
        "timeframe": timeframe,
        "action": action,
        "confidence": confidence,
        "price": price,
        "generated_at": generated_at,
        "valid_until": valid_until,
        "stop_loss": stop_loss,
        "take_profit": take_profit,
        "metadata": _json_object(metadata),
    }
    _refuse_half(file, given)
    with SignalClient.from_env() as client:
        lines = _lines_of(file) if file else [_line_from(client, given, create=create_trader)]
        producer = client.producer(spool_dir=spool_dir or "auto", max_block_ms=timeout * 1000)
        tally = _Tally()
        try:
            _publish_all(producer, lines, tally)
        finally:
            producer.close(timeout)
            typer.echo(tally.summary())
    raise typer.Exit(tally.exit_code)


def _refuse_half(file: BinaryIO | None, given: dict[str, Any]) -> None:
    if file is not None:
        if any(value is not None for value in given.values()):
            raise typer.BadParameter("give a file or the options of one signal, not both")
        return
    missing = [f"--{name}" for name in _NEEDED if given[name] is None]
    if missing:
        raise typer.BadParameter(f"give a file of signals, or also {', '.join(missing)}")


def _publish_all(producer: Producer, lines: Lines, tally: _Tally) -> None:
    for number, signal in lines:
        try:
            if isinstance(signal, InvalidSignalError):
                raise signal
            producer.publish(signal, on_delivery=partial(tally.note, number))
            tally.taken += 1
        except InvalidSignalError as error:
            tally.refuse(number, error)
        except BufferFullError as error:
            typer.echo(f"line {number} and what follows is not published: {error}", err=True)
            tally.stopped = True
            return


class _Tally:
    """Counts what became of the signals; the producer's thread reports while others publish."""

    def __init__(self) -> None:
        self.taken = 0
        self.stopped = False
        self._invalid = 0
        self._reports: Counter[str] = Counter()
        self._last_seq = 0
        self._lock = threading.Lock()

    def note(self, line: int, report: DeliveryReport) -> None:
        with self._lock:
            self._reports[report.status] += 1
            self._last_seq = max(self._last_seq, report.seq or 0)
        if not report.stored:
            typer.echo(f"line {line}: {report.code}: {report.message}", err=True)

    def refuse(self, line: int, error: InvalidSignalError) -> None:
        self._invalid += 1
        typer.echo(f"line {line}: {error.code}: {error}", err=True)

    @property
    def exit_code(self) -> int:
        if self._invalid or self._refused:
            return 1
        return os.EX_TEMPFAIL if self._left or self.stopped else 0

    def summary(self) -> str:
        through = f" (seq {self._last_seq})" if self._last_seq else ""
        return (
            f"{self._reports['accepted']} accepted{through}, "
            f"{self._reports['duplicate']} duplicate, {self._refused} rejected, "
            f"{self._invalid} invalid, {self._left} left in the spool"
        )

    @property
    def _refused(self) -> int:
        return self._reports["rejected"] + self._reports["failed"]

    @property
    def _left(self) -> int:
        return self.taken - self._reports.total()


def _lines_of(file: BinaryIO) -> Iterator[tuple[int, Signal | InvalidSignalError]]:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
        if line.strip():
            yield number, _signal_in(line)


def _signal_in(line: bytes) -> Signal | InvalidSignalError:
    try:
        return _signal_of(msgspec.json.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return InvalidSignalError("invalid_signal")


def _signal_of(value: Any) -> Signal | InvalidSignalError:
    code = problem_of(value)
    return InvalidSignalError(code) if code else from_json_object(value)


def _line_from(
    client: SignalClient, given: dict[str, Any], *, create: bool
) -> tuple[int, Signal | InvalidSignalError]:
    fields = dict(given)
    trader = fields.pop("trader")
    if create:
        client.create_trader(trader)
    [fields["trader_id"]] = trader_ids(client, [trader]) or []
    fields["generated_at"] = fields["generated_at"] or datetime.now(UTC)
    return 1, _signal_of(msgspec.to_builtins(fields))


def _json_object(text: str | None) -> dict[str, Any] | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        raise ConfigurationError("Cannot use --metadata: it is not a JSON object.") from None
