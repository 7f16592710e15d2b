"""Queries of the real database: what they find, count and put into tables."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signal_persistence import (
    AccessToken,
    ApiError,
    Facet,
    Signal,
    SignalChange,
    SignalClient,
    SignalQuery,
    StoredSignal,
)
from signal_persistence.contract import CONTRACT
from signal_persistence.reading import SignalFilter
from tests.plugins.stack import MakeAccount, RunningStack

COUNT = 300
FILTERS = 60
SYMBOLS = ("ES", "ES=F", "NQ=F", "es", "BTC-USD", "E.S")
TAGS: tuple[Any, ...] = (
    ["trend"],
    ["trend", "fast"],
    ["Trend", 'say "no"', "a,b"],
    "trend",
    {"trend": 1},
    [["trend"]],
    [],
    [None, 1],
    None,
)


@dataclass
class Desk:
    """An account with signals of every kind, all of which are known."""

    client: SignalClient
    query: SignalQuery
    stored: list[StoredSignal]
    """By seq."""


@pytest.fixture(scope="module")
def desk(stack: RunningStack, make_account: MakeAccount) -> Iterator[Desk]:
    account = make_account("elite")
    credentials = AccessToken(account.access_token)
    with (
        SignalClient(stack.api_url, stack.publishable_key, credentials) as client,
        client.query() as query,
    ):
        traders = [client.create_trader(name).trader_id for name in ("a", "b", "c")]
        now = datetime.now(UTC)
        with client.producer(spool_dir=None, linger_ms=0) as producer:
            for number in range(COUNT):
                moment = now - timedelta(minutes=1 + number % 100, microseconds=number)
                producer.publish(
                    Signal(
                        trader_id=traders[number % 3],
                        symbol=SYMBOLS[number % 6],
                        timeframe=("1m", "1h")[number % 2],
                        generated_at=moment,
                        action=sorted(CONTRACT.actions)[number % 4],
                        confidence=number % 11 / 10,
                        price=(-0.5, 0.1, 1e15, 7.0)[number % 4],
                        stop_loss=0.25 if number % 2 else None,
                        valid_until=now if number % 5 == 0 else None,
                        metadata={"n": number, "tags": TAGS[number % 9]} if number % 7 else None,
                    )
                )
            assert producer.flush(30) == 0
        page = list(query.signals(after_seq=0))
        client.advance([SignalChange.of(page[number], "analyzed") for number in (1, 2, 3)])
        client.advance([SignalChange.of(page[2], "executed", entry_price=1.5)])
        closed = SignalChange.of(page[2], "closed", exit_price=2.5, close_reason="manual")
        client.advance([closed])
        yield Desk(client, query, list(query.signals(after_seq=0)))


def random_filter(chance: random.Random, stored: list[StoredSignal]) -> dict[str, Any]:
    """Some filters at once, by values that signals have."""

    def some(values: list[Any]) -> list[Any]:
        return chance.sample(sorted(set(values)), chance.randint(1, 2))

    def span(low: str, high: str, values: list[float]) -> dict[str, float]:
        ends = dict(zip((low, high), sorted(chance.sample(values, 2)), strict=True))
        return {name: ends[name] for name in chance.choice([(low, high), (low,), (high,)])}

    choices: list[dict[str, Any]] = [
        {"traders": some([signal.trader_id for signal in stored])},
        {"symbols": some([signal.symbol for signal in stored])},
        {"symbol_prefix": chance.choice(["E", "ES", "ES=", "e", "E.", "B", "BTC-USD", "NQ=FF"])},
        {"timeframes": [chance.choice(["1m", "1h", "1d"])]},
        {"actions": some([signal.action for signal in stored])},
        {"tags": chance.sample(["trend", "Trend", "fast", 'say "no"', "a,b", "none"], 2)},
        span("min_confidence", "max_confidence", [signal.confidence for signal in stored]),
        span("min_price", "max_price", [signal.price for signal in stored]),
    ]
    return {name: value for part in chance.sample(choices, 2) for name, value in part.items()}


def test_a_filter_tells_of_each_signal_what_the_database_does(desk: Desk) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    found = 0
    for _ in range(FILTERS):
        options = random_filter(chance, desk.stored)
        wanted = SignalFilter.of(options)  # type: ignore[arg-type]
        expected = [signal.seq for signal in desk.stored if wanted.matches(signal)]
        page = desk.query.page(**options, sort="seq", page_size=1000)
        assert [signal.seq for signal in page.signals] == expected, options
        found += len(expected)
    assert found > COUNT


@pytest.mark.parametrize("sort", CONTRACT.sorts)
def test_pages_joined_are_the_list_in_every_order(desk: Desk, sort: Any) -> None:
    joined = [s for page in desk.query.pages(sort=sort, page_size=41) for s in page.signals]
    by_time = sorted(desk.stored, key=lambda signal: (signal.generated_at, signal.seq))
    newest = by_time[::-1]
    key = {
        "newest": lambda signal: 0,
        "oldest": lambda signal: (signal.generated_at, signal.seq),
        "seq": lambda signal: signal.seq,
        "-seq": lambda signal: -signal.seq,
        "confidence": lambda signal: signal.confidence,
        "-confidence": lambda signal: -signal.confidence,
        "symbol": lambda signal: signal.symbol,
        "-symbol": lambda signal: [-ord(letter) for letter in signal.symbol] + [1],
    }[sort]
    assert joined == sorted(newest, key=key)


def test_an_altered_cursor_is_refused(desk: Desk) -> None:
    cursor = desk.query.page(page_size=5).next_cursor
    assert cursor is not None
    for other in ({"symbols": ["ES"]}, {"sort": "oldest"}):
        with pytest.raises(ApiError) as caught:
            desk.query.page(cursor=cursor, page_size=5, **other)
        assert (caught.value.code, caught.value.status) == ("invalid_cursor", 400)


def test_statuses_are_those_of_now(desk: Desk) -> None:
    for status in CONTRACT.statuses:
        expected = [signal.seq for signal in desk.stored if signal.status == status]
        found = desk.query.signals(statuses=[status], sort="seq")
        assert [signal.seq for signal in found] == expected, status


def test_rows_have_the_fields_that_were_asked_for(desk: Desk) -> None:
    fields = ["generated_at", "status", "outcome"]
    rows = list(desk.query.rows(fields, sort="seq"))
    assert rows == [
        {
            "seq": signal.seq,
            "generated_at": signal.generated_at,
            "status": signal.status,
            "outcome": signal.outcome,
        }
        for signal in desk.stored
    ]


def test_counts_facets_and_the_latest_are_those_of_the_list(desk: Desk) -> None:
    matching = [signal for signal in desk.stored if signal.symbol.startswith("ES")]
    counted = desk.query.count(exact=True, symbol_prefix="ES")
    assert (counted.count, counted.exact) == (len(matching), True)
    facets = desk.query.facets(symbol_prefix="ES")
    assert facets.exact
    for name, values in (
        ("symbols", [signal.symbol for signal in matching]),
        ("traders", [signal.trader_id for signal in matching]),
        ("actions", [signal.action for signal in matching]),
        ("timeframes", [signal.timeframe for signal in matching]),
    ):
        shown: tuple[Facet[Any], ...] = getattr(facets, name)
        assert {facet.value: facet.count for facet in shown} == Counter(values)
        counts = [facet.count for facet in shown]
        assert counts == sorted(counts, reverse=True)
    newest = {}
    for signal in sorted(matching, key=lambda signal: (signal.generated_at, signal.seq)):
        newest[signal.trader_id, signal.symbol] = signal
    latest = list(desk.query.latest(symbol_prefix="ES", page_size=2))
    assert {(signal.trader_id, signal.symbol): signal for signal in latest} == newest
    assert len(latest) == len(newest)


def plain(signals: list[StoredSignal]) -> list[dict[str, Any]]:
    """Signals as rows of a table have them."""
    return [
        {
            "signal_id": str(signal.signal_id),
            "seq": signal.seq,
            "trader_id": str(signal.trader_id),
            "symbol": signal.symbol,
            "timeframe": signal.timeframe,
            "generated_at": signal.generated_at,
            "action": signal.action,
            "confidence": signal.confidence,
            "price": signal.price,
            "stop_loss": signal.stop_loss,
            "take_profit": signal.take_profit,
            "valid_until": signal.valid_until,
        }
        for signal in signals
    ]


def test_a_table_has_every_signal_of_the_filter_with_its_types(desk: Desk) -> None:
    table = desk.query.to_arrow(symbol_prefix="ES")
    matching = [signal for signal in desk.stored if signal.symbol.startswith("ES")]
    assert table.drop(["metadata"]).to_pylist() == plain(matching)
    metadata = [text and json.loads(text) for text in table["metadata"].to_pylist()]
    assert metadata == [signal.metadata for signal in matching]
    types = {field.name: str(field.type) for field in table.schema}
    word = "dictionary<values=string, indices=int32, ordered=0>"
    assert types["symbol"] == types["trader_id"] == types["action"] == types["timeframe"] == word
    assert types["generated_at"] == types["valid_until"] == "timestamp[us, tz=UTC]"
    assert {types[name] for name in ("confidence", "price", "stop_loss", "take_profit")} == {
        "double"
    }
    assert desk.query.to_arrow(symbols=["none"]).schema == table.schema


def test_a_table_with_the_lifecycle_has_the_same_columns_and_more(desk: Desk) -> None:
    table = desk.query.to_arrow(lifecycle=True)
    first = desk.query.to_arrow()
    assert table.select(first.column_names).to_pylist() == first.to_pylist()
    assert table.select(first.column_names).schema == first.schema
    assert table["status"].to_pylist() == [signal.status for signal in desk.stored]
    [closed] = [row for row in table.to_pylist() if row["status"] == "closed"]
    outcome = {name: closed[name] for name in table.column_names[len(first.column_names) + 1 :]}
    assert outcome == {
        "entry_price": 1.5,
        "exit_price": 2.5,
        "close_reason": "manual",
        "return": None,
        "fees": None,
        "reason": None,
    }
    empty = desk.query.to_arrow(lifecycle=True, symbols=["none"])
    assert (empty.num_rows, empty.schema) == (0, table.schema)


def test_frames_have_the_types_that_the_readme_names(desk: Desk) -> None:
    frame = desk.query.to_pandas()
    assert len(frame) == COUNT
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "signal_id": "str",
        "seq": "int64",
        **dict.fromkeys(("trader_id", "symbol", "timeframe", "action"), "category"),
        **dict.fromkeys(("generated_at", "valid_until"), "datetime64[us, UTC]"),
        **dict.fromkeys(("confidence", "price", "stop_loss", "take_profit"), "float64"),
        "metadata": "str",
    }
    polars = desk.query.to_polars(lifecycle=True)
    assert {name: str(kind) for name, kind in polars.schema.items() if name != "metadata"} == {
        "signal_id": "String",
        "seq": "Int64",
        **dict.fromkeys(("trader_id", "symbol", "timeframe", "action", "status"), "Categorical"),
        **dict.fromkeys(
            ("generated_at", "valid_until"), "Datetime(time_unit='us', time_zone='UTC')"
        ),
        **dict.fromkeys(("confidence", "price", "stop_loss", "take_profit"), "Float64"),
        **dict.fromkeys(("entry_price", "exit_price", "return", "fees"), "Float64"),
        **dict.fromkeys(("close_reason", "reason"), "String"),
    }
    assert polars["seq"].to_list() == frame["seq"].tolist()
