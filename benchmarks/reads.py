"""scripts/bench reads: pages, filters, sync and rollups at every age, beside two peers.

A stack of its own (fsync on) is filled with a generated history (benchmarks/history.py): at full
scale 10 million signals of yesterday and today as rows, 10 million of the week before and 10
million of the year before that in segments, of 1,000 accounts of very different sizes. Rollups by
day are made of the accounts that are asked: 16, from the largest to the smallest. The peers
(benchmarks/peers.py) hold the same 30 million signals. Each question is put to every system in a
random order, by one client, after a few that do not count; all must give the same answer. At full
scale this takes some 20 minutes and 20 GB of disk, which are given back.

p50_ms, p95_ms, p99_ms   public.query_signals or query_rollups, called in the database by the role
                         of signed-in users, with row-level security
http_p95_ms              the same through the gateway: the Edge Function query-signals, or the REST
                         API for rollups
plain_p95_ms             one plain partitioned table with the same indexes, asked as suits it best
timescale_p95_ms         a hypertable of TimescaleDB (Apache edition) with the same indexes
signals                  how many signals or rollups an answer has, on average
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import httpx

from benchmarks.filling import fill_storage
from benchmarks.history import HistoryPlan, plan_history
from benchmarks.jobs import pause_jobs
from benchmarks.peers import make_hypertable, make_plain, page_query, rollup_query
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import Target
from benchmarks.questions import READS, Chooser, Question, Reader, find_readers
from benchmarks.report import MINIMUM_RUNS, machine, medians, percentiles, write
from benchmarks.timescale import timescale_database
from local_stack.errors import StackError
from local_stack.settings import REPOSITORY

MILLION = 1_000_000
ASKED_ACCOUNTS = 16
WARM_UP_CALLS = 20
GOAL_MS = {"hot": 5.0, "warm": 20.0, "cold": 100.0}
DISK_BYTES = 20_000_000_000
"""What all systems take at full scale, write-ahead log included."""
HTTP_GOAL_MS = 25.0
"""For the pages of hot signals, filtered or not."""
HTTP_GOALS = ("first_page", "deep_page_hot", "filter_trader", "filter_symbol", "filter_timeframe")

Answer: TypeAlias = list[Any]
"""What tells answers apart: the seq of each signal, or the bucket and count of each rollup."""
System: TypeAlias = Callable[[Question], Awaitable[tuple[float, Answer]]]
"""Answer a question; tell the milliseconds that it took."""


class Ours:
    """public.query_signals and query_rollups, as a signed-in user, in the database."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def ask(self, question: Question) -> tuple[float, Answer]:
        took, answer = await self.call(question)
        return took, _answer(answer)

    async def call(self, question: Question) -> tuple[float, dict[str, Any]]:
        await self._connection.execute(
            "select set_config('request.jwt.claims', $1, false)", question.reader.claims()
        )
        asked = question.parameters()
        names = ", ".join(f'"{name}" => ${number}' for number, name in enumerate(asked, 1))
        statement = f"select public.{question.function}({names})"
        took, answer = await _timed(self._connection.fetchval(statement, *asked.values()))
        return took, json.loads(answer)

    async def page_end(self, reader: Reader, at: datetime) -> tuple[datetime, int, str] | None:
        """Return the newest signal before `at`, and the cursor to the page after it."""
        _, page = await self.call(Question(reader=reader, to_time=at, page_size=1))
        if page["next_cursor"] is None:
            return None
        last = page["signals"][0]
        return datetime.fromisoformat(last["generated_at"]), last["seq"], page["next_cursor"]


class OverHttp:
    """The same through the gateway, as the client sends it."""

    def __init__(self, project: Project, http: httpx.AsyncClient) -> None:
        self._http = http
        self._key = project.key

    async def ask(self, question: Question) -> tuple[float, Answer]:
        took, answer = await _timed(
            self._http.post(
                question.path,
                content=question.body(),
                headers=question.reader.headers(self._key),
            )
        )
        answer.raise_for_status()
        return took, _answer(answer.json())


class Peer:
    """One table that holds everything."""

    def __init__(self, connection: asyncpg.Connection, bucket: str) -> None:
        self._connection = connection
        self._bucket = bucket

    async def ask(self, question: Question) -> tuple[float, Answer]:
        if question.resolution:
            statement, arguments = rollup_query(question, self._bucket)
        else:
            statement, arguments = page_query(question)
        took, answer = await _timed(self._connection.fetchval(statement, *arguments))
        rows = json.loads(answer)
        return took, _buckets(rows) if question.resolution else [row["seq"] for row in rows]


async def _timed(answer: Awaitable[Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answered = await answer
    return (time.perf_counter() - started) * 1000, answered


def _answer(answer: Mapping[str, Any]) -> Answer:
    if "rollups" in answer:
        return _buckets(answer["rollups"])
    return [signal["seq"] for signal in answer["signals"]]


def _buckets(rollups: Sequence[Mapping[str, Any]]) -> Answer:
    return sorted((rollup["bucket"][:16], rollup["signals"]) for rollup in rollups)


async def measure(
    systems: Mapping[str, System], chooser: Chooser, chance: random.Random, calls: int
) -> dict[str, dict[str, float]]:
    """Put `calls` questions of every kind to all systems; return milliseconds and sizes."""
    return {name: await _measure_read(systems, chooser, chance, name, calls) for name in READS}


async def _measure_read(
    systems: Mapping[str, System], chooser: Chooser, chance: random.Random, name: str, calls: int
) -> dict[str, float]:
    tier, choose = READS[name]
    took: dict[str, list[float]] = {system: [] for system in systems}
    signals = 0
    warm_up = min(WARM_UP_CALLS, calls)
    for number in range(warm_up + calls):
        question = await choose(chooser, tier)
        answers = {}
        for system in chance.sample(list(systems), len(systems)):
            milliseconds, answers[system] = await systems[system](question)
            if number >= warm_up:
                took[system].append(milliseconds)
        for system, answer in answers.items():
            if answer != answers["ours"]:
                raise RuntimeError(f"Cannot trust the run: {system} answers {question} otherwise")
        signals += len(answers["ours"])
    ours = percentiles(took["ours"])
    others = {f"{each}_p95_ms": percentiles(took[each])["p95"] for each in took if each != "ours"}
    return {
        **{f"{percentile}_ms": value for percentile, value in ours.items()},
        **others,
        "signals": round(signals / (warm_up + calls), 1),
    }


@dataclass(frozen=True, slots=True)
class Filled:
    """How long it took to fill ours and the peers, and how large they are."""

    seconds: dict[str, float]
    bytes_per_signal: dict[str, float]


async def run(project: Project, timescale: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fill all systems, ask all questions in several rounds, and report."""
    chance = random.Random(options.seed)
    plan = history_plan(options)
    targets = project.new_targets(min(ASKED_ACCOUNTS, options.accounts))
    async with AsyncExitStack() as stack:
        ours = await _connect(stack, project.database_url)
        peer = await _connect(stack, timescale)
        filled = await _fill(project, timescale, ours, peer, plan, targets)
        readers = await find_readers(ours, targets)
        plain = await _connect(stack, project.database_url)
        await ours.execute("set role authenticated")
        own = Ours(ours)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=project.url, timeout=60))
        systems: dict[str, System] = {
            "ours": own.ask,
            "http": OverHttp(project, http).ask,
            "plain": Peer(plain, "date_trunc('{}', generated_at, 'UTC')").ask,
            "timescale": Peer(peer, "time_bucket('1 {}', generated_at)").ask,
        }
        chooser = Chooser(readers, plan, own.page_end, chance)
        runs = []
        for number in range(options.runs):
            runs.append(await measure(systems, chooser, chance, options.calls))
            say(f"run {number + 1} of {options.runs}")
    return report(options, plan, filled, medians(runs))


def history_plan(options: argparse.Namespace) -> HistoryPlan:
    """Return the plan of 10 million signals of each age, times the scale."""
    signals = round(10 * MILLION * options.scale)
    return HistoryPlan(datetime.now(UTC), options.accounts, signals, signals, signals)


async def _connect(stack: AsyncExitStack, dsn: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(dsn, command_timeout=3600)
    stack.push_async_callback(connection.close)
    await connection.execute("set statement_timeout = 0")
    return connection


async def _fill(
    project: Project,
    timescale: str,
    ours: asyncpg.Connection,
    peer: asyncpg.Connection,
    plan: HistoryPlan,
    targets: Sequence[Target],
) -> Filled:
    await pause_jobs(ours)
    await plan_history(ours, plan, targets)
    steps: dict[str, Awaitable[dict[str, float]]] = {
        "plain": make_plain(ours, project.database_url, plan),
        "ours": fill_storage(ours, project.database_url, plan, targets),
        "timescale": make_hypertable(ours, peer, timescale, plan),
    }
    filled = Filled({}, {})
    for name, step in steps.items():
        milliseconds, bytes_per_signal = await _timed(step)
        filled.seconds[name] = round(milliseconds / 1000, 1)
        filled.bytes_per_signal.update(bytes_per_signal)
        say(f"filled {name} in {filled.seconds[name]} s: {bytes_per_signal} bytes per signal")
    return filled


def report(
    options: argparse.Namespace, plan: HistoryPlan, filled: Filled, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """Put the figures together and say which goals are missed."""
    reads = {name: {"tier": READS[name][0], **figures} for name, figures in measured.items()}
    failed = [
        *(
            f"{name} p95"
            for name, figures in reads.items()
            if figures["p95_ms"] > GOAL_MS[figures["tier"]]
        ),
        *(f"{name} http p95" for name in HTTP_GOALS if reads[name]["http_p95_ms"] > HTTP_GOAL_MS),
    ]
    return {
        "bench": "reads",
        "machine": machine(),
        "runs": options.runs,
        "ok": not failed,
        "failed": failed,
        "scale": options.scale,
        "signals": {"hot": plan.hot, "packed": plan.warm + plan.cold},
        "accounts": options.accounts,
        "calls": options.calls,
        "seed": options.seed,
        "filled_s": filled.seconds,
        "bytes_per_signal": filled.bytes_per_signal,
        "reads": reads,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when every goal is reached, 1 when one is not."""
    options = _parse(arguments)
    _require_disk(options.scale)
    with (
        bench_project(options.stack_name) as project,
        timescale_database(options.stack_name) as timescale,
    ):
        result = asyncio.run(run(project, timescale, options))
    write(result, options.json)
    return 0 if result["ok"] else 1


def _require_disk(scale: float) -> None:
    free, wanted = shutil.disk_usage(REPOSITORY).free, DISK_BYTES * scale
    if free < wanted:
        raise StackError(
            f"Cannot run the benchmark: {free / 1e9:.0f} GB are free and {wanted / 1e9:.0f} GB are"
            " needed; free some space, or give a smaller --scale"
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench reads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the 30 million signals")
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--calls", type=int, default=200, help="of each read in each run")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--seed", type=int, default=1, help="of whom is asked what")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(arguments)
    if min(options.scale, options.accounts, options.runs, options.calls) <= 0:
        parser.error("--scale, --accounts, --runs and --calls must be more than 0")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sys.exit(str(error))
