"""Connections that call the database as PostgREST does: the caller's role and claims set."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tests.plugins.stack import RunningStack


class Caller:
    """One connection of one account."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def ingest(
        self, signals: Iterable[dict[str, Any]], request_id: uuid.UUID | None = None
    ) -> str:
        """Return the text of the verdict, as it would be the body of the answer."""
        answer: str = await self.connection.fetchval(
            "select public.ingest_signals($1, $2)",
            request_id or uuid.uuid4(),
            json.dumps(list(signals)),
        )
        return answer

    async def ask(self, query: str, *values: object) -> Any:
        """Return the one JSON value of a query."""
        return json.loads(await self.connection.fetchval(query, *values))

    @property
    def process_id(self) -> int:
        number: int = self.connection.get_server_pid()
        return number


@asynccontextmanager
async def operator(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the role `postgres`, who owns the tables."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def caller(stack: RunningStack, account_id: uuid.UUID) -> AsyncIterator[Caller]:
    """A connection as PostgREST has it, for requests of one account."""
    connection = await asyncpg.connect(stack.settings.socket_dsn("authenticator"))
    try:
        await connection.execute("set role authenticated")
        await connection.execute(
            "select set_config('request.jwt.claims', $1, false)",
            json.dumps(
                {
                    "sub": str(account_id),
                    "role": "authenticated",
                    "session_id": str(account_id),
                }
            ),
        )
        yield Caller(connection)
    finally:
        # terminate: a backend that a test has ended cannot say goodbye.
        connection.terminate()


@asynccontextmanager
async def callers(
    stack: RunningStack, account_id: uuid.UUID, count: int
) -> AsyncIterator[list[Caller]]:
    """Several connections of one account."""
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(caller(stack, account_id)) for _ in range(count)]


async def new_account(connection: asyncpg.Connection, tier: str = "elite") -> uuid.UUID:
    account_id = uuid.uuid4()
    await connection.execute("select private.set_account_tier($1, $2)", account_id, tier)
    return account_id


async def sign_up(connection: asyncpg.Connection, account_id: uuid.UUID) -> None:
    """Make the user of an account, and the session that `caller` claims to be of."""
    await connection.execute(
        "insert into auth.users (id, aud, created_at) values ($1, 'authenticated', now())",
        account_id,
    )
    await connection.execute(
        "insert into auth.sessions (id, user_id, aal) values ($1, $1, 'aal1')", account_id
    )


async def new_trader(caller: Caller, name: str = "momentum") -> str:
    trader = await caller.ask("select public.create_trader($1)", name)
    return str(trader["trader_id"])


def make_signals(trader_id: str, count: int, first: int = 0) -> list[dict[str, Any]]:
    """Valid signals of the last minutes; the same number is the same signal within a test."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    return [
        {
            "trader_id": trader_id,
            "symbol": "BTC/USD",
            "timeframe": "1m",
            "generated_at": (hour + timedelta(milliseconds=number)).isoformat(),
            "action": "enter_long",
            "confidence": 0.5,
            "price": float(number),
        }
        for number in range(first, first + count)
    ]
