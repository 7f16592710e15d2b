"""Packing beside readers and writers: each signal is read once, and nobody waits for the packer."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.database.callers import Caller, caller, make_signals, new_account, new_trader, operator
from tests.database.test_concurrency import wait_until_waiting
from tests.plugins.stack import RunningStack

DEADLINE_SECONDS = 20.0
# A connection that would wait longer for a lock fails.
NEVER_WAIT = "set lock_timeout = '500ms'"
PLACES = """
select
  (select count(*) from private.signals where account_no = account.account_no) as table,
  (select coalesce(sum(signals), 0)::integer from private.segments
    where account_no = account.account_no) as segments
from private.accounts as account
where account.account_id = $1
"""
# What the readers say, each in one number: any signal lost, twice or changed alters it.
READINGS = """
with account as (select account_no from private.accounts where account_id = $1)
select
  (select sum(hashtextextended(signal::text, 0)) from account, private.stored_signals as signal
    where signal.account_no = account.account_no) as by_view,
  (select sum(hashtextextended(signal::text, 0)) from account,
    private.signals_by_seq(account.account_no, 1, 1000000) as signal) as by_seq,
  (select sum(hashtextextended(signal::text, 0)) from account,
    private.signals_by_time(account.account_no, '-infinity', 'infinity') as signal) as by_time
"""
DAYS_AGO = timedelta(days=3)
# Other sessions of the server hold snapshots for a moment; the space of the day is tried for again.
HEAP_BYTES = """
select sum(pg_relation_size(partition)) from private.partitions
where parent = 'private.signals' and starts <= $1 and ends > $1
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """An account with signals of some days ago, and its connection."""

    account_id: uuid.UUID
    caller: Caller
    signals: list[dict[str, Any]]


def days_ago(signals: list[dict[str, Any]], ago: timedelta = DAYS_AGO) -> list[dict[str, Any]]:
    return [
        each | {"generated_at": (datetime.fromisoformat(each["generated_at"]) - ago).isoformat()}
        for each in signals
    ]


@pytest.fixture(scope="module", autouse=True)
def packed_today(stack: RunningStack) -> None:
    """No day is due, so that the job of the stack leaves what the tests store where it is."""

    async def pack_all() -> None:
        async with operator(stack) as connection:
            await pack(connection)

    asyncio.run(pack_all())


@asynccontextmanager
async def owner(stack: RunningStack, count: int = 50) -> AsyncIterator[Owner]:
    async with operator(stack) as watcher:
        account_id = await new_account(watcher)
    async with caller(stack, account_id) as connected:
        await connected.connection.execute(NEVER_WAIT)
        trader_id = await new_trader(connected)
        signals = days_ago(make_signals(trader_id, count))
        assert json.loads(await connected.ingest(signals))["accepted"] == count
        yield Owner(account_id, connected, signals)


async def pack(connection: asyncpg.Connection) -> None:
    """Pack every day that is over, those included that were packed today already."""
    await connection.execute("update private.days set packed_at = null")
    while await connection.fetchval("select private.pack_step()"):
        pass


async def announce(connection: asyncpg.Connection, account_id: uuid.UUID) -> None:
    """Let the account know what will be packed, as the step before the one that packs does."""
    await connection.execute(
        "update private.accounts set packed_until = date_trunc('day', now(), 'utc')"
        " - interval '1 day 1 microsecond' where account_id = $1",
        account_id,
    )


async def readings(connection: asyncpg.Connection, account_id: uuid.UUID) -> set[int]:
    """The one number that all readers agree on, as a set of one."""
    return set((await connection.fetchrow(READINGS, account_id)).values())


async def places(connection: asyncpg.Connection, account_id: uuid.UUID) -> tuple[int, int]:
    row = await connection.fetchrow(PLACES, account_id)
    return row["table"], row["segments"]


async def merge(connection: asyncpg.Connection, account_id: uuid.UUID) -> None:
    """Merge the segments of the account, a month at a time, without waiting for their age.

    What is later than the end of the first is left for another time.
    """
    rows = await connection.fetch(
        "select account_no, tier, date_trunc('month', first_generated_at, 'utc') as month,"
        " array_agg(segment_no) as numbers, min(last_generated_at) as until from private.segments"
        " where account_no = (select account_no from private.accounts where account_id = $1)"
        " group by 1, 2, 3",
        account_id,
    )
    for row in rows:
        await connection.execute(
            "select private.merge_segments(row($1, $2, $3, $4, $5)::private.merge)", *row.values()
        )


async def test_a_reader_that_began_before_sees_each_signal_once(stack: RunningStack) -> None:
    async with owner(stack) as of, operator(stack) as packer, operator(stack) as reader:
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            before = await readings(reader, of.account_id)
            await pack(packer)
            assert await places(packer, of.account_id) == (0, 50)
            assert await places(reader, of.account_id) == (50, 0)
            assert await readings(reader, of.account_id) == before
            assert await readings(packer, of.account_id) == before
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            assert await readings(reader, of.account_id) == before
            await merge(packer, of.account_id)
            assert await readings(reader, of.account_id) == before
        assert await readings(reader, of.account_id) == before
        assert len(before) == 1


async def test_nobody_waits_for_a_pack_that_is_not_committed(stack: RunningStack) -> None:
    async with owner(stack) as of, operator(stack) as packer, operator(stack) as reader:
        before = await readings(reader, of.account_id)
        trader_id = of.signals[0]["trader_id"]
        await announce(packer, of.account_id)
        async with packer.transaction():
            await pack(packer)
            assert await places(packer, of.account_id) == (0, 50)
            await reader.execute(NEVER_WAIT)
            assert await readings(reader, of.account_id) == before
            for signals, answer in (
                (make_signals(trader_id, 5), "accepted"),
                (of.signals, "duplicate"),
                (days_ago(make_signals(trader_id, 5, 100)), "accepted"),
            ):
                verdict = json.loads(await of.caller.ingest(signals))
                assert verdict[answer] == len(signals)
        assert await places(reader, of.account_id) == (10, 50)
        for signals in (of.signals, days_ago(make_signals(trader_id, 5, 100))):
            assert json.loads(await of.caller.ingest(signals))["duplicate"] == len(signals)
        await pack(packer)
        assert await places(reader, of.account_id) == (5, 55)
        assert len(await readings(reader, of.account_id)) == 1


async def test_signals_stored_while_the_packer_waits_are_packed_too(stack: RunningStack) -> None:
    async with (
        owner(stack) as of,
        operator(stack) as packer,
        operator(stack) as writer,
        operator(stack) as watcher,
    ):
        async with writer.transaction():
            # An ingest that has read packed_until and has not stored yet.
            await writer.execute(
                "select from private.accounts where account_id = $1 for no key update",
                of.account_id,
            )
            packing = asyncio.create_task(pack(packer))
            await wait_until_waiting(watcher, [Caller(packer)])
            assert await places(watcher, of.account_id) == (50, 0)
            await writer.execute(
                "insert into private.signals select (jsonb_populate_record(signal,"
                ' \'{"symbol": "LATE", "seq": 51}\')).* from private.signals_by_seq('
                "(select account_no from private.accounts where account_id = $1), 1, 1) as signal",
                of.account_id,
            )
        await asyncio.wait_for(packing, DEADLINE_SECONDS)
        assert await places(watcher, of.account_id) == (0, 51)


async def test_the_packer_goes_on_with_the_accounts_that_nobody_writes_to(
    stack: RunningStack,
) -> None:
    async with owner(stack) as busy, owner(stack) as idle, operator(stack) as packer:
        await pack(packer)
        await packer.execute(
            "update private.accounts set packed_until = '-infinity' where account_id = any($1)",
            [busy.account_id, idle.account_id],
        )
        numbers = await packer.fetchval(
            "select array_agg(account_no) from private.accounts where account_id = any($1)",
            [busy.account_id, idle.account_id],
        )
        async with operator(stack) as writer, writer.transaction():
            await writer.execute(
                "select from private.accounts where account_id = $1 for no key update",
                busy.account_id,
            )
            await packer.execute(NEVER_WAIT)
            query = "select private.announce_packing($1, '2020-01-01Z')"
            assert await packer.fetchval(query, numbers) == 1
            # Only the busy one is left: now it is waited for, with nothing else locked.
            with pytest.raises(asyncpg.LockNotAvailableError):
                await packer.fetchval(query, numbers)
        assert await packer.fetchval(query, numbers) == 1
        assert await packer.fetchval(query, numbers) == 0


async def test_a_step_that_is_killed_or_fails_changes_nothing(stack: RunningStack) -> None:
    async with owner(stack) as of, operator(stack) as watcher:
        before = await readings(watcher, of.account_id)
        await announce(watcher, of.account_id)
        async with operator(stack) as packer:
            await packer.execute("begin")
            await pack(packer)
            assert await places(packer, of.account_id) == (0, 50)
            await watcher.execute("select pg_terminate_backend($1)", packer.get_server_pid())
        assert await places(watcher, of.account_id) == (50, 0)

        async with operator(stack) as packer:
            transaction = packer.transaction()
            await transaction.start()
            await packer.execute(
                "alter table private.segments add constraint nothing_fits check (signals < 0)"
                " not valid"
            )
            with pytest.raises(asyncpg.CheckViolationError, match="nothing_fits"):
                await pack(packer)
            await transaction.rollback()
        assert await places(watcher, of.account_id) == (50, 0)
        assert await readings(watcher, of.account_id) == before

        await pack(watcher)
        assert await places(watcher, of.account_id) == (0, 50)
        async with operator(stack) as merger:
            await merger.execute("begin")
            await merge(merger, of.account_id)
            await watcher.execute("select pg_terminate_backend($1)", merger.get_server_pid())
        assert await readings(watcher, of.account_id) == before


async def test_space_is_given_back_only_when_no_snapshot_may_need_it(stack: RunningStack) -> None:
    ago = timedelta(days=5)
    day = datetime.now(UTC) - ago
    async with owner(stack, 1) as of, operator(stack) as packer, operator(stack) as reader:
        trader_id = of.signals[0]["trader_id"]
        old = days_ago(make_signals(trader_id, 40), ago)
        assert json.loads(await of.caller.ingest(old))["accepted"] == 40
        moment = datetime.fromisoformat(old[0]["generated_at"])
        before = await readings(packer, of.account_id)
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            # A snapshot alone: who has read the partition would hold a lock on it, too.
            await reader.execute("select count(*) from private.tiers")
            await pack(packer)
            while await packer.fetchval("select private.reclaim_step()"):
                pass
            assert await packer.fetchval(HEAP_BYTES, moment) > 0
            assert await readings(reader, of.account_id) == before
        deadline = time.monotonic() + DEADLINE_SECONDS
        while await packer.fetchval(HEAP_BYTES, moment) > 0:
            assert time.monotonic() < deadline, f"the space of {day:%F} was not given back"
            await packer.fetchval("select private.reclaim_step()")
        assert await readings(reader, of.account_id) == before

        # What comes late afterwards is not thrown away with the space of what is packed.
        late = days_ago(make_signals(trader_id, 5, 100), ago)
        assert json.loads(await of.caller.ingest(late))["accepted"] == 5
        await packer.execute(
            "update private.days set last_packed_by = '3' where starts <= $1"
            " and starts + interval '24 hours' > $1",
            moment,
        )
        after = await readings(reader, of.account_id)
        while await packer.fetchval("select private.reclaim_step()"):
            pass
        assert await readings(reader, of.account_id) == after != before


async def test_a_signal_stored_at_the_last_moment_keeps_its_day(stack: RunningStack) -> None:
    ago = timedelta(days=6)
    async with owner(stack, 1) as of, operator(stack) as packer, operator(stack) as other:
        moment = datetime.fromisoformat(days_ago(of.signals, ago - DAYS_AGO)[0]["generated_at"])
        await pack(packer)
        partition = await other.fetchval(
            "select partition::text from private.partitions where parent = 'private.signals'"
            " and starts <= $1 and ends > $1",
            moment,
        )
        starts = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        async with other.transaction():
            # While somebody reads the partition it is not truncated, and nobody waits long.
            await other.execute(f"lock table {partition} in access share mode")
            assert not await packer.fetchval("select private.truncate_day($1)", starts)
        # Stored, but not committed when the packer looks into the partition, which it finds empty.
        late = days_ago(make_signals(of.signals[0]["trader_id"], 1, 7), ago)
        async with packer.transaction():
            await packer.execute("alter function private.truncate_day set lock_timeout = '20s'")
            async with of.caller.connection.transaction():
                assert json.loads(await of.caller.ingest(late))["accepted"] == 1
                truncating = asyncio.create_task(
                    packer.fetchval("select private.truncate_day($1)", starts)
                )
                await wait_until_waiting(other, [Caller(packer)])
            assert not await asyncio.wait_for(truncating, DEADLINE_SECONDS)
        assert (await places(other, of.account_id))[0] == 1


# Operations of the property: what an account lives through, in any order.
Moments = st.lists(st.integers(0, 6 * 24 * 3600), min_size=1, max_size=12)
Operations = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), Moments),
        st.just(("pack", [])),
        st.just(("merge", [])),
        st.just(("tomorrow", [])),
    ),
    min_size=1,
    max_size=10,
)


@contextmanager
def event_loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def live(stack: RunningStack, operations: list[tuple[str, list[int]]]) -> None:
    """Live through the operations in a transaction; compare with a list after each."""
    async with operator(stack) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            account_id = await new_account(connection)
            number, trader = await connection.fetchrow(
                "insert into private.traders (account_no, name) select account_no, 'one'"
                " from private.accounts where account_id = $1 returning account_no, trader_id",
                account_id,
            )
            now = datetime.now(UTC).replace(microsecond=0)
            plain: set[datetime] = set()
            for name, moments in operations:
                if name == "ingest":
                    times = [now - timedelta(seconds=each) for each in moments]
                    await ingest(connection, account_id, trader, times)
                    plain.update(times)
                elif name == "pack":
                    await pack(connection)
                elif name == "merge":
                    await merge(connection, account_id)
                else:
                    now += timedelta(days=1)
                    await connection.execute(
                        "create or replace function private.clock() returns timestamptz"
                        " language sql stable set search_path = ''"
                        f" as 'select timestamptz ''{now}'''"
                    )
                await assert_is(connection, number, plain)
        finally:
            await transaction.rollback()


async def ingest(
    connection: asyncpg.Connection, account_id: uuid.UUID, trader: uuid.UUID, times: list[datetime]
) -> None:
    signals = [
        make_signals(str(trader), 1)[0]
        | {"generated_at": at.isoformat(), "price": at.timestamp() / 7}
        for at in times
    ]
    await connection.execute(
        "select set_config('request.jwt.claims', $1, true), set_config('role', $2, true)",
        json.dumps({"sub": str(account_id), "role": "authenticated"}),
        "authenticated",
    )
    await connection.fetchval(
        "select public.ingest_signals(gen_random_uuid(), $1)", json.dumps(signals)
    )
    await connection.execute("select set_config('role', 'none', true)")


async def assert_is(connection: asyncpg.Connection, number: int, plain: set[datetime]) -> None:
    """Assert that every reader returns the signals generated at these times, each once."""
    expected = sorted((at, at.timestamp() / 7) for at in plain)
    for source in (
        f"private.stored_signals where account_no = {number}",
        f"private.signals_by_seq({number}, 1, 1000)",
        f"private.signals_by_time({number}, '-infinity', 'infinity')",
    ):
        rows = await connection.fetch(f"select generated_at, seq, price from {source}")
        assert sorted((row["generated_at"], row["price"]) for row in rows) == expected, source
        assert sorted(row["seq"] for row in rows) == list(range(1, len(plain) + 1)), source
    if plain:
        middle = sorted(plain)[len(plain) // 2]
        rows = await connection.fetch(
            "select generated_at from private.signals_by_time($1, $2, 'infinity')", number, middle
        )
        assert len(rows) == sum(at >= middle for at in plain)
        rows = await connection.fetch(
            "select seq from private.signals_by_seq($1, 2, $2)", number, len(plain) - 1
        )
        assert len(rows) == max(len(plain) - 2, 0)


@given(operations=Operations)
@settings(max_examples=25, deadline=None)
def test_whatever_happens_the_readers_return_the_list(
    stack: RunningStack, operations: list[tuple[str, list[int]]]
) -> None:
    with event_loop() as runner:
        runner.run(live(stack, operations))
