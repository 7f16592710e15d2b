"""scripts/bench mixed: ingest, reads, packing and rollups together, beside each alone.

Each run has a stack of its own (fsync on) with signals of the last week as rows: those of the last
two days stay hot, those before wait to be packed. Producers publish through the client and readers
ask through the gateway, at a steady rate, first each alone while no job runs, then together while
the jobs run as often as scheduled, the first time at once.

ack_ms, read_ms   from sending a batch to its verdict, and from sending a question to its answer
ingest_slowdown   p95 of ack_ms together over alone; read_slowdown: that of read_ms
jobs              what each job did meanwhile, in rows and seconds; packing has to get through
                  more signals than come in, and no job may fail
lost, duplicated, phantoms, gaps   what was published together, compared with what is stored
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
import httpx

from benchmarks.history import HistoryPlan, advance_accounts, fill, plan_history
from benchmarks.jobs import pause_jobs
from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import Published, PublishPlan, publish
from benchmarks.questions import READS, Chooser, Question, find_readers
from benchmarks.reads import Ours
from benchmarks.report import MINIMUM_RUNS, machine, medians, percentiles, write
from benchmarks.stored import compare
from local_stack.errors import StackError

SLOWDOWN: Final = 2.0
HISTORY_ACCOUNTS: Final = 100
READING_ACCOUNTS: Final = 8
ASKED: Final = (
    "first_page",
    "deep_page_hot",
    "filter_trader",
    "filter_symbol",
    "sync_hot",
    "deep_page_warm",
    "range_7_days",
)
QUESTIONS_OF_A_KIND: Final = 50
JOBS: Final = {
    "rollup": 30,
    "expiry": 30,
    "pack": 60,
    "reclaim": 60,
    "merge": 300,
    "retention": 600,
    "partitions": 3600,
}
"""Seconds from one run to the next."""
LINGER_SECONDS: Final = 0.1
BATCH_MAX_MESSAGES: Final = 500
ROLLED_UP: Final = """
insert into private.rollup_heads (account_no, seq, rolled_up_at)
select account_no, last_seq, now() from private.accounts where last_seq > 0
"""
"""Only what is published during the benchmark is rolled up."""
MUST_BE_ZERO: Final = ("lost", "duplicated", "phantoms", "gaps", "failed_jobs")


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What one reading process does: ask the questions in turn, so many a second."""

    url: str
    key: str
    questions: Sequence[Question]
    per_second: float
    seconds: float


@dataclass(frozen=True, slots=True)
class JobsPlan:
    """For how long the jobs run."""

    database_url: str
    seconds: float


@dataclass(frozen=True, slots=True)
class JobsDone:
    """What a job did: rows of progress, seconds at work, runs, and runs that failed."""

    rows: dict[str, int]
    seconds: dict[str, float]
    failed: int


Plan: TypeAlias = PublishPlan | ReadPlan | JobsPlan
Result: TypeAlias = Published | list[float] | JobsDone


def work(plan: Plan, wait_for_the_others: Callable[[], None]) -> Result:
    """Do what the plan says, beginning with the other processes."""
    if isinstance(plan, PublishPlan):
        return publish(plan, wait_for_the_others)
    if isinstance(plan, ReadPlan):
        return asyncio.run(read(plan, wait_for_the_others))
    return asyncio.run(run_jobs(plan, wait_for_the_others))


async def read(plan: ReadPlan, wait_for_the_others: Callable[[], None]) -> list[float]:
    """Ask evenly, without waiting for answers; return milliseconds from when each was due."""
    async with httpx.AsyncClient(base_url=plan.url, timeout=60) as http:

        async def ask(question: Question, due: float) -> float:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            answer = await http.post(
                question.path, content=question.body(), headers=question.reader.headers(plan.key)
            )
            answer.raise_for_status()
            return (time.perf_counter() - due) * 1000

        await ask(plan.questions[0], time.perf_counter())
        wait_for_the_others()
        started = time.perf_counter()
        count = round(plan.per_second * plan.seconds)
        return await asyncio.gather(
            *(
                ask(
                    plan.questions[number % len(plan.questions)], started + number / plan.per_second
                )
                for number in range(count)
            )
        )


async def run_jobs(plan: JobsPlan, wait_for_the_others: Callable[[], None]) -> JobsDone:
    """Run every job at its pace until the time is over."""
    wait_for_the_others()
    began = datetime.now(UTC)
    end = time.monotonic() + plan.seconds
    await asyncio.gather(
        *(_run_job(plan.database_url, job, every, end) for job, every in JOBS.items())
    )
    connection = await asyncpg.connect(plan.database_url)
    rows = await connection.fetch(
        "select job, sum(rows)::bigint as rows,"
        " round(sum(extract(epoch from finished_at - started_at)), 2)::float8 as seconds,"
        " count(error) as failed from private.job_runs where started_at >= $1 group by job",
        began,
    )
    await connection.close()
    return JobsDone(
        {row["job"]: row["rows"] for row in rows},
        {row["job"]: row["seconds"] for row in rows},
        sum(row["failed"] for row in rows),
    )


async def _run_job(database_url: str, job: str, every: float, end: float) -> None:
    connection = await asyncpg.connect(database_url, command_timeout=3600)
    await connection.execute("set statement_timeout = 0")
    try:
        while (left := end - time.monotonic()) > 0:
            budget = f"{min(50.0, left):.3f} seconds"
            command = await connection.fetchval(
                "select private.job_command($1, $2::text::interval)", job, budget
            )
            started = time.monotonic()
            await connection.execute(command)
            next_run = min(started + every, end)
            await asyncio.sleep(max(0.0, next_run - time.monotonic()))
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Phase:
    """What was measured while producers, readers and jobs ran, or some of them."""

    ack_ms: dict[str, float]
    read_ms: dict[str, float]
    jobs: JobsDone
    published: Sequence[Published]


class Scene:
    """One stack with signals of the last week, and who publishes and reads in it."""

    def __init__(self, project: Project, options: argparse.Namespace) -> None:
        self._project = project
        self._options = options
        self._questions: list[Question] = []

    async def set_up(self) -> None:
        """Store the history and choose the questions; no job runs by itself any more."""
        options = self._options
        plan = HistoryPlan(
            now=datetime.now(UTC),
            accounts=HISTORY_ACCOUNTS,
            hot=options.hot_signals,
            warm=options.old_signals,
            cold=0,
        )
        targets = self._project.new_targets(READING_ACCOUNTS)
        connection = await asyncpg.connect(self._project.database_url, command_timeout=3600)
        try:
            await connection.execute("set statement_timeout = 0")
            await pause_jobs(connection)
            await plan_history(connection, plan, targets)
            last_batch = plan.batches("warm") + plan.batches("hot")
            await fill(self._project.database_url, "private.signals", 1, last_batch)
            await advance_accounts(connection, None)
            await connection.execute(ROLLED_UP)
            await connection.execute("vacuum (analyze) private.signals, private.accounts")
            readers = await find_readers(connection, targets)
            await connection.execute("set role authenticated")
            chance = random.Random(options.seed)
            chooser = Chooser(readers, plan, Ours(connection).page_end, chance)
            for name in ASKED * QUESTIONS_OF_A_KIND:
                tier, choose = READS[name]
                self._questions.append(await choose(chooser, tier))
        finally:
            await connection.close()

    def phase(self, seconds: float, *parts: str) -> Phase:
        """Run the named parts together for so long."""
        plans = [plan for part in parts for plan in self._plans(part, seconds)]
        results = run_together(work, plans, seconds)
        published = [result for result in results if isinstance(result, Published)]
        requests = [took for each in published for took, _ in each.requests.values()]
        reads = [took for result in results if isinstance(result, list) for took in result]
        done = [result for result in results if isinstance(result, JobsDone)]
        return Phase(
            percentiles(requests) if requests else {},
            percentiles(reads) if reads else {},
            done[0] if done else JobsDone({}, {}, 0),
            published,
        )

    def _plans(self, part: str, seconds: float) -> Sequence[Plan]:
        project, options = self._project, self._options
        if part == "jobs":
            return [JobsPlan(project.database_url, seconds)]
        if part == "reads":
            return [ReadPlan(project.url, project.key, self._questions, options.reads, seconds)]
        targets = [
            dataclasses.replace(target, starts_after=random.uniform(0, LINGER_SECONDS))
            for target in project.new_targets(options.accounts)
        ]
        return [
            PublishPlan(
                url=project.url,
                key=project.key,
                targets=tuple(targets[process :: options.processes]),
                signals_per_second=options.rate / 60 / options.processes,
                seconds=seconds,
                batch_max_messages=BATCH_MAX_MESSAGES,
            )
            for process in range(options.processes)
        ]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure ingest alone, reads alone, and everything together, in one stack."""
    with bench_project(options.stack_name) as project:
        scene = Scene(project, options)
        asyncio.run(scene.set_up())
        scene.phase(options.warm_up_seconds, "ingest", "reads")
        ingest = scene.phase(options.alone_seconds, "ingest")
        reads = scene.phase(options.alone_seconds, "reads")
        together = scene.phase(options.seconds, "ingest", "reads", "jobs")
        journals = [journal for each in together.published for journal in each.journals]
        compared = asyncio.run(compare(project.database_url, journals))
    return {
        "ingest_slowdown": round(together.ack_ms["p95"] / ingest.ack_ms["p95"], 2),
        "read_slowdown": round(together.read_ms["p95"] / reads.read_ms["p95"], 2),
        "alone": {"ack_ms": ingest.ack_ms, "read_ms": reads.read_ms},
        "together": {"ack_ms": together.ack_ms, "read_ms": together.read_ms},
        "jobs": {"rows": together.jobs.rows, "seconds": together.jobs.seconds},
        "failed_jobs": together.jobs.failed,
        **dataclasses.asdict(compared),
    }


def report(options: argparse.Namespace, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Take the medians, but of what must be zero the worst, and say what is missed."""
    typical = {**medians(runs), **{name: max(run[name] for run in runs) for name in MUST_BE_ZERO}}
    missed = {
        "ingest_slowdown": typical["ingest_slowdown"] > SLOWDOWN,
        "read_slowdown": typical["read_slowdown"] > SLOWDOWN,
        "packing": typical["jobs"]["rows"].get("pack", 0) < typical["published"],
        **{name: typical[name] > 0 for name in MUST_BE_ZERO},
    }
    failed = [name for name, is_missed in missed.items() if is_missed]
    return {
        "bench": "mixed",
        "machine": machine(),
        "runs": len(runs),
        "ok": not failed,
        "failed": failed,
        "asked": {
            "rate_per_min": options.rate,
            "reads_per_s": options.reads,
            "seconds": options.seconds,
            "alone_seconds": options.alone_seconds,
        },
        "signals": {"hot": options.hot_signals, "old": options.old_signals},
        "seed": options.seed,
        **typical,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when nothing is missed, 1 otherwise."""
    options = _parse(arguments)
    random.seed(options.seed)
    runs = []
    for number in range(options.runs):
        runs.append(measure(options))
        say(f"run {number + 1} of {options.runs}: {runs[-1]}")
    result = report(options, runs)
    write(result, options.json)
    return 0 if result["ok"] else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench mixed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=300, help="of everything together")
    parser.add_argument("--alone-seconds", type=float, default=60, help="of each alone")
    parser.add_argument("--warm-up-seconds", type=float, default=5, help="of what is not counted")
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--rate", type=float, default=100_000, help="signals per minute")
    parser.add_argument("--reads", type=float, default=10, help="questions per second")
    parser.add_argument("--accounts", type=int, default=4, help="that publish")
    parser.add_argument("--processes", type=int, default=2, help="that publish")
    parser.add_argument("--hot-signals", type=int, default=1_000_000)
    parser.add_argument("--old-signals", type=int, default=4_000_000, help="that wait for packing")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--seed", type=int, default=1, help="of what is asked, and in which order")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(arguments)
    if options.accounts % options.processes:
        parser.error("--accounts must be a multiple of --processes")
    if min(options.seconds, options.alone_seconds, options.runs, options.rate, options.reads) <= 0:
        parser.error("--seconds, --alone-seconds, --runs, --rate and --reads must be more than 0")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sys.exit(str(error))
