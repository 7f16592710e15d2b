"""scripts/bench cache: reads through a SignalCache, beside one cache shared by a host's processes.

An account gets `--signals` of eight symbols. A worker process reads the newest 100 and the newest
one of a symbol, first with nothing in memory and then again and again, while nothing is stored.
Another reads the same answers from shared memory, where one process has put them
(benchmarks/shared_answers.py). Then signals are stored at `--rate` a minute while a cache that
holds eight answers follows.

miss_ms            a read that asks the database, by the Edge Function: {p50, p95, p99}
hit_us             a read of 100 signals that memory answers
hit_one_us         … of one signal
shared_hit_us      a read of 100 signals from shared memory, decoded
shared_hit_one_us  … of one signal
bytes_per_signal   `counted` by the cache, `resident` as the kernel sees it, `shared` if it is
follow_us          processor time of a process for each signal that it follows and merges: what each
                   cache costs that is not shared
even_at            so many reads of 100 signals for each signal stored, and a cache in each process
                   takes less processor time than shared memory, whose follower costs it nothing

It is well when a hit has a p95 below 20 µs and is faster than one in shared memory.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.memory import collected_mb
from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import PublishPlan, Target, publish
from benchmarks.report import MINIMUM_RUNS, machine, medians, percentiles, write
from benchmarks.shared_answers import SharedAnswers
from benchmarks.stored import SYMBOLS
from local_stack.errors import StackError
from signal_persistence import AccessToken, SignalCache

COUNT = 100
MISSES_PER_SYMBOL = 25
SLOT_BYTES = 256 * 1024
HIT_LIMIT_US = 20.0
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one worker reads, and how often."""

    url: str
    key: str
    target: Target
    calls: int
    seed: int
    shared: str = ""
    """The name of the shared memory, when it is that which is read."""

    def cache(self) -> SignalCache:
        # Statuses and liveness are not what is measured, so nothing gets too old during a run.
        return SignalCache(self.url, self.key, AccessToken(self.target.access_token), max_stale=600)


def read_cache(plan: Reading, wait_for_the_others: Callable[[], None]) -> dict[str, Any]:
    """Read through a cache of this process."""
    chance = random.Random(plan.seed)
    with plan.cache() as cache:
        cache.wait_until_live(PATIENCE_SECONDS)
        wait_for_the_others()
        misses = [
            _timed(partial(cache.newest, COUNT + extra, symbols=[symbol]))
            for extra in range(MISSES_PER_SYMBOL)
            for symbol in SYMBOLS
        ]

        def hit(count: int) -> None:
            cache.newest(count, symbols=[chance.choice(SYMBOLS)])

        hits = {count: _times(partial(hit, count), plan.calls) for count in (COUNT, 1)}
    return {
        "miss_ms": percentiles([seconds * 1000 for seconds in misses]),
        "hit_us": hits[COUNT],
        "hit_one_us": hits[1],
    }


def read_shared(plan: Reading, wait_for_the_others: Callable[[], None]) -> dict[str, Any]:
    """Read the same answers from shared memory: those of 100 first, then those of one."""
    chance = random.Random(plan.seed)
    answers = SharedAnswers(2 * len(SYMBOLS), SLOT_BYTES, plan.shared)
    places = {
        (count, (symbol,)): first + place
        for count, first in ((COUNT, 0), (1, len(SYMBOLS)))
        for place, symbol in enumerate(SYMBOLS)
    }
    wait_for_the_others()

    def hit(count: int) -> None:
        answers.read(places[count, (chance.choice(SYMBOLS),)])

    hits = {count: _times(partial(hit, count), plan.calls) for count in (COUNT, 1)}
    answers.close()
    return {"shared_hit_us": hits[COUNT], "shared_hit_one_us": hits[1]}


def hold(plan: Reading, wait_for_the_others: Callable[[], None]) -> dict[str, float]:
    """Tell the bytes that each signal takes in a process that holds 1,000 of each symbol."""
    with plan.cache() as cache:
        cache.wait_until_live(PATIENCE_SECONDS)
        wait_for_the_others()
        cache.newest(1, symbols=[SYMBOLS[0]])
        before, counted = collected_mb(), cache.stats().bytes
        held = sum(len(cache.newest(1000, symbols=[symbol]).signals) for symbol in SYMBOLS)
        gc.collect()
        return {
            "counted": round((cache.stats().bytes - counted) / held, 1),
            "resident": round((collected_mb() - before) * 1024 * 1024 / held, 1),
        }


def _timed(read: Callable[[], Any]) -> float:
    started = time.perf_counter()
    read()
    return time.perf_counter() - started


def _times(read: Callable[[], Any], calls: int) -> dict[str, float]:
    """Return percentiles in microseconds, of `calls` after as many that do not count."""
    for _ in range(calls // 10):
        read()
    return percentiles([_timed(read) * 1_000_000 for _ in range(calls)])


def share(plan: Reading, answers: SharedAnswers) -> float:
    """Put the answers into shared memory; return the bytes of a signal there."""
    size = held = 0
    with plan.cache() as cache:
        for place, symbol in enumerate(SYMBOLS):
            signals = cache.newest(COUNT, symbols=[symbol]).signals
            size += answers.write(place, signals)
            held += len(signals)
            answers.write(len(SYMBOLS) + place, signals[:1])
            if answers.read(place) != signals:
                raise RuntimeError("Cannot trust the run: shared memory answers otherwise")
    return round(size / held, 1)


def follow(plan: Reading, rate: float, seconds: float) -> float:
    """Return microseconds of processor time for each signal that a cache follows and merges."""
    publishing = _publishing(plan, rate / 60, seconds)
    with plan.cache() as cache:
        cache.wait_until_live(PATIENCE_SECONDS)
        with _reader(cache):
            before, merged = time.process_time(), cache.stats().merged
            (published,) = run_together(publish, [publishing], seconds)
            count = sum(published.statuses.values())
            ends = time.monotonic() + PATIENCE_SECONDS
            while cache.stats().merged < merged + count and time.monotonic() < ends:
                time.sleep(0.05)
        if cache.stats().merged < merged + count:
            raise RuntimeError("Cannot trust the run: the cache did not follow all signals")
        return round((time.process_time() - before) / count * 1_000_000, 1)


@contextmanager
def _reader(cache: SignalCache) -> Iterator[None]:
    """Read the answers twice a second: those that nobody reads are not kept in step for long."""
    done = threading.Event()

    def read() -> None:
        for symbol in SYMBOLS:
            cache.newest(COUNT, symbols=[symbol])

    def go_on() -> None:
        while not done.wait(0.5):
            read()

    read()
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _publishing(plan: Reading, per_second: float, seconds: float) -> PublishPlan:
    return PublishPlan(plan.url, plan.key, (plan.target,), per_second, seconds, 500)


def measure(project: Project, options: argparse.Namespace) -> dict[str, Any]:
    """Fill an account, read it both ways, and follow it; one run."""
    (target,) = project.new_targets(1)
    plan = Reading(project.url, project.key, target, options.calls, options.seed)
    run_together(publish, [_publishing(plan, options.signals / 2, 2.0)], 60.0)
    answers = SharedAnswers(2 * len(SYMBOLS), SLOT_BYTES)
    try:
        shared_bytes = share(plan, answers)
        shared = Reading(plan.url, plan.key, target, plan.calls, plan.seed, answers.name)
        (own,) = run_together(read_cache, [plan], 120.0)
        (other,) = run_together(read_shared, [shared], 120.0)
        (held,) = run_together(hold, [plan], 120.0)
    finally:
        answers.close()
    return {
        **own,
        **other,
        "bytes_per_signal": {**held, "shared": shared_bytes},
        "follow_us": follow(plan, options.rate, options.seconds),
    }


def report(options: argparse.Namespace, figures: dict[str, Any]) -> dict[str, Any]:
    """Put the figures together and say what is not well."""
    failed = []
    if figures["hit_us"]["p95"] > HIT_LIMIT_US:
        failed.append("hit p95")
    gain = figures["shared_hit_us"]["p50"] - figures["hit_us"]["p50"]
    if gain <= 0:
        failed.append("hit beside shared hit")
    return {
        "bench": "cache",
        "machine": machine(),
        "runs": options.runs,
        "ok": not failed,
        "failed": failed,
        "signals": options.signals,
        "rate_per_min": options.rate,
        **figures,
        "even_at": round(figures["follow_us"] / gain, 2) if gain > 0 else None,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when it is well, 1 when it is not."""
    options = _parse(arguments)
    runs = []
    with bench_project(options.stack_name) as project:
        for number in range(options.runs):
            runs.append(measure(project, options))
            say(f"run {number + 1} of {options.runs}: {runs[-1]}")
    result = report(options, medians(runs))
    write(result, options.json)
    return 0 if result["ok"] else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench cache",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--signals", type=int, default=10_000, help="of the account at first")
    parser.add_argument("--rate", type=float, default=100_000, help="signals per minute to follow")
    parser.add_argument("--seconds", type=float, default=10, help="for which they are stored")
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--calls", type=int, default=20_000, help="of each kind of hit")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--seed", type=int, default=1, help="of what is read when")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(arguments)
    if min(options.signals, options.rate, options.seconds, options.runs, options.calls) <= 0:
        parser.error("--signals, --rate, --seconds, --runs and --calls must be more than 0")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sys.exit(str(error))
