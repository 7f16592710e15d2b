"""The peers of the read benchmark: one plain partitioned table, and one hypertable of TimescaleDB.

Both have the columns and the two indexes of private.signals and hold everything in it, unpacked:
in partitions of a day for the last week, of a month before. They are asked in the way that suits
them best: no row-level security, the account and trader by number, the page cut before the join,
and only the conditions that the question has.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg

from benchmarks.history import TABLES, TIERS, HistoryPlan, fill
from benchmarks.questions import Question
from benchmarks.sizes import table_bytes

TABLE = "bench.everything"
INDEXES = (
    f"create unique index on {TABLE} (account_no, generated_at, trader_no, symbol, timeframe)",
    f"create index on {TABLE} (account_no, seq)",
)
UNITS = {"1m": "minute", "1d": "day"}
COLUMN_LIST = """
select string_agg(
  format('%I %s%s', attname, format_type(atttypid, atttypmod),
    case when attcollation = 'pg_catalog."C"'::regcollation then ' collate "C"' end
    || case when attnotnull then ' not null' else '' end), ', ' order by attnum)
from pg_catalog.pg_attribute
where attrelid = 'private.signals'::regclass and attnum > 0 and not attisdropped
"""
TIMESCALE_TABLE = f"""
select create_hypertable(
  '{TABLE}', by_range('generated_at', interval '1 month'), create_default_indexes => false)
"""


@dataclass(slots=True)
class Conditions:
    """A where clause and its arguments."""

    words: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def add(self, condition: str, *arguments: Any) -> None:
        """Add a condition in which each {} stands for the next argument."""
        numbers = range(len(self.arguments) + 1, len(self.arguments) + len(arguments) + 1)
        self.words.append(condition.format(*(f"${number}" for number in numbers)))
        self.arguments.extend(arguments)

    def __str__(self) -> str:
        return " and ".join(self.words)


def page_query(question: Question) -> tuple[str, list[Any]]:
    """Return the statement, and its arguments, that answers the question from one table."""
    where = _conditions(question)
    order = "seq" if question.after_seq is not None else "generated_at desc, seq desc"
    # The limit is written out, so that the planner knows it as it knows that of query_signals.
    return (
        f"""
        select coalesce(json_agg(shown), '[]')
        from (
          select
            page.seq, trader.trader_id, page.symbol, page.timeframe, page.generated_at,
            page.action, page.confidence, page.price, page.stop_loss, page.take_profit,
            page.valid_until, page.metadata
          from (
            select * from {TABLE} where {where} order by {order} limit {question.page_size}
          ) as page
          left join bench.traders as trader using (trader_no)
          order by {order}
        ) as shown
        """,
        where.arguments,
    )


def rollup_query(question: Question, bucket: str) -> tuple[str, list[Any]]:
    """Return the statement that makes one row a group and bucket.

    `bucket` is that of generated_at, with {} where the unit of the question goes.
    """
    where = _conditions(question)
    unit = UNITS[question.resolution or ""]
    return (
        f"""
        select coalesce(json_agg(summed), '[]')
        from (
          select
            {bucket.format(unit)} as bucket, trader_no, symbol, timeframe, count(*) as signals,
            sum(confidence) as confidence_sum, min(price) as price_min, max(price) as price_max,
            sum(price) as price_sum
          from {TABLE} where {where} group by 1, 2, 3, 4
          order by 1 desc, 2 desc, 3 desc, 4 desc limit {question.page_size}
        ) as summed
        """,
        where.arguments,
    )


def _conditions(question: Question) -> Conditions:
    where = Conditions()
    where.add("account_no = {}", question.reader.account_no)
    if question.trader:
        where.add("trader_no = {}", question.trader[0])
    if question.symbol:
        where.add("symbol = {}", question.symbol)
    if question.timeframe:
        where.add("timeframe = {}", question.timeframe[0])
    if question.from_time:
        where.add("generated_at >= {}", question.from_time)
    if question.to_time:
        where.add("generated_at < {}", question.to_time)
    if question.after_seq is not None:
        where.add("seq > {}", question.after_seq)
    if question.before:
        at, seq, _ = question.before
        where.add("generated_at <= {} and (generated_at, seq) < ({}, {})", at, at, seq)
    return where


async def make_plain(
    connection: asyncpg.Connection, dsn: str, plan: HistoryPlan
) -> dict[str, float]:
    """Make and fill the plain table, beside ours; return its bytes per signal."""
    columns = await connection.fetchval(COLUMN_LIST)
    await connection.execute(f"create table {TABLE} ({columns}) partition by range (generated_at)")
    for number, (starts, ends) in enumerate(pairwise(_bounds(plan))):
        # Nothing of it is to survive the benchmark, and reading does not differ.
        await connection.execute(
            f"create unlogged table bench.part_{number} partition of {TABLE}"
            f" for values from ('{starts}') to ('{ends}')"
        )
    await fill(dsn, TABLE, 1, sum(plan.batches(tier) for tier in TIERS))
    await _finish(connection)
    signals = await connection.fetchval(f"select count(*) from {TABLE}")
    return {"plain": round(await table_bytes(connection, TABLE) / signals, 1)}


def _bounds(plan: HistoryPlan) -> list[datetime]:
    """Return where partitions begin and end: months until a week ago, then days."""
    first, _ = plan.window("cold")
    last_week, yesterday = plan.window("warm")
    month = first.replace(day=1)
    bounds = []
    while month < last_week:
        bounds.append(month)
        month = (month + timedelta(days=31)).replace(day=1)
    days = (yesterday - last_week).days + 3
    return bounds + [last_week + timedelta(days=number) for number in range(days)]


async def make_hypertable(
    ours: asyncpg.Connection, connection: asyncpg.Connection, dsn: str, plan: HistoryPlan
) -> dict[str, float]:
    """Make and fill the hypertable by the plan in our database; return its bytes per signal."""
    await connection.execute(TABLES)
    for table in ("accounts", "traders", "batches"):
        rows = io.BytesIO()
        await ours.copy_from_table(table, schema_name="bench", output=rows, format="binary")
        rows.seek(0)
        await connection.copy_to_table(table, schema_name="bench", source=rows, format="binary")
    await connection.execute("analyze bench.accounts, bench.traders, bench.batches")
    columns = await ours.fetchval(COLUMN_LIST)
    await connection.execute(f"create table {TABLE} ({columns})")
    await connection.execute(TIMESCALE_TABLE)
    cold = plan.batches("cold")
    await fill(dsn, TABLE, 1, cold)
    await connection.execute(f"select set_chunk_time_interval('{TABLE}', interval '1 day')")
    await fill(dsn, TABLE, cold + 1, cold + plan.batches("warm") + plan.batches("hot"))
    await _finish(connection)
    return {
        "timescale": await connection.fetchval(
            f"select round(hypertable_size('{TABLE}')::numeric / count(*), 1)::float8 from {TABLE}"
        )
    }


async def _finish(connection: asyncpg.Connection) -> None:
    await connection.execute("set maintenance_work_mem = '512MB'")
    for index in INDEXES:
        await connection.execute(index)
    await connection.execute(f"vacuum (analyze) {TABLE}")
    await connection.execute("reset maintenance_work_mem")
