"""Rollups equal a recount: whatever came late, was packed, committed out of turn or ran at once."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_stack.database import superuser_dsn
from tests.database.callers import (
    Caller,
    caller,
    callers,
    make_signals,
    new_account,
    new_trader,
    operator,
)
from tests.database.test_concurrency import wait_until_waiting
from tests.plugins.stack import RunningStack

WIDTHS = {
    "1m": timedelta(minutes=1),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}
ACTIONS = ("enter_long", "exit_long", "enter_short", "exit_short")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEP = "select private.rollup_step()"
SIGNALS = """
select trader_id::text, symbol, timeframe, generated_at, action, confidence, price
from public.signals
where account_id = $1
  and ($2::uuid[] is null or trader_id = any($2))
  and ($3::text[] is null or symbol = any($3))
"""
LOOK = """
select public.query_rollups(
  resolution => $1, cursor => $2, page_size => $3, traders => $4::text[]::uuid[], symbols => $5,
  "from" => $6, "to" => $7)
"""
BEHIND = """
select account.last_seq - coalesce(head.seq, 0)
from private.accounts as account
left join private.rollup_heads as head using (account_no)
where account.account_id = $1
"""
DIFFERENCES = """
select difference.*
from private.accounts as account
cross join lateral private.rollup_differences(account.account_no) as difference
where account.account_id = $1
"""
# The distance of its mean from that of any signal has no square.
OUT_OF_RANGE = """
update private.rollups as rollup
set price_sum = 1e300
from private.accounts as account
where account.account_id = $1 and rollup.account_no = account.account_no
"""
LONG_AGO = """
update private.rollup_heads as head
set rolled_up_at = rolled_up_at - $2::interval
from private.accounts as account
where account.account_id = $1 and head.account_no = account.account_no
"""
ROLLED_UP_OUT_OF_RANGE = """
insert into private.rollups
select (jsonb_populate_record(made, '{"price_sum": 1e300}')).*
from private.accounts as account
cross join unnest(private.stored_resolutions()) as resolution
cross join lateral private.rollups_of(
  array(select signal from private.signals_by_seq(account.account_no, 1, 1) as signal),
  resolution) as made
where account.account_id = $1
"""
# Every so many signals one: what is packed and what is not then overlap in time and in seq.
PACK_SOME = """
with announced as (
  update private.accounts set packed_until = now() + interval '1 day' where account_id = $1
  returning account_no
),
moved as (
  delete from private.signals as signal using announced
  where signal.account_no = announced.account_no and signal.seq % $2 = $3
  returning signal
)
select private.store_segments(array(select signal from moved), 'elite')
"""
MERGE_ALL = """
with taken as (
  delete from private.segments as segment using private.accounts as account
  where account.account_id = $1 and segment.account_no = account.account_no
  returning segment
)
select private.store_segments(array(
  select signal
  from taken
  cross join lateral private.unpacked_signals(taken.segment, 1, (taken.segment).signals) as signal
), 'elite', true)
"""
# What takes thousands of signals to come to, after a few: steps of the job, and the parts in which
# a page of minutes is read, and after which it is cut.
SMALLER = {
    "rollup_step": {"(10000)": "(7)"},
    "minute_rollups": {
        "least(3 * query.row_limit, 4000)": "5",
        "20000": "25",
    },
}
PLACES = """
select
  (select count(*) from private.signals where account_no = account.account_no) as heap,
  (select coalesce(sum(signals), 0) from private.segments where account_no = account.account_no)
    as packed
from private.accounts as account
where account.account_id = $1
"""
# More hours than are kept, of 10 traders and 10 symbols: no partition of a page is nearly empty,
# which would be read as a whole.
FILL = """
with traders as (
  insert into private.traders (account_no, name)
  select account_no, 'filled ' || number
  from private.accounts cross join generate_series(1, 10) as number
  where account_id = $1
  returning account_no, trader_no
)
insert into private.rollups
select
  date_trunc('hour', now(), 'UTC') - hour * interval '1 hour', now(), now(),
  0.5, 0, 0.5, 0.5, 1, 0, 1, 1, 1, 1, account_no, trader_no, 1, 0, 0, 0, 6, '1h', 'S' || symbol
from traders
cross join generate_series(0, 32 * 24 - 1) as hour
cross join generate_series(1, 10) as symbol
"""
EXPLAIN_EVERYTHING = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_analyze = on;
set auto_explain.log_format = json;
set auto_explain.log_level = notice;
"""
Group = tuple[datetime, str, str, str]


@dataclass(frozen=True, slots=True)
class Publish:
    """A batch: of each signal how long ago (in steps of a third of a minute), and of what group."""

    signals: tuple[tuple[int, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class RollUp:
    """One step of the job, of at most 7 signals."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Signals move to segments, whether they are rolled up or not: of every so many one."""

    every: int
    first: int


@dataclass(frozen=True, slots=True)
class Merge:
    """All segments become larger ones."""


@dataclass(frozen=True, slots=True)
class Look:
    """A reader pages through rollups: of all signals or of some, from and to so many 10 s ago."""

    resolution: str
    page_size: int
    trader: int | None = None
    symbol: int | None = None
    ago: tuple[int, int] | None = None


Operation = Publish | RollUp | Pack | Merge | Look
# Most within three hours, so that groups have several signals, many even within a few minutes;
# some up to six days late.
AGO = st.integers(0, 9) | st.integers(0, 540) | st.integers(0, 6 * 24 * 180)
OPERATIONS = st.lists(
    st.builds(
        Publish,
        st.lists(
            st.tuples(
                AGO, st.integers(0, 1), st.integers(0, 2), st.integers(0, 3), st.integers(0, 64)
            ),
            min_size=1,
            max_size=20,
            unique_by=lambda each: each[:3],
        ).map(tuple),
    )
    | st.builds(RollUp)
    | st.builds(Pack, st.integers(1, 3), st.integers(0, 2))
    | st.builds(Merge)
    | st.builds(
        Look,
        st.sampled_from(sorted(WIDTHS)),
        st.sampled_from([1, 3, 1000]),
        st.none() | st.integers(0, 1),
        st.none() | st.integers(0, 2),
        st.none() | st.tuples(st.integers(0, 30), st.integers(0, 1080)),
    ),
    min_size=1,
    max_size=15,
)


class Life:
    """One account in a transaction that is rolled back: what it stores, and what it is shown."""

    def __init__(self, connection: asyncpg.Connection, account_id: uuid.UUID) -> None:
        self.connection = connection
        self.account_id = account_id
        self._now = datetime.now(UTC).replace(second=0, microsecond=0)
        self._traders: list[str] = []

    async def begin(self) -> None:
        await self.begin_traders()
        for function, changes in SMALLER.items():
            for usual, small in changes.items():
                await self.replace(function, usual, small)

    async def begin_traders(self) -> None:
        for name in ("one", "two"):
            trader = await self.ask("select public.create_trader($1)", name)
            self._traders.append(trader["trader_id"])

    async def publish_numbers(self, prices: dict[int, float]) -> None:
        """Store a signal of each price in one group: so many milliseconds after yesterday began."""
        midnight = (self._now - timedelta(days=1)).replace(hour=0, minute=0)
        signals = [
            self._signal(0, 0, 0, 0, 0)
            | {"generated_at": (midnight + timedelta(milliseconds=at)).isoformat(), "price": price}
            for at, price in prices.items()
        ]
        verdict = await self.ask(
            "select public.ingest_signals(gen_random_uuid(), $1)", json.dumps(signals)
        )
        assert verdict["rejected"] == 0

    async def replace(self, function: str, usual: str, small: str) -> None:
        """Make a number in the source of a function smaller."""
        source = await self.connection.fetchval(
            "select pg_get_functiondef($1::text::regproc)", f"private.{function}"
        )
        assert usual in source
        await self.connection.execute(source.replace(usual, small))

    async def ask(self, query: str, *values: object) -> Any:
        """Ask as the account does through the API."""
        claims = json.dumps({"sub": str(self.account_id), "role": "authenticated"})
        await self.connection.execute(
            "select set_config('request.jwt.claims', $1, true), set_config('role', $2, true)",
            claims,
            "authenticated",
        )
        answer = json.loads(await self.connection.fetchval(query, *values))
        await self.connection.execute("select set_config('role', 'none', true)")
        return answer

    async def go_through(self, operation: Operation) -> None:
        match operation:
            case Publish(signals):
                verdict = await self.ask(
                    "select public.ingest_signals(gen_random_uuid(), $1)",
                    json.dumps([self._signal(*each) for each in signals]),
                )
                assert verdict["rejected"] == 0
            case RollUp():
                await self.connection.fetchval(STEP)
            case Pack(every, first):
                await self.connection.execute(PACK_SOME, self.account_id, every, first)
            case Merge():
                await self.connection.execute(MERGE_ALL, self.account_id)
            case Look():
                await self.assert_shown(operation)

    async def assert_shown(self, look: Look) -> None:
        """Assert that pages joined are the list of what the signals sum up to."""
        shown: list[dict[str, Any]] = []
        cursor = None
        trader_ids = None if look.trader is None else [self._traders[look.trader]]
        symbols = None if look.symbol is None else [f"S{look.symbol}"]
        to_time, from_time = [
            None if ago is None else self._now - ago * timedelta(seconds=10)
            for ago in look.ago or (None, None)
        ]
        while True:
            page = await self.ask(
                LOOK,
                *(look.resolution, cursor, look.page_size),
                *(trader_ids, symbols, from_time, to_time),
            )
            shown += page["rollups"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            # A page of minutes may be cut, but never to nothing.
            least = 1 if look.resolution == "1m" else look.page_size
            assert least <= len(page["rollups"]) <= look.page_size
        groups = [group_of(each) for each in shown]
        assert [bucket for bucket, *_ in groups] == sorted(
            (group[0] for group in groups), reverse=True
        )
        rows = await self.connection.fetch(SIGNALS, self.account_id, trader_ids, symbols)
        wanted = recount(rows, WIDTHS[look.resolution])
        assert_equal(
            shown,
            {
                group: summed
                for group, summed in wanted.items()
                if (from_time is None or group[0] >= from_time)
                and (to_time is None or group[0] < to_time)
            },
        )

    def _signal(
        self, ago: int, trader: int, symbol: int, action: int, eighths: int
    ) -> dict[str, Any]:
        generated_at = self._now - ago * timedelta(seconds=20)
        return {
            "trader_id": self._traders[trader],
            "symbol": f"S{symbol}",
            "timeframe": "1m",
            "generated_at": generated_at.isoformat(),
            "action": ACTIONS[action],
            "confidence": eighths / 64,
            "price": 64000 + eighths / 8,
        }


async def pack(connection: asyncpg.Connection) -> None:
    """Pack every day that is over, those included that were packed today already."""
    await connection.execute("update private.days set packed_at = null")
    while await connection.fetchval("select private.pack_step()"):
        pass


def group_of(rollup: dict[str, Any]) -> Group:
    bucket = datetime.fromisoformat(rollup["bucket"])
    return bucket, rollup["trader_id"], rollup["symbol"], rollup["timeframe"]


def recount(rows: Iterable[asyncpg.Record], width: timedelta) -> dict[Group, dict[str, Any]]:
    """Sum signals up in Python, from their definition."""
    groups: dict[Group, list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        bucket = EPOCH + (row["generated_at"] - EPOCH) // width * width
        groups[bucket, row["trader_id"], row["symbol"], row["timeframe"]].append(row)
    return {group: summary(members) for group, members in groups.items()}


def summary(members: list[asyncpg.Record]) -> dict[str, Any]:
    ordered = sorted(members, key=lambda row: row["generated_at"])
    prices = [row["price"] for row in ordered]
    return {
        "signals": len(ordered),
        **{action: sum(row["action"] == action for row in ordered) for action in ACTIONS},
        "first_generated_at": ordered[0]["generated_at"].isoformat(),
        "last_generated_at": ordered[-1]["generated_at"].isoformat(),
        "price_first": prices[0],
        "price_last": prices[-1],
        **moments("price", prices),
        **moments("confidence", [row["confidence"] for row in ordered]),
    }


def moments(name: str, values: list[float]) -> dict[str, Any]:
    mean = math.fsum(values) / len(values)
    distance = math.fsum((value - mean) ** 2 for value in values)
    return {
        f"{name}_min": min(values),
        f"{name}_max": max(values),
        f"{name}_avg": pytest.approx(mean, rel=1e-12),
        f"{name}_stddev": None
        if len(values) == 1
        else pytest.approx(math.sqrt(distance / (len(values) - 1)), rel=1e-9, abs=1e-9),
    }


def assert_equal(shown: list[dict[str, Any]], wanted: dict[Group, dict[str, Any]]) -> None:
    groups = [group_of(rollup) for rollup in shown]
    assert len(set(groups)) == len(groups), "a rollup was shown twice"
    assert set(groups) == set(wanted)
    for group, rollup in zip(groups, shown, strict=True):
        values = {key: value for key, value in rollup.items() if key in wanted[group]}
        assert values == wanted[group]


@asynccontextmanager
async def rolled_back(database_url: str) -> AsyncIterator[Life]:
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        life = Life(connection, await new_account(connection))
        await life.begin()
        yield life
    finally:
        await transaction.rollback()
        await connection.close()


async def live(stack: RunningStack, operations: Sequence[Operation]) -> None:
    async with rolled_back(stack.database_url) as life:
        for operation in operations:
            await life.go_through(operation)
        for resolution in WIDTHS:
            await life.assert_shown(Look(resolution, 1000))
        while await life.connection.fetchval(STEP):
            pass
        for resolution in WIDTHS:
            await life.assert_shown(Look(resolution, 1000))
        assert await life.connection.fetch(DIFFERENCES, life.account_id) == []


@settings(max_examples=30, deadline=None, print_blob=True)
@given(operations=OPERATIONS)
def test_an_answer_equals_a_recount_at_every_moment(
    stack: RunningStack, operations: list[Operation]
) -> None:
    asyncio.run(live(stack, operations))


async def test_signals_that_were_packed_before_they_were_rolled_up_are_counted(
    stack: RunningStack,
) -> None:
    async with rolled_back(stack.database_url) as life:
        batch = Publish(tuple((3 * 24 * 180 + n, n % 2, n % 3, n % 4, n) for n in range(60)))
        await life.go_through(batch)
        await pack(life.connection)
        places = await life.connection.fetchrow(PLACES, life.account_id)
        assert dict(places) == {"heap": 0, "packed": 60}
        await life.assert_shown(Look("1h", 1000))
        while await life.connection.fetchval(STEP):
            pass
        assert await life.connection.fetchval(BEHIND, life.account_id) == 0
        await life.assert_shown(Look("1h", 1000))


async def test_minutes_that_are_read_in_several_parts_are_counted_whole(
    stack: RunningStack,
) -> None:
    async with rolled_back(stack.database_url) as life:
        numbers = range(60)
        batch = Publish(tuple((n // 6, n % 2, n // 2 % 3, n % 4, n) for n in numbers))
        await life.go_through(batch)
        for operation in (RollUp(), Pack(2, 0), Pack(1, 0), Merge()):
            await life.go_through(operation)
            for page_size in (1, 2, 5, 1000):
                await life.assert_shown(Look("1m", page_size))
            # From and to in the middle of a minute.
            await life.assert_shown(Look("1m", 1000, ago=(1, 11)))


async def test_a_minute_of_too_many_signals_is_refused_and_no_other(stack: RunningStack) -> None:
    async with rolled_back(stack.database_url) as life:
        await life.replace("require_countable_minute", "100000", "50")
        trader = await life.ask("select public.create_trader('dense')")
        # 120 in the newest minute, 40 in each of two others.
        for minute, count in ((3, 120), (2, 40), (1, 40)):
            signals = make_signals(trader["trader_id"], count)
            for number, each in enumerate(signals):
                generated_at = datetime.fromisoformat(each["generated_at"])
                each["generated_at"] = (generated_at + timedelta(minutes=minute)).isoformat()
                each["symbol"] = f"S{number % 2}"
            await life.ask(
                "select public.ingest_signals(gen_random_uuid(), $1)", json.dumps(signals)
            )
        newest = datetime.fromisoformat(signals[0]["generated_at"]) + timedelta(minutes=2)
        newest = newest.replace(second=0, microsecond=0)

        async def minutes(**filters: Any) -> list[int]:
            counts: list[int] = []
            cursor = None
            while not counts or cursor:
                page = await life.ask(
                    LOOK, "1m", cursor, 1, None, filters.get("symbols"), None, filters.get("to")
                )
                counts += [rollup["signals"] for rollup in page["rollups"]]
                cursor = page["next_cursor"]
            return counts

        # Each page begins with the rest of a minute: two of 40 are not one of 80.
        assert await minutes(to=newest) == [20, 20, 20, 20]
        assert await minutes(symbols=["S0"]) == [60, 20, 20]
        with pytest.raises(asyncpg.PostgresError) as refused:
            await minutes()
    assert (refused.value.sqlstate, refused.value.detail) == ("PT400", "invalid_filter")


def index_scans(node: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The tables of rollups that a plan really read by an index, and how many rows of each."""
    if node.get("Alias", "").startswith("stored") and node["Actual Loops"]:
        assert node["Node Type"] in ("Index Scan", "Index Only Scan"), node["Node Type"]
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield node["Relation Name"], rows * node["Actual Loops"]
    for child in node.get("Plans", []):
        yield from index_scans(child)


async def test_a_page_reads_little_more_than_the_page_whatever_its_depth(
    stack: RunningStack,
) -> None:
    plans: list[dict[str, Any]] = []

    def heard(_: object, message: Any) -> None:
        _, found, plan = str(message).partition("plan:\n")
        if found:
            plans.append(json.loads(plan)["Plan"])

    async with rolled_back(superuser_dsn(stack.settings)) as life:
        await life.connection.execute(
            "select private.ensure_partitions("
            "'private.rollups_1h', now() - interval '32 days', now())"
        )
        await life.connection.execute(FILL, life.account_id)
        await life.connection.execute("analyze private.rollups")
        life.connection.add_log_listener(heard)
        await life.connection.execute(EXPLAIN_EVERYTHING)
        for days in (0, 3, 6):
            plans.clear()
            answer = await life.ask(
                """select public.query_rollups(resolution => '1h', "to" => $1)""",
                datetime.now(UTC) - timedelta(days=days),
            )
            assert len(answer["rollups"]) == 100
            read = [scan for plan in plans for scan in index_scans(plan)]
            assert 100 < sum(rows for _, rows in read) <= 2 * 101


TINY = [5e-324, 1e-320, 3e-170, 1e-170, -1e-170, 0.0, 1e-162, 1e-100, 1e-60]


@pytest.mark.parametrize("steps", [1, len(TINY)], ids=["at once", "one by one"])
async def test_numbers_too_small_to_square_or_divide_are_summed_up(
    stack: RunningStack, steps: int
) -> None:
    async with rolled_back(stack.database_url) as life:
        size = len(TINY) // steps
        for step in range(steps):
            taken = range(step * size, (step + 1) * size)
            await life.publish_numbers({n: TINY[n] for n in taken})
            while await life.connection.fetchval(STEP):
                pass
        page = await life.ask("select public.query_rollups(resolution => '1d')")
        (rollup,) = page["rollups"]
        assert rollup["signals"] == len(TINY)
        assert rollup["price_min"] == min(TINY)
        assert rollup["price_max"] == max(TINY)
        assert rollup["price_avg"] == pytest.approx(math.fsum(TINY) / len(TINY), rel=1e-9)
        assert rollup["price_stddev"] == pytest.approx(1e-60 / 3, rel=1e-9)
        assert await life.connection.fetch(DIFFERENCES, life.account_id) == []


async def test_a_rollup_that_cannot_be_merged_holds_up_no_other_account(
    stack: RunningStack,
) -> None:
    async with rolled_back(stack.database_url) as bad:
        good = Life(bad.connection, await new_account(bad.connection))
        await good.begin_traders()
        await bad.publish_numbers({1: 1.0})
        await bad.connection.fetchval(STEP)
        await bad.connection.execute(OUT_OF_RANGE, bad.account_id)
        await bad.publish_numbers({2: 1.0})
        await good.publish_numbers({1: 1.0})
        while await bad.connection.fetchval(STEP):
            pass
        assert await bad.connection.fetchval(BEHIND, bad.account_id) == 1
        assert await bad.connection.fetchval(BEHIND, good.account_id) == 0
        assert await bad.connection.fetch(DIFFERENCES, good.account_id) == []


async def test_an_account_that_cannot_be_rolled_up_goes_to_the_end_of_the_queue(
    stack: RunningStack,
) -> None:
    async with rolled_back(stack.database_url) as bad:
        good = Life(bad.connection, await new_account(bad.connection))
        await good.begin_traders()
        while await bad.connection.fetchval(STEP):
            pass
        await bad.publish_numbers(dict.fromkeys(range(20), 1.0))
        await bad.connection.execute(ROLLED_UP_OUT_OF_RANGE, bad.account_id)
        await good.publish_numbers({1: 1.0})
        assert await bad.connection.fetchval(STEP) == 0
        assert await bad.connection.fetchval(BEHIND, bad.account_id) == 20
        await bad.connection.fetchval(STEP)
        assert await bad.connection.fetchval(BEHIND, good.account_id) == 0
        await good.publish_numbers({2: 1.0})
        await bad.connection.execute(LONG_AGO, bad.account_id, timedelta(hours=1))
        await good.connection.execute(LONG_AGO, good.account_id, timedelta(minutes=1))
        assert await bad.connection.fetchval(STEP) == 0
        await bad.connection.fetchval(STEP)
        assert await bad.connection.fetchval(BEHIND, good.account_id) == 0


@asynccontextmanager
async def account_of(
    stack: RunningStack, watcher: asyncpg.Connection
) -> AsyncIterator[tuple[Caller, str, uuid.UUID]]:
    account_id = await new_account(watcher)
    async with caller(stack, account_id) as connected:
        yield connected, await new_trader(connected), account_id


async def roll_up(connection: asyncpg.Connection, account_id: uuid.UUID) -> None:
    """Run the job until it has nothing left of the account; the stack's own job may help."""
    while await connection.fetchval(BEHIND, account_id):
        await connection.fetchval(STEP)


async def shown_signals(caller: Caller) -> int:
    answer = await caller.ask("select public.query_rollups(resolution => '1d')")
    shown: int = sum(rollup["signals"] for rollup in answer["rollups"])
    assert shown == answer["last_seq"]
    return shown


async def test_a_batch_that_commits_late_is_not_missed_and_holds_up_no_other(
    stack: RunningStack,
) -> None:
    async with (
        operator(stack) as worker,
        account_of(stack, worker) as (slow, slow_trader, slow_account),
        account_of(stack, worker) as (quick, quick_trader, quick_account),
    ):
        async with slow.connection.transaction():
            await slow.ingest(make_signals(slow_trader, 5))
            await quick.ingest(make_signals(quick_trader, 7))
            await roll_up(worker, quick_account)
            await worker.fetchval(STEP)
            assert await shown_signals(quick) == 7
            assert await worker.fetchval(BEHIND, slow_account) == 0
        assert await worker.fetchval(BEHIND, slow_account) == 5
        assert await shown_signals(slow) == 5
        await roll_up(worker, slow_account)
        assert await shown_signals(slow) == 5
        for account_id in (slow_account, quick_account):
            assert await worker.fetch(DIFFERENCES, account_id) == []


async def test_two_steps_at_once_count_each_signal_once(stack: RunningStack) -> None:
    async with (
        operator(stack) as first,
        operator(stack) as second,
        operator(stack) as watcher,
        account_of(stack, watcher) as (account, trader, account_id),
    ):
        await account.ingest(make_signals(trader, 5))
        async with first.transaction():
            await roll_up(first, account_id)
            waiting = asyncio.create_task(second.fetchval(STEP))
            await wait_until_waiting(watcher, [Caller(second)])
        await waiting
        assert await shown_signals(account) == 5
        assert await watcher.fetch(DIFFERENCES, account_id) == []


async def test_a_step_that_is_rolled_back_leaves_nothing_and_is_done_again(
    stack: RunningStack,
) -> None:
    async with (
        operator(stack) as worker,
        account_of(stack, worker) as (account, trader, account_id),
    ):
        async with worker.transaction():
            await account.ingest(make_signals(trader, 5))
            await roll_up(worker, account_id)
            await worker.execute("savepoint unused")
        transaction = worker.transaction()
        await transaction.start()
        await account.ingest(make_signals(trader, 5, 5))
        await roll_up(worker, account_id)
        await transaction.rollback()
        assert await shown_signals(account) == 10
        await roll_up(worker, account_id)
        assert await shown_signals(account) == 10
        assert await worker.fetch(DIFFERENCES, account_id) == []


async def test_readers_see_every_signal_counted_once_while_batches_are_written_and_rolled_up(
    stack: RunningStack,
) -> None:
    writers_count, rounds, size = 4, 15, 10
    async with (
        operator(stack) as worker,
        account_of(stack, worker) as (reader, trader, account_id),
        callers(stack, account_id, writers_count) as writers,
    ):
        done = asyncio.Event()

        async def write(writer: Caller, place: int) -> None:
            for turn in range(rounds):
                await writer.ingest(
                    make_signals(trader, size, (turn * writers_count + place) * size)
                )

        async def work() -> None:
            while not done.is_set():
                await worker.fetchval(STEP)

        async def read() -> list[int]:
            seen = []
            while not done.is_set():
                seen.append(await shown_signals(reader))
            return seen

        working = asyncio.create_task(work())
        reading = asyncio.create_task(read())
        try:
            await asyncio.gather(*(write(writer, n) for n, writer in enumerate(writers)))
        finally:
            done.set()
        await working
        seen = await reading
        assert seen == sorted(seen)
        assert len(set(seen)) > 3, "the reader was not there while batches were written"
        assert await shown_signals(reader) == writers_count * rounds * size
        await roll_up(worker, account_id)
        assert await shown_signals(reader) == writers_count * rounds * size
        assert await worker.fetch(DIFFERENCES, account_id) == []
