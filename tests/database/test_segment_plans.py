"""A page of packed signals looks into the segments that hold it, and into few others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from tests.database.explained import (
    DEEP_MINUTES,
    TODAY,
    Explained,
    assert_by_index,
    filled,
    rows_of,
)
from tests.plugins.stack import RunningStack

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def packed(stack: RunningStack) -> AsyncIterator[Explained]:
    """What is older than a day is in some 45 segments an account."""
    async with filled(stack, TODAY - timedelta(days=1)) as explained:
        yield explained


async def test_the_newest_page_looks_into_no_segment(packed: Explained) -> None:
    answer, scans = await packed.run("select public.query_signals()")
    assert len(answer["signals"]) == 100
    assert_by_index(scans, "pkey")
    assert packed.scans("segments") == []


async def test_a_deep_page_looks_into_the_segments_that_hold_it(packed: Explained) -> None:
    cursor = await packed.cursor_behind(TODAY - timedelta(days=5))
    answer, _ = await packed.run("select public.query_signals(cursor => $1)", cursor)
    assert len(answer["signals"]) == 100
    assert 1 <= packed.looked_into() <= 2
    assert_by_index(packed.scans("segments"), "pkey")
    assert sum(scan.rows for scan in packed.scans("segments")) <= 3


async def test_the_oldest_pages_look_into_the_segments_that_hold_them(packed: Explained) -> None:
    ask = "select public.query_signals(sort => 'oldest', cursor => $1)"
    for cursor in (None, await packed.cursor_behind(TODAY - timedelta(days=4), "oldest")):
        answer, _ = await packed.run(ask, cursor)
        assert len(answer["signals"]) == 100
        assert 1 <= packed.looked_into() <= 2
        assert_by_index(packed.scans("segments"), "account_no_first_generated_at_l")
        assert rows_of(packed.scans("segments")) <= 3


async def test_the_last_seqs_that_are_packed_are_looked_for_where_they_are(
    packed: Explained,
) -> None:
    answer, _ = await packed.run(
        "select public.query_signals(sort => '-seq', until_seq => $1)", 20_000
    )
    assert [signal["seq"] for signal in answer["signals"]] == list(range(20_000, 19_900, -1))
    assert 1 <= packed.looked_into() <= 2
    assert_by_index(packed.scans("segments"), "last_seq_first_seq_idx")
    assert rows_of(packed.scans("segments")) <= 3


async def test_a_segment_that_cannot_pass_a_filter_is_not_looked_into(packed: Explained) -> None:
    for filter_ in (
        "symbol_prefix => 'NONE'",
        "symbol_prefix => 'S1', actions => array['exit_long']",
        "min_confidence => 0.6",
        "max_confidence => 0.4",
        "max_price => 0.5",
        "min_price => 1e6",
        "tags => array['none']",
    ):
        for sort in ("newest", "oldest", "-symbol"):
            answer, _ = await packed.run(
                f"select public.query_signals({filter_}, sort => $1)", sort
            )
            assert answer["signals"] == []
            assert packed.looked_into() + packed.tested() == 0, filter_


async def test_a_seq_that_is_packed_is_looked_for_where_it_is(packed: Explained) -> None:
    answer, scans = await packed.run("select public.query_signals(after_seq => $1)", 20_000)
    assert [signal["seq"] for signal in answer["signals"]] == list(range(20_001, 20_101))
    assert 1 <= packed.looked_into() <= 2
    assert_by_index(packed.scans("segments"), "last_seq_first_seq_idx")
    assert sum(scan.rows for scan in packed.scans("segments")) <= 3
    # The index is read from the first segment that can hold the page to the last, not to its end.
    for scan in packed.scans("segments"):
        assert "last_seq >" in scan.condition, scan
        assert "last_seq <=" in scan.condition, scan
    assert sum(scan.rows for scan in scans) == 0


async def test_a_segment_without_the_symbol_is_not_looked_into(packed: Explained) -> None:
    answer, _ = await packed.run("select public.query_signals(symbols => array['NONE'])")
    assert answer["signals"] == []
    assert packed.looked_into() == 0
    answer, _ = await packed.run(
        "select public.query_signals(symbols => array['S7'], \"to\" => $1, page_size => 10)",
        TODAY - timedelta(days=3),
    )
    assert len(answer["signals"]) == 10
    assert 1 <= packed.looked_into() <= 2


async def test_a_filter_by_one_value_is_not_tested_signal_by_signal(packed: Explained) -> None:
    ask = 'select public.query_signals(symbols => $1, "to" => $2, page_size => 10)'
    end = TODAY - timedelta(days=3)
    answer, _ = await packed.run(ask, ["S7"], end)
    assert len(answer["signals"]) == 10
    assert packed.tested() == 0
    answer, _ = await packed.run(ask, ["S7", "S8"], end)
    assert len(answer["signals"]) == 10
    assert packed.tested() >= 1


async def test_a_filter_that_all_signals_of_a_segment_pass_is_not_tested(packed: Explained) -> None:
    answer, _ = await packed.run(
        "select public.query_signals(traders => array[$1::uuid], timeframes => array['1m', '5m'],"
        " actions => array['enter_long'], min_confidence => 0.5, \"to\" => $2)",
        packed.trader_id,
        TODAY - timedelta(days=3),
    )
    assert len(answer["signals"]) == 100
    assert 1 <= packed.looked_into() <= 2
    assert packed.tested() == 0


async def test_months_are_opened_when_a_page_reads_so_far(packed: Explained) -> None:
    transaction = packed.connection.transaction()
    await transaction.start()
    await packed.connection.execute("set local role none")
    await packed.connection.execute(
        "select private.ensure_partitions('private.segments_elite', $1, $2)",
        TODAY - timedelta(days=1500),
        TODAY,
    )
    await packed.connection.execute("set local role authenticated")
    try:
        await packed.run('select public.query_signals("to" => $1)', TODAY - timedelta(days=2))
        assert len({scan.table for scan in packed.scans("segments_elite_p")}) <= 2
        await packed.run("select public.query_signals(symbols => array['NONE'])")
        assert len({scan.table for scan in packed.scans("segments_elite_p")}) >= 48
    finally:
        await transaction.rollback()


async def test_from_and_to_leave_out_the_segments_of_other_months(packed: Explained) -> None:
    start = TODAY - timedelta(days=3)
    answer, _ = await packed.run(
        'select public.query_signals("from" => $1, "to" => $2, page_size => 1000)',
        start,
        start + timedelta(hours=1),
    )
    assert 590 <= len(answer["signals"]) <= 600
    assert 1 <= packed.looked_into() <= 2
    month = f"_p{start:%Y%m}01"
    for scan in packed.scans("segments"):
        assert scan.table.endswith((month, "_default")), scan


async def test_a_page_of_minutes_looks_into_the_segments_that_hold_it(packed: Explained) -> None:
    answer, scans = await packed.run(DEEP_MINUTES, TODAY - timedelta(days=5), packed.trader_id)
    assert len(answer["rollups"]) == 100
    assert 1 <= packed.looked_into() <= 2
    assert_by_index(packed.scans("segments"), "pkey")
    assert rows_of(packed.scans("segments")) <= 3
    assert rows_of(scans) == 0


async def test_minutes_of_a_symbol_look_into_no_segment_without_it(packed: Explained) -> None:
    answer, _ = await packed.run("select public.query_rollups(symbols => array['NONE'])")
    assert answer["rollups"] == []
    assert packed.looked_into() == 0
