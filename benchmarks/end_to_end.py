"""scripts/bench end-to-end: producer → edge function → commit, beside the naive peer.

A stack of its own (fsync on) runs on this machine with everything else. Producer processes publish
at the given rate through the public client; afterwards every signal is read back over a direct
connection and compared with the journals of the processes. Accounts start at random moments within
one linger, as traders do; a short warm-up, of which nothing counts, goes before. The figures:

ack_ms          from sending a request to its verdict, which comes after the commit, per request;
                ack_ms_per_signal counts a request once for each of its signals
rate_per_min    signals stored, over the time from the first publish() to the last verdict
lost            published, but not stored; duplicated: stored more often than published
naive_ratio     highest_rate_per_min over what as many processes of supabase-py store, when each
                inserts one signal after the other into a table with the same key and isolation
highest_rate_per_min  the highest rate that was held: p95 and p99 within their limits, no backlog
                left a second after the last publish(), nothing lost or duplicated
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.naive import NaivePlan, insert_one_by_one, naive_table
from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import Published, PublishPlan, publish
from benchmarks.report import MINIMUM_RUNS, machine, medians, percentiles, write
from benchmarks.stored import Comparison, compare
from local_stack.errors import StackError

P95_LIMIT_MS = 10.0
P99_LIMIT_MS = 50.0
NAIVE_RATIO = 50.0
BACKLOG_SECONDS = 1.0
RATE_KEPT = 0.98
SEARCH_FACTOR = 1.5
CLOSE_ENOUGH = 1.1
LINGER_SECONDS = 0.1
MUST_BE_ZERO = ("lost", "duplicated", "phantoms", "gaps", "not_accepted")


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one run at one rate."""

    rate_per_min: float
    published_per_min: float
    ack_ms: dict[str, float]
    ack_ms_per_signal: dict[str, float]
    publish_us: dict[str, float]
    signals_per_request: float
    requests_retried: int
    drain_seconds: float
    published: int
    lost: int
    duplicated: int
    phantoms: int
    gaps: int
    not_accepted: int

    def failures(self, rate_per_min: float) -> list[str]:
        """Name what keeps this run from having held `rate_per_min`."""
        checks = {
            "ack p95": self.ack_ms["p95"] < P95_LIMIT_MS,
            "ack p99": self.ack_ms["p99"] < P99_LIMIT_MS,
            "rate": self.published_per_min >= rate_per_min * RATE_KEPT,
            "backlog": self.drain_seconds <= BACKLOG_SECONDS,
            "lost": self.lost == 0,
            "duplicated": self.duplicated == 0 and self.phantoms == 0,
            "gaps": self.gaps == 0,
            "accepted": self.not_accepted == 0,
        }
        return [name for name, held in checks.items() if not held]


def main(argv: list[str]) -> int:
    options = _parse(argv)
    random.seed(options.seed)
    with bench_project(options.stack_name) as project:
        _run(project, options, options.rate, options.warm_up_seconds)
        runs = []
        for number in range(options.runs):
            runs.append(_run(project, options, options.rate, options.seconds))
            say(f"run {number + 1} of {options.runs}: {_line(runs[-1], options.rate)}")
        typical = _typical(runs)
        highest, steps = _search(project, options, typical)
        naive = [_naive(project, options) for _ in range(options.runs)]
    report = _report(options, typical, highest, steps, medians(naive))
    write(report, options.json)
    return 0 if report["ok"] else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench end-to-end",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=float, default=100_000, help="signals per minute")
    parser.add_argument("--seconds", type=float, default=60, help="length of each run")
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--accounts", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-max-messages", type=int, default=500)
    parser.add_argument("--search-steps", type=int, default=8, help="0 skips the search upward")
    parser.add_argument("--search-seconds", type=float, default=10, help="length of each step")
    parser.add_argument("--naive-seconds", type=float, default=10)
    parser.add_argument("--warm-up-seconds", type=float, default=3, help="of a run not counted")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--seed", type=int, default=1, help="of when each account starts")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(argv)
    if options.accounts % options.processes:
        parser.error("--accounts must be a multiple of --processes")
    if min(options.rate, options.seconds, options.runs, options.processes) <= 0:
        parser.error("--rate, --seconds, --runs and --processes must be more than 0")
    return options


def _run(project: Project, options: argparse.Namespace, rate_per_min: float, seconds: float) -> Run:
    targets = [
        dataclasses.replace(target, starts_after=random.uniform(0, LINGER_SECONDS))
        for target in project.new_targets(options.accounts)
    ]
    share = options.accounts // options.processes
    plans = [
        PublishPlan(
            url=project.url,
            key=project.key,
            targets=tuple(targets[first : first + share]),
            signals_per_second=rate_per_min / 60 / options.processes,
            seconds=seconds,
            batch_max_messages=options.batch_max_messages,
        )
        for first in range(0, options.accounts, share)
    ]
    results = run_together(publish, plans, seconds)
    journals = [journal for result in results for journal in result.journals]
    return _figures(results, asyncio.run(compare(project.database_url, journals)))


def _figures(results: list[Published], compared: Comparison) -> Run:
    requests = [request for result in results for request in result.requests.values()]
    took = [milliseconds for milliseconds, _ in requests]
    sizes = [signals for _, signals in requests]
    reported = sum(result.statuses["accepted"] for result in results)
    published_seconds = max(result.published_seconds for result in results)
    finished = max(result.finished_seconds for result in results)
    return Run(
        rate_per_min=round((compared.published - compared.lost) * 60 / finished),
        published_per_min=round(compared.published * 60 / published_seconds),
        ack_ms=percentiles(took),
        ack_ms_per_signal=percentiles(took, sizes),
        publish_us=percentiles([us for result in results for us in result.publish_us]),
        signals_per_request=round(sum(sizes) / len(sizes), 1),
        requests_retried=sum(result.retried for result in results),
        drain_seconds=round(max(r.finished_seconds - r.published_seconds for r in results), 3),
        not_accepted=compared.published - reported,
        **dataclasses.asdict(compared),
    )


def _typical(runs: list[Run]) -> Run:
    """Return the medians of the runs, but of what must be zero the worst."""
    figures = medians([dataclasses.asdict(run) for run in runs])
    worst = {name: max(getattr(run, name) for run in runs) for name in MUST_BE_ZERO}
    return Run(**{**figures, **worst})


def _search(
    project: Project, options: argparse.Namespace, typical: Run
) -> tuple[float, list[dict[str, Any]]]:
    """Raise the rate until it is not held (or lower it until it is), then halve the distance.

    Returns the highest rate that was held, and what was tried.
    """
    too_high = options.rate if typical.failures(options.rate) else 0.0
    held = 0.0 if too_high else options.rate
    steps: list[dict[str, Any]] = []
    while len(steps) < options.search_steps and not 0 < too_high < held * CLOSE_ENOUGH:
        rate = (held + too_high) / 2 if too_high else held * SEARCH_FACTOR
        run = _run(project, options, rate, options.search_seconds)
        failures = run.failures(rate)
        say(f"search: {_line(run, rate)}")
        steps.append({"rate_per_min": round(rate), "ack_ms": run.ack_ms, "failed": failures})
        if failures:
            too_high = rate
        else:
            held = rate
    return round(held), steps


def _naive(project: Project, options: argparse.Namespace) -> dict[str, Any]:
    targets = project.new_targets(options.processes)
    plans = [
        NaivePlan(project.url, project.key, target, options.naive_seconds) for target in targets
    ]
    with naive_table(project.database_url):
        results = run_together(insert_one_by_one, plans, options.naive_seconds)
    took = [milliseconds for result in results for milliseconds in result]
    rate = round(len(took) * 60 / options.naive_seconds)
    say(f"naive peer: {rate:,} signals/min from {options.processes} processes")
    return {"rate_per_min": rate, "insert_ms": percentiles(took)}


def _line(run: Run, rate_per_min: float) -> str:
    failures = run.failures(rate_per_min)
    verdict = "held" if not failures else f"not held ({', '.join(failures)})"
    return (
        f"{rate_per_min:,.0f}/min {verdict}: ack p50 {run.ack_ms['p50']}, p95 {run.ack_ms['p95']}, "
        f"p99 {run.ack_ms['p99']} ms; lost {run.lost}, duplicated {run.duplicated}, "
        f"drained in {run.drain_seconds} s"
    )


def _report(
    options: argparse.Namespace,
    typical: Run,
    highest: float,
    steps: list[dict[str, Any]],
    naive: dict[str, Any],
) -> dict[str, Any]:
    ratio = round(highest / naive["rate_per_min"], 1)
    failed = typical.failures(options.rate)
    if ratio < NAIVE_RATIO:
        failed.append("naive ratio")
    return {
        "bench": "end-to-end",
        "machine": machine(),
        "runs": options.runs,
        "ok": not failed,
        "failed": failed,
        "asked": {"rate_per_min": options.rate, "seconds": options.seconds},
        "warm_up_seconds": options.warm_up_seconds,
        "seed": options.seed,
        "accounts": options.accounts,
        "processes": options.processes,
        **dataclasses.asdict(typical),
        "naive": naive,
        "naive_ratio": ratio,
        "highest_rate_per_min": highest,
        "search": steps,
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(str(error))
