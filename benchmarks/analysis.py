"""scripts/bench analysis: aggregates over one account's signals, beside three engines.

A stack of its own (fsync on) is filled with a generated history (benchmarks/history.py) of a single
account: of all signals 5 % are of yesterday and today, as rows, 10 % of the week before and the
rest of the year before that in segments; all are in rollups. The other engines hold the same rows:
a plain partitioned table in the same database, a hypertable of TimescaleDB (Apache edition), and a
MergeTree of ClickHouse (chdb, in this process, loaded from CSV). Each is asked the same, in its own
SQL and in turn; all answers must be the same to 1e-9. Ours gives a place to empty buckets as well.

seconds          by query and engine, the median of the runs, the first call not counted:
  days             the signals of a year by day: count, mean, deviation and extremes
  hours_by_symbol  the same of 29 days by hour and symbol
  minutes          the same of yesterday by minute: signals are read one by one
  rolling_z_score  of the signals per hour in 29 days, over windows of a day
  heat_map         29 days by hour of the day and symbol
signals          how many there are; read: how many each query is about
filled_s         how long it took to fill each engine; ours includes packing and rolling up

With 10 million signals or more, ours must be faster than both tables of rows wherever rollups tell.
With fewer, few signals share a rollup.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg

from benchmarks.filling import fill_storage
from benchmarks.history import HistoryPlan, plan_history
from benchmarks.jobs import pause_jobs
from benchmarks.peers import TABLE, make_hypertable, make_plain
from benchmarks.project import Project, bench_project, say
from benchmarks.publishing import Target
from benchmarks.report import MINIMUM_RUNS, machine, write
from benchmarks.timescale import timescale_database
from local_stack.errors import StackError
from local_stack.settings import REPOSITORY

Row = tuple[Any, ...]
"""What a group is told apart by, then its figures."""

ALL_SIGNALS: Final = 10_000_000
FEWEST_SIGNALS: Final = 600_000
"""With fewer, some hours have none: ours shows them, SQL that only groups does not."""
FIGURES: Final = (
    "count(*) as signals, avg(confidence), stddev_samp(confidence), avg(price),"
    " stddev_samp(price), min(price), max(price)"
)
COLUMNS: Final = (
    "signals", "confidence_avg", "confidence_stddev", "price_avg", "price_stddev", "price_min",
    "price_max",
)  # fmt: skip
WHERE: Final = f"from {TABLE} where account_no = {{account_no}} and generated_at >= {{from_}}"
CSV_COLUMNS: Final = (
    "account_no Int32, trader_no Int32, seq Int64, generated_at Int64, symbol String,"
    " timeframe Int16, action Int16, confidence Float64, price Float64,"
    " stop_loss Nullable(Float64), take_profit Nullable(Float64), valid_until Int64"
)
"""Times in microseconds since 1970."""
SIGNALS_AS_CSV: Final = f"""
select
  account_no, trader_no, seq, (extract(epoch from generated_at) * 1000000)::bigint, symbol,
  timeframe, action, confidence, price, stop_loss, take_profit,
  (extract(epoch from valid_until) * 1000000)::bigint
from {TABLE}
"""
CLICKHOUSE_TABLE: Final = f"""
create table {TABLE} engine = MergeTree order by (account_no, generated_at) as
select
  * replace (
    fromUnixTimestamp64Micro(generated_at, 'UTC') as generated_at,
    fromUnixTimestamp64Micro(valid_until, 'UTC') as valid_until,
    toLowCardinality(symbol) as symbol)
from file('{{file}}', 'CSV', '{CSV_COLUMNS}')
"""


@dataclass(frozen=True, slots=True)
class Query:
    """One question: the call of ours, and the SQL of the others."""

    call: str
    days: int
    """How many days before today it is about."""
    sql: str
    by_rollups: bool = True


QUERIES: Final[Mapping[str, Query]] = {
    "days": Query(
        'time_buckets(width => \'1 day\', "from" => $1, "to" => $2)',
        364,
        f"select {{day}} as bucket, {FIGURES} {WHERE} and generated_at < {{to}} group by bucket",
    ),
    "hours_by_symbol": Query(
        "time_buckets(width => '1 hour', \"by\" => 'symbol', top => 12, \"from\" => $1,"
        ' "to" => $2)',
        29,
        f"select symbol, {{hour}} as bucket, {FIGURES} {WHERE} and generated_at < {{to}}"
        " group by symbol, bucket",
    ),
    "minutes": Query(
        'time_buckets(width => \'1 minute\', "from" => $1, "to" => $2)',
        1,
        f"select {{minute}} as bucket, {FIGURES} {WHERE} and generated_at < {{to}} group by bucket",
        by_rollups=False,
    ),
    "rolling_z_score": Query(
        'rolling_statistics(width => \'1 hour\', "window" => 24, "from" => $1, "to" => $2)',
        29,
        f"""
        with hourly as (
          select {{hour}} as bucket, count(*) as signals {WHERE} and generated_at < {{to}}
          group by bucket
        )
        select bucket, signals, (signals - mean) / nullif(deviation, 0)
        from (
          select
            bucket, signals, avg(signals) over recent as mean,
            stddev_samp(signals) over recent as deviation, count(*) over recent as places
          from hourly
          window recent as (order by bucket rows between 23 preceding and current row)
        ) as rolling
        where places = 24 and deviation > 0
        """,
    ),
    "heat_map": Query(
        'heat_map(top => 12, "from" => $1, "to" => $2)',
        29,
        f"select symbol, {{hour_of_day}} as hour, {FIGURES} {WHERE} and generated_at < {{to}}"
        " group by symbol, hour",
    ),
}


class Engine(Protocol):
    """Something that answers queries."""

    async def ask(self, name: str) -> list[Row]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose signals, and which day it is."""

    account_id: str
    account_no: int
    today: datetime

    def span(self, name: str) -> tuple[datetime, datetime]:
        return self.today - timedelta(days=QUERIES[name].days), self.today


@dataclass(frozen=True, slots=True)
class Ours:
    """The functions of the API, as a signed-in user, in the database."""

    connection: asyncpg.Connection
    asked: Asked

    async def ask(self, name: str) -> list[Row]:
        statement = f"select public.{QUERIES[name].call}"
        answer = await self.connection.fetchval(statement, *self.asked.span(name))
        return list(_rows(json.loads(answer)))


@dataclass(frozen=True, slots=True)
class Postgres:
    """One table in a database of PostgreSQL."""

    connection: asyncpg.Connection
    asked: Asked
    bucket: str

    async def ask(self, name: str) -> list[Row]:
        first, end = (f"timestamptz '{moment.isoformat()}'" for moment in self.asked.span(name))
        statement = QUERIES[name].sql.format(
            account_no=self.asked.account_no,
            from_=first,
            to=end,
            hour_of_day="extract(hour from generated_at at time zone 'UTC')::integer",
            **{unit: self.bucket.format(unit) for unit in ("day", "hour", "minute")},
        )
        return [tuple(row) for row in await self.connection.fetch(statement)]


@dataclass(frozen=True, slots=True)
class ClickHouse:
    """One table of chdb."""

    session: Any
    asked: Asked

    async def ask(self, name: str) -> list[Row]:
        first, end = (
            f"toDateTime64('{moment:%Y-%m-%d %H:%M:%S}', 6, 'UTC')"
            for moment in self.asked.span(name)
        )
        statement = QUERIES[name].sql.format(
            account_no=self.asked.account_no,
            from_=first,
            to=end,
            hour_of_day="toHour(generated_at)",
            **{
                unit: f"toStartOfInterval(generated_at, interval 1 {unit})"
                for unit in ("day", "hour", "minute")
            },
        )
        answer = str(self.session.query(statement, "JSONCompactEachRow"))
        return [tuple(json.loads(line)) for line in answer.splitlines()]


def _rows(answer: Mapping[str, Any]) -> Iterator[Row]:
    """Return the rows that SQL would, without those of empty buckets."""
    places = answer.get("buckets", answer.get("hours"))
    for series in answer["series"]:
        columns = COLUMNS if "signals" in series else ("value", "z_score")
        for place, *figures in zip(places, *(series[name] for name in columns), strict=True):
            if figures[0] and figures[-1] is not None:
                key = () if series["key"] is None else (series["key"],)
                yield (*key, place, *figures)


def same_rows(found: Sequence[Row], wanted: Sequence[Row]) -> bool:
    """Tell whether two answers have the same groups, and figures within 1e-9."""
    pairs = list(zip(_ordered(found), _ordered(wanted), strict=False))
    return len(found) == len(wanted) and all(
        one == other or (isinstance(one, float) and math.isclose(one, other, rel_tol=1e-9))
        for row, wanted_row in pairs
        for one, other in zip(row, wanted_row, strict=True)
    )


def _ordered(rows: Sequence[Row]) -> list[Row]:
    plain = [tuple(_plain(value) for value in row) for row in rows]
    return sorted(plain, key=lambda row: [str(value) for value in row[:2]])


def _plain(value: Any) -> Any:
    """Return a time as text, and what counts as a float: engines differ in both."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    if isinstance(value, str):
        is_time = value[:2] == "20"
        return value[:16].replace("T", " ") if is_time else value
    return float(value)


async def measure(
    engines: Mapping[str, Engine], chance: random.Random, runs: int
) -> dict[str, dict[str, float]]:
    """Ask every engine every query; return the median of the seconds that each took."""
    took: dict[str, dict[str, list[float]]] = {
        name: {engine: [] for engine in engines} for name in QUERIES
    }
    for run in range(runs + 1):
        for name in QUERIES:
            answers = {}
            for engine in chance.sample(list(engines), len(engines)):
                seconds, answers[engine] = await _timed(engines[engine].ask(name))
                if run:
                    took[name][engine].append(seconds)
            for engine, answer in answers.items():
                if not same_rows(answer, answers["ours"]):
                    raise RuntimeError(f"Cannot trust the run: {engine} answers {name} otherwise")
        say(f"run {run} of {runs}")
    return {
        name: {engine: round(statistics.median(each), 4) for engine, each in engines_took.items()}
        for name, engines_took in took.items()
    }


async def _timed(answer: Awaitable[Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    answered = await answer
    return time.perf_counter() - began, answered


@contextmanager
def clickhouse_session(folder: Path) -> Iterator[Any]:
    """Open an empty ClickHouse in this process; delete what it stored at the end."""
    # scripts/bench puts it on the path for this benchmark only.
    from chdb.session import Session

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    session = Session(str(folder / "data"))
    try:
        yield session
    finally:
        session.close()
        shutil.rmtree(folder, ignore_errors=True)


async def _fill_clickhouse(connection: asyncpg.Connection, session: Any, file: Path) -> None:
    await connection.copy_from_query(SIGNALS_AS_CSV, output=file, format="csv")
    session.query("create database bench")
    session.query(CLICKHOUSE_TABLE.format(file=file))
    session.query(f"optimize table {TABLE} final")


async def run(
    project: Project, timescale: str, session: Any, options: argparse.Namespace
) -> dict[str, Any]:
    """Fill all engines, ask all queries, and report."""
    plan = history_plan(options.signals)
    target = project.new_targets(1)[0]
    async with AsyncExitStack() as stack:
        ours, plain, peer = [
            await _connect(stack, dsn)
            for dsn in (project.database_url, project.database_url, timescale)
        ]
        await pause_jobs(ours)
        await plan_history(ours, plan, [target])
        filled = {
            name: await _seconds(step)
            for name, step in {
                "plain": lambda: make_plain(ours, project.database_url, plan),
                "ours": lambda: fill_storage(ours, project.database_url, plan, [target]),
                "timescale": lambda: make_hypertable(ours, peer, timescale, plan),
                "clickhouse": lambda: _fill_clickhouse(
                    ours, session, _clickhouse_folder(options) / "signals.csv"
                ),
            }.items()
        }
        asked = await _sign_in(ours, target, plan.today)
        engines: dict[str, Engine] = {
            "ours": Ours(ours, asked),
            "plain": Postgres(
                plain, asked, "date_bin('1 {}', generated_at, timestamptz '2000-01-03 00:00Z')"
            ),
            "timescale": Postgres(peer, asked, "time_bucket('1 {}', generated_at)"),
            "clickhouse": ClickHouse(session, asked),
        }
        seconds = await measure(engines, random.Random(options.seed), options.runs)
        read = {name: await _signals_of(plain, asked, name) for name in QUERIES}
    return report(options, filled, seconds, read)


async def _seconds(step: Callable[[], Awaitable[Any]]) -> float:
    seconds, _ = await _timed(step())
    say(f"filled in {seconds:.0f} s")
    return round(seconds, 1)


async def _sign_in(connection: asyncpg.Connection, target: Target, today: datetime) -> Asked:
    account_no = await connection.fetchval(
        "select account_no from private.accounts where account_id = $1", target.account_id
    )
    claims = json.dumps({"sub": target.account_id, "role": "authenticated"})
    await connection.execute("select set_config('request.jwt.claims', $1, false)", claims)
    await connection.execute("set role authenticated")
    return Asked(target.account_id, account_no, today)


async def _signals_of(connection: asyncpg.Connection, asked: Asked, name: str) -> int:
    count: int = await connection.fetchval(
        f"select count(*) from {TABLE} where account_no = $1 and generated_at >= $2"
        " and generated_at < $3",
        asked.account_no,
        *asked.span(name),
    )
    return count


async def _connect(stack: AsyncExitStack, dsn: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(dsn, command_timeout=3600)
    stack.push_async_callback(connection.close)
    await connection.execute("set statement_timeout = 0")
    return connection


def history_plan(signals: int) -> HistoryPlan:
    """Return the plan of one account: a twentieth hot, a tenth warm, the rest cold."""
    hot, warm = signals // 20, signals // 10
    return HistoryPlan(datetime.now(UTC), 1, hot, warm, signals - hot - warm)


def report(
    options: argparse.Namespace,
    filled: Mapping[str, float],
    seconds: Mapping[str, Mapping[str, float]],
    read: Mapping[str, int],
) -> dict[str, Any]:
    """Put the figures together and say where a table of rows was faster than rollups."""
    failed = [
        name
        for name, took in seconds.items()
        if options.signals >= ALL_SIGNALS
        and QUERIES[name].by_rollups
        and took["ours"] > min(took["plain"], took["timescale"])
    ]
    return {
        "bench": "analysis",
        "machine": machine(),
        "runs": options.runs,
        "ok": not failed,
        "failed": failed,
        "signals": options.signals,
        "read": dict(read),
        "seed": options.seed,
        "filled_s": dict(filled),
        "seconds": {name: dict(took) for name, took in seconds.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when ours is fastest wherever it should be, else 1."""
    options = _parse(arguments)
    with (
        clickhouse_session(_clickhouse_folder(options)) as session,
        bench_project(options.stack_name) as project,
        timescale_database(options.stack_name) as timescale,
    ):
        result = asyncio.run(run(project, timescale, session, options))
    write(result, options.json)
    return 0 if result["ok"] else 1


def _clickhouse_folder(options: argparse.Namespace) -> Path:
    return REPOSITORY / ".stack" / f"{options.stack_name}-clickhouse"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench analysis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--signals", type=int, default=ALL_SIGNALS)
    parser.add_argument("--runs", type=int, default=MINIMUM_RUNS)
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the engines")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(arguments)
    if options.signals < FEWEST_SIGNALS or options.runs <= 0:
        parser.error(f"--signals must be {FEWEST_SIGNALS:,} or more, and --runs more than 0")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sys.exit(str(error))
