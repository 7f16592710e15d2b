"""A signal is found the same wherever it is stored: in the heap, in a segment, in a merged one.

Random signals move to segments in random parts, which then overlap in time and in seq. What a
plain list in Python answers to a question, the database must answer. Every example is a transaction
that is rolled back.
"""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.plugins.stack import RunningStack

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
SYMBOLS = ("BTC/USD", "ETH/EUR", "ETH/USD", "SOL/USD")
TIMEFRAMES = ("1m", "1h")
ACTIONS = ("enter_long", "exit_long", "enter_short", "exit_short")
TRADERS = ("one", "two")
TAGS = ("slow", "fast", 'ü " \\')
STATUSES = ("generated", "analyzed", "executed", "closed", "expired", "cancelled", "rejected")
CHANGES = ((), (), ("analyzed",), ("executed",), ("executed", "closed"), ("cancelled",))
"""What may be reported of a signal, one after the other."""
SORTS = ("newest", "oldest", "seq", "-seq", "confidence", "-confidence", "symbol", "-symbol")
LATER = ("status", "outcome")
"""What becomes of a signal afterwards is no part of an export."""
BLOCK = 262_144
"""No segment holds signals of two blocks of so many seqs."""
BEFORE = BLOCK - 20
"""last_seq of an account before its first signal here: a block ends among its signals."""
# Few, so that many signals share one; midnight, and the ends of months, are between. The oldest are
# looked for only when two months and a year have too little for a page.
PLACES = st.sampled_from(
    [
        timedelta(0),
        timedelta(microseconds=1),
        timedelta(hours=12),
        timedelta(days=2),
        timedelta(days=20),
        timedelta(days=70),
        timedelta(days=500),
    ]
)
SETTINGS = settings(
    max_examples=150,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
INSERT = """
insert into private.signals (
  account_no, trader_no, seq, generated_at, symbol, timeframe, action, confidence, price,
  stop_loss, take_profit, valid_until, metadata)
select
  account_no, (%(trader_nos)s::integer[])[trader + 1], seq, generated_at, symbol, timeframe, action,
  confidence, price, stop_loss, take_profit, valid_until, metadata
from jsonb_to_recordset(%(signals)s) as each (
  trader integer, seq bigint, generated_at timestamptz, symbol text, timeframe smallint,
  action smallint, confidence double precision, price double precision,
  stop_loss double precision, take_profit double precision, valid_until timestamptz,
  metadata jsonb)
inner join private.accounts on account_id = %(account_id)s
"""
ANNOUNCE = (
    "update private.accounts set packed_until = now() + interval '1 day' where account_id = %s"
)
ADVANCE = """
with event as (
  insert into private.signal_events (
    account_no, trader_no, symbol, timeframe, generated_at, signal_seq, seq, status, occurred_at,
    received_at, exit_price, close_reason)
  select
    signal.account_no, signal.trader_no, signal.symbol, signal.timeframe, signal.generated_at,
    signal.seq, change.seq, (change.event ->> 'status')::smallint, now(), now(),
    case change.event ->> 'status' when '4' then 1 end,
    case change.event ->> 'status' when '4' then 1 end
  from jsonb_array_elements(%(events)s) with ordinality as change (event, seq)
  inner join private.signals as signal on signal.seq = (change.event ->> 'signal_seq')::bigint
  inner join private.accounts as account on account.account_no = signal.account_no
  where account.account_id = %(account_id)s
  returning seq
)
update private.accounts set last_event_seq = (select count(*) from event)
where account_id = %(account_id)s
"""
PACK = """
with moved as (
  delete from private.signals as signal using private.accounts as account
  where account.account_id = %(account_id)s and signal.account_no = account.account_no
    and signal.seq = any(%(seqs)s)
  returning signal
)
select private.store_segments(array(select signal from moved), 'pro')
"""
MERGE = """
with taken as (
  delete from private.segments as segment using private.accounts as account
  where account.account_id = %(account_id)s and segment.account_no = account.account_no
    and segment.first_seq %% 2 = %(remainder)s
  returning segment
)
select private.store_segments(array(
  select signal
  from taken
  cross join lateral private.unpacked_signals(taken.segment, 1, (taken.segment).signals) as signal
), 'pro', true)
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """A signal before it has a seq."""

    trader: int
    symbol: str
    timeframe: str
    generated_at: datetime
    action: str
    confidence: float
    bare: bool
    tags: Any = None


@dataclass(frozen=True, slots=True)
class Question:
    """Arguments of query_signals, and what they mean for a list of signals as clients see them."""

    traders: list[int] | None = None
    symbols: list[str] | None = None
    symbol_prefix: str | None = None
    timeframes: list[str] | None = None
    actions: list[str] | None = None
    statuses: list[str] | None = None
    tags: list[str] | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    min_price: float | None = None
    max_price: float | None = None
    start: datetime | None = None
    end: datetime | None = None
    after_seq: int | None = None
    until_seq: int | None = None
    sort: str | None = None
    page_size: int = 100

    def answer(self, signals: list[dict[str, Any]], traders: list[str]) -> list[dict[str, Any]]:
        found = [signal for signal in signals if self._selects(signal, traders)]
        return ordered(found, self.sort or ("newest" if self.after_seq is None else "seq"))

    def _selects(self, signal: dict[str, Any], traders: list[str]) -> bool:
        tags = (signal["metadata"] or {}).get("tags")
        tags = tags if isinstance(tags, list) else []
        return (
            (self.traders is None or traders.index(signal["trader_id"]) in self.traders)
            and (self.symbols is None or signal["symbol"] in self.symbols)
            and signal["symbol"].startswith(self.symbol_prefix or "")
            and (self.timeframes is None or signal["timeframe"] in self.timeframes)
            and (self.actions is None or signal["action"] in self.actions)
            and (self.statuses is None or signal["status"] in self.statuses)
            and (self.tags is None or any(tag in tags for tag in self.tags))
            and (self.min_confidence is None or signal["confidence"] >= self.min_confidence)
            and (self.max_confidence is None or signal["confidence"] <= self.max_confidence)
            and (self.min_price is None or signal["price"] >= self.min_price)
            and (self.max_price is None or signal["price"] <= self.max_price)
            and (self.start is None or _time(signal) >= self.start)
            and (self.end is None or _time(signal) < self.end)
            and (self.after_seq is None or signal["seq"] > self.after_seq)
            and (self.until_seq is None or signal["seq"] <= self.until_seq)
        )


def ordered(signals: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """The signals as a page of this order has them. Python's sort is stable."""
    column = sort.removeprefix("-")
    if column == "seq":
        return sorted(signals, key=lambda signal: signal["seq"], reverse=sort == "-seq")
    by_time = sorted(
        signals, key=lambda signal: (_time(signal), signal["seq"]), reverse=sort != "oldest"
    )
    if column in ("newest", "oldest"):
        return by_time
    return sorted(by_time, key=lambda signal: signal[column], reverse=sort.startswith("-"))


@dataclass(slots=True)
class World:
    """One account with its traders, on a connection whose transaction is never committed."""

    cursor: Any
    account_id: str
    traders: list[str]
    signals: list[dict[str, Any]] = field(default_factory=list)

    def store(self, sent: list[Sent]) -> None:
        """Put signals into the heap, and keep them as clients see them there."""
        last_seq = BEFORE + len(self.signals)
        rows = [_row(seq, signal) for seq, signal in enumerate(sent, last_seq + 1)]
        self.cursor.execute(
            "select array_agg(trader_no order by name) from private.traders"
            " where trader_id = any(%s::uuid[])",
            [self.traders],
        )
        values = {"trader_nos": self.cursor.fetchone()[0], "account_id": self.account_id}
        self.cursor.execute(INSERT, {**values, "signals": json.dumps(rows)})
        self.cursor.execute(
            "update private.accounts set last_seq = %s where account_id = %s",
            [last_seq + len(rows), self.account_id],
        )
        fresh = self.ask(Question(after_seq=last_seq, page_size=1000))
        assert [signal["seq"] for signal in fresh] == [row["seq"] for row in rows]
        self.signals += fresh

    def advance(self, changes: dict[int, tuple[str, ...]]) -> None:
        """Report what became of signals, by seq; then keep them as clients see them."""
        events = [
            {"signal_seq": seq, "status": STATUSES.index(status) + 1}
            for seq, statuses in changes.items()
            for status in statuses
        ]
        self.cursor.execute(ADVANCE, {"events": json.dumps(events), "account_id": self.account_id})
        self.signals = self.ask(Question(after_seq=0, page_size=1000))

    def pack(self, seqs: list[int]) -> None:
        self.cursor.execute(ANNOUNCE, [self.account_id])
        self.cursor.execute(PACK, {"account_id": self.account_id, "seqs": seqs})

    def merge(self, remainder: int) -> None:
        self.cursor.execute(MERGE, {"account_id": self.account_id, "remainder": remainder})

    @contextmanager
    def signed_in(self, account_id: str | None = None) -> Iterator[None]:
        claims = json.dumps({"sub": account_id or self.account_id, "role": "authenticated"})
        self.cursor.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        self.cursor.execute("set local role authenticated")
        yield
        self.cursor.execute("set local role none")

    def page(self, question: Question, cursor: str | None = None) -> dict[str, Any]:
        arguments = {
            **self.filters(question),
            "sort": question.sort,
            "cursor": cursor,
            "page_size": question.page_size,
        }
        page: dict[str, Any] = self.call("query_signals", arguments)
        return page

    def call(self, function: str, arguments: dict[str, Any]) -> Any:
        named = (
            f'"{name}" => %({name})s' + ("::uuid[]" if name == "traders" else "")
            for name in arguments
        )
        self.cursor.execute(f"select public.{function}({', '.join(named)})", arguments)
        return self.cursor.fetchone()[0]

    def filters(self, question: Question) -> dict[str, Any]:
        """The filters of a question that are asked, as arguments by name."""
        filters = {
            "traders": None
            if question.traders is None
            else [self.traders[trader] for trader in question.traders],
            "symbols": question.symbols,
            "symbol_prefix": question.symbol_prefix,
            "timeframes": question.timeframes,
            "actions": question.actions,
            "statuses": question.statuses,
            "tags": question.tags,
            "min_confidence": question.min_confidence,
            "max_confidence": question.max_confidence,
            "min_price": question.min_price,
            "max_price": question.max_price,
            "from": question.start,
            "to": question.end,
            "after_seq": question.after_seq,
            "until_seq": question.until_seq,
        }
        return {name: value for name, value in filters.items() if value is not None}

    def ask(self, question: Question) -> list[dict[str, Any]]:
        """All pages of a question, joined."""
        joined: list[dict[str, Any]] = []
        with self.signed_in():
            page = self.page(question)
            joined += page["signals"]
            while page["next_cursor"]:
                page = self.page(question, page["next_cursor"])
                joined += page["signals"]
        return joined

    def export(self, question: Question, pieces: int) -> list[dict[str, Any]]:
        """The NDJSON of a question in so many pieces, joined; the order and page are not asked."""
        filters = self.filters(question)
        after_seq = filters.pop("after_seq", 0)
        until_seq = filters.pop("until_seq", 2**62)
        with self.signed_in():
            span = self.call("export_range", {"from": question.start, "to": question.end})
            first = max(span["after_seq"], after_seq)
            last = max(min(span["until_seq"], until_seq), first)
            cuts = [first + (last - first) * n // pieces for n in range(pieces + 1)]
            lines = "".join(
                bytes(
                    self.call(
                        "export_signals",
                        {"format": "ndjson", "after_seq": after, "until_seq": until, **filters},
                    )
                ).decode()
                for after, until in itertools.pairwise(cuts)
            )
        return [json.loads(line) for line in lines.splitlines()]

    def view(self) -> list[dict[str, Any]]:
        """What public.signals shows, in the order of seq."""
        with self.signed_in():
            self.cursor.execute(
                "select to_jsonb(signal) from public.signals as signal order by seq"
            )
            return [row[0] for row in self.cursor.fetchall()]

    def heap_count(self) -> int:
        self.cursor.execute(
            "select count(*) from private.signals inner join private.accounts using (account_no)"
            " where account_id = %s",
            [self.account_id],
        )
        return int(self.cursor.fetchone()[0])


def _time(signal: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(signal["generated_at"])


def _price(seq: int) -> float:
    return 100.25 * seq


def _row(seq: int, signal: Sent) -> dict[str, Any]:
    row: dict[str, Any] = {
        "seq": seq,
        "trader": signal.trader,
        "symbol": signal.symbol,
        # Positions in private.timeframes() and private.actions().
        "timeframe": {"1m": 6, "1h": 13}[signal.timeframe],
        "action": ACTIONS.index(signal.action) + 1,
        "generated_at": signal.generated_at.isoformat(),
        "confidence": signal.confidence,
        "price": _price(seq),
    }
    if not signal.bare:
        row |= {"stop_loss": 1 / seq, "metadata": {"seq": seq, "tags": signal.tags}}
        row["valid_until"] = (signal.generated_at + timedelta(days=30, microseconds=7)).isoformat()
    return row


TIMES = st.builds(lambda place: NOON - place, PLACES)
SENT = st.builds(
    Sent,
    trader=st.integers(0, 1),
    symbol=st.sampled_from(SYMBOLS),
    timeframe=st.sampled_from(TIMEFRAMES),
    generated_at=TIMES,
    action=st.sampled_from(ACTIONS),
    confidence=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    bare=st.booleans(),
    # The last three are no list that contains a tag.
    tags=st.lists(st.sampled_from(TAGS), max_size=2)
    | st.sampled_from([None, "slow", {"slow": 1}, [["slow"]]]),
)
ANY_ORDER = st.lists(
    SENT,
    min_size=10,
    max_size=40,
    unique_by=lambda sent: (sent.trader, sent.symbol, sent.timeframe, sent.generated_at),
)
# Segments of signals that came in the order of time are read in shorter ways.
BATCHES = ANY_ORDER | ANY_ORDER.map(lambda batch: sorted(batch, key=lambda sent: sent.generated_at))
FILTERS: dict[str, st.SearchStrategy[Any]] = {
    "traders": st.lists(st.integers(0, 1), max_size=2),
    "symbols": st.lists(st.sampled_from((*SYMBOLS, "NONE")), min_size=1, max_size=2),
    "symbol_prefix": st.sampled_from(["B", "ETH/", "ETH/EUR", "ETH/USD", "SOL/USDT", "T", "e"]),
    "timeframes": st.lists(st.sampled_from((*TIMEFRAMES, "1d")), min_size=1, max_size=2),
    "actions": st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=2),
    "statuses": st.lists(st.sampled_from((*STATUSES, "archived")), max_size=3),
    "tags": st.lists(st.sampled_from((*TAGS, "none")), max_size=2),
    "min_confidence": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    "max_confidence": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    "min_price": st.integers(BEFORE, BEFORE + 45).map(_price),
    "max_price": st.integers(BEFORE, BEFORE + 45).map(_price),
    "start": TIMES,
    "end": TIMES,
    "after_seq": st.just(0) | st.integers(BEFORE, BEFORE + 45),
    "until_seq": st.integers(BEFORE, BEFORE + 45),
}
# Two filters at most: more would leave nothing to compare.
QUESTIONS = st.builds(
    lambda filters, sort, page_size: Question(**filters, sort=sort, page_size=page_size),
    st.lists(st.sampled_from(sorted(FILTERS)), max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: FILTERS[name] for name in names})
    ),
    st.none() | st.sampled_from(SORTS),
    st.integers(1, 12),
)
# Which signals go at one moment: of every so many one, from a random one on.
MOVES = st.lists(
    st.tuples(st.sampled_from(["pack", "pack", "merge"]), st.integers(1, 4), st.integers(0, 3)),
    min_size=2,
    max_size=5,
)


@contextmanager
def _world(connection: Any) -> Iterator[World]:
    try:
        yield _made(connection.cursor())
    finally:
        connection.rollback()


def _made(cursor: Any) -> World:
    account_id = str(uuid.uuid4())
    cursor.execute("select private.set_account_tier(%s, 'pro')", [account_id])
    cursor.execute(
        "insert into private.traders (account_no, name) select account_no, name"
        " from private.accounts cross join unnest(%s) as name where account_id = %s"
        " returning trader_id::text",
        [list(TRADERS), account_id],
    )
    return World(cursor, account_id, [row[0] for row in cursor.fetchall()])


@pytest.fixture(scope="module")
def connection(stack: RunningStack) -> Iterator[Any]:
    opened = psycopg2.connect(stack.database_url)
    yield opened
    opened.close()


@SETTINGS
@given(
    sent=BATCHES,
    later=BATCHES,
    changes=st.lists(st.sampled_from(CHANGES), min_size=40, max_size=40),
    moves=MOVES,
    questions=st.lists(QUESTIONS, min_size=2, max_size=4),
)
def test_tiers_do_not_show(
    connection: Any,
    sent: list[Sent],
    later: list[Sent],
    changes: list[tuple[str, ...]],
    moves: list[tuple[str, int, int]],
    questions: list[Question],
) -> None:
    with _world(connection) as world:
        world.store(sent)
        world.advance({signal["seq"]: changes[n] for n, signal in enumerate(world.signals)})
        known = {(s.trader, s.symbol, s.timeframe, s.generated_at) for s in sent}
        for move, modulus, start in moves:
            if move == "pack":
                world.pack([signal["seq"] for signal in world.signals[start::modulus]])
            else:
                world.merge(start % 2)
        # Signals that come after the packing of what they belong to.
        late = [s for s in later if (s.trader, s.symbol, s.timeframe, s.generated_at) not in known]
        if late:
            world.store(late)
        for question in questions:
            assert world.ask(question) == question.answer(world.signals, world.traders)
            by_seq = replace(question, sort="seq").answer(world.signals, world.traders)
            exported = world.export(question, pieces=question.page_size)
            assert exported == [
                {name: value for name, value in signal.items() if name not in LATER}
                for signal in by_seq
            ]
        for shown, signal in zip(world.view(), world.signals, strict=True):
            assert (
                shown.items()
                >= {name: value for name, value in signal.items() if name in shown}.items()
            )


def _dense(count: int) -> list[Sent]:
    """One signal a minute, with the traders and symbols in turn."""
    return [
        Sent(
            n % 2,
            SYMBOLS[n % 4],
            "1m",
            NOON - timedelta(days=3, minutes=n),
            ACTIONS[n % 4],
            0.5,
            False,
        )
        for n in reversed(range(count))
    ]


@pytest.mark.parametrize("sort", SORTS)
def test_pages_joined_are_the_list_while_signals_come_and_are_packed(
    connection: Any, sort: str
) -> None:
    rng = random.Random(sort)
    with _world(connection) as world:
        world.store(_dense(300))
        first = list(world.signals)
        question = Question(sort=sort, page_size=40)
        joined: list[dict[str, Any]] = []
        cursor: str | None = None
        for number in itertools.count():
            with world.signed_in():
                page = world.page(question, cursor)
            joined += page["signals"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            world.pack([signal["seq"] for signal in world.signals[number % 5 :: 5]])
            if number % 2:
                world.merge(0)
            world.store(_late(rng, number))
        assert world.heap_count() < 100
        assert joined == ordered(joined, sort)
        seqs = [signal["seq"] for signal in joined]
        assert len(set(seqs)) == len(seqs)
        known = {signal["seq"] for signal in first}
        assert [signal for signal in joined if signal["seq"] in known] == ordered(first, sort)
        # Who asks from the start has all of them.
        assert world.ask(question) == ordered(world.signals, sort)


def _late(rng: random.Random, number: int) -> list[Sent]:
    """Ten signals from among the times of the dense ones, of any confidence."""
    return [
        Sent(
            n % 2,
            rng.choice(SYMBOLS),
            "1h",
            NOON - timedelta(days=3, minutes=rng.randrange(300), seconds=number, microseconds=n),
            ACTIONS[n % 4],
            rng.choice([0.25, 0.5, 0.75]),
            True,
        )
        for n in range(10)
    ]


def test_the_packer_itself_changes_no_answer(connection: Any) -> None:
    with _world(connection) as world:
        world.store(_dense(300))
        newest, by_seq = Question(page_size=70), Question(sort="seq", page_size=70)
        before = world.ask(newest), world.ask(by_seq), world.view()
        # The job of the stack stands back, and has never looked at these days.
        world.cursor.execute("select pg_advisory_xact_lock(hashtext('private.pack_step'))")
        world.cursor.execute("delete from private.days")
        for _ in range(1000):
            world.cursor.execute("select private.pack_step()")
            if not world.cursor.fetchone()[0]:
                break
        assert world.heap_count() == 0
        assert (world.ask(newest), world.ask(by_seq), world.view()) == before


def test_packed_signals_are_their_accounts_alone(connection: Any) -> None:
    with _world(connection) as world:
        # The policies are altered below: asking for that later could deadlock with a job.
        world.cursor.execute("lock table private.accounts, private.traders, private.segments")
        world.store(_dense(30))
        world.pack([signal["seq"] for signal in world.signals])
        other = _made(world.cursor)
        other.store(_dense(20))
        other.pack([signal["seq"] for signal in other.signals])
        everything = Question(page_size=1000)
        assert len(world.ask(everything)) == len(world.view()) == 30
        assert len(other.ask(everything)) == len(other.view()) == 20
        # A filter by another account's traders finds none of them.
        spy = World(world.cursor, other.account_id, world.traders)
        assert spy.ask(Question(traders=[0, 1])) == []
        # The policy is what hides them: without it, they leak.
        world.cursor.execute(
            "alter policy members_read_own_segments on private.segments using (true)"
        )
        world.cursor.execute(
            "alter policy members_read_own_account on private.accounts using (true)"
        )
        world.cursor.execute(
            "alter policy members_read_own_traders on private.traders using (true)"
        )
        assert len(other.view()) >= 50
        assert len(spy.ask(Question(traders=[0, 1], page_size=1000))) == 30


def test_a_token_without_the_scope_reads_no_packed_signal(connection: Any) -> None:
    with _world(connection) as world:
        world.store(_dense(5))
        world.pack([signal["seq"] for signal in world.signals])
        claims = {"sub": world.account_id, "role": "authenticated", "scope": "signals:write"}
        with world.signed_in():
            world.cursor.execute(
                "select set_config('request.jwt.claims', %s, true)", [json.dumps(claims)]
            )
            world.cursor.execute("select count(*) from public.signals")
            assert world.cursor.fetchone()[0] == 0
            world.cursor.execute("savepoint asked")
            with pytest.raises(psycopg2.Error, match="lacks the scope"):
                world.page(Question())
            world.cursor.execute("rollback to savepoint asked")
