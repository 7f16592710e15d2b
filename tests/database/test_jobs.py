"""Jobs as cron runs them, on a stack of these tests' own whose clock they set.

What one step does is in supabase/tests; here are runs that commit, and months of them.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from local_stack import control
from local_stack.settings import StackSettings
from tests.database.callers import Caller, caller, new_account, new_trader
from tests.plugins.stack import RunningStack, new_test_settings

JOBS = (
    *("partitions", "rollup", "expiry", "pack", "merge", "reclaim", "retention", "cron_log"),
    "broadcast",
)
LARGEST_STEP = 20_000
MOVE_ROWS_OF_A_DAY = (
    "call partman.partition_data_proc('private.signals', p_loop_count => 1, p_wait => 0)"
)
"""As docs/operations.md has it."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[RunningStack]:
    settings = new_test_settings("-jobs")
    attached = control.up(settings, attached=True)
    try:
        yield RunningStack(StackSettings.load(settings.directory), anon_key="", service_role_key="")
    finally:
        if attached is not None:
            attached.close()
        control.remove(settings)


@pytest.fixture
async def database(own_server: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    """The role `postgres`, in a database in which only this test runs jobs."""
    connection = await asyncpg.connect(own_server.settings.socket_dsn("postgres"))
    try:
        await connection.execute("select cron.alter_job(jobid, active := false) from cron.job")
        # A run that cron began before: its lock is free when it has ended.
        for job in JOBS:
            async with connection.transaction():
                await connection.execute(
                    "select pg_advisory_xact_lock(hashtext('private.jobs'), hashtext($1))", job
                )
        yield connection
    finally:
        await connection.close()


async def run(connection: asyncpg.Connection, job: str, budget: str = "50 seconds") -> None:
    await connection.execute(
        await connection.fetchval("select private.job_command($1, $2::text::interval)", job, budget)
    )


async def last_run(connection: asyncpg.Connection, job: str) -> asyncpg.Record:
    return await connection.fetchrow(
        "select * from private.job_runs where job = $1 order by run_no desc limit 1", job
    )


async def steps(connection: asyncpg.Connection, job: str) -> list[int]:
    """Do everything that a job has to do now; what each step said, the last one with 0 left out."""
    done: list[int] = []
    while progress := await connection.fetchval(f"select private.{job}_step()"):
        done.append(progress)
    return done


async def set_clock(connection: asyncpg.Connection, now: datetime) -> None:
    await connection.execute(
        "create or replace function private.clock() returns timestamptz language sql stable "
        f"set search_path = '' as $$ select timestamptz '{now.isoformat()}' $$"
    )


async def unhealthy(connection: asyncpg.Connection) -> dict[str, str | None]:
    """The checks of operations_health that are not ok, with their hints."""
    rows = await connection.fetch("select name, hint from public.operations_health where not ok")
    return {row["name"]: row["hint"] for row in rows}


def signals(trader_id: str, times: list[datetime]) -> list[dict[str, Any]]:
    return [
        {
            "trader_id": trader_id,
            "symbol": "BTC/USD",
            "timeframe": "1m",
            "generated_at": time.isoformat(),
            "action": "enter_long",
            "confidence": 0.5,
            "price": 64000.5,
        }
        for time in times
    ]


async def ingest(account: Caller, trader_id: str, times: list[datetime]) -> None:
    verdict = json.loads(await account.ingest(signals(trader_id, times)))
    assert verdict["accepted"] == len(times), verdict


async def months_of(connection: asyncpg.Connection, account_id: uuid.UUID) -> dict[str, int]:
    rows = await connection.fetch(
        "select to_char(generated_at at time zone 'utc', 'YYYY-MM') as month, count(*) "
        "from public.signals where account_id = $1 group by 1",
        account_id,
    )
    return {row["month"]: row["count"] for row in rows}


def kept(months: dict[str, int], since: datetime) -> dict[str, int]:
    """The months that end after this time."""
    return {month: count for month, count in months.items() if month >= f"{since:%Y-%m}"}


async def test_of_two_runs_at_once_the_second_returns_at_once(
    own_server: RunningStack, database: asyncpg.Connection
) -> None:
    await database.fetchval("select private.start_run('merge')")
    other = await asyncpg.connect(own_server.settings.socket_dsn("postgres"))
    try:
        await run(other, "merge")
        first = await last_run(database, "merge")
        assert first["finished_at"] is None
        await run(other, "partitions")
        assert (await last_run(database, "partitions"))["error"] is None
        await database.fetchval("select private.end_run($1)", first["run_no"])
        await run(other, "merge")
        assert (await last_run(database, "merge"))["run_no"] > first["run_no"]
    finally:
        await other.close()


async def test_a_killed_run_frees_its_lock_and_is_written_down_as_interrupted(
    own_server: RunningStack, database: asyncpg.Connection
) -> None:
    killed = await asyncpg.connect(own_server.settings.socket_dsn("postgres"))
    run_no = await killed.fetchval("select private.start_run('reclaim')")
    await database.execute("select pg_terminate_backend($1)", killed.get_server_pid())
    async with asyncio.timeout(10):
        while (await last_run(database, "reclaim"))["run_no"] == run_no:
            await run(database, "reclaim")
    error = await database.fetchval(
        "select error from private.job_runs where run_no = $1 and finished_at is not null", run_no
    )
    assert error == "interrupted"


async def test_a_job_that_fails_or_is_cancelled_says_so_and_the_others_go_on(
    database: asyncpg.Connection,
) -> None:
    whole = await database.fetchval("select pg_get_functiondef('private.merge_step'::regproc)")
    broken = "create or replace function private.merge_step() returns bigint language plpgsql as "
    try:
        await database.execute(f"{broken} $$ begin return 1 / 0; end $$")
        for job in JOBS:
            await run(database, job)
        errors = {job: (await last_run(database, job))["error"] for job in JOBS}
        assert errors == dict.fromkeys(JOBS) | {"merge": "22012 division by zero"}

        await database.execute(f"{broken} $$ begin perform pg_sleep(60); return 1; end $$")
        await database.execute("set statement_timeout = '100ms'")
        await run(database, "merge")
        assert (await last_run(database, "merge"))["error"].startswith("57014 ")
    finally:
        await database.execute("reset statement_timeout")
        await database.execute(whole)
    await run(database, "merge")
    assert (await last_run(database, "merge"))["error"] is None


async def test_a_run_commits_each_step_and_ends_with_its_budget(
    database: asyncpg.Connection,
) -> None:
    await set_clock(database, datetime.now(UTC) + timedelta(days=9))
    await run(database, "partitions", budget="0 seconds")
    one = await last_run(database, "partitions")
    assert (one["steps"], one["rows"]) == (1, 1)
    await run(database, "partitions")
    rest = await last_run(database, "partitions")
    assert rest["rows"] == rest["steps"] - 1 > 1
    assert await steps(database, "partitions") == []


async def test_after_ten_days_without_any_job_all_is_done_in_bounded_steps(
    own_server: RunningStack, database: asyncpg.Connection
) -> None:
    begin = (datetime.now(UTC) + timedelta(days=40)).replace(hour=12)
    await set_clock(database, begin)
    for job in JOBS:
        await run(database, job)
    account_id = await new_account(database)
    async with caller(own_server, account_id) as account:
        trader_id = await new_trader(account)
        for day in range(10):
            now = begin + timedelta(days=day)
            await set_clock(database, now)
            # More than one step may take, on the day that is packed first.
            for batch in range(10 if day == 0 else 1):
                first = batch * 5000
                times = [now - timedelta(milliseconds=first + n) for n in range(5000)]
                await ingest(account, trader_id, times)
    assert "partition_runway" in await unhealthy(database)
    assert "rows_in_default_partitions" in await unhealthy(database)

    await steps(database, "partitions")
    await database.execute("set timezone = 'UTC'")
    while await database.fetchval("select private.default_partition_rows('private.signals')"):
        await database.execute(MOVE_ROWS_OF_A_DAY)
    for job, largest in (("rollup", LARGEST_STEP), ("pack", LARGEST_STEP), ("expiry", 40_000)):
        done = await steps(database, job)
        assert len(done) > 1, job
        assert max(done) <= largest, job
    for job in JOBS:
        await run(database, job)
    assert await unhealthy(database) == {}
    assert sum((await months_of(database, account_id)).values()) == 19 * 5000
    in_heap = await database.fetchval("select count(*) from private.signals")
    assert in_heap == 2 * 5000, "the last two days"


async def test_months_of_signals_are_kept_as_long_as_their_tier_says(
    own_server: RunningStack, database: asyncpg.Connection
) -> None:
    """Every fifth day a few signals, one of them late, and every job; a tier changes half-way."""
    begin = (datetime.now(UTC) + timedelta(days=90)).replace(day=1, hour=12)
    await set_clock(database, begin)
    await database.execute(
        "update private.retention set keep = case tier when 'free' then interval '30 days' "
        "when 'pro' then interval '60 days' end where data = 'signals'"
    )
    accounts = {
        name: await new_account(database, tier)
        for name, tier in (("free", "free"), ("pro", "pro"), ("elite", "elite"), ("risen", "free"))
    }
    traders: dict[str, str] = {}
    expected: dict[str, dict[str, int]] = {name: {} for name in accounts}
    for name, account_id in accounts.items():
        async with caller(own_server, account_id) as account:
            traders[name] = await new_trader(account)
    for day in range(0, 120, 5):
        now = begin + timedelta(days=day)
        await set_clock(database, now)
        if day == 30:
            await database.execute(
                "select private.set_account_tier($1, 'elite')", accounts["risen"]
            )
        await run(database, "partitions")
        times = [now, now - timedelta(hours=1), now - timedelta(days=5, minutes=7)]
        for name, account_id in accounts.items():
            async with caller(own_server, account_id) as account:
                await ingest(account, traders[name], times)
            for time in times:
                month = f"{time:%Y-%m}"
                expected[name][month] = expected[name].get(month, 0) + 1
        for job in JOBS:
            await run(database, job)
        assert await unhealthy(database) == {}

    found = {name: await months_of(database, account) for name, account in accounts.items()}
    assert found["elite"] == found["risen"] == expected["elite"]
    assert found["pro"] == kept(expected["pro"], now - timedelta(days=60))
    assert found["free"] == kept(expected["free"], now - timedelta(days=30))
    assert len(found["free"]) < len(found["pro"]) < len(found["elite"])

    differences = await database.fetchval(
        "select count(*) from private.rollup_differences() inner join private.accounts "
        "using (account_no) where tier = 'elite'"
    )
    assert differences == 0, "where the signals are still there to be recounted"
    oldest = await database.fetch(
        "select parent, min(ends) as ends from private.partitions group by parent"
    )
    ends = {row["parent"]: row["ends"] for row in oldest}
    assert ends["private.signals"] > now - timedelta(days=8)
    assert ends["private.rollups_1h"] > now - timedelta(days=30)
    assert ends["private.batches"] > now - timedelta(days=14)
    assert ends["private.segments_free"] > now - timedelta(days=30)
    assert ends["private.segments_pro"] > now - timedelta(days=60)
    await database.execute("update private.retention set keep = null where data = 'signals'")
