"""scripts/bench ingest: `ingest_signals` beside COPY of the same rows, in the database alone.

A stack of its own (fsync on). Each connection writes for an account of its own, as a signed-in
user, one batch a transaction; with it comes all that a batch means: validation, duplicates, quota,
seq, ledger and broadcast. COPY then writes the rows that were stored, as text, into a table with
the same columns, partitions and indexes, and no check at all.

best             the point of the grid with the highest rate whose p95 is below 10 ms
copy_rows_per_s  COPY at that point: as many connections, the same batches, each a transaction
ratio            best.rows_per_s over copy_rows_per_s
bulk_copy_rows_per_s, bulk_ratio   the same beside COPY of everything in one transaction, which
                 acknowledges nothing before its end
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import io
import itertools
import json
import random
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.report import MINIMUM_RUNS, machine, percentiles, write

CONNECTIONS = (1, 2, 4)
BATCHES = (100, 250, 400)
P95_LIMIT_MS = 10.0
RATIO = 0.5
SYMBOLS = ("ES", "NQ", "CL", "BTC/USD", "EUR/USD")
ACTIONS = ("enter_long", "exit_long", "enter_short", "exit_short")
FASTEST_ROWS_PER_S = 120_000
"""More than a connection can store: so many rows a second are prepared ahead."""

COLUMNS = (
    "generated_at, seq, confidence, price, stop_loss, take_profit, valid_until, "
    "account_no, trader_no, timeframe, action, symbol, metadata"
)


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What one connection does."""

    database_url: str
    account_id: str
    trader_id: str
    batch: int
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """The rows that one connection copies: those of one account."""

    database_url: str
    account_no: int
    batch: int | None
    """Rows of a transaction; None for all in one."""


def ingest(plan: IngestPlan, wait_for_the_others: Callable[[], None]) -> list[float]:
    """Ingest batches for `plan.seconds`; return the seconds that each took."""
    prepared = _batches(plan)
    return asyncio.run(_ingest(plan, prepared, wait_for_the_others))


async def _ingest(
    plan: IngestPlan, prepared: Sequence[str], wait_for_the_others: Callable[[], None]
) -> list[float]:
    connection = await asyncpg.connect(plan.database_url)
    claims = json.dumps({"sub": plan.account_id, "role": "authenticated"})
    await connection.execute("select set_config('request.jwt.claims', $1, false)", claims)
    await connection.execute("set role authenticated")
    statement = await connection.prepare("select public.ingest_signals($1, $2)")
    await statement.fetchval(uuid.uuid4(), "[]")
    took = []
    wait_for_the_others()
    end = time.perf_counter() + plan.seconds
    for body in prepared:
        started = time.perf_counter()
        verdict = await statement.fetchval(uuid.uuid4(), body)
        now = time.perf_counter()
        took.append(now - started)
        if json.loads(verdict)["accepted"] != plan.batch:
            raise RuntimeError(f"Cannot benchmark: not all was accepted: {verdict[:300]}")
        if now > end:
            break
    await connection.close()
    return took


def _batches(plan: IngestPlan) -> list[str]:
    """Return JSON batches in the order of time: a random walk of prices on five symbols."""
    chance = random.Random(plan.seed)
    count = int(plan.seconds * FASTEST_ROWS_PER_S / plan.batch) + 1
    first = datetime.now(UTC) - timedelta(hours=6)
    ticks = itertools.count()
    prices = dict.fromkeys(SYMBOLS, 1600.0)

    def signal() -> dict[str, Any]:
        symbol = SYMBOLS[next(ticks) % len(SYMBOLS)]
        prices[symbol] += chance.choice((-0.25, 0.0, 0.25))
        price = prices[symbol]
        at = first + timedelta(microseconds=next(ticks) * 150 + chance.randrange(100))
        return {
            "trader_id": plan.trader_id,
            "symbol": symbol,
            "timeframe": "1m",
            "generated_at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "action": chance.choice(ACTIONS),
            "confidence": round(chance.random(), 3),
            "price": price,
            "stop_loss": price - 8,
            "take_profit": price + 16,
        }

    return [
        json.dumps([signal() for _ in range(plan.batch)], separators=(",", ":"))
        for _ in range(count)
    ]


def copy(plan: CopyPlan, wait_for_the_others: Callable[[], None]) -> tuple[int, float]:
    """COPY the stored rows of one account; return how many, and the seconds that it took."""
    return asyncio.run(_copy(plan, wait_for_the_others))


async def _copy(plan: CopyPlan, wait_for_the_others: Callable[[], None]) -> tuple[int, float]:
    connection = await asyncpg.connect(plan.database_url)
    rows = io.BytesIO()
    await connection.copy_from_query(
        f"select {COLUMNS} from private.signals where account_no = {plan.account_no} order by seq",
        output=rows,
    )
    lines = rows.getvalue().splitlines(keepends=True)
    batch = plan.batch or len(lines)
    batches = [b"".join(lines[at : at + batch]) for at in range(0, len(lines), batch)]
    wait_for_the_others()
    started = time.perf_counter()
    for body in batches:
        await connection.copy_to_table("copied", schema_name="bench", source=io.BytesIO(body))
    took = time.perf_counter() - started
    await connection.close()
    return len(lines), took


async def _execute(project: Project, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(project.database_url)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(statement)
        return rows
    finally:
        await connection.close()


def _query(project: Project, *statements: str) -> list[asyncpg.Record]:
    answers = [asyncio.run(_execute(project, statement)) for statement in statements]
    found: list[asyncpg.Record] = answers[-1]
    return found


def make_copy_target(project: Project) -> None:
    """Create the table that COPY writes: columns, partitions and indexes of private.signals."""
    bounds = _query(
        project,
        "create schema bench",
        "create table bench.copied (like private.signals) partition by range (generated_at)",
        "create unique index on bench.copied"
        " (account_no, generated_at, trader_no, symbol, timeframe)",
        "create index on bench.copied (account_no, seq)",
        "select inhrelid::regclass::text as name, pg_get_expr(relpartbound, oid) as bound"
        " from pg_inherits join pg_class on oid = inhrelid"
        " where inhparent = 'private.signals'::regclass",
    )
    for bound in bounds:
        name = bound["name"].rpartition(".")[2]
        _query(
            project,
            f'create table bench."{name}" partition of bench.copied {bound["bound"]}',
        )


@dataclass(frozen=True, slots=True)
class Point:
    """One run at one point of the grid."""

    rows_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    copy_rows_per_s: float
    bulk_copy_rows_per_s: float


def measure(project: Project, connections: int, batch: int, seconds: float) -> Point:
    """Run `connections` accounts at once on empty tables, then COPY what they stored."""
    _query(project, "truncate private.signals, private.batches, private.accounts cascade")
    plans = [
        IngestPlan(project.database_url, target.account_id, target.trader_id, batch, seconds, seed)
        for seed, target in enumerate(project.new_targets(connections))
    ]
    results = run_together(ingest, plans, seconds)
    stored = _query(project, "select count(*) from private.signals")[0]["count"]
    if stored != sum(map(len, results)) * batch:
        raise RuntimeError(f"Cannot trust the run: {stored} signals are stored")
    shares = percentiles([took * 1000 for result in results for took in result])
    rate = sum(len(result) * batch / sum(result) for result in results)
    return Point(
        rate,
        shares["p50"],
        shares["p95"],
        shares["p99"],
        measure_copy(project, batch),
        measure_copy(project, None),
    )


def measure_copy(project: Project, batch: int | None) -> float:
    """COPY what the accounts stored last, all at once; return rows a second."""
    _query(project, "truncate bench.copied")
    accounts = _query(project, "select distinct account_no from private.signals")
    plans = [CopyPlan(project.database_url, account["account_no"], batch) for account in accounts]
    return sum(size / took for size, took in run_together(copy, plans, 60))


def _median(points: Sequence[Point]) -> dict[str, float]:
    names = [field.name for field in dataclasses.fields(Point)]
    return {
        name: round(statistics.median(getattr(point, name) for point in points), 3)
        for name in names
    }


def report(project: Project, runs: int, seconds: float) -> dict[str, Any]:
    """Measure the whole grid `runs` times over and put the medians together."""
    make_copy_target(project)
    points: dict[tuple[int, int], list[Point]] = {}
    for run, connections, batch in itertools.product(range(1, runs + 1), CONNECTIONS, BATCHES):
        point = measure(project, connections, batch, seconds)
        points.setdefault((connections, batch), []).append(point)
        say(
            f"run {run}: {connections} x {batch}: {point.rows_per_s:,.0f} rows/s,"
            f" p95 {point.p95_ms:.1f} ms, {point.rows_per_s / point.copy_rows_per_s:.2f} of COPY"
        )
    grid = [
        {"connections": connections, "batch": batch, **_median(found)}
        for (connections, batch), found in points.items()
    ]
    within = [point for point in grid if point["p95_ms"] < P95_LIMIT_MS]
    best = max(within, key=lambda point: point["rows_per_s"], default=None)
    ratio = best["rows_per_s"] / best["copy_rows_per_s"] if best else 0.0
    return {
        "bench": "ingest",
        "machine": machine(),
        "runs": runs,
        "copy_rows_per_s": best["copy_rows_per_s"] if best else None,
        "best": best,
        "ratio": round(ratio, 3),
        "bulk_copy_rows_per_s": best["bulk_copy_rows_per_s"] if best else None,
        "bulk_ratio": round(best["rows_per_s"] / best["bulk_copy_rows_per_s"], 3) if best else 0.0,
        "grid": grid,
        "ok": ratio >= RATIO,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when the ratio is reached, 1 when it is not."""
    parser = argparse.ArgumentParser(prog="scripts/bench ingest", description=__doc__)
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS, help="at least 3")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each point of the grid")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(arguments)
    if options.runs < MINIMUM_RUNS:
        parser.error(f"--runs must be at least {MINIMUM_RUNS}")
    with bench_project() as project:
        result = report(project, options.runs, options.seconds)
    write(result, options.json)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
