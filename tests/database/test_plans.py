"""The hot queries use their indexes, and leave out the days they need not look at.

The plans are those of the queries inside the functions, as they really run for a signed-in user:
auto_explain reports each one. Everything happens in one transaction that is rolled back.
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
import pytest
import pytest_asyncio

from local_stack.database import superuser_dsn
from tests.database.callers import make_signals
from tests.plugins.stack import RunningStack

pytestmark = pytest.mark.asyncio(loop_scope="module")

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
        scans = [scan for plan in self.plans for scan in _scans(plan["Plan"])]
        return answer, [
            scan
            for scan in scans
            if scan.table.startswith(("signals", "batches"))
            # The partition of a day without signals is rightly read whole.
            and (scan.node, scan.rows) != ("Seq Scan", 0)
        ]

    def heard(self, _: object, message: Any) -> None:
        _, found, plan = str(message).partition("plan:\n")
        if found:
            self.plans.append(json.loads(plan))


def _scans(node: dict[str, Any]) -> Iterator[Scan]:
    children = node.get("Plans", [])
    if "Relation Name" in node and node["Actual Loops"] and "Scan" in node["Node Type"]:
        indexes = [child["Index Name"] for child in (node, *children) if "Index Name" in child]
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield Scan(
            node["Node Type"],
            node["Relation Name"],
            indexes[0] if indexes else None,
            rows * node["Actual Loops"],
        )
    for child in children:
        yield from _scans(child)


@asynccontextmanager
async def _filled(stack: RunningStack) -> AsyncIterator[Explained]:
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
        await connection.execute("analyze private.signals, private.accounts, private.traders")
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def explained(stack: RunningStack) -> AsyncIterator[Explained]:
    """A table of 100,000 signals over a week for each of two accounts."""
    async with _filled(stack) as filled:
        yield filled


def _assert_by_index(scans: list[Scan], index: str) -> None:
    assert scans
    for scan in scans:
        assert index in (scan.index or ""), scan


async def test_the_newest_page_reads_little_more_than_the_page(explained: Explained) -> None:
    answer, scans = await explained.run("select public.query_signals()")
    assert len(answer["signals"]) == 100
    _assert_by_index(scans, "pkey")
    assert sum(scan.rows for scan in scans) <= 120


async def test_a_deep_page_reads_as_little_as_the_first(explained: Explained) -> None:
    cursor = await explained.connection.fetchval(
        "select private.encode_cursor('newest', $1, 999999999999999999)",
        TODAY - timedelta(days=6),
    )
    answer, scans = await explained.run("select public.query_signals(cursor => $1)", cursor)
    assert len(answer["signals"]) == 100
    _assert_by_index(scans, "pkey")
    assert sum(scan.rows for scan in scans) <= 120


async def test_what_follows_a_seq_is_read_by_seq(explained: Explained) -> None:
    answer, scans = await explained.run("select public.query_signals(after_seq => $1)", ROWS - 1000)
    assert [signal["seq"] for signal in answer["signals"]] == list(range(ROWS - 999, ROWS - 899))
    _assert_by_index(scans, "account_no_seq_idx")
    assert sum(scan.rows for scan in scans) <= 1000


async def test_a_follower_that_is_up_to_date_reads_next_to_nothing(explained: Explained) -> None:
    answer, scans = await explained.run("select public.query_signals(after_seq => $1)", ROWS)
    assert answer["signals"] == []
    _assert_by_index(scans, "account_no_seq_idx")
    assert sum(scan.rows for scan in scans) == 0


async def test_from_and_to_leave_out_the_partitions_of_other_days(explained: Explained) -> None:
    day = TODAY - timedelta(days=3)
    answer, scans = await explained.run(
        'select public.query_signals("from" => $1, "to" => $2, page_size => 1000)',
        day + timedelta(hours=2),
        day + timedelta(hours=3),
    )
    assert 590 <= len(answer["signals"]) <= 600
    assert {scan.table for scan in scans} == {f"signals_p{day:%Y%m%d}"}
    _assert_by_index(scans, "pkey")
    assert sum(scan.rows for scan in scans) <= len(answer["signals"]) + 1


async def test_a_filter_by_symbol_does_not_read_the_table_from_end_to_end(
    explained: Explained,
) -> None:
    answer, scans = await explained.run(
        "select public.query_signals(symbols => array['S7'], page_size => 10)"
    )
    assert len(answer["signals"]) == 10
    assert sum(scan.rows for scan in scans) < 100


async def test_duplicates_are_looked_for_by_the_natural_key(explained: Explained) -> None:
    signals = make_signals(explained.trader_id, 50)
    ingest = "select public.ingest_signals(gen_random_uuid(), $1)"
    answer, _ = await explained.run(ingest, json.dumps(signals))
    assert answer["accepted"] == 50
    answer, scans = await explained.run(ingest, json.dumps([*signals, None]))
    assert answer["duplicate"] == 50
    _assert_by_index([scan for scan in scans if scan.table.startswith("signals")], "pkey")
    assert sum(scan.rows for scan in scans) <= 110


async def test_a_broadcast_reads_only_the_signals_of_its_batch(explained: Explained) -> None:
    signals = make_signals(explained.trader_id, 20, 1000)
    _, scans = await explained.run(
        "select public.ingest_signals(gen_random_uuid(), $1)", json.dumps(signals)
    )
    read = [scan for scan in scans if scan.table.startswith("signals")]
    assert read
    assert all(scan.index for scan in read)
    assert sum(scan.rows for scan in read) <= 25
