"""scripts/bench end-to-end: producer → edge function → commit, beside the naive peer.

A stack of its own (fsync on) runs on this machine with everything else. Producer processes publish
at the given rate through the public client, each for some of the accounts; afterwards every signal
is read back over a direct connection and compared with the journals of the processes. Accounts
start at random moments within one linger, as traders do; a short warm-up, of which nothing counts,
goes before. With --agent the processes are the workers of one host: each publishes for one account,
which it may share with others, and one agent sends for all of them. The figures:

ack_ms          from sending a request to its verdict, which comes after the commit, per request;
                ack_ms_per_signal counts a request once for each of its signals
rate_per_min    signals stored, over the time from the first publish() to the last verdict
lost            published, but not stored; duplicated: stored more often than published
highest_rate_per_min    the highest rate that was held: p95 < 10 ms, p99 < 50 ms, no backlog left a
                second after the last publish(), nothing lost or duplicated
sustained_rate_per_min  the same without the limits of latency
naive_ratio     sustained_rate_per_min over what as many processes of supabase-py store, when each
                inserts one signal after the other into a table with the same key and isolation
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.host_agent import host_agent
from benchmarks.naive import NaivePlan, insert_one_by_one, naive_table
from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import Published, PublishPlan, Target, publish
from benchmarks.report import MINIMUM_RUNS, machine, medians, percentiles, write
from benchmarks.stored import Comparison, compare, joined
from local_stack.errors import StackError

P95_LIMIT_MS = 10.0
P99_LIMIT_MS = 50.0
NAIVE_RATIO = 50.0
BACKLOG_SECONDS = 1.0
RATE_KEPT = 0.98
SEARCH_FACTOR = 2.0
CLOSE_ENOUGH = 1.1
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

    def losses(self, rate_per_min: float) -> list[str]:
        """Name what keeps this run from having sustained `rate_per_min`, at whatever latency."""
        checks = {
            "rate": self.published_per_min >= rate_per_min * RATE_KEPT,
            "backlog": self.drain_seconds <= BACKLOG_SECONDS,
            "lost": self.lost == 0,
            "duplicated": self.duplicated == 0 and self.phantoms == 0,
            "gaps": self.gaps == 0,
            "accepted": self.not_accepted == 0,
        }
        return [name for name, held in checks.items() if not held]

    def failures(self, rate_per_min: float) -> list[str]:
        """Name what keeps this run from having held `rate_per_min` within the latency limits."""
        latency = {
            "ack p95": self.ack_ms["p95"] < P95_LIMIT_MS,
            "ack p99": self.ack_ms["p99"] < P99_LIMIT_MS,
        }
        return [name for name, held in latency.items() if not held] + self.losses(rate_per_min)


@dataclass(frozen=True, slots=True)
class Found:
    """What the search and the peer came to."""

    sustained_rate_per_min: float
    highest_rate_per_min: float
    naive: dict[str, Any] | None
    tried: dict[float, Run]


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
        search = Search(project, options, typical)
        sustained = search.highest(Run.losses, options.search_steps)
        highest = search.highest(Run.failures, options.search_steps)
        naive = [
            _naive(project, options) for _ in range(options.runs if options.naive_seconds else 0)
        ]
    found = Found(sustained, highest, medians(naive) if naive else None, search.tried)
    report = _report(options, typical, found)
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
    parser.add_argument("--agent", action="store_true", help="send through the agent of the host")
    parser.add_argument("--linger-ms", type=float, default=100)
    parser.add_argument("--batch-max-messages", type=int, default=500)
    parser.add_argument("--search-steps", type=int, default=8, help="0 skips the search upward")
    parser.add_argument("--search-seconds", type=float, default=10, help="length of each step")
    parser.add_argument("--naive-seconds", type=float, default=10, help="0 skips the peer")
    parser.add_argument("--warm-up-seconds", type=float, default=3, help="of a run not counted")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--seed", type=int, default=1, help="of when each account starts")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(argv)
    if options.agent and options.processes % options.accounts:
        parser.error("with --agent, --processes must be a multiple of --accounts")
    if not options.agent and options.accounts % options.processes:
        parser.error("--accounts must be a multiple of --processes")
    if min(options.rate, options.seconds, options.runs, options.processes) <= 0:
        parser.error("--rate, --seconds, --runs and --processes must be more than 0")
    return options


def _run(project: Project, options: argparse.Namespace, rate_per_min: float, seconds: float) -> Run:
    linger = options.linger_ms / 1000
    targets = [
        dataclasses.replace(target, starts_after=random.uniform(0, linger))
        for target in project.new_targets(options.accounts)
    ]
    agent = host_agent(
        project,
        targets,
        linger_ms=options.linger_ms,
        batch_max_messages=options.batch_max_messages,
    )
    with agent if options.agent else nullcontext() as agent_spool:
        plans = [
            PublishPlan(
                url=project.url,
                key=project.key,
                targets=shared,
                signals_per_second=rate_per_min / 60 / options.processes,
                seconds=seconds,
                batch_max_messages=options.batch_max_messages,
                linger_ms=options.linger_ms,
                agent_spool=agent_spool,
                place=place,
                places=options.processes,
            )
            for place, shared in enumerate(_shared(targets, options.processes))
        ]
        results = run_together(publish, plans, seconds)
    journals = [journal for result in results for journal in result.journals]
    return _figures(results, asyncio.run(compare(project.database_url, joined(journals))))


def _shared(targets: Sequence[Target], processes: int) -> list[tuple[Target, ...]]:
    """Return the accounts of each process: some of its own, or one that it shares."""
    return [
        tuple(targets[place::processes]) or (targets[place % len(targets)],)
        for place in range(processes)
    ]


def _figures(results: list[Published], compared: Comparison) -> Run:
    requests = _requests(results)
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


def _requests(results: Sequence[Published]) -> list[list[float]]:
    """Return milliseconds and size of each; one of the agent's carries signals of many workers."""
    requests: dict[UUID, list[float]] = {}
    for result in results:
        for request_id, (milliseconds, signals) in result.requests.items():
            request = requests.setdefault(request_id, [0.0, 0])
            request[0] = max(request[0], milliseconds)
            request[1] += signals
    return list(requests.values())


def _typical(runs: list[Run]) -> Run:
    """Return the medians of the runs, but of what must be zero the worst."""
    figures = medians([dataclasses.asdict(run) for run in runs])
    worst = {name: max(getattr(run, name) for run in runs) for name in MUST_BE_ZERO}
    return Run(**{**figures, **worst})


class Search:
    """Look for the highest rate that is held, at whatever latency and within its limits."""

    def __init__(self, project: Project, options: argparse.Namespace, typical: Run) -> None:
        self._project = project
        self._options = options
        self.tried = {options.rate: typical}

    def highest(self, failures: Callable[[Run, float], list[str]], steps: int) -> float:
        """Return the highest rate tried without `failures`, after up to `steps` more tries."""
        for _ in range(steps):
            held, too_high = self._bounds(failures)
            if 0 < too_high < held * CLOSE_ENOUGH:
                break
            rate = (held + too_high) / 2 if too_high else held * SEARCH_FACTOR
            self.tried[rate] = _run(
                self._project, self._options, rate, self._options.search_seconds
            )
            say(f"search: {_line(self.tried[rate], rate)}")
        return self._bounds(failures)[0]

    def _bounds(self, failures: Callable[[Run, float], list[str]]) -> tuple[float, float]:
        """Return the highest rate that was held below the lowest that was not (0: none)."""
        failed = [rate for rate, run in self.tried.items() if failures(run, rate)]
        too_high = min(failed, default=0.0)
        held = [rate for rate in self.tried if rate not in failed]
        return max((r for r in held if not failed or r < too_high), default=0.0), too_high


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


def _report(options: argparse.Namespace, typical: Run, found: Found) -> dict[str, Any]:
    failed = typical.failures(options.rate)
    ratio = None
    if found.naive is not None:
        ratio = round(found.sustained_rate_per_min / found.naive["rate_per_min"], 1)
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
        "agent": options.agent,
        "linger_ms": options.linger_ms,
        **dataclasses.asdict(typical),
        "naive": found.naive,
        "naive_ratio": ratio,
        "sustained_rate_per_min": round(found.sustained_rate_per_min),
        "highest_rate_per_min": round(found.highest_rate_per_min),
        "tried": [
            {"rate_per_min": round(rate), "ack_ms": run.ack_ms, "failed": run.failures(rate)}
            for rate, run in sorted(found.tried.items())
        ],
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(str(error))
