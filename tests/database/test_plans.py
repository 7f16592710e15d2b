"""The hot queries use their indexes, and leave out the days they need not look at."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from tests.database.callers import make_signals
from tests.database.explained import (
    DEEP_MINUTES,
    ROWS,
    TODAY,
    Explained,
    assert_by_index,
    filled,
    rows_of,
)
from tests.plugins.stack import RunningStack

# 300 signals a minute of one group, in the last 100 minutes before a time.
DENSE = """
insert into private.signals (
  generated_at, seq, confidence, price, account_no, trader_no, timeframe, action, symbol)
select
  $1::timestamptz - number * interval '200 milliseconds', 1000000 + number, 0.5, number,
  trader.account_no, trader.trader_no, 6, 1, 'DENSE'
from generate_series(1, 30000) as number
cross join private.traders as trader
where trader.trader_id::text = $2
"""
DENSE_MINUTES = """
select public.query_rollups(
  symbols => array['DENSE'], cursor => $1, page_size => 1000, "from" => $2, "to" => $3)
"""
READ_FOR_MINUTES = 3 * 101
"""Signals that a page of 100 minutes looks for. Here each is a rollup of its own."""

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
    cursor = await explained.cursor_behind(TODAY - timedelta(days=6))
    answer, scans = await explained.run("select public.query_signals(cursor => $1)", cursor)
    assert len(answer["signals"]) == 100
    assert_by_index(scans, "pkey")
    assert sum(scan.rows for scan in scans) <= 120


async def test_the_oldest_page_reads_little_more_than_the_page(explained: Explained) -> None:
    answer, scans = await explained.run("select public.query_signals(sort => 'oldest')")
    assert [signal["seq"] for signal in answer["signals"]] == list(range(1, 101))
    assert_by_index(scans, "pkey")
    assert rows_of(scans) <= 120
    cursor = await explained.cursor_behind(TODAY - timedelta(days=2), "oldest")
    answer, scans = await explained.run(
        "select public.query_signals(sort => 'oldest', cursor => $1)", cursor
    )
    assert len(answer["signals"]) == 100
    assert_by_index(scans, "pkey")
    assert rows_of(scans) <= 120


async def test_the_last_seqs_are_read_by_seq(explained: Explained) -> None:
    answer, scans = await explained.run(
        "select public.query_signals(sort => '-seq', until_seq => $1)", ROWS - 1000
    )
    first = ROWS - 1000
    assert [signal["seq"] for signal in answer["signals"]] == list(range(first, first - 100, -1))
    assert_by_index(scans, "account_no_seq_idx")
    assert rows_of(scans) <= 120


async def test_a_status_that_few_signals_have_is_looked_for_up_to_a_limit(
    explained: Explained,
) -> None:
    await explained.advance([5, 30_000])
    found: list[int] = []
    pages = 0
    cursor = None
    while not pages or cursor:
        answer, scans = await explained.run(
            "select public.query_signals(statuses => array['analyzed'], cursor => $1)", cursor
        )
        found += [signal["seq"] for signal in answer["signals"]]
        assert rows_of(scans) <= 15_000
        cursor = answer["next_cursor"]
        pages += 1
    assert found == [30_000, 5]
    assert 7 <= pages <= 10


@pytest.mark.parametrize("sort", ["newest", "-seq", "symbol"])
@pytest.mark.parametrize("statuses", [[], ["unknown"]], ids=["none", "unknown"])
async def test_a_status_that_no_signal_can_have_is_not_looked_for(
    explained: Explained, statuses: list[str], sort: str
) -> None:
    answer, scans = await explained.run(
        "select public.query_signals(statuses => $1, sort => $2)", statuses, sort
    )
    assert (answer["signals"], answer["next_cursor"]) == ([], None)
    assert rows_of(scans) == 0


@pytest.mark.parametrize("sort", ["confidence", "-symbol"])
async def test_an_order_that_no_index_has_is_refused_before_very_much_is_read(
    explained: Explained, sort: str
) -> None:
    start = TODAY - timedelta(days=1)
    ask = 'select public.query_signals(sort => $1, "from" => $2)'
    with pytest.raises(asyncpg.PostgresError, match="more than 20,000 signals") as refused:
        async with explained.connection.transaction():
            await explained.run(ask, sort, start - timedelta(days=2))
    assert refused.value.detail == "query_too_wide"
    assert rows_of(explained.scans("signals")) <= 20_100
    answer, scans = await explained.run(ask, sort, start)
    assert len(answer["signals"]) == 100
    assert_by_index(scans, "pkey")


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


async def test_rows_of_other_symbols_and_traders_are_passed_over_in_the_index(
    explained: Explained,
) -> None:
    quiet = json.loads(await explained.connection.fetchval("select public.create_trader('quiet')"))
    for question, wanted in (
        ("select public.query_signals(symbols => $1)", ["NONE"]),
        ("select public.query_signals(traders => $1::text[]::uuid[])", [quiet["trader_id"]]),
        ("select public.query_signals(symbol_prefix => ($1::text[])[1])", ["NONE"]),
        ("select public.query_signals(symbols => $1, sort => 'oldest')", ["NONE"]),
    ):
        answer, scans = await explained.run(question, wanted)
        assert answer["signals"] == []
        assert_by_index(scans, "pkey")
        assert rows_of(scans) == 0


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


async def test_the_newest_minutes_take_little_more_than_their_signals(
    explained: Explained,
) -> None:
    answer, scans = await explained.run("select public.query_rollups()")
    assert len(answer["rollups"]) == 100
    assert_by_index(scans, "pkey")
    assert rows_of(scans) <= READ_FOR_MINUTES + 20


async def test_a_deep_page_of_minutes_takes_as_little_as_the_first(explained: Explained) -> None:
    answer, scans = await explained.run(
        DEEP_MINUTES, TODAY - timedelta(days=5), explained.trader_id
    )
    assert len(answer["rollups"]) == 100
    assert_by_index(scans, "pkey")
    assert rows_of(scans) <= READ_FOR_MINUTES + 20


async def test_minutes_from_and_to_leave_out_the_partitions_of_other_days(
    explained: Explained,
) -> None:
    day = TODAY - timedelta(days=3)
    answer, scans = await explained.run(
        'select public.query_rollups("from" => $1, "to" => $2, page_size => 1000)',
        day + timedelta(hours=2),
        day + timedelta(hours=3),
    )
    assert 590 <= len(answer["rollups"]) <= 600
    assert {scan.table for scan in scans} == {f"signals_p{day:%Y%m%d}"}
    assert_by_index(scans, "pkey")
    assert rows_of(scans) <= len(answer["rollups"]) + 1


async def test_minutes_of_a_symbol_do_not_read_the_table_from_end_to_end(
    explained: Explained,
) -> None:
    answer, scans = await explained.run(
        "select public.query_rollups(symbols => array['S7'], page_size => 10)"
    )
    assert len(answer["rollups"]) == 10
    assert_by_index(scans, "pkey")
    # One signal in 50 has the symbol; 33 are looked for, and the newest of each other day.
    assert rows_of(scans) < 2500


async def test_hours_count_only_so_many_signals_that_wait_for_the_job(
    explained: Explained,
) -> None:
    for resolution in ("1h", "1d"):
        answer, scans = await explained.run(
            "select public.query_rollups(resolution => $1, page_size => 1000)", resolution
        )
        # The job has not run at all: all signals wait.
        assert answer["last_seq"] == sum(each["signals"] for each in answer["rollups"]) == 10_000
        assert_by_index(scans, "account_no_seq_idx")
        assert rows_of(scans) == 10_000


async def test_a_page_that_would_read_very_many_signals_is_cut_at_a_whole_minute(
    explained: Explained,
) -> None:
    to_time = TODAY - timedelta(days=1)
    from_time = to_time - timedelta(minutes=100)
    await explained.connection.execute("set local role none")
    await explained.connection.execute(DENSE, to_time, explained.trader_id)
    await explained.connection.execute("set local role authenticated")
    minutes: list[datetime] = []
    lengths: list[int] = []
    cursor = None
    while not lengths or cursor:
        answer, scans = await explained.run(DENSE_MINUTES, cursor, from_time, to_time)
        assert rows_of(scans) < 26_000
        assert {rollup["signals"] for rollup in answer["rollups"]} == {300}
        minutes += [datetime.fromisoformat(rollup["bucket"]) for rollup in answer["rollups"]]
        lengths.append(len(answer["rollups"]))
        cursor = answer["next_cursor"]
    assert minutes == [to_time - timedelta(minutes=number) for number in range(1, 101)]
    assert len(lengths) == 2
    assert 50 < lengths[0] < 80
