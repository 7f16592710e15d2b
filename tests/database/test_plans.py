"""The hot queries use their indexes, and leave out the days they need not look at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from tests.database.callers import make_signals
from tests.database.explained import ROWS, TODAY, Explained, assert_by_index, filled
from tests.plugins.stack import RunningStack

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def explained(stack: RunningStack) -> AsyncIterator[Explained]:
    async with filled(stack) as explained:
        yield explained


async def test_the_newest_page_reads_little_more_than_the_page(explained: Explained) -> None:
    answer, scans = await explained.run("select public.query_signals()")
    assert len(answer["signals"]) == 100
    assert_by_index(scans, "pkey")
    assert sum(scan.rows for scan in scans) <= 120


async def test_a_deep_page_reads_as_little_as_the_first(explained: Explained) -> None:
    cursor = await explained.connection.fetchval(
        "select private.encode_cursor('newest', $1, 999999999999999999)",
        TODAY - timedelta(days=6),
    )
    answer, scans = await explained.run("select public.query_signals(cursor => $1)", cursor)
    assert len(answer["signals"]) == 100
    assert_by_index(scans, "pkey")
    assert sum(scan.rows for scan in scans) <= 120


async def test_what_follows_a_seq_is_read_by_seq(explained: Explained) -> None:
    answer, scans = await explained.run("select public.query_signals(after_seq => $1)", ROWS - 1000)
    assert [signal["seq"] for signal in answer["signals"]] == list(range(ROWS - 999, ROWS - 899))
    assert_by_index(scans, "account_no_seq_idx")
    assert sum(scan.rows for scan in scans) <= 1000


async def test_a_follower_that_is_up_to_date_reads_no_signal(explained: Explained) -> None:
    answer, scans = await explained.run("select public.query_signals(after_seq => $1)", ROWS)
    assert answer["signals"] == []
    assert scans == []


async def test_from_and_to_leave_out_the_partitions_of_other_days(explained: Explained) -> None:
    day = TODAY - timedelta(days=3)
    answer, scans = await explained.run(
        'select public.query_signals("from" => $1, "to" => $2, page_size => 1000)',
        day + timedelta(hours=2),
        day + timedelta(hours=3),
    )
    assert 590 <= len(answer["signals"]) <= 600
    assert {scan.table for scan in scans} == {f"signals_p{day:%Y%m%d}"}
    assert_by_index(scans, "pkey")
    assert sum(scan.rows for scan in scans) <= len(answer["signals"]) + 1


async def test_a_filter_by_symbol_does_not_read_the_table_from_end_to_end(
    explained: Explained,
) -> None:
    answer, scans = await explained.run(
        "select public.query_signals(symbols => array['S7'], page_size => 10)"
    )
    assert len(answer["signals"]) == 10
    # One signal in 50 has the symbol.
    assert sum(scan.rows for scan in scans) < 1000


async def test_duplicates_are_looked_for_by_the_natural_key(explained: Explained) -> None:
    signals = make_signals(explained.trader_id, 50)
    ingest = "select public.ingest_signals(gen_random_uuid(), $1)"
    answer, _ = await explained.run(ingest, json.dumps(signals))
    assert answer["accepted"] == 50
    answer, scans = await explained.run(ingest, json.dumps([*signals, None]))
    assert answer["duplicate"] == 50
    assert_by_index([scan for scan in scans if scan.table.startswith("signals")], "pkey")
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
