"""scripts/bench producer: what publish() costs, and how fast a backlog is delivered.

Each way of publishing runs alone in a process of its own. Ours is measured with nothing but memory
and with a spool in each fsync mode; `always` also with eight threads, which share their syncs. The
peers hold their data as they do by default: questdb in the process until a row in a thousand
writes them to its file (`questdb_flush`: each row at once, as our spool does), confluent in memory,
naive in a list that is inserted by supabase-py, a stack on this machine, whenever it is long. The
figures, of which those without the name of a mode are those of the default mode, `interval`:

publish_us    one call, the making of its arguments not included
per_s         calls a second of one thread, or of all together
memory_mb     anonymous memory that --memory-signals take which nobody takes away; mapped_mb: pages
              of the log beside it, which the system can write out at any time
drain_per_s   signals stored a second when a backlog is found at the start, by one process with
              --accounts; an hour at 100,000 a minute are --backlog 6000000
drain         lost, duplicated, reordered: what the database says; memory_mb: at most, meanwhile
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.memory import anonymous_mb, collected_mb, mapped_mb
from benchmarks.naive import naive_table
from benchmarks.numbered import Numbers, check, numbered_signal
from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import Target
from benchmarks.report import MINIMUM_RUNS, machine, medians, percentiles, write
from benchmarks.writers import WRITERS, Calls, Place
from local_stack.errors import StackError
from local_stack.settings import REPOSITORY
from signal_persistence import AccessToken, Producer

P95_LIMIT_US = 10_000.0
DRAIN_MEMORY_LIMIT_MB = 512.0
CHUNK = 1000
"""Arguments made before the calls that are timed with them."""
THREADS = 8
SLOW = ("always", "naive")
"""Wait for a disk or for a server, so they are called a tenth as often."""
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 3600.0
MODES = {
    "memory": ("memory", 1),
    "never": ("never", 1),
    "interval": ("interval", 1),
    "always": ("always", 1),
    f"always_{THREADS}_threads": ("always", THREADS),
}
"""The writer and the threads of each case."""
PEERS = {name: (name, 1) for name in ("questdb", "questdb_flush", "confluent", "naive")}
CASES = MODES | PEERS
REMEMBERING = ("memory", "interval", "questdb", "confluent", "naive")


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """How often, by how many threads, which writer is called."""

    writer: str
    place: Place
    messages: int
    threads: int = 1


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """A spool with `numbers` in it, to be made or to be delivered."""

    url: str
    key: str
    targets: tuple[Target, ...]
    spool: Path
    numbers: tuple[Numbers, ...]


def main(argv: list[str]) -> int:
    options = _parse(argv)
    with bench_project(options.stack_name) as project:
        [target] = project.new_targets(1)
        with naive_table(project.database_url):
            calls = {name: _median_calls(project, target, options, name) for name in CASES}
        memory = {name: _remember(project, target, options, name) for name in REMEMBERING}
        drained = _drain(project, options)
    report = _report(options, calls, memory, drained)
    write(report, options.json)
    return 0 if report["ok"] else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench producer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=100_000, help="published in each run")
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--memory-signals", type=int, default=1_000_000)
    parser.add_argument("--backlog", type=int, default=300_000)
    parser.add_argument("--accounts", type=int, default=4, help="among whom the backlog is divided")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(argv)
    if min(options.messages, options.runs, options.memory_signals, options.accounts) <= 0:
        parser.error("--messages, --runs, --memory-signals and --accounts must be more than 0")
    return options


@contextmanager
def _directory() -> Iterator[Path]:
    """Have a directory on the disk of the repository: many a /tmp is not on a disk."""
    state = REPOSITORY / ".stack"
    state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="producer-", dir=state) as path:
        yield Path(path)


def _median_calls(
    project: Project, target: Target, options: argparse.Namespace, name: str
) -> dict[str, Any]:
    writer, threads = CASES[name]
    messages = options.messages // (10 if writer in SLOW else 1)
    runs = []
    for _ in range(options.runs):
        with _directory() as directory:
            place = Place(directory, target, project.key, project.url)
            plan = PublishPlan(writer, place, messages, threads)
            runs += run_together(publish, [plan], PATIENCE_SECONDS)
    result = medians(runs)
    say(f"{name}: {result['publish_us']} µs, {result['per_s']:,.0f}/s")
    return result


def _remember(
    project: Project, target: Target, options: argparse.Namespace, name: str
) -> dict[str, Any]:
    with _directory() as directory:
        plan = PublishPlan(name, Place(directory, target, project.key), options.memory_signals)
        [result] = run_together(remember, [plan], PATIENCE_SECONDS)
    say(f"{name}: {options.memory_signals:,} signals take {result}")
    return result


def publish(plan: PublishPlan, wait_for_the_others: Callable[[], None]) -> dict[str, Any]:
    """Return how long the calls took."""
    share = max(plan.messages // plan.threads, 1)
    took = [array("d") for _ in range(plan.threads)]
    with WRITERS[plan.writer](plan.place) as calls:
        wait_for_the_others()
        base = _base()
        started = time.perf_counter()
        with ThreadPoolExecutor(plan.threads) as pool:
            runs = [
                pool.submit(_time_calls, plan.place, calls, base + number * share, share, each)
                for number, each in enumerate(took)
            ]
        for run in runs:
            run.result()
        elapsed = time.perf_counter() - started
    every = [microseconds for each in took for microseconds in each]
    busy = sum(every) / 1_000_000 if plan.threads == 1 else elapsed
    return {"publish_us": percentiles(every), "per_s": round(len(every) / busy)}


def _time_calls(place: Place, calls: Calls, base: int, count: int, took: array[float]) -> None:
    for first in range(0, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        prepared = [calls.prepare(place.signal(base, number)) for number in numbers]
        for arguments in prepared:
            before = time.perf_counter()
            calls.publish(arguments)
            took.append((time.perf_counter() - before) * 1_000_000)


def remember(plan: PublishPlan, wait_for_the_others: Callable[[], None]) -> dict[str, Any]:
    """Return the memory that signals take which nobody takes away."""
    with WRITERS[plan.writer](plan.place) as calls:
        wait_for_the_others()
        anonymous, mapped, base = collected_mb(), mapped_mb(), _base()
        for number in range(plan.messages):
            calls.publish(calls.prepare(plan.place.signal(base, number)))
        return {
            "memory_mb": round(collected_mb() - anonymous),
            "mapped_mb": round(mapped_mb() - mapped),
        }


def _drain(project: Project, options: argparse.Namespace) -> dict[str, Any]:
    targets = project.new_targets(options.accounts)
    share = options.backlog // options.accounts
    numbers = tuple(Numbers(target.account_id, _base(), share) for target in targets)
    with _directory() as spool:
        plan = DrainPlan(project.url, project.key, targets, spool, numbers)
        run_together(pile_up, [plan], PATIENCE_SECONDS)
        say(f"a backlog of {share * len(targets):,} signals is in the spool")
        [result] = run_together(drain, [plan], PATIENCE_SECONDS)
    checked = asyncio.run(check(project.database_url, numbers))
    say(f"drained: {result}")
    return {**result, **dataclasses.asdict(checked)}


class AwayCredentials:
    """Nobody can sign in, so nothing is sent."""

    async def access_token(self, *, refresh: bool = False) -> str:
        await asyncio.Event().wait()
        raise AssertionError


def pile_up(plan: DrainPlan, wait_for_the_others: Callable[[], None]) -> None:
    """Publish the backlog while nothing can be sent, and end without having sent anything."""
    credentials = {UUID(target.account_id): AwayCredentials() for target in plan.targets}
    wait_for_the_others()
    producer = Producer(plan.url, plan.key, credentials, spool_dir=plan.spool, spool_fsync="never")
    for number in range(plan.numbers[0].count):
        for target, numbers in zip(plan.targets, plan.numbers, strict=True):
            signal = numbered_signal(target, numbers.base, number)
            producer.publish(signal, account_id=UUID(target.account_id))
    producer.close(0)


def drain(plan: DrainPlan, wait_for_the_others: Callable[[], None]) -> dict[str, Any]:
    """Deliver what the spool holds."""
    credentials = {
        UUID(target.account_id): AccessToken(target.access_token) for target in plan.targets
    }
    wait_for_the_others()
    before, most = collected_mb(), 0.0
    started = time.perf_counter()
    with Producer(plan.url, plan.key, credentials, spool_dir=plan.spool) as producer:
        opened = time.perf_counter() - started
        while producer.stats().pending:
            most = max(most, anonymous_mb())
            time.sleep(LOOK_SECONDS)
        stats = producer.stats()
    seconds = time.perf_counter() - started
    return {
        "per_s": round(stats.delivered / seconds),
        "seconds": round(seconds, 1),
        "open_seconds": round(opened, 3),
        "memory_mb": round(most - before),
        "dead_lettered": stats.dead_lettered,
    }


def _base() -> int:
    """Return a time from which numbers can be counted without passing the present."""
    return int((time.time() - 3600) * 1_000_000)


def _report(
    options: argparse.Namespace,
    calls: dict[str, dict[str, Any]],
    memory: dict[str, dict[str, Any]],
    drain: dict[str, Any],
) -> dict[str, Any]:
    failed = [f"{name} p95" for name in MODES if calls[name]["publish_us"]["p95"] > P95_LIMIT_US]
    wrong = ("lost", "duplicated", "reordered", "phantoms", "gaps", "dead_lettered")
    failed += [f"drain {name}" for name in wrong if drain[name]]
    if drain["memory_mb"] > DRAIN_MEMORY_LIMIT_MB:
        failed.append("drain memory")
    return {
        "bench": "producer",
        "machine": machine(),
        "runs": options.runs,
        "ok": not failed,
        "failed": failed,
        "messages": options.messages,
        **calls["interval"],
        "modes": {name: calls[name] for name in MODES},
        **{name: calls[name] for name in PEERS},
        "memory_signals": options.memory_signals,
        "memory": memory,
        "drain_per_s": drain["per_s"],
        "drain": drain,
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(str(error))
