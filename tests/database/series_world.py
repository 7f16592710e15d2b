"""An account with signals of the demo's strategies, in a transaction that is never committed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, cast

import pandas as pd
import psycopg2

from signal_persistence.transport import Response
from tests.analysis import real_data
from tests.plugins.stack import RunningStack

COLUMNS = ["trader", "symbol", "timeframe", "generated_at", "action", "confidence", "price"]
SHIFTS = {
    "BTC-USD": timedelta(0),
    "EUR/USD": timedelta(days=1461),
    "ES": timedelta(days=2982),
}
"""So that the three markets, which are of 2021, 2017 and 2013, are in one autumn."""
INSERT = """
insert into private.signals (
  account_no, trader_no, seq, generated_at, symbol, timeframe, action, confidence, price)
select
  account.account_no, trader.trader_no, account.last_seq + place, each.generated_at, each.symbol,
  array_position(private.timeframes(), each.timeframe),
  array_position(private.actions(), each.action), each.confidence, each.price
from private.accounts as account
cross join rows from (
  jsonb_to_recordset(%(signals)s) as (
    trader text, generated_at timestamptz, symbol text, timeframe text, action text,
    confidence double precision, price double precision)
) with ordinality as each (
  trader, generated_at, symbol, timeframe, action, confidence, price, place)
inner join private.traders as trader
  on trader.account_no = account.account_no and trader.name = each.trader
where account.account_id = %(account_id)s
"""
ADVANCE = """
update private.accounts as account
set last_seq = last_seq + %s, packed_until = now() + interval '1 day'
where account_id = %s
"""
PACK = """
with moved as (
  delete from private.signals as signal using private.accounts as account
  where account.account_id = %(account_id)s and signal.account_no = account.account_no
    and signal.seq %% %(modulus)s = %(rest)s
  returning signal
)
select private.store_segments(array(select signal from moved), 'elite')
"""
MERGE = """
with taken as (
  delete from private.segments as segment using private.accounts as account
  where account.account_id = %(account_id)s and segment.account_no = account.account_no
  returning segment
)
select private.store_segments(array(
  select signal
  from taken
  cross join lateral private.unpacked_signals(taken.segment, 1, (taken.segment).signals) as signal
), 'elite', true)
"""
ADD_ROLLUPS = """
select private.add_rollups(array(
  select rollup
  from unnest(private.stored_resolutions()) as resolution
  cross join lateral private.rollups_of(
    array(
      select signal
      from private.accounts as account
      left join private.rollup_heads as head on head.account_no = account.account_no
      cross join lateral private.signals_by_seq(
        account.account_no, coalesce(head.seq, 0) + 1, account.last_seq) as signal
      where account.account_id = %s
    ),
    resolution) as rollup))
"""
MOVE_HEAD = """
insert into private.rollup_heads (account_no, seq, rolled_up_at)
select account_no, last_seq, private.clock() from private.accounts
where account_id = %s and last_seq > 0
on conflict (account_no) do update set seq = excluded.seq
"""
FORGET_SIGNALS = """
delete from private.signals as signal using private.accounts as account
where account.account_id = %s and signal.account_no = account.account_no
"""


@cache
def real_signals() -> pd.DataFrame:
    """Return the demo's signals in one autumn, with the trader's name in place of its id."""
    names = {trader_id: name for name, trader_id in real_data.TRADERS.items()}
    return pd.DataFrame(
        [
            (
                names[signal.trader_id],
                signal.symbol,
                signal.timeframe,
                signal.generated_at + SHIFTS[signal.symbol],
                signal.action,
                signal.confidence,
                signal.price,
            )
            for signal in real_data.stored_signals()
        ],
        columns=COLUMNS,
    )


@dataclass(slots=True)
class World:
    """One account, and what it is asked."""

    cursor: Any
    account_id: str
    traders: dict[str, str] = field(default_factory=dict)
    """trader_id by name."""

    def store(self, signals: pd.DataFrame, *, trader_ids: bool = False) -> None:
        """Put signals into the heap; traders are made as they come, with the demo's ids if told."""
        self.add_traders(set(signals["trader"]) - set(self.traders), trader_ids)
        rows = [
            {
                "trader": trader,
                "symbol": symbol,
                "timeframe": timeframe,
                "generated_at": at.isoformat(),
                "action": action,
                "confidence": confidence,
                "price": price,
            }
            for trader, symbol, timeframe, at, action, confidence, price in signals[
                COLUMNS
            ].itertuples(index=False)
        ]
        self.cursor.execute(INSERT, {"signals": json.dumps(rows), "account_id": self.account_id})
        self.cursor.execute(ADVANCE, [len(rows), self.account_id])

    def pack(self, modulus: int = 1, rest: int = 0) -> None:
        """Pack every so manieth signal of the heap."""
        self.cursor.execute(PACK, {"account_id": self.account_id, "modulus": modulus, "rest": rest})

    def merge(self) -> None:
        self.cursor.execute(MERGE, {"account_id": self.account_id})

    def roll_up(self) -> None:
        """Do for this account what the job does; that would keep its lock until the end."""
        self.cursor.execute(ADD_ROLLUPS, [self.account_id])
        self.cursor.execute(MOVE_HEAD, [self.account_id])

    def forget_signals(self) -> None:
        """Delete the signals, so that only rollups can tell of them."""
        self.cursor.execute(FORGET_SIGNALS, [self.account_id])

    def now(self) -> datetime:
        self.cursor.execute("select private.clock()")
        return cast(datetime, self.cursor.fetchone()[0]).astimezone(UTC)

    def ask(self, function: str, **parameters: Any) -> dict[str, Any]:
        """Call a function of the API as a signed-in user; `from_` stands for "from"."""
        casts = {"traders": "::uuid[]"}
        named = ", ".join(
            f'"{name.rstrip("_")}" => %s{casts.get(name.rstrip("_"), "")}' for name in parameters
        )
        values = [
            value if not isinstance(value, timedelta) else f"{value.total_seconds()} s"
            for value in parameters.values()
        ]
        claims = json.dumps({"sub": self.account_id, "role": "authenticated"})
        self.cursor.execute("savepoint asked")
        try:
            self.cursor.execute("select set_config('request.jwt.claims', %s, true)", [claims])
            self.cursor.execute("set local role authenticated")
            self.cursor.execute(f"select public.{function}({named})", values)
            answer: dict[str, Any] = self.cursor.fetchone()[0]
        except psycopg2.Error:
            self.cursor.execute("rollback to savepoint asked")
            raise
        self.cursor.execute("set local role none")
        return answer

    def add_traders(self, names: set[str], trader_ids: bool = False) -> None:
        ids = real_data.TRADERS if trader_ids else {name: uuid.uuid4() for name in names}
        self.cursor.execute(
            "insert into private.traders (account_no, name, trader_id)"
            " select account_no, name, trader_id from private.accounts"
            " cross join unnest(%s::text[], %s::uuid[]) as made (name, trader_id)"
            " where account_id = %s returning name, trader_id::text",
            [sorted(names), [str(ids[name]) for name in sorted(names)], self.account_id],
        )
        self.traders.update(self.cursor.fetchall())


class CallsInTransaction:
    """Stands for HTTP and the REST API: functions are called in the transaction of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def post(
        self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        parameters = {f"{name}_": value for name, value in json.loads(body).items()}
        answer = self._world.ask(path.removeprefix("/rest/v1/rpc/"), **parameters)
        return Response(200, {}, json.dumps(answer).encode())

    async def aclose(self) -> None:
        pass


@contextmanager
def series_world(stack: RunningStack) -> Iterator[World]:
    """Make a new account; nothing of it stays."""
    connection = psycopg2.connect(stack.database_url)
    try:
        cursor = connection.cursor()
        account_id = str(uuid.uuid4())
        cursor.execute("select private.set_account_tier(%s, 'elite')", [account_id])
        yield World(cursor, account_id)
    finally:
        connection.rollback()
        connection.close()
