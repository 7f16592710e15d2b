"""Signals that are numbered by their times, so that the database itself can say what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from benchmarks.publishing import Target
from benchmarks.stored import SYMBOLS
from signal_persistence import Signal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CHECK = """
with numbered as (
  select (extract(epoch from generated_at) * 1000000)::bigint - $2 as number, symbol, price, seq
  from public.signals
  where account_id = $1
), judged as (
  select
    number,
    number between 0 and $3 - 1
      and price = 1000 + number % 9973 / 4.0
      and symbol = ($4::text[])[1 + number % cardinality($4)] as known,
    lag(number) over (order by seq) as previous,
    seq <> row_number() over (order by seq) as displaced
  from numbered
)
select
  count(distinct number) filter (where known) as found,
  count(*) filter (where known) as stored,
  count(*) filter (where not known) as phantoms,
  count(*) filter (where number < previous) as reordered,
  count(*) filter (where displaced) as gaps
from judged
"""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The signals 0 to `count - 1` of one account, published in this order."""

    account_id: str
    base: int
    """Microseconds since 1970 of number 0."""
    count: int


@dataclass(frozen=True, slots=True)
class Check:
    """How numbers and database differ: all but the first are zero when nothing went wrong."""

    published: int
    lost: int
    duplicated: int
    reordered: int
    phantoms: int
    gaps: int


def numbered_signal(target: Target, base: int, number: int) -> Signal:
    """Return the signal with this number of a target's account."""
    price = 1000 + number % 9973 / 4
    return Signal(
        trader_id=UUID(target.trader_id),
        symbol=SYMBOLS[number % len(SYMBOLS)],
        timeframe="1m",
        generated_at=EPOCH + timedelta(microseconds=base + number),
        action="enter_long",
        confidence=0.75,
        price=price,
        stop_loss=price - 5,
        take_profit=price + 10,
        metadata={"strategy": "bench"},
    )


async def check(database_url: str, published: Sequence[Numbers]) -> Check:
    """Compare what was published with what is stored, over a direct connection."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("set statement_timeout = '30min'; set work_mem = '256MB'")
        rows = [
            await connection.fetchrow(CHECK, UUID(n.account_id), n.base, n.count, list(SYMBOLS))
            for n in published
        ]
    finally:
        await connection.close()
    count = sum(numbers.count for numbers in published)
    return Check(
        published=count,
        lost=count - sum(row["found"] for row in rows),
        duplicated=sum(row["stored"] - row["found"] for row in rows),
        reordered=sum(row["reordered"] for row in rows),
        phantoms=sum(row["phantoms"] for row in rows),
        gaps=sum(row["gaps"] for row in rows),
    )
