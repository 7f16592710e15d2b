"""Import old signals of one account: the body of scripts/import_history.

Chunks of a file go one after the other through private.import_signals, each in a transaction of its
own whose request_id follows from the account, the chunk's number and its content. So an import that
was stopped, in whatever way, is taken up by the same command: what is stored already is answered
from the ledger, or found to be a duplicate.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

import psycopg2

from operations.history import (
    CONTRACT,
    FIELDS,
    HistoryError,
    Layout,
    SignalReader,
    open_history,
)
from operations.importing import Database, Import

URL_VARIABLE: Final = "SUPABASE_DB_URL"
CHUNK_ROWS: Final = 2000
MAX_CHUNK_ROWS: Final[int] = CONTRACT["limits"]["batch_signals"]

DONE, SOME_REFUSED, CANNOT_START, STOPPED = range(4)
EXIT_CODES: Final = """\
exit codes:
  0  every row is stored, or was stored before
  1  done, but some rows were refused: they are in FILE.rejects.csv
  2  nothing was done: an option, the environment or a file is not as it must be
  3  stopped before the end: the same command goes on where it was
"""

ACCOUNT: Final = "select last_seq from private.accounts where account_id = %s::uuid"
TRADERS: Final = """
select trader.name, trader.trader_id::text
from private.traders as trader
inner join private.accounts as account using (account_no)
where account.account_id = %s::uuid and trader.archived_at is null
"""


class CannotStartError(Exception):
    """An option, the environment or the account is not as it must be."""


class Progress:
    """Rows so far, of all, a second, and the time that is left, on one line of a terminal."""

    def __init__(self, total: int, output: TextIO, clock: Callable[[], float]) -> None:
        self._total = total
        self._output = output
        self._clock = clock
        self._started = self._shown = clock()
        self._every, self._end = (0.2, "\r") if output.isatty() else (5.0, "\n")

    @property
    def seconds(self) -> float:
        return self._clock() - self._started

    def show(self, rows: int) -> None:
        """Tell of the progress, unless that was just done."""
        if rows < self._total and self._clock() - self._shown < self._every:
            return
        self._shown = self._clock()
        print(self.line(rows), end=self._end, file=self._output, flush=True)

    def line(self, rows: int) -> str:
        rate = rows / max(self.seconds, 1e-9)
        left = (self._total - rows) / max(rate, 1e-9)
        return (
            f"{rows:,} of {self._total:,} rows ({rows / max(self._total, 1):.1%}), "
            f"{rate:,.0f} rows/s, {int(left) // 60}:{int(left) % 60:02d} left   "
        )


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Import the files and print the report; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        url = environment.get(URL_VARIABLE)
        if not url:
            raise CannotStartError(
                f"Cannot reach the database: {URL_VARIABLE} is not set; see .env.example."
            )
        with Database(url) as database:
            return _import(database, options)
    except (CannotStartError, HistoryError, psycopg2.OperationalError) as error:
        print(f"import_history: {error}", file=sys.stderr)
        return CANNOT_START


def _import(database: Database, options: argparse.Namespace) -> int:
    layout = Layout(dict(options.column), dict(options.set), frozenset(options.ignore))
    account = database.rows(ACCOUNT, options.account)
    if not account:
        raise CannotStartError(
            f"Cannot import: there is no account {options.account}; it exists from its first use, "
            "or from set_account_tier."
        )
    trader_ids = dict(database.rows(TRADERS, options.account))
    files = [open_history(path) for path in options.files]
    readers = [SignalReader(file, layout, trader_ids) for file in files]
    progress = Progress(sum(file.count() for file in files), sys.stderr, time.monotonic)
    run = Import(database, options.account, options.chunk_rows, last_seq_before=account[0][0])
    stopped: BaseException | None = None
    try:
        for file, reader in zip(files, readers, strict=True):
            run.add_file(file, reader, progress.show)
    except (HistoryError, OSError, psycopg2.Error, KeyboardInterrupt) as error:
        stopped = error
    _report(run, progress.seconds, stopped)
    if stopped is not None:
        return STOPPED
    return SOME_REFUSED if run.outcome.rejected else DONE


def _report(run: Import, seconds: float, stopped: BaseException | None) -> None:
    outcome = run.outcome
    if stopped is not None:
        reason = str(stopped).strip() or "interrupted"
        print(f"import_history: Stopped after {outcome.rows:,} rows: {reason}", file=sys.stderr)
        print("The same command goes on where this one ended.", file=sys.stderr)
    report = {
        "rows": outcome.rows,
        "stored": outcome.stored,
        "stored_before": outcome.stored_before,
        "duplicate": outcome.duplicate,
        "rejected": outcome.rejected,
        "refused": dict(sorted(outcome.refused.items())),
        "seconds": round(seconds, 3),
        "rows_per_s": round(outcome.rows / max(seconds, 1e-9)),
        "finished": stopped is None,
    }
    print(json.dumps(report), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/import_history",
        description="Store old signals of one account, years back, from CSV or Parquet files. "
        "Safe to run again: nothing is stored twice. The last line of the output is a JSON report.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+")
    parser.add_argument("--account", required=True, type=uuid.UUID, metavar="ACCOUNT_ID")
    parser.add_argument(
        "--column",
        metavar="FIELD=COLUMN",
        type=_pair,
        action="append",
        default=[],
        help="which column a field is in, where it does not have the field's name",
    )
    parser.add_argument(
        "--trader-column",
        metavar="COLUMN",
        dest="column",
        type=lambda column: ("trader_id", column),
        action="append",
        help="the same as --column trader_id=COLUMN: names or ids of active traders",
    )
    parser.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        type=_pair,
        action="append",
        default=[],
        help="what a field is in every row",
    )
    parser.add_argument(
        "--ignore",
        metavar="COLUMN",
        action="append",
        default=[],
        help="a column that is left out",
    )
    parser.add_argument(
        "--chunk-rows",
        metavar="N",
        type=_chunk_rows,
        default=CHUNK_ROWS,
        help=f"rows a transaction, at most {MAX_CHUNK_ROWS} (default: {CHUNK_ROWS})",
    )
    return parser


def _pair(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals or field not in FIELDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FIELD=…; the fields are {', '.join(CONTRACT['fields'])}"
        )
    return field, value


def _chunk_rows(text: str) -> int:
    rows = int(text)
    if not 1 <= rows <= MAX_CHUNK_ROWS:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {MAX_CHUNK_ROWS}")
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
