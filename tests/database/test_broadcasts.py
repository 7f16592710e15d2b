"""Broadcasts that wait, with writers and jobs at once: each seq is told once, whoever tells it."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from tests.database.callers import (
    Caller,
    caller,
    make_signals,
    new_account,
    new_trader,
    operator,
)
from tests.plugins.stack import RunningStack

DEADLINE_SECONDS = 30.0
TOLD = """
select (payload ->> 'first_seq')::bigint as first, (payload ->> 'last_seq')::bigint as last
from realtime.messages
where topic = 'account:' || $1::uuid || ':signals' and event = $2
order by 1, 2
"""
HEAD = "select last_seq, last_event_seq, account_no from private.accounts where account_id = $1"
STILL_WAITS = """
select exists (
  select from private.pending_broadcasts
  inner join private.accounts using (account_no)
  where account_id = any($1) and num_nonnulls(first_seq, first_event_seq) > 0)
"""
END_INTERVAL = """
update private.pending_broadcasts
set due_at = clock_timestamp() + $2::integer * interval '1 millisecond'
from private.accounts
where accounts.account_no = pending_broadcasts.account_no and account_id = $1
"""
IS_DUE = """
select due_at <= clock_timestamp() from private.pending_broadcasts
inner join private.accounts using (account_no) where account_id = $1
"""
TELL_DUE = "select private.tell_due()"


@asynccontextmanager
async def intervals_of(watcher: asyncpg.Connection, interval: str) -> AsyncIterator[None]:
    """Hold broadcasts this far apart, as an operator can."""
    await set_interval(watcher, interval)
    try:
        yield
    finally:
        await watcher.execute("update private.live_settings set broadcast_min_interval = null")
        await watcher.execute("update private.live_state set broadcast_interval = '0'")
        # Else the job would go on until the last of the intervals is over, and keep its lock.
        await watcher.execute("update private.pending_broadcasts set due_at = clock_timestamp()")


async def set_interval(watcher: asyncpg.Connection, interval: str) -> None:
    await watcher.execute(
        "update private.live_settings set broadcast_min_interval = $1::text::interval", interval
    )
    await watcher.execute(
        "update private.live_state set broadcast_interval = $1::text::interval", interval
    )


async def assert_told_once(watcher: asyncpg.Connection, account_id: uuid.UUID) -> None:
    """Assert that what was broadcast is 1 to the last seq, each of them once; of events too."""
    head = await watcher.fetchrow(HEAD, account_id)
    for event, last in (
        ("signals_ingested", head["last_seq"]),
        ("signals_advanced", head["last_event_seq"]),
    ):
        expected = 1
        for told in await watcher.fetch(TOLD, account_id, event):
            assert told["first"] == expected, f"{event}: {expected} is missing or told twice"
            expected = told["last"] + 1
        assert expected == last + 1, f"{event}: nothing from {expected} on was told"


async def until(watcher: asyncpg.Connection, condition: str, *values: object) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await watcher.fetchval(condition, *values):
        assert time.monotonic() < deadline, condition
        await asyncio.sleep(0.02)


async def tell_all(watcher: asyncpg.Connection, accounts: list[uuid.UUID]) -> None:
    """Run the job's steps until none of the accounts has anything left to be told of."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while await watcher.fetchval(STILL_WAITS, accounts):
        assert time.monotonic() < deadline, "something was never told"
        await watcher.execute(TELL_DUE)
        await asyncio.sleep(0.01)


async def write(
    writer: Caller, trader_id: str, place: int, rounds: int, choices: random.Random
) -> None:
    """Ingest batches, and advance the signals of every third."""
    for turn in range(rounds):
        signals = make_signals(trader_id, choices.choice((1, 3, 25)), (place * rounds + turn) * 25)
        await writer.ingest(signals)
        if turn % 3 == 0:
            key = ("trader_id", "symbol", "timeframe", "generated_at")
            changes = [
                {name: each[name] for name in key} | {"status": "analyzed"} for each in signals
            ]
            await writer.ask(
                "select public.advance_signals($1, $2)", uuid.uuid4(), json.dumps(changes)
            )
        await asyncio.sleep(choices.random() * 0.01)


@pytest.mark.parametrize("seed", [5, 17])
async def test_whatever_is_written_while_two_jobs_tell_it_is_told_once(
    stack: RunningStack, seed: int
) -> None:
    """The interval changes all the while, to 0 and back."""
    choices = random.Random(seed)
    rounds, done = 15, asyncio.Event()

    async def tell(connection: asyncpg.Connection) -> None:
        while not done.is_set():
            await connection.execute(TELL_DUE)
            await asyncio.sleep(choices.random() * 0.02)

    async with AsyncExitStack() as opened:
        watcher, *jobs = [await opened.enter_async_context(operator(stack)) for _ in range(3)]
        await opened.enter_async_context(intervals_of(watcher, "20 milliseconds"))
        accounts = [await new_account(watcher) for _ in range(2)]
        telling = [asyncio.create_task(tell(job)) for job in jobs]
        async with asyncio.TaskGroup() as writing:
            for account_id in accounts:
                writers = [
                    await opened.enter_async_context(caller(stack, account_id)) for _ in range(2)
                ]
                trader_id = await new_trader(writers[0])
                for place, writer in enumerate(writers):
                    writing.create_task(write(writer, trader_id, place, rounds, choices))
            for interval in ("0", "5 milliseconds", "0", "50 milliseconds"):
                await asyncio.sleep(0.15)
                await set_interval(watcher, interval)
        done.set()
        await asyncio.gather(*telling)
        await tell_all(watcher, accounts)
        for account_id in accounts:
            await assert_told_once(watcher, account_id)


async def test_the_job_passes_over_an_account_that_is_written_to_and_loses_nothing_of_it(
    stack: RunningStack,
) -> None:
    async with operator(stack) as watcher, operator(stack) as job:
        busy, idle = await new_account(watcher), await new_account(watcher)
        async with (
            caller(stack, busy) as writer,
            caller(stack, idle) as other,
            intervals_of(watcher, "1 minute"),
        ):
            trader_id, other_trader_id = await new_trader(writer), await new_trader(other)
            for number in (0, 1):
                await writer.ingest(make_signals(trader_id, 1, number))
                await other.ingest(make_signals(other_trader_id, 1, number))
            await watcher.execute(END_INTERVAL, idle, 0)
            await watcher.execute(END_INTERVAL, busy, 1000)
            async with writer.connection.transaction():
                # Not due yet, so it waits like the batch before; it commits after it is due.
                await writer.ingest(make_signals(trader_id, 1, 2))
                await until(watcher, IS_DUE, busy)
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await job.execute(TELL_DUE)
                await assert_told_once(watcher, idle)
            await tell_all(job, [busy])
            await assert_told_once(watcher, busy)


async def test_cron_tells_what_waits(stack: RunningStack) -> None:
    async with operator(stack) as watcher, intervals_of(watcher, "300 milliseconds"):
        account_id = await new_account(watcher)
        async with caller(stack, account_id) as writer:
            trader_id = await new_trader(writer)
            for number in range(3):
                await writer.ingest(make_signals(trader_id, 1, number))
        await until(watcher, f"select not ({STILL_WAITS})", [account_id])
        await assert_told_once(watcher, account_id)
