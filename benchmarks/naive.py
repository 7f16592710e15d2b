"""The naive peer: supabase-py, one insert per signal into a plain table through the REST API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from benchmarks.publishing import Target
from benchmarks.stored import SYMBOLS

TABLE = "bench_naive_signals"
CREATE = f"""
create table public.{TABLE} (
  account_id uuid not null default auth.uid(),
  trader_id uuid not null,
  symbol text not null,
  timeframe text not null,
  generated_at timestamptz not null,
  action text not null,
  confidence double precision not null,
  price double precision not null,
  stop_loss double precision,
  take_profit double precision,
  metadata jsonb,
  primary key (account_id, trader_id, symbol, timeframe, generated_at)
);
alter table public.{TABLE} enable row level security;
create policy members_insert_own on public.{TABLE} for insert to authenticated
with check (account_id = (select auth.uid()));
create policy members_read_own on public.{TABLE} for select to authenticated
using (account_id = (select auth.uid()));
grant select, insert on public.{TABLE} to authenticated;
notify pgrst, 'reload schema';
"""

DROP = f"drop table public.{TABLE}; notify pgrst, 'reload schema';"


@dataclass(frozen=True, slots=True)
class NaivePlan:
    """One process that inserts as fast as it can for `seconds`."""

    url: str
    key: str
    target: Target
    seconds: float


@contextmanager
def naive_table(database_url: str) -> Iterator[None]:
    """Have the peer's table, with the same key and the same isolation as our own."""
    asyncio.run(_execute(database_url, CREATE))
    try:
        yield
    finally:
        asyncio.run(_execute(database_url, DROP))


def insert_one_by_one(plan: NaivePlan, wait_for_the_others: Callable[[], None]) -> list[float]:
    """Return how many milliseconds each insert took."""
    # Imported here because it takes a second, which processes that publish should not spend.
    from supabase import create_client

    client = create_client(plan.url, plan.key)
    client.postgrest.auth(plan.target.access_token)
    table = client.table(TABLE)
    base = datetime.now(UTC)
    wait_for_the_others()
    took: list[float] = []
    end = time.perf_counter() + plan.seconds
    while (started := time.perf_counter()) < end:
        number = len(took)
        price = 1000 + number % 9973 / 4
        table.insert(
            {
                "trader_id": plan.target.trader_id,
                "symbol": SYMBOLS[number % len(SYMBOLS)],
                "timeframe": "1m",
                "generated_at": (base + timedelta(microseconds=number)).isoformat(),
                "action": "enter_long",
                "confidence": 0.75,
                "price": price,
                "stop_loss": price - 5,
                "take_profit": price + 10,
                "metadata": {"strategy": "bench"},
            }
        ).execute()
        took.append((time.perf_counter() - started) * 1000)
    return took


async def _execute(database_url: str, sql: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
