"""scripts/bench queries: what a web page and an analyst ask, over HTTP, while signals come in.

A stack of its own (fsync on) is filled with the history of scripts/bench reads: at full scale 10
million signals of yesterday and today as rows and 20 million of the year before in segments, of
1,000 accounts of very different sizes. No job runs. Then producers publish at a steady rate through
the client, for other accounts, while readers ask the Edge Function query-signals evenly, each
question about one of 16 accounts, from the largest to the smallest; a page asks 3 of 4 questions.

http_ms     p50, p95 and p99 by question, in milliseconds from when it was due to its answer
            page: the newest signals and the page after some, filters by trader, symbol, beginning
            of a symbol, tag and status, the most confident and by symbol of an hour, the newest of
            each trader and symbol, and for menus facets and an estimated count of a day
            analyst: 1,000 signals of 7 days, and of an old week by confidence and price, an exact
            count of a symbol's week, and the time series functions over a week
refused     how often a question was too wide to be answered (`query_too_wide`)
ack_ms      from sending a batch to its verdict meanwhile
lost, duplicated, phantoms, gaps   what was published, compared with what is stored
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
import httpx

from benchmarks.filling import fill_storage
from benchmarks.history import HistoryPlan, plan_history
from benchmarks.jobs import pause_jobs
from benchmarks.peers import TABLE, make_plain
from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import Published, PublishPlan, publish
from benchmarks.questions import LARGE_PAGE, WEEK, Chooser, Reader, find_readers
from benchmarks.reads import ASKED_ACCOUNTS, HTTP_GOAL_MS, Ours, history_plan
from benchmarks.report import MINIMUM_RUNS, machine, medians, percentiles, write
from benchmarks.stored import compare
from local_stack.errors import StackError

FUNCTION: Final = "/functions/v1/query-signals"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
VARIANTS: Final = 25
"""Of each question: who is asked, and about what."""
PAGE_SHARE: Final = 3
"""So many questions of a page for each of an analyst."""
BATCH_MAX_MESSAGES: Final = 500
MUST_BE_ZERO: Final = ("lost", "duplicated", "phantoms", "gaps")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as it is sent."""

    name: str
    reader: Reader
    path: str
    parameters: Mapping[str, Any]

    def body(self) -> str:
        return json.dumps(self.parameters, default=datetime.isoformat)


class Mix:
    """Chooses questions by chance; `PAGE` and `ANALYST` name the methods."""

    PAGE = (
        "first_page", "next_page", "filter_trader", "filter_symbol", "filter_prefix",
        "filter_tag", "filter_status", "by_confidence", "by_symbol", "latest", "facets", "count",
    )  # fmt: skip
    ANALYST = (
        "week", "old_week", "exact_count", "time_buckets", "rolling_statistics", "correlations",
        "co_occurrence", "heat_map",
    )  # fmt: skip

    def __init__(
        self, readers: Sequence[Reader], plan: HistoryPlan, chooser: Chooser, chance: random.Random
    ) -> None:
        self._readers = readers
        self._plan = plan
        self._chooser = chooser
        self._chance = chance

    async def questions(self, names: Sequence[str]) -> list[Asked]:
        """Return variants of each question, in turn."""
        return [await self._question(name) for _ in range(VARIANTS) for name in names]

    async def _question(self, name: str) -> Asked:
        choose = {
            "first_page": self._chooser.first_page,
            "next_page": self._chooser.deep_page,
            "filter_trader": self._chooser.filter_trader,
            "filter_symbol": self._chooser.filter_symbol,
        }
        if name in choose:
            question = await choose[name]("hot")
            return Asked(name, question.reader, FUNCTION, question.parameters())
        reader = self._chance.choice(self._readers)
        path, parameters = getattr(self, f"_{name}")(self._chance.choice(reader.symbols))
        return Asked(name, reader, FUNCTION + path, parameters)

    def _since(self, span: timedelta) -> dict[str, Any]:
        return {"from": self._plan.now - span}

    def _filter_prefix(self, symbol: str) -> Any:
        return "", {"symbol_prefix": symbol[:2]}

    def _filter_tag(self, symbol: str) -> Any:
        """One that no signal has: the search looks at the whole hour."""
        return "", {"tags": ["breakout"], **self._since(HOUR)}

    def _filter_status(self, symbol: str) -> Any:
        return "", {"statuses": ["generated"], **self._since(DAY)}

    def _by_confidence(self, symbol: str) -> Any:
        return "", {"sort": "-confidence", **self._since(HOUR)}

    def _by_symbol(self, symbol: str) -> Any:
        return "", {"sort": "symbol", **self._since(HOUR)}

    def _latest(self, symbol: str) -> Any:
        return "/latest", {}

    def _facets(self, symbol: str) -> Any:
        return "/facets", self._since(DAY)

    def _count(self, symbol: str) -> Any:
        return "/count", {"symbols": [symbol], **self._since(DAY)}

    def _week(self, symbol: str) -> Any:
        return "", {**self._since(WEEK), "page_size": LARGE_PAGE}

    def _old_week(self, symbol: str) -> Any:
        starts, _ = self._plan.window("cold")
        return "", {
            "from": starts,
            "to": starts + WEEK,
            "min_confidence": 0.8,
            "max_confidence": 0.9,
            "min_price": 400,
            "page_size": LARGE_PAGE,
        }

    def _exact_count(self, symbol: str) -> Any:
        return "/count", {"symbols": [symbol], "exact": True, **self._since(WEEK)}

    def _time_buckets(self, symbol: str) -> Any:
        return "/time-buckets", {"width": "1h", "by": "symbol", "top": 5, **self._since(WEEK)}

    def _rolling_statistics(self, symbol: str) -> Any:
        return "/rolling-statistics", {"width": "1h", "symbols": [symbol], **self._since(WEEK)}

    def _correlations(self, symbol: str) -> Any:
        return "/correlations", {"width": "1h", "top": 5, "max_lag": 5, **self._since(WEEK)}

    def _co_occurrence(self, symbol: str) -> Any:
        return "/co-occurrence", {"window": "5m", "top": 3, **self._since(HOUR)}

    def _heat_map(self, symbol: str) -> Any:
        return "/heat-map", {"cycle": "week", **self._since(WEEK)}


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What the reading process does: ask in turn, so many a second."""

    url: str
    key: str
    page: Sequence[Asked]
    analyst: Sequence[Asked]
    per_second: float
    seconds: float

    def asked(self, number: int) -> Asked:
        """Return the question of this number."""
        turn, place = divmod(number, PAGE_SHARE + 1)
        if place == PAGE_SHARE:
            return self.analyst[turn % len(self.analyst)]
        return self.page[(turn * PAGE_SHARE + place) % len(self.page)]


@dataclass(slots=True)
class Answered:
    """Milliseconds by question, and how often one was refused."""

    milliseconds: dict[str, list[float]]
    refused: Counter[str]


Plan: TypeAlias = PublishPlan | ReadPlan


def work(plan: Plan, wait_for_the_others: Callable[[], None]) -> Published | Answered:
    """Do what the plan says, beginning with the other processes."""
    if isinstance(plan, PublishPlan):
        return publish(plan, wait_for_the_others)
    return asyncio.run(read(plan, wait_for_the_others))


async def read(plan: ReadPlan, wait_for_the_others: Callable[[], None]) -> Answered:
    """Ask evenly, without waiting for answers."""
    answered = Answered(defaultdict(list), Counter())
    limits = httpx.Limits(max_connections=50, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=plan.url, timeout=60, limits=limits) as http:

        async def ask(asked: Asked, due: float) -> None:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            answer = await http.post(
                asked.path, content=asked.body(), headers=asked.reader.headers(plan.key)
            )
            if answer.status_code == 400 and answer.json()["code"] == "query_too_wide":
                answered.refused[asked.name] += 1
            elif not answer.is_success:
                raise RuntimeError(f"Cannot ask {asked.name}: {answer.text}")
            answered.milliseconds[asked.name].append((time.perf_counter() - due) * 1000)

        await ask(plan.page[0], time.perf_counter())
        answered.milliseconds.clear()
        wait_for_the_others()
        started = time.perf_counter()
        count = round(plan.per_second * plan.seconds)
        await asyncio.gather(
            *(
                ask(plan.asked(number), started + number / plan.per_second)
                for number in range(count)
            )
        )
    return answered


def measure(project: Project, plan: ReadPlan, options: argparse.Namespace) -> dict[str, Any]:
    """Ask while signals come in; return the figures of one run."""
    targets = project.new_targets(options.accounts_publishing)
    publishing = PublishPlan(
        url=project.url,
        key=project.key,
        targets=targets,
        signals_per_second=options.rate / 60,
        seconds=plan.seconds,
        batch_max_messages=BATCH_MAX_MESSAGES,
    )
    together: list[Plan] = [publishing, plan]
    published, answered = run_together(work, together, plan.seconds)
    assert isinstance(published, Published)  # noqa: S101
    assert isinstance(answered, Answered)  # noqa: S101
    compared = asyncio.run(compare(project.database_url, published.journals))
    return {
        "http_ms": {
            name: percentiles(answered.milliseconds[name]) for name in (*Mix.PAGE, *Mix.ANALYST)
        },
        "refused": {name: answered.refused[name] for name in (*Mix.PAGE, *Mix.ANALYST)},
        "ack_ms": percentiles([took for took, _ in published.requests.values()]),
        **dataclasses.asdict(compared),
    }


async def set_up(project: Project, options: argparse.Namespace) -> ReadPlan:
    """Fill the stack, and choose the questions."""
    plan = history_plan(options)
    targets = project.new_targets(min(ASKED_ACCOUNTS, options.accounts))
    connection = await asyncpg.connect(project.database_url, command_timeout=3600)
    try:
        await connection.execute("set statement_timeout = 0")
        await pause_jobs(connection)
        await plan_history(connection, plan, targets)
        await make_plain(connection, project.database_url, plan)
        filled = await fill_storage(connection, project.database_url, plan, targets)
        await connection.execute(f"drop table {TABLE}")
        say(f"filled: {filled} bytes per signal")
        readers = await find_readers(connection, targets)
        await connection.execute("set role authenticated")
        chance = random.Random(options.seed)
        chooser = Chooser(readers, plan, Ours(connection).page_end, chance)
        mix = Mix(readers, plan, chooser, chance)
        return ReadPlan(
            project.url,
            project.key,
            await mix.questions(Mix.PAGE),
            await mix.questions(Mix.ANALYST),
            options.reads,
            options.seconds,
        )
    finally:
        await connection.close()


def report(options: argparse.Namespace, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Take the medians, but of what must be zero the worst, and say what is missed."""
    typical = {**medians(runs), **{name: max(run[name] for run in runs) for name in MUST_BE_ZERO}}
    slow = [name for name in Mix.PAGE if typical["http_ms"][name]["p95"] > HTTP_GOAL_MS]
    failed = [
        *(f"{name} p95" for name in slow),
        *(f"{name} refused" for name, count in typical["refused"].items() if count),
        *(name for name in MUST_BE_ZERO if typical[name]),
    ]
    plan = history_plan(options)
    return {
        "bench": "queries",
        "machine": machine(),
        "runs": len(runs),
        "ok": not failed,
        "failed": failed,
        "scale": options.scale,
        "signals": {"hot": plan.hot, "packed": plan.warm + plan.cold},
        "accounts": options.accounts,
        "asked": {
            "rate_per_min": options.rate,
            "reads_per_s": options.reads,
            "seconds": options.seconds,
        },
        "seed": options.seed,
        **typical,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when every goal is reached, 1 when one is not."""
    options = _parse(arguments)
    with bench_project(options.stack_name) as project:
        plan = asyncio.run(set_up(project, options))
        runs = []
        for number in range(options.runs):
            runs.append(measure(project, plan, options))
            say(f"run {number + 1} of {options.runs}: {runs[-1]}")
    result = report(options, runs)
    write(result, options.json)
    return 0 if result["ok"] else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench queries",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the 30 million signals")
    parser.add_argument("--accounts", type=int, default=1000, help="of the history")
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--seconds", type=float, default=120, help="of each run")
    parser.add_argument("--reads", type=float, default=20, help="questions per second")
    parser.add_argument("--rate", type=float, default=100_000, help="signals per minute")
    parser.add_argument("--accounts-publishing", type=int, default=4)
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--seed", type=int, default=1, help="of whom is asked what")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(arguments)
    positive = (options.scale, options.accounts, options.runs, options.seconds, options.rate)
    if min(*positive, options.reads, options.accounts_publishing) <= 0:
        parser.error("all numbers must be more than 0")
    asked = round(options.reads * options.seconds)
    if asked < (PAGE_SHARE + 1) * max(len(Mix.PAGE), len(Mix.ANALYST)):
        parser.error("--reads and --seconds leave no question for some names")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sys.exit(str(error))
