"""Fill a stack with a generated history: rows, segments, and rollups of who is asked.

What is hot is inserted as ingest_signals does. What is older goes into segments at once: packing it
day by day would take as many partitions as there are days, and gives the same segments (those of
warm signals are of one day, those of cold ones are merged within a month).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from benchmarks.history import CONNECTIONS, HistoryPlan, advance_accounts, fill
from benchmarks.jobs import run_to_end
from benchmarks.publishing import Target
from benchmarks.sizes import table_bytes

PACK = """
select private.store_segments(
  array(
    select row(each.*)::private.signals from bench.everything as each
    where account_no = $1
      and generated_at >= greatest($2, span.starts)
      and generated_at < least($3, span.starts + $4::text::interval)
    order by generated_at
  ),
  merged => $5)
from generate_series(
  date_trunc(split_part($4, ' ', 2), $2::timestamptz, 'UTC'), $3::timestamptz, $4::text::interval
) as span (starts)
"""
ANNOUNCE = "update private.accounts set packed_until = $1"
SPANS = {"warm": "1 day", "cold": "1 month"}
"""What is packed and merged at once: no segment reaches beyond."""


async def fill_storage(
    connection: asyncpg.Connection, dsn: str, plan: HistoryPlan, targets: Sequence[Target]
) -> dict[str, float]:
    """Fill ours from the plain table that is filled already; return bytes per signal."""
    packed = plan.batches("cold") + plan.batches("warm")
    await fill(dsn, "private.signals", packed + 1, packed + plan.batches("hot"))
    starts, _ = plan.window("cold")
    for parent in ("private.segments_elite", "private.rollups_1d"):
        await connection.execute(
            "select private.ensure_partitions($1, $2, $3)", parent, starts, plan.now
        )
    accounts = await connection.fetch("select account_no from bench.accounts order by rank")
    waiting = [account["account_no"] for account in accounts]
    await asyncio.gather(*(_pack(dsn, plan, waiting) for _ in range(CONNECTIONS)))
    _, packed_until = plan.window("warm")
    await connection.execute(ANNOUNCE, packed_until - timedelta(microseconds=1))
    # The job rolls up what last_seq tells of: only the accounts that are asked have one by now.
    await advance_accounts(connection, [target.account_id for target in targets])
    await run_to_end(connection, "rollup")
    await advance_accounts(connection, None)
    await connection.execute("vacuum (analyze) private.signals, private.segments, private.rollups")
    hot, segments = [
        await table_bytes(connection, table) for table in ("private.signals", "private.segments")
    ]
    return {
        "hot": round(hot / plan.hot, 1),
        "packed": round(segments / (plan.warm + plan.cold), 1),
    }


async def _pack(dsn: str, plan: HistoryPlan, waiting: list[int]) -> None:
    """Pack accounts from the list until it is empty; others take from it as well."""
    connection = await asyncpg.connect(dsn, command_timeout=3600)
    try:
        await connection.execute("set statement_timeout = 0")
        while waiting:
            account_no = waiting.pop()
            for tier, span in SPANS.items():
                starts, ends = plan.window(tier)
                await connection.execute(PACK, account_no, starts, ends, span, tier == "cold")
    finally:
        await connection.close()
