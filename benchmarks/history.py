"""A generated history: a year of signals of many accounts, some of them far larger than others.

Every value follows from its number by a hash, so each database that is filled from the same plan
holds the same signals. They come as producers send them: in batches of one account, in order of
time; an exit has neither stop nor target; none has metadata. Sizes fall with the rank of the
account (of 1,000, the 100 largest have half of all signals). Each has 4 traders, 12 symbols, some
common and some rare, and 4 timeframes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from benchmarks.publishing import Target

BATCH = 50
"""Signals that follow each other in the table and belong to one account."""
TIERS = ("cold", "warm", "hot")
"""In the order of time, which seq follows."""
COLUMNS = (
    "generated_at, seq, confidence, price, stop_loss, take_profit, valid_until, "
    "account_no, trader_no, timeframe, action, symbol, metadata"
)
TIMEFRAMES = ((6, "1m"), (8, "5m"), (10, "15m"), (13, "1h"))
"""Positions in private.timeframes(), and names."""
CONNECTIONS = 2

TABLES = f"""
create schema if not exists bench;
create table bench.accounts (
  rank integer primary key,
  account_no integer not null unique,
  trader_nos integer [] not null,
  symbols text [] not null
);
create table bench.traders (trader_no integer primary key, trader_id uuid not null);
create table bench.batches (
  batch_no integer primary key,
  tier text not null,
  rank integer not null,
  first_seq bigint not null,
  starts_at timestamptz not null
);
create view bench.history as
select
  batch.batch_no,
  generated_at,
  batch.first_seq + place as seq,
  (480 + (hash >> 9 & 511)) / 1000.0::float8 as confidence,
  price,
  case when word.is_entry then price - word.direction * 2.5 end as stop_loss,
  case when word.is_entry then price + word.direction * 4 end as take_profit,
  generated_at + word.seconds * interval '1 second' as valid_until,
  account.account_no,
  account.trader_nos[1 + (hash >> 18 & 3)] as trader_no,
  word.timeframe::smallint as timeframe,
  word.action::smallint as action,
  account.symbols[word.symbol] as symbol,
  null::jsonb as metadata
from bench.batches as batch
inner join bench.accounts as account on account.rank = batch.rank
cross join generate_series(0, {BATCH - 1}) as place
cross join lateral hashint8extended(batch.batch_no::bigint * 1024 + place, 0) as hash
cross join lateral (
  select batch.starts_at + (place * 700 + (hash & 511)) * interval '1 microsecond' as generated_at
  offset 0
) as timed
cross join lateral (
  select
    1 + (hash >> 20 & 3) as action,
    hash >> 20 & 1 = 0 as is_entry,
    1 - (hash >> 20 & 2) as direction,
    (array[6, 8, 10, 13])[1 + (hash >> 22 & 3)] as timeframe,
    (array[60, 300, 900, 3600])[1 + (hash >> 22 & 3)] as seconds,
    1 + ((hash >> 24 & 1023) * (hash >> 24 & 1023) * 12 >> 20) as symbol
  offset 0
) as word
cross join lateral (
  select round(
    4 * (100 + 40 * word.symbol) * (1 + sin(batch.batch_no / 5000.0) / 20) + (hash >> 34 & 15)
  ) / 4 as price
  offset 0
) as quoted;
"""
ADD_ACCOUNTS = """
insert into private.accounts (account_id, tier)
select gen_random_uuid(), 'elite' from generate_series(1, $1::integer)
"""
ADD_TRADERS = """
insert into private.traders (account_no, name)
select account.account_no, 'trader ' || number
from private.accounts as account
cross join generate_series(1, 4) as number
order by account.account_no, number
"""
RANK_ACCOUNTS = """
with chosen as (select * from unnest($1::uuid [], $2::integer []) as chosen (account_id, rank)),
others as (
  select account_no, row_number() over (order by account_no) as place
  from private.accounts where account_id not in (select account_id from chosen)
),
free_ranks as (
  select rank, row_number() over (order by rank) as place
  from generate_series(1, $3::integer) as rank where rank not in (select rank from chosen)
),
ranked as (
  select account_no, rank from others inner join free_ranks using (place)
  union all
  select account_no, rank from chosen inner join private.accounts using (account_id)
)
insert into bench.accounts (rank, account_no, trader_nos, symbols)
select
  rank,
  account_no,
  array(
    select trader_no from private.traders as trader
    where trader.account_no = ranked.account_no and name like 'trader %' order by trader_no
  ),
  array(select 'S' || (rank * 7 + number * 5) % 60 || '/USDT' from generate_series(1, 12) as number)
from ranked
"""
ADD_BATCHES = f"""
insert into bench.batches (batch_no, tier, rank, first_seq, starts_at)
select
  batch_no,
  tier,
  rank,
  1 + {BATCH} * (row_number() over (partition by rank order by batch_no) - 1),
  starts_at
from (
  select
    row_number() over (order by window_no, number) as batch_no,
    tier,
    starts_at + (ends_at - starts_at) * (number::float8 / batches) as starts_at,
    batches
  from unnest($1::text [], $2::timestamptz [], $3::timestamptz [], $4::integer [])
    with ordinality as windows (tier, starts_at, ends_at, batches, window_no)
  cross join lateral generate_series(0, batches - 1) as number
) as batch
cross join lateral (
  select (hashint8extended(batch_no, 1) & 4294967295) / 4294967296.0::float8 as share
) as drawn
-- The density falls as 1 / (rank + 10).
cross join lateral (
  select 1 + floor(10 * (((10 + $5::integer) / 10.0::float8) ^ share - 1))::integer as rank
) as skewed
"""
ADVANCE_ACCOUNTS = f"""
update private.accounts as account
set last_seq = size.signals
from (
  select account_no, {BATCH} * count(*) as signals
  from bench.batches inner join bench.accounts using (rank) group by account_no
) as size
where account.account_no = size.account_no
  and ($1::uuid [] is null or account.account_id = any($1))
"""


@dataclass(frozen=True, slots=True)
class HistoryPlan:
    """How many accounts and signals there are, and which time is now."""

    now: datetime
    accounts: int
    hot: int
    warm: int
    cold: int

    def batches(self, tier: str) -> int:
        signals = {"hot": self.hot, "warm": self.warm, "cold": self.cold}
        return signals[tier] // BATCH

    @property
    def today(self) -> datetime:
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0)

    def window(self, tier: str) -> tuple[datetime, datetime]:
        """Return from when to before when signals of the tier are generated."""
        yesterday = self.today - timedelta(days=1)
        last_week = self.today - timedelta(days=7)
        return {
            "hot": (yesterday, self.now - timedelta(minutes=1)),
            "warm": (last_week, yesterday),
            "cold": (self.today - timedelta(days=364), last_week),
        }[tier]

    def ranks(self, targets: int) -> list[int]:
        """Return ranks for `targets` accounts from the largest to the smallest, none twice."""
        ranks: list[int] = []
        for number in range(targets):
            wanted = round(self.accounts ** (number / max(1, targets - 1)))
            ranks.append(max(wanted, ranks[-1] + 1) if ranks else 1)
        return ranks


async def plan_history(
    connection: asyncpg.Connection, plan: HistoryPlan, targets: Sequence[Target]
) -> None:
    """Make the accounts, `targets` among them, and the batches that bench.history unfolds."""
    await connection.execute(TABLES)
    await connection.execute(ADD_ACCOUNTS, plan.accounts - len(targets))
    await connection.execute(ADD_TRADERS)
    ids = [target.account_id for target in targets]
    await connection.execute(RANK_ACCOUNTS, ids, plan.ranks(len(targets)), plan.accounts)
    await connection.execute(
        "insert into bench.traders select trader_no, trader_id from private.traders"
    )
    windows = [plan.window(tier) for tier in TIERS]
    await connection.execute(
        ADD_BATCHES,
        list(TIERS),
        [starts for starts, _ in windows],
        [ends for _, ends in windows],
        [plan.batches(tier) for tier in TIERS],
        plan.accounts,
    )
    await connection.execute("analyze bench.accounts, bench.traders, bench.batches")


async def advance_accounts(
    connection: asyncpg.Connection, account_ids: Sequence[str] | None
) -> None:
    """Set last_seq of these accounts, or of all, to their last signal."""
    await connection.execute(ADVANCE_ACCOUNTS, account_ids)


async def fill(dsn: str, table: str, first_batch: int, last_batch: int) -> None:
    """Write the signals of the batches into `table`, over several connections."""
    share = -(-(last_batch - first_batch + 1) // CONNECTIONS)
    await asyncio.gather(
        *(
            _fill(dsn, table, first, min(first + share - 1, last_batch))
            for first in range(first_batch, last_batch + 1, share)
        )
    )


async def _fill(dsn: str, table: str, first_batch: int, last_batch: int) -> None:
    connection = await asyncpg.connect(dsn, command_timeout=3600)
    try:
        await connection.execute("set statement_timeout = 0")
        await connection.execute(
            f"insert into {table} ({COLUMNS}) select {COLUMNS} from bench.history"
            f" where batch_no between {first_batch} and {last_batch}"
        )
    finally:
        await connection.close()
