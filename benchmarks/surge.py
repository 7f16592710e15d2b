"""scripts/bench surge: the market opens, fifty times the traffic for a minute, and what then.

A stack of its own (fsync on) runs on this machine with everything else, so the database is
throttled to what the machine has left for it. Producer processes with a spool publish at --rate,
then at --factor times that for --surge-seconds, then at --rate again until the backlog is gone.
Afterwards the database says what it stores, and in which order. --scale makes the rates smaller
and leaves the times. The figures:

lost, duplicated, reordered    published and not stored; stored more often than published; stored
                               behind a signal that was published later by the same trader
drain_seconds                  from the end of the surge until no more is pending than one second
                               of calm traffic
offered_per_min                what publish() really took during the surge
stored_per_min                 what was stored, from the beginning of the surge until it was drained
publish_us                     publish() during the surge
most_pending                   the largest backlog
memory_mb                      anonymous memory of all producer processes together, at most
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.memory import anonymous_mb
from benchmarks.numbered import Check, Numbers, check, numbered_signal
from benchmarks.processes import run_together
from benchmarks.project import bench_project, say
from benchmarks.publishing import Target
from benchmarks.report import machine, percentiles, write
from local_stack.errors import StackError
from local_stack.settings import REPOSITORY
from signal_persistence import AccessToken, Producer

TICK_SECONDS = 0.005
AT_ONCE = 64
"""Signals published between two looks at the clock."""
LOOK_SECONDS = 0.1
SAMPLE = 101
"""Every so manieth publish() is timed."""
CALM_SECONDS_LEFT = 1.0
"""So much calm traffic may be pending when a backlog counts as drained."""


@dataclass(frozen=True, slots=True)
class SurgePlan:
    """What one process publishes, for one account, over a spool that all share."""

    url: str
    key: str
    target: Target
    spool: Path
    per_second: float
    factor: float
    calm_seconds: float
    surge_seconds: float
    drain_limit_seconds: float


@dataclass(slots=True)
class Surged:
    """What one process saw."""

    numbers: Numbers
    drain_seconds: float | None = None
    """None: not drained within the limit."""
    surge_count: int = 0
    surge_seconds: float = 0.0
    delivered_meanwhile: int = 0
    """From the beginning of the surge until it was drained."""
    most_pending: int = 0
    memory_mb: float = 0.0
    pending_at_end: int = 0
    dead_lettered: int = 0
    publish_us: array[float] = field(default_factory=lambda: array("d"))


def main(argv: list[str]) -> int:
    options = _parse(argv)
    state = REPOSITORY / ".stack"
    state.mkdir(exist_ok=True)
    with (
        bench_project(options.stack_name) as project,
        tempfile.TemporaryDirectory(prefix="surge-", dir=state) as spool,
    ):
        plans = [
            SurgePlan(
                url=project.url,
                key=project.key,
                target=target,
                spool=Path(spool),
                per_second=options.rate * options.scale / 60 / options.processes,
                factor=options.factor,
                calm_seconds=options.calm_seconds,
                surge_seconds=options.surge_seconds,
                drain_limit_seconds=options.drain_limit_seconds,
            )
            for target in project.new_targets(options.processes)
        ]
        length = options.calm_seconds + options.surge_seconds + 2 * options.drain_limit_seconds
        results = run_together(surge, plans, length)
        checked = asyncio.run(check(project.database_url, [each.numbers for each in results]))
    report = _report(options, results, checked)
    write(report, options.json)
    return 0 if report["ok"] else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench surge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=float, default=100_000, help="calm signals per minute")
    parser.add_argument("--factor", type=float, default=50)
    parser.add_argument("--scale", type=float, default=1.0, help="of all rates")
    parser.add_argument("--calm-seconds", type=float, default=10)
    parser.add_argument("--surge-seconds", type=float, default=60)
    parser.add_argument("--drain-limit-seconds", type=float, default=3600)
    parser.add_argument("--processes", type=int, default=2, help="each with an account of its own")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(argv)
    if min(options.rate, options.scale, options.surge_seconds, options.processes) <= 0:
        parser.error("--rate, --scale, --surge-seconds and --processes must be more than 0")
    return options


def surge(plan: SurgePlan, wait_for_the_others: Callable[[], None]) -> Surged:
    """Publish as the plan says and wait until everything is stored."""
    account_id = UUID(plan.target.account_id)
    credentials = {account_id: AccessToken(plan.target.access_token)}
    with Producer(plan.url, plan.key, credentials, spool_dir=plan.spool) as producer:
        trader = _Trader(plan, producer)
        wait_for_the_others()
        say("calm")
        trader.publish_for(plan.calm_seconds, plan.per_second)
        say("surge")
        delivered = producer.stats().delivered
        result = trader.result
        started, first = time.perf_counter(), trader.next_number
        trader.publish_for(plan.surge_seconds, plan.per_second * plan.factor, timed=True)
        result.surge_seconds = time.perf_counter() - started
        result.surge_count = trader.next_number - first
        say(f"surge over, {producer.stats().pending:,} signals pending")
        result.drain_seconds = trader.publish_until_drained()
        result.delivered_meanwhile = producer.stats().delivered - delivered
        producer.flush(plan.drain_limit_seconds)
        stats = producer.stats()
        result.pending_at_end, result.dead_lettered = stats.pending, stats.dead_lettered
    result.numbers = dataclasses.replace(result.numbers, count=trader.next_number)
    return result


class _Trader:
    """Publishes numbered signals evenly and notes what the producer holds meanwhile."""

    def __init__(self, plan: SurgePlan, producer: Producer) -> None:
        self.next_number = 0
        self._plan = plan
        self._producer = producer
        self._next_look = 0.0
        self._base = int(time.time() * 1_000_000)
        self.result = Surged(Numbers(plan.target.account_id, self._base, 0))

    def publish_for(self, seconds: float, per_second: float, *, timed: bool = False) -> None:
        """Publish at a rate; what is not published when the time is over is left out."""
        first, started = self.next_number, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            due = first + int(elapsed * per_second) + 1
            self._publish_some(min(due, self.next_number + AT_ONCE), timed=timed)
            self._look()
            if self.next_number >= due:
                time.sleep(TICK_SECONDS)

    def publish_until_drained(self) -> float | None:
        """Go on calmly until the backlog is gone, and return the seconds that took."""
        started = time.perf_counter()
        few = self._plan.per_second * CALM_SECONDS_LEFT
        while (elapsed := time.perf_counter() - started) < self._plan.drain_limit_seconds:
            if self._producer.stats().pending <= few:
                return elapsed
            self.publish_for(0.1, self._plan.per_second)
        return None

    def _publish_some(self, end: int, *, timed: bool) -> None:
        for number in range(self.next_number, end):
            signal = numbered_signal(self._plan.target, self._base, number)
            before = time.perf_counter()
            self._producer.publish(signal)
            if timed and number % SAMPLE == 0:
                self.result.publish_us.append((time.perf_counter() - before) * 1_000_000)
        self.next_number = max(end, self.next_number)

    def _look(self) -> None:
        if (now := time.perf_counter()) < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        result = self.result
        result.most_pending = max(result.most_pending, self._producer.stats().pending)
        result.memory_mb = max(result.memory_mb, anonymous_mb())


def _report(options: argparse.Namespace, results: list[Surged], checked: Check) -> dict[str, Any]:
    drained = [each.drain_seconds for each in results if each.drain_seconds is not None]
    zero = {**dataclasses.asdict(checked)}
    published = zero.pop("published")
    zero["pending"] = sum(each.pending_at_end for each in results)
    zero["dead_lettered"] = sum(each.dead_lettered for each in results)
    failed = [name for name, count in zero.items() if count]
    if len(drained) < len(results):
        failed.append("drained in time")
    seconds = max(each.surge_seconds + (each.drain_seconds or 0) for each in results)
    return {
        "bench": "surge",
        "machine": machine(),
        "runs": 1,
        "ok": not failed,
        "failed": failed,
        "asked": {
            "rate_per_min": options.rate * options.scale,
            "surge_per_min": options.rate * options.scale * options.factor,
            "surge_seconds": options.surge_seconds,
        },
        "processes": options.processes,
        "published": published,
        **zero,
        "drain_seconds": round(max(drained), 1) if len(drained) == len(results) else None,
        "offered_per_min": round(
            sum(each.surge_count * 60 / each.surge_seconds for each in results)
        ),
        "stored_per_min": round(sum(each.delivered_meanwhile for each in results) * 60 / seconds),
        "publish_us": percentiles([us for each in results for us in each.publish_us]),
        "most_pending": sum(each.most_pending for each in results),
        "memory_mb": round(sum(each.memory_mb for each in results)),
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(str(error))
