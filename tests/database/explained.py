"""The plans of what runs inside the functions, on 100,000 signals for each of two accounts.

auto_explain reports each plan as it really ran for a signed-in user. Everything happens in one
transaction that is rolled back.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

import asyncpg

from local_stack.database import superuser_dsn
from tests.plugins.stack import RunningStack

ROWS = 100_000
TODAY = datetime.combine(datetime.now(UTC).date(), time(), UTC)
# Two accounts, so that an index which forgets the account would show: a row of each every 6 s.
FILL = """
insert into private.signals (
  generated_at, seq, confidence, price, account_no, trader_no, timeframe, action, symbol)
select
  $4::timestamptz - number * interval '7 days' / $1, $1 + 1 - number, 0.5, number,
  account.account_no, trader.trader_no, 6, 1, 'S' || number % 50
from generate_series(1, $1::integer) as number
cross join private.accounts as account
inner join private.traders as trader on trader.account_no = account.account_no
where account.account_id in ($2, $3)
"""
# Everything before the last two days, as the packer stores it.
PACK = """
with announced as (
  update private.accounts set packed_until = $2 where account_id = any($1) returning account_no
),
moved as (
  delete from private.signals as signal using announced
  where signal.account_no = announced.account_no and signal.generated_at <= $2
  returning signal
)
select private.store_segments(array(select signal from moved))
"""
# A page of minutes that starts in the middle of those of a minute.
DEEP_MINUTES = """
select public.query_rollups(cursor => private.encode_rollup_cursor('1m', json_build_object(
  'bucket', $1::timestamptz, 'trader_id', $2::text, 'symbol', 'S25', 'timeframe', '1m')))
"""
ADVANCE = """
with event as (
  insert into private.signal_events (
    account_no, trader_no, symbol, timeframe, generated_at, signal_seq, seq, status, occurred_at,
    received_at)
  select
    signal.account_no, trader.trader_no, signal.symbol, signal.timeframe, signal.generated_at,
    signal.seq, signal.seq, 2, now(), now()
  from private.signals as signal
  inner join private.traders as trader on trader.account_no = signal.account_no
  where trader.trader_id::text = $2 and signal.seq = any($1)
  returning account_no, seq
)
update private.accounts as account set last_event_seq = event.seq
from event
where account.account_no = event.account_no
"""
# Behind every signal of a time.
CURSOR = """
select private.encode_cursor(
  private.read_page(private.read_filter(), $2, null, null),
  jsonb_populate_record(null::private.signals, jsonb_build_object(
    'generated_at', $1::timestamptz,
    'seq', case $2 when 'oldest' then 999999999999999999 else 0 end)))
"""
EXPLAIN_EVERYTHING = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_analyze = on;
set auto_explain.log_format = json;
set auto_explain.log_level = notice;
"""


@dataclass(frozen=True, slots=True)
class Scan:
    """A node of a plan that reads rows of a table and was really run."""

    node: str
    table: str
    index: str | None
    condition: str
    rows: float


@dataclass(slots=True)
class Explained:
    """A connection of a signed-in user, and the plans of what it ran."""

    connection: asyncpg.Connection
    trader_id: str
    plans: list[dict[str, Any]]

    async def run(self, query: str, *values: object) -> tuple[Any, list[Scan]]:
        """Return the JSON answer, and the scans of partitions and ledger that it took."""
        self.plans.clear()
        answer = json.loads(await self.connection.fetchval(query, *values))
        assert self.plans, "auto_explain reported no plan"
        return answer, [
            scan
            for scan in self.scans("signals", "batches")
            # The partition of a day without signals is rightly read whole.
            if (scan.node, scan.rows) != ("Seq Scan", 0)
        ]

    async def advance(self, seqs: list[int]) -> None:
        """Report that the signals with these seqs were analyzed."""
        await self.connection.execute("set local role none")
        await self.connection.execute(ADVANCE, seqs, self.trader_id)
        await self.connection.execute("set local role authenticated")

    async def cursor_behind(self, time: datetime, sort: str = "newest") -> str:
        """Return the cursor of a page without filters that starts behind the signals of a time."""
        cursor: str = await self.connection.fetchval(CURSOR, time, sort)
        return cursor

    def scans(self, *tables: str) -> list[Scan]:
        """Return the scans of these tables, and of partitions of them, that the last query took."""
        scans = (scan for plan in self.plans for scan in _scans(plan["Plan"]))
        return [scan for scan in scans if scan.table.startswith(tables)]

    def looked_into(self) -> int:
        """Return of how many segments the last query read signals."""
        return self._ran("as symbol_position", "part.price")

    def tested(self) -> int:
        """Return of how many segments the last query tested the signals one by one."""
        return self._ran("as symbol_position", "limit case")

    def _ran(self, *words: str) -> int:
        return sum(all(word in plan["Query Text"] for word in words) for plan in self.plans)

    def heard(self, _: object, message: Any) -> None:
        _, found, plan = str(message).partition("plan:\n")
        if found:
            self.plans.append(json.loads(plan))


def _scans(node: dict[str, Any]) -> Iterator[Scan]:
    children = node.get("Plans", [])
    if "Relation Name" in node and node["Actual Loops"] and "Scan" in node["Node Type"]:
        indexes = [child for child in (node, *children) if "Index Name" in child]
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield Scan(
            node["Node Type"],
            node["Relation Name"],
            indexes[0]["Index Name"] if indexes else None,
            indexes[0].get("Index Cond", "") if indexes else "",
            rows * node["Actual Loops"],
        )
    for child in children:
        yield from _scans(child)


@asynccontextmanager
async def filled(
    stack: RunningStack, packed_until: datetime | None = None
) -> AsyncIterator[Explained]:
    """A signal every 6 s of the last week, for each of two accounts; packed up to a time."""
    connection = await asyncpg.connect(superuser_dsn(stack.settings))
    transaction = connection.transaction()
    await transaction.start()
    try:
        accounts = [uuid.uuid4(), uuid.uuid4()]
        traders = []
        for account_id in accounts:
            await connection.execute("select private.set_account_tier($1, 'elite')", account_id)
            traders.append(
                await connection.fetchval(
                    "insert into private.traders (account_no, name) select account_no, 'filled'"
                    " from private.accounts where account_id = $1 returning trader_id::text",
                    account_id,
                )
            )
        await connection.execute(FILL, ROWS, *accounts, TODAY + timedelta(hours=1))
        await connection.execute(
            "update private.accounts set last_seq = $1 where account_id = any($2)", ROWS, accounts
        )
        if packed_until:
            await connection.execute(PACK, accounts, packed_until)
        await connection.execute(
            "analyze private.signals, private.segments, private.accounts, private.traders"
        )
        explained = Explained(connection, traders[0], [])
        connection.add_log_listener(explained.heard)
        await connection.execute(EXPLAIN_EVERYTHING)
        await connection.execute(
            "select set_config('request.jwt.claims', $1, true)",
            json.dumps({"sub": str(accounts[0]), "role": "authenticated"}),
        )
        await connection.execute("set local role authenticated")
        yield explained
    finally:
        await transaction.rollback()
        await connection.close()


def rows_of(scans: list[Scan]) -> float:
    """Return how many rows all of them read."""
    return sum(scan.rows for scan in scans)


def assert_by_index(scans: list[Scan], index: str) -> None:
    """Assert that all of them used this index, and that there are any."""
    assert scans
    for scan in scans:
        assert index in (scan.index or ""), scan
