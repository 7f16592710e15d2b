"""Who asks too often costs the database next to nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.database.callers import Caller, caller, new_account, operator, sign_up
from tests.database.test_concurrency import wait_until_waiting
from tests.plugins.stack import RunningStack

CREATE = "select public.create_api_key('worker', '{signals:write}')"
EXCHANGE = "select public.exchange_api_key($1)"
PAY = "update private.api_keys set exchanges_paid_until = $2 where key_hash = $1"
LOCK = "select from private.api_keys where key_hash = $1 for update"


async def new_key(stack: RunningStack, database: asyncpg.Connection) -> bytes:
    """Make an account with a key; return the key's hash."""
    account_id = await new_account(database)
    await sign_up(database, account_id)
    async with caller(stack, account_id) as owner:
        made = await owner.ask(CREATE)
    return hashlib.sha256(made["api_key"].encode()).digest()


async def test_a_key_that_is_exchanged_too_often_is_refused_without_a_lock(
    stack: RunningStack,
) -> None:
    async with operator(stack) as database, operator(stack) as asker:
        key_hash = await new_key(stack, database)
        await database.execute(PAY, key_hash, datetime.now(UTC) + timedelta(hours=1))
        async with database.transaction():
            await database.execute(LOCK, key_hash)
            # Whoever waited for the lock would fail with 55P03.
            await asker.execute("set lock_timeout = '5s'")
            with pytest.raises(asyncpg.PostgresError) as refused:
                await asker.fetchval(EXCHANGE, key_hash.hex())
    assert refused.value.sqlstate == "PT429"


async def test_of_two_exchanges_at_once_the_second_finds_the_first_paid(
    stack: RunningStack,
) -> None:
    async with operator(stack) as database, operator(stack) as first, operator(stack) as second:
        key_hash = await new_key(stack, database)
        async with second.transaction():
            now = await second.fetchval("select now()")
            async with first.transaction():
                # There is room for one more, by the clock of the second.
                await database.execute(PAY, key_hash, now + timedelta(seconds=59))
                granted = json.loads(await first.fetchval(EXCHANGE, key_hash.hex()))
                waiting = asyncio.create_task(second.fetchval(EXCHANGE, key_hash.hex()))
                await wait_until_waiting(database, [Caller(second)])
            with pytest.raises(asyncpg.PostgresError) as refused:
                await waiting
    assert granted["scope"] == "signals:write"
    assert refused.value.sqlstate == "PT429"
