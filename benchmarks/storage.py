"""scripts/bench storage: bytes of a signal at every age, the model of a billion, speed of packing.

Each measurement has a stack of its own (fsync on). The signals are those that the demo's strategies
decide on real prices (benchmarks/decided.py), of several accounts, in batches through
ingest_signals; then the jobs move them as they do in production, and the clock is set 8 days ahead
for what waits a week. Bytes are those of the tables with their indexes, partitions and out-of-line
values, less what they take when empty, over the signals.

hot_bytes        a row of private.signals and its index entries
warm_bytes       in segments, as packed after a day; cold_bytes: as merged after a week, without the
                 room that replaced segments leave for new ones (with it: cold_bytes_before_reuse)
ledger_bytes     private.batches; audit_bytes: audit.links; broadcast_bytes: realtime.messages. They
                 are of batches: of --batch signals here, and *_per_batch tells what one takes
rollup_bytes     the rollups of an hour and a day (those of a minute are not stored); other_bytes:
                 all other private tables
billion_gb       the 6.94 days in which 100,000 signals a minute are a billion. A day is packed when
                 all of it is older than 24 hours, so 24 to 48 hours are hot, 36 on average; the
                 rest is packed. Ledger, audit and rollups are of all of them (they are kept longer
                 than that), broadcasts of the last 3 days (Realtime keeps no more);
                 billion_parts_gb tells them apart
pack_rows_per_s  signals that one connection packs in a second; merge_rows_per_s: merges
with_metadata_*  the same with the metadata that the demo's signals carry: prose of a trader's own,
                 of up to 2 KB, which the goals leave out
random_*         of signals whose every value is noise: what compresses worst
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

from benchmarks.decided import HOURS, KINDS, Copy
from benchmarks.jobs import JobRun, pause_jobs, run_to_end, set_clock
from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.report import MINIMUM_RUNS, machine, medians, write
from benchmarks.sizes import table_bytes
from demo.replay import STRATEGIES
from local_stack.errors import StackError

TABLES: Final = {
    "hot": "private.signals",
    "segments": "private.segments",
    "ledger": "private.batches",
    "audit": "audit.links",
    "rollup": "private.rollups",
    "broadcast": "realtime.messages",
}
PREFIXES: Final = {"realistic": "", "with_metadata": "with_metadata_", "random": "random_"}
OTHER_BYTES = """
select coalesce(sum(pg_total_relation_size(oid)), 0)::bigint
from pg_catalog.pg_class
where relnamespace in ('private'::regnamespace, 'audit'::regnamespace) and relkind = 'r'
"""
STORED: Final = "select count(*), sum(hash_record_extended(s, 0)) from private.stored_signals as s"
GOAL_BYTES: Final = {"hot_bytes": 200, "warm_bytes": 40, "cold_bytes": 30}
GOAL_BILLION_GB: Final = 70
BILLION: Final = 1_000_000_000
SIGNALS_A_DAY: Final = 100_000 * 60 * 24
HOT_DAYS: Final = 1.5
BROADCAST_DAYS: Final = 3
A_WEEK_LATER: Final = 8
PROCESSES: Final = 2


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What one process ingests: some copies, for an account each."""

    database_url: str
    kind: str
    copies: Sequence[tuple[str, Copy]]
    """account_id and what is of that account."""
    batch: int
    most: int | None
    """Signals of an account; None for all that there are."""


def ingest(plan: IngestPlan, wait_for_the_others: Callable[[], None]) -> int:
    """Ingest all copies; return how many signals were accepted."""
    wait_for_the_others()
    return asyncio.run(_ingest(plan))


async def _ingest(plan: IngestPlan) -> int:
    connection = await asyncpg.connect(plan.database_url)
    accepted = 0
    for account_id, copy in plan.copies:
        claims = json.dumps({"sub": account_id, "role": "authenticated"})
        await connection.execute("select set_config('request.jwt.claims', $1, false)", claims)
        await connection.execute("set role authenticated")
        for batch in _batches(itertools.islice(copy.signals(plan.kind), plan.most), plan.batch):
            body = "[" + ",".join(signal.to_json().decode() for signal in batch) + "]"
            verdict = json.loads(
                await connection.fetchval(
                    "select public.ingest_signals($1, $2)", uuid.uuid4(), body
                )
            )
            if verdict["accepted"] != len(batch):
                raise RuntimeError(f"Cannot benchmark: not all was accepted: {verdict}")
            accepted += verdict["accepted"]
    await connection.close()
    return accepted


def _batches(signals: Iterable[Any], size: int) -> Iterator[list[Any]]:
    waiting = iter(signals)
    while batch := list(itertools.islice(waiting, size)):
        yield batch


class Life:
    """The life of some signals: ingested, rolled up, packed, merged; weighed at each age."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._empty: dict[str, int] = {}
        self._signals = 0
        self._stored: asyncpg.Record | None = None

    async def begin(self) -> None:
        await self._connection.execute("set statement_timeout = 0")
        await pause_jobs(self._connection)
        self._empty = await self._sizes()

    async def go_through(
        self, project: Project, kind: str, options: argparse.Namespace
    ) -> dict[str, float]:
        """Let signals of one kind live for 8 days; return bytes and rates."""
        self._signals = await self._ingest(project, kind, options)
        self._stored = await self._connection.fetchrow(STORED)
        await run_to_end(self._connection, "rollup")
        fresh = await self._weigh()
        packed = await run_to_end(self._connection, "pack")
        await run_to_end(self._connection, "reclaim")
        warm = await self._weigh()
        await set_clock(self._connection, A_WEEK_LATER)
        await run_to_end(self._connection, "partitions")
        merged = await run_to_end(self._connection, "merge")
        bloated = await self._weigh()
        await self._connection.execute("vacuum (full) private.segments")
        cold = await self._weigh()
        return {
            "signals": self._signals,
            "hot_bytes": fresh["hot"],
            "hot_bytes_after_packing": warm["hot"],
            "warm_bytes": warm["segments"],
            "cold_bytes": cold["segments"],
            "cold_bytes_before_reuse": bloated["segments"],
            **{
                f"{name}_bytes": fresh[name]
                for name in ("ledger", "audit", "rollup", "broadcast", "other")
            },
            "pack_rows_per_s": self._rate(packed),
            "merge_rows_per_s": self._rate(merged),
        }

    async def _ingest(self, project: Project, kind: str, options: argparse.Namespace) -> int:
        starts = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        starts -= timedelta(days=1, hours=HOURS)
        accounts = []
        for number, target in enumerate(project.new_targets(options.copies)):
            traders = await self._connection.fetch(
                "insert into private.traders (account_no, name) select account_no, name"
                " from private.accounts cross join unnest($2::text []) as name"
                " where account_id = $1 returning trader_id",
                target.account_id,
                list(STRATEGIES),
            )
            ids = [UUID(str(trader["trader_id"])) for trader in traders]
            accounts.append((target.account_id, Copy(number, starts, ids)))
        plans = [
            IngestPlan(
                project.database_url,
                kind,
                accounts[process::PROCESSES],
                options.batch,
                options.signals,
            )
            for process in range(min(PROCESSES, options.copies))
        ]
        return sum(run_together(ingest, plans, 600))

    async def _weigh(self) -> dict[str, float]:
        """Return bytes per signal by table; everything must still be there."""
        if await self._connection.fetchrow(STORED) != self._stored:
            raise RuntimeError("Cannot trust the run: the signals are not those that were ingested")
        sizes = await self._sizes()
        return {
            name: round((size - self._empty[name]) / self._signals, 1)
            for name, size in sizes.items()
        }

    async def _sizes(self) -> dict[str, int]:
        sizes = {name: await table_bytes(self._connection, table) for name, table in TABLES.items()}
        every = await self._connection.fetchval(OTHER_BYTES)
        named = sum(size for name, size in sizes.items() if name != "broadcast")
        return {**sizes, "other": every - named}

    def _rate(self, run: JobRun) -> float:
        return round(self._signals / run.seconds) if run.rows else 0.0


def billion_parts_gb(figures: dict[str, float]) -> dict[str, float]:
    """Return what a billion signals take at 100,000 a minute, by part; see the model above."""
    hot = HOT_DAYS * SIGNALS_A_DAY / BILLION
    shares = {
        "hot": hot,
        "warm": 1 - hot,
        "broadcast": BROADCAST_DAYS * SIGNALS_A_DAY / BILLION,
        **dict.fromkeys(("ledger", "audit", "rollup", "other"), 1.0),
    }
    return {
        name: round(share * figures[f"{name}_bytes"] * BILLION / 1e9, 1)
        for name, share in shares.items()
    }


def measure(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Let signals of one kind live in a stack of their own."""

    async def live(project: Project) -> dict[str, float]:
        connection = await asyncpg.connect(project.database_url, command_timeout=3600)
        try:
            life = Life(connection)
            await life.begin()
            return await life.go_through(project, kind, options)
        finally:
            await connection.close()

    with bench_project(options.stack_name) as project:
        figures = asyncio.run(live(project))
    for name in ("ledger", "audit", "broadcast"):
        figures[f"{name}_bytes_per_batch"] = round(figures[f"{name}_bytes"] * options.batch, 1)
    parts = billion_parts_gb(figures)
    return {**figures, "billion_parts_gb": parts, "billion_gb": round(sum(parts.values()), 1)}


def report(options: argparse.Namespace, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Put the figures of all kinds together and say which goals are missed."""
    goals = {**GOAL_BYTES, "billion_gb": GOAL_BILLION_GB}
    typical = figures[KINDS[0]]
    failed = [name for name, goal in goals.items() if typical[name] > goal]
    return {
        "bench": "storage",
        "machine": machine(),
        "runs": options.runs,
        "ok": not failed,
        "failed": failed,
        "accounts": options.copies,
        "batch": options.batch,
        **{
            PREFIXES[kind] + name: value
            for kind, found in figures.items()
            for name, value in found.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when every goal is reached, 1 when one is not."""
    options = _parse(arguments)
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in options.kinds}
    for number, (kind, found) in itertools.product(range(options.runs), runs.items()):
        found.append(measure(options, kind))
        say(f"run {number + 1} of {options.runs}, {kind}: {found[-1]}")
    result = report(options, {kind: medians(found) for kind, found in runs.items()})
    write(result, options.json)
    return 0 if result["ok"] else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench storage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--copies", type=int, default=4, help="accounts, of 116,000 signals each")
    parser.add_argument(
        "--kinds", type=lambda text: text.split(","), default=KINDS, help="some of the three"
    )
    parser.add_argument("--signals", type=int, help="of each account at most")
    parser.add_argument("--batch", type=int, default=100, help="signals of a request")
    parser.add_argument("--stack-name", default="bench", help="of the stacks made for this")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(arguments)
    if options.kinds[0] != KINDS[0] or not set(options.kinds) <= set(KINDS):
        parser.error(f"--kinds must be some of {','.join(KINDS)}, and begin with {KINDS[0]}")
    if min(options.runs, options.copies, options.batch) <= 0:
        parser.error("--runs, --copies and --batch must be more than 0")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sys.exit(str(error))
