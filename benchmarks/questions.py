"""What the read benchmark asks: pages, filters, sync and rollups of signals of every age."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import asyncpg

from benchmarks.history import BATCH, TIMEFRAMES, HistoryPlan
from benchmarks.publishing import Target

PAGE, LARGE_PAGE = 100, 1000
WEEK = timedelta(days=7)
YEAR = timedelta(days=364)
MINUTES: Final = {"hot": timedelta(hours=6), "warm": timedelta(days=3), "cold": timedelta(days=60)}
"""How long a chart by minutes is: there are fewer signals the older they are."""
TRIES = 100


@dataclass(frozen=True, slots=True)
class Reader:
    """One account that asks, and what there is to ask for."""

    target: Target
    account_no: int
    traders: Sequence[tuple[int, str]]
    """trader_no and trader_id."""
    symbols: Sequence[str]
    seqs: Mapping[str, tuple[int, int]]
    """By tier the first and the last seq."""

    def claims(self) -> str:
        """Return what the access token says, as the REST API passes it to the database."""
        return json.dumps({"sub": self.target.account_id, "role": "authenticated"})

    def headers(self, key: str) -> dict[str, str]:
        """Return what a request of this account carries."""
        token = self.target.access_token
        return {
            "apikey": key,
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A page of an account's signals, or with a resolution of its rollups."""

    reader: Reader
    page_size: int = PAGE
    trader: tuple[int, str] | None = None
    symbol: str | None = None
    timeframe: tuple[int, str] | None = None
    """Position in private.timeframes() and name."""
    from_time: datetime | None = None
    to_time: datetime | None = None
    after_seq: int | None = None
    before: tuple[datetime, int, str] | None = None
    """generated_at and seq of the last signal of the page before, and the cursor it gave."""
    resolution: str | None = None

    @property
    def function(self) -> str:
        return "query_rollups" if self.resolution else "query_signals"

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the function that answers."""
        asked = {
            "traders": self.trader and [self.trader[1]],
            "symbols": self.symbol and [self.symbol],
            "timeframes": self.timeframe and [self.timeframe[1]],
            "from": self.from_time,
            "to": self.to_time,
            "after_seq": self.after_seq,
            "cursor": self.before and self.before[2],
            "resolution": self.resolution,
            "page_size": self.page_size,
        }
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def path(self) -> str:
        """Where the client sends the question."""
        return "/rest/v1/rpc/query_rollups" if self.resolution else "/functions/v1/query-signals"

    def body(self) -> str:
        return json.dumps(self.parameters(), default=datetime.isoformat)


PageEnd: TypeAlias = Callable[[Reader, datetime], Awaitable[tuple[datetime, int, str] | None]]
"""Find the newest signal of an account before a time, and the cursor to the page after it."""


class Chooser:
    """Choose whom to ask, and about what, by chance."""

    def __init__(
        self, readers: Sequence[Reader], plan: HistoryPlan, page_end: PageEnd, chance: random.Random
    ) -> None:
        self._readers = readers
        self._plan = plan
        self._page_end = page_end
        self._chance = chance

    async def first_page(self, _tier: str) -> Question:
        return Question(reader=self._reader("hot"))

    async def deep_page(self, tier: str) -> Question:
        """Ask for the page after a signal somewhere in the tier, as if all before were turned."""
        for _ in range(TRIES):
            reader = self._reader(tier)
            to_time = self._time(tier)
            if before := await self._page_end(reader, to_time):
                # A cursor goes with the filter of the page that gave it.
                return Question(reader=reader, to_time=to_time, before=before)
        raise RuntimeError(f"Cannot benchmark: no account has two signals that are {tier}")

    async def filter_trader(self, tier: str) -> Question:
        reader = self._reader(tier)
        return Question(
            reader=reader, to_time=self._end(tier), trader=self._chance.choice(reader.traders)
        )

    async def filter_symbol(self, tier: str) -> Question:
        reader = self._reader(tier)
        return Question(
            reader=reader, to_time=self._end(tier), symbol=self._chance.choice(reader.symbols)
        )

    async def filter_timeframe(self, tier: str) -> Question:
        return Question(
            reader=self._reader(tier),
            to_time=self._end(tier),
            timeframe=self._chance.choice(TIMEFRAMES),
        )

    async def sync(self, tier: str) -> Question:
        """Ask for what follows a seq, as a subscriber does that was away."""
        reader = self._reader(tier)
        first, last = reader.seqs[tier]
        after_seq = self._chance.randint(first - 1, max(first - 1, last - LARGE_PAGE))
        return Question(reader=reader, after_seq=after_seq, page_size=LARGE_PAGE)

    async def range_7_days(self, tier: str) -> Question:
        to_time = self._end(tier) or self._plan.now
        return Question(
            reader=self._reader(tier),
            from_time=to_time - WEEK,
            to_time=to_time,
            page_size=LARGE_PAGE,
        )

    async def rollup_1_year(self, tier: str) -> Question:
        reader = self._reader(tier)
        return Question(
            reader=reader,
            resolution="1d",
            trader=self._chance.choice(reader.traders),
            symbol=self._chance.choice(reader.symbols),
            timeframe=self._chance.choice(TIMEFRAMES),
            # Whole days, so that the peers, which count signals, count the same ones.
            from_time=self._plan.today - YEAR,
            page_size=LARGE_PAGE,
        )

    async def rollup_minutes(self, tier: str) -> Question:
        """Ask what a trader signalled by the minute up to a time somewhere in the tier."""
        to_time = self._time(tier).replace(second=0, microsecond=0)
        reader = self._reader(tier)
        return Question(
            reader=reader,
            resolution="1m",
            trader=self._chance.choice(reader.traders),
            from_time=to_time - MINUTES[tier],
            to_time=to_time,
            page_size=LARGE_PAGE,
        )

    def _reader(self, tier: str) -> Reader:
        return self._chance.choice([reader for reader in self._readers if tier in reader.seqs])

    def _time(self, tier: str) -> datetime:
        starts, ends = self._plan.window(tier)
        return starts + (ends - starts) * self._chance.random()

    def _end(self, tier: str) -> datetime | None:
        """Return before when a page of the tier ends; None for hot, which is what is newest."""
        starts, ends = self._plan.window(tier)
        if tier == "hot":
            return None
        return ends if tier == "warm" else ends - (ends - starts) * self._chance.random() / 2


Ask: TypeAlias = Callable[[Chooser, str], Awaitable[Question]]
READS: Final[Mapping[str, tuple[str, Ask]]] = {
    "first_page": ("hot", Chooser.first_page),
    "deep_page_hot": ("hot", Chooser.deep_page),
    "deep_page_warm": ("warm", Chooser.deep_page),
    "deep_page_cold": ("cold", Chooser.deep_page),
    "filter_trader": ("hot", Chooser.filter_trader),
    "filter_trader_cold": ("cold", Chooser.filter_trader),
    "filter_symbol": ("hot", Chooser.filter_symbol),
    "filter_symbol_cold": ("cold", Chooser.filter_symbol),
    "filter_timeframe": ("hot", Chooser.filter_timeframe),
    "filter_timeframe_cold": ("cold", Chooser.filter_timeframe),
    "sync_hot": ("hot", Chooser.sync),
    "sync_warm": ("warm", Chooser.sync),
    "sync_cold": ("cold", Chooser.sync),
    "range_7_days": ("warm", Chooser.range_7_days),
    "range_7_days_cold": ("cold", Chooser.range_7_days),
    "rollup_1_year": ("cold", Chooser.rollup_1_year),
    "rollup_minutes_hot": ("hot", Chooser.rollup_minutes),
    "rollup_minutes_warm": ("warm", Chooser.rollup_minutes),
    "rollup_minutes_cold": ("cold", Chooser.rollup_minutes),
}
"""By name: the tier that the answer lies in, and how the question is chosen."""


async def find_readers(connection: asyncpg.Connection, targets: Sequence[Target]) -> list[Reader]:
    """Look up what the accounts of `targets` hold."""
    readers = []
    for target in targets:
        row = await connection.fetchrow(
            "select account.* from bench.accounts as account inner join private.accounts"
            " using (account_no) where account_id = $1",
            target.account_id,
        )
        traders = await connection.fetch(
            "select trader_no, trader_id::text from bench.traders where trader_no = any($1)"
            " order by trader_no",
            row["trader_nos"],
        )
        seqs = await connection.fetch(
            f"select tier, min(first_seq), max(first_seq) + {BATCH - 1} from bench.batches"
            " where rank = $1 group by tier",
            row["rank"],
        )
        readers.append(
            Reader(
                target=target,
                account_no=row["account_no"],
                traders=[tuple(trader) for trader in traders],
                symbols=row["symbols"],
                seqs={tier: (first, last) for tier, first, last in seqs},
            )
        )
    return readers
