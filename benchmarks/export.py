"""scripts/bench export: a week of signals into a file, beside COPY and paging with supabase-py.

A stack of its own (fsync on) is filled with a generated history of one account
(benchmarks/history.py): a seventh as rows of today, the rest in segments. Each system takes all of
it out, several times in turn:

seconds        SignalQuery.export by format, through the edge function, until the file is whole
copy_seconds   COPY … TO STDOUT of one plain table over a direct connection: the same rows, and the
               columns of the CSV as they are shown, signal_id too. So it only has to print them:
               it unpacks nothing, joins nothing, hashes no id, asks no policy and speaks no HTTP
view_seconds   COPY of the same rows from where they are stored, through the view public.signals
peer_seconds   supabase-py, page by page of 1,000 by seq, of the same plain table through the REST
               API: `peer_rows` of it, as CSV, times the rest
copy_ratio     seconds of CSV over copy_seconds, which is the one that is judged, as no database
               writes the file sooner; view_ratio: over view_seconds, which is what whoever has a
               connection would wait without an export
peer_ratio     peer_seconds over seconds of CSV
client_mb      what the process of the export grew by, at the most
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.filling import fill_storage
from benchmarks.history import HistoryPlan, plan_history
from benchmarks.jobs import pause_jobs
from benchmarks.memory import anonymous_mb, collected_mb
from benchmarks.peers import make_plain
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import Target
from benchmarks.report import MINIMUM_RUNS, machine, medians, write
from local_stack.errors import StackError
from signal_persistence import AccessToken, ExportOptions, SignalQuery

FORMS: Final = ("csv", "ndjson", "parquet")
GOAL_SECONDS = 5.0
"""For a million signals as CSV."""
COPY_RATIO = 2.0
PEER_RATIO = 20.0
PAGE = 1000
COLUMNS = (
    "signal_id, seq, trader_id, symbol, timeframe, generated_at, action, confidence, price, "
    "stop_loss, take_profit, valid_until, metadata"
)
PLAIN = "bench_plain_signals"
MAKE_PLAIN = f"""
create table public.{PLAIN} as select {COLUMNS} from public.signals order by seq;
alter table public.{PLAIN} add primary key (seq);
grant select on public.{PLAIN} to authenticated;
notify pgrst, 'reload schema';
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when every goal is reached, 1 when one is not."""
    options = _parse(arguments)
    with bench_project(options.stack_name) as project:
        [target] = project.new_targets(1)
        asyncio.run(_fill(project, target, options.signals))
        runs = []
        for number in range(options.runs):
            runs.append(_run(project, target, options))
            say(f"run {number + 1} of {options.runs}: {runs[-1]}")
    report = _report(options, medians(runs))
    write(report, options.json)
    return 0 if report["ok"] else 1


async def _fill(project: Project, target: Target, signals: int) -> None:
    hot = signals // 7
    plan = HistoryPlan(datetime.now(UTC), 1, hot, signals - hot, 0)
    connection = await asyncpg.connect(project.database_url, command_timeout=3600)
    try:
        await connection.execute("set statement_timeout = 0")
        await pause_jobs(connection)
        await plan_history(connection, plan, [target])
        await make_plain(connection, project.database_url, plan)
        filled = await fill_storage(connection, project.database_url, plan, [target])
        await connection.execute(MAKE_PLAIN)
        await connection.execute(f"vacuum (analyze) public.{PLAIN}")
    finally:
        await connection.close()
    say(f"filled: {filled} bytes per signal")


def _run(project: Project, target: Target, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        seconds, rows, grown = {}, 0, 0.0
        for form in FORMS:
            file = Path(folder) / f"signals.{form}"
            with _Watch() as watch, _query(project, target) as query:
                seconds[form], done = _timed(partial(query.export, file, ExportOptions(form)))
            rows = done.rows
            if form != "parquet":
                grown = max(grown, watch.grown_mb)
        size = (Path(folder) / "signals.csv").stat().st_size
        copied, copy_rows = _copy(project, PLAIN, Path(folder) / "copy.csv")
        viewed, view_rows = _copy(project, "signals", Path(folder) / "view.csv")
        peer_rows = min(rows, options.peer_rows)
        paged, _ = _timed(lambda: _page(project, target, Path(folder) / "peer.csv", peer_rows))
    if not rows == copy_rows == view_rows > 0:
        raise StackError(
            f"Cannot trust the run: {rows} rows were exported, {copy_rows} and {view_rows} copied"
        )
    return {
        "rows": rows,
        "bytes_per_row": round(size / rows, 1),
        "seconds": seconds,
        "copy_seconds": copied,
        "view_seconds": viewed,
        "peer_seconds": round(paged * rows / peer_rows, 2),
        "peer_rows": peer_rows,
        "client_mb": round(grown, 1),
    }


def _query(project: Project, target: Target) -> SignalQuery:
    return SignalQuery(project.url, project.key, AccessToken(target.access_token), timeout=60)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return round(time.perf_counter() - started, 3), result


def _copy(project: Project, table: str, file: Path) -> tuple[float, int]:
    """Return in how many seconds, and how many rows of the table were copied into the file."""

    async def copy() -> int:
        connection = await asyncpg.connect(project.database_url, command_timeout=3600)
        try:
            await connection.execute("set statement_timeout = 0")
            tag = await connection.copy_from_query(
                f"select {COLUMNS} from public.{table}", output=file, format="csv", header=True
            )
            return int(tag.split()[-1])
        finally:
            await connection.close()

    return _timed(lambda: asyncio.run(copy()))


def _page(project: Project, target: Target, file: Path, rows: int) -> None:
    """Write the first rows as whoever knows supabase-py would."""
    from supabase import create_client

    client = create_client(project.url, project.key)
    client.postgrest.auth(target.access_token)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        seq = 0
        while seq < rows:
            page: list[Any] = (
                client.table(PLAIN)
                .select("*")
                .gt("seq", seq)
                .order("seq")
                .limit(min(PAGE, rows - seq))
                .execute()
                .data
            )
            writer.writerows(signal.values() for signal in page)
            seq = page[-1]["seq"]


class _Watch:
    """How much the memory of this process grows meanwhile."""

    def __enter__(self) -> _Watch:
        self._before = self._most = collected_mb()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def grown_mb(self) -> float:
        return self._most - self._before

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self._most = max(self._most, anonymous_mb())


def _report(options: argparse.Namespace, measured: dict[str, Any]) -> dict[str, Any]:
    seconds = measured["seconds"]["csv"]
    copy_ratio = round(seconds / measured["copy_seconds"], 2)
    view_ratio = round(seconds / measured["view_seconds"], 2)
    peer_ratio = round(measured["peer_seconds"] / seconds, 1)
    goals = {
        "seconds": seconds * 1_000_000 / measured["rows"] <= GOAL_SECONDS,
        "copy ratio": copy_ratio <= COPY_RATIO,
        "peer ratio": peer_ratio >= PEER_RATIO,
    }
    failed = [name for name, reached in goals.items() if not reached]
    return {
        "bench": "export",
        "machine": machine(),
        "runs": options.runs,
        "ok": not failed,
        "failed": failed,
        **measured,
        "copy_ratio": copy_ratio,
        "view_ratio": view_ratio,
        "peer_ratio": peer_ratio,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--signals", type=int, default=1_000_000, help="of a week")
    parser.add_argument("--peer-rows", type=int, default=50_000, help="that the peer pages through")
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(arguments)
    if min(options.signals // 700, options.peer_rows, options.runs) <= 0:
        parser.error("--signals must be 700 or more, --peer-rows and --runs more than 0")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sys.exit(str(error))
