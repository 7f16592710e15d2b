"""scripts/bench spool: the segment log of the client beside SQLite in WAL mode, on the same disk.

Each signal is written by itself and must survive what the mode says: `never` (a killed process;
SQLite `synchronous=off`), `interval` (a loss of power too, but for the last second; SQLite
`normal`, which syncs at checkpoints), `always` (everything that the call returned for; `full`).
`always_8_threads` writes from eight threads: the log shares syncs among them, SQLite has a
connection for each. The two take turns, run by run; figures are medians.

log, sqlite      per mode: `append_us` {p50, p95, p99} of one call, `per_s` signals written
ratio            per mode: `log.per_s` over `sqlite.per_s`
recover_s        seconds to open a log, and a database, with `--signals` in it and read them all

It is well when the log is nowhere slower than SQLite by a tenth (one thread that waits for the disk
at each signal is as fast as the disk, in both), and `interval` has a p95 below 5 µs: half of what
publish() may take.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.report import MINIMUM_RUNS, machine, medians, percentiles, write
from signal_persistence import Signal
from signal_persistence.spool import FsyncPolicy, Slot, SpoolSettings

REPOSITORY = Path(__file__).resolve().parents[1]
THREADS = 8
MODES: dict[str, tuple[FsyncPolicy, str, int]] = {
    "never": ("never", "off", 1),
    "interval": ("interval", "normal", 1),
    "always": ("always", "full", 1),
    f"always_{THREADS}_threads": ("always", "full", THREADS),
}
"""What the log and SQLite are told, and how many threads write."""
SYNCED_SHARE = 20
"""Modes that wait for the disk write so many times less."""
P95_LIMIT_US = 5.0
LEAST_RATIO = 0.9
BODY = Signal(
    trader_id=UUID("6f1c2f4e-9d0b-4b7e-8a53-0d7a3f1f9a10"),
    symbol="BTC/USDT",
    timeframe="5m",
    generated_at=datetime(2026, 11, 22, 12, 0, 0, 123456, UTC),
    action="enter_long",
    confidence=0.8125,
    price=98_765.5,
    stop_loss=97_000.25,
    take_profit=101_500.75,
    valid_until=datetime(2026, 11, 22, 13, tzinfo=UTC),
    metadata={"strategy": "breakout", "rsi": 61.25},
).to_json()

Append = Callable[[], object]
"""Writes one signal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when it is well."""
    options = _parse(argv)
    figures: dict[str, dict[str, list[dict[str, Any]]]] = {
        writer: {mode: [] for mode in MODES} for writer in ("log", "sqlite")
    }
    recoveries: list[dict[str, float]] = []
    for _ in range(options.runs):
        for mode, (fsync, synchronous, threads) in MODES.items():
            signals = options.signals // (SYNCED_SHARE if fsync == "always" else 1)
            with _directory() as directory:
                with _log(directory, fsync) as writers:
                    figures["log"][mode].append(_measure(writers, signals, threads))
                with _sqlite(directory, synchronous) as writers:
                    figures["sqlite"][mode].append(_measure(writers, signals, threads))
                if fsync == "interval":
                    recoveries.append(_recover(directory, signals))
    report = _report(options, figures, recoveries)
    write(report, options.json)
    return 0 if report["ok"] else 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench spool",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--signals", type=int, default=100_000, help="written in each run")
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(argv)
    if options.signals < SYNCED_SHARE * THREADS or options.runs <= 0:
        parser.error(f"--signals must be {SYNCED_SHARE * THREADS} or more, --runs more than 0")
    return options


@contextmanager
def _directory() -> Iterator[Path]:
    """Have a directory on the disk of the repository: many a /tmp is not on a disk."""
    state = REPOSITORY / ".stack"
    state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="spool-", dir=state) as path:
        yield Path(path)


@contextmanager
def _log(directory: Path, fsync: FsyncPolicy) -> Iterator[Callable[[], Append]]:
    with Slot.open(directory, ["account"], SpoolSettings(fsync=fsync)) as slot:
        log = slot.log
        if fsync == "always":
            yield lambda: lambda: log.await_durable(log.append(0, BODY))
        else:
            yield lambda: lambda: log.append(0, BODY)


@contextmanager
def _sqlite(directory: Path, synchronous: str) -> Iterator[Callable[[], Append]]:
    opened = [_connect(directory, synchronous)]
    opened[0].execute("create table spool (fsn integer primary key, lane integer, body blob)")

    def writer() -> Append:
        connection = _connect(directory, synchronous)
        opened.append(connection)
        return lambda: connection.execute("insert into spool (lane, body) values (0, ?)", (BODY,))

    yield writer
    for connection in opened:
        connection.close()


def _connect(directory: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        directory / "spool.db", isolation_level=None, check_same_thread=False, timeout=60
    )
    connection.execute("pragma journal_mode = wal")
    connection.execute(f"pragma synchronous = {synchronous}")
    return connection


def _measure(writer: Callable[[], Append], signals: int, threads: int) -> dict[str, Any]:
    """Let each thread write its share; return the percentiles of all calls and the rate."""
    share = signals // threads
    calls: list[list[int]] = [[] for _ in range(threads)]
    writers = [
        threading.Thread(target=_write, args=(writer(), share, nanoseconds))
        for nanoseconds in calls
    ]
    began = time.perf_counter()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    seconds = time.perf_counter() - began
    microseconds = [each / 1_000 for nanoseconds in calls for each in nanoseconds]
    if len(microseconds) != share * threads:
        raise RuntimeError("Cannot measure: a thread did not write its share")
    return {
        "append_us": percentiles(microseconds),
        "per_s": round(len(microseconds) / seconds),
    }


def _write(append: Append, share: int, nanoseconds: list[int]) -> None:
    now = time.perf_counter_ns
    for _ in range(share):
        began = now()
        append()
        nanoseconds.append(now() - began)


def _recover(directory: Path, signals: int) -> dict[str, float]:
    """Open both again and read everything; return the seconds that each took."""
    began = time.perf_counter()
    with Slot.open(directory, ["account"], SpoolSettings()) as slot:
        read = after = 0
        while frames := slot.log.read(after, 5_000, 1 << 20):
            read += len(frames)
            after = frames[-1].fsn
    log = time.perf_counter() - began
    began = time.perf_counter()
    with closing(_connect(directory, "normal")) as connection:
        rows = sum(1 for _ in connection.execute("select fsn, lane, body from spool order by fsn"))
    sqlite = time.perf_counter() - began
    if not read == rows == signals:
        raise RuntimeError(f"Cannot measure: {signals} were written, {read} and {rows} found")
    return {"log": round(log, 3), "sqlite": round(sqlite, 3)}


def _report(
    options: argparse.Namespace,
    figures: dict[str, dict[str, list[dict[str, Any]]]],
    recoveries: list[dict[str, float]],
) -> dict[str, Any]:
    middle = {
        writer: {mode: medians(runs) for mode, runs in modes.items()}
        for writer, modes in figures.items()
    }
    log, sqlite = middle["log"], middle["sqlite"]
    ratio = {mode: round(log[mode]["per_s"] / sqlite[mode]["per_s"], 2) for mode in MODES}
    failed = [f"{mode} is slower than SQLite" for mode in MODES if ratio[mode] < LEAST_RATIO]
    if log["interval"]["append_us"]["p95"] >= P95_LIMIT_US:
        failed.append("interval p95")
    return {
        "bench": "spool",
        "machine": machine(),
        "runs": options.runs,
        "signals": options.signals,
        "body_bytes": len(BODY),
        "sqlite_version": sqlite3.sqlite_version,
        **middle,
        "ratio": ratio,
        "recover_s": medians(recoveries),
        "failed": failed,
        "ok": not failed,
    }


if __name__ == "__main__":
    sys.exit(main())
