"""What a query sends, how it pages, and what it does when the service fails."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, get_args
from uuid import UUID

import msgspec
import numpy
import pytest

from signal_persistence.caller import LONGEST_RETRY_AFTER, Caller, pause_before
from signal_persistence.contract import CONTRACT
from signal_persistence.credentials import AccessToken
from signal_persistence.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    InvalidQueryError,
    UnavailableError,
)
from signal_persistence.query import AsyncSignalQuery, SignalQuery
from signal_persistence.questions import (
    Sort,
    count_call,
    facets_call,
    latest_call,
    page_call,
    query_parameters,
    rows_call,
)
from signal_persistence.reading import Facet, Facets, SignalCount, SignalFilter
from signal_persistence.signal import Outcome, StoredSignal
from tests.client.loopback_service import (
    CLOSE,
    RESET,
    STALL,
    LoopbackService,
    Step,
    answer,
    json_answer,
)

EDGE = "/functions/v1/query-signals"
RPC = "/rest/v1/rpc/query_signals"
YEAR = datetime(2026, 1, 1, tzinfo=UTC)
TRADER = UUID("0190b5a6-0000-7000-8000-000000000001")
SIGNAL: dict[str, Any] = {
    "signal_id": "0190b5a6-0000-8000-8000-000000000002",
    "seq": 7,
    "trader_id": str(TRADER),
    "symbol": "BTC-USD",
    "timeframe": "15m",
    "generated_at": "2026-01-05T10:15:00.123456+00:00",
    "action": "enter_long",
    "confidence": 1,
    "price": 43548.7734375,
    "stop_loss": None,
    "take_profit": 44000,
    "valid_until": None,
    "metadata": {"rsi": 28.5, "tags": ["trend", 3, ["nested"]]},
    "status": "executed",
    "outcome": {"entry_price": 43550},
}


class Naps:
    """Sleep for a caller: remembers the pauses, tells how many there were, and takes no time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.after: Callable[[int], None] = lambda count: None

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.after(len(self.seconds))


class Renewable:
    """Credentials that count how often a new token was asked for."""

    def __init__(self) -> None:
        self.renewed = 0

    async def access_token(self, *, refresh: bool = False) -> str:
        self.renewed += refresh
        return f"token-{self.renewed}"


def page(*signals: dict[str, Any], cursor: str | None = None, last_seq: int = 7) -> Step:
    return json_answer({"signals": signals, "next_cursor": cursor, "last_seq": last_seq})


def failure(status: int, code: str, **headers: str) -> Step:
    body = {"code": code, "message": "Cannot.", "request_id": "x"}
    return json_answer(body, status, **headers)


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    with LoopbackService() as service:
        yield service


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def credentials() -> Renewable:
    return Renewable()


@pytest.fixture
async def query(
    service: LoopbackService, naps: Naps, credentials: Renewable
) -> AsyncIterator[AsyncSignalQuery]:
    async with make_query(service, naps, credentials) as query:
        yield query


def make_query(
    service: LoopbackService, naps: Naps, credentials: Renewable, timeout: float = 10
) -> AsyncSignalQuery:
    caller = Caller(
        service.url,
        "key",
        credentials,
        timeout=timeout,
        attempts=4,
        sleep=naps,
        randomness=lambda: 1.0,
    )
    return AsyncSignalQuery(service.url, "key", credentials, caller=caller)


async def test_a_page_is_decoded_into_typed_signals(
    service: LoopbackService, query: AsyncSignalQuery
) -> None:
    service.script = [page(SIGNAL, cursor="more", last_seq=9)]
    answer = await query.page()
    assert answer.next_cursor == "more"
    assert answer.last_seq == 9
    assert answer.signals == (
        StoredSignal(
            signal_id=UUID(SIGNAL["signal_id"]),
            seq=7,
            trader_id=TRADER,
            symbol="BTC-USD",
            timeframe="15m",
            generated_at=datetime(2026, 1, 5, 10, 15, 0, 123456, UTC),
            action="enter_long",
            confidence=1.0,
            price=43548.7734375,
            take_profit=44000.0,
            metadata=SIGNAL["metadata"],
            status="executed",
            outcome=Outcome(entry_price=43550.0),
        ),
    )


async def test_everything_asked_for_is_sent_under_the_names_of_the_database_function(
    service: LoopbackService, query: AsyncSignalQuery
) -> None:
    service.script = [page()]
    east = timezone(timedelta(hours=9))
    await query.page(
        traders=[TRADER, str(TRADER).upper()],
        symbols=iter(["ES", "BTC-USD"]),
        symbol_prefix="BTC",
        timeframes=["1h"],
        actions={"exit_long"},
        statuses=["executed", "closed"],
        tags=["trend"],
        min_confidence=0.5,
        max_confidence=1,
        min_price=-1.5,
        max_price=1e15,
        from_=datetime(2026, 1, 5, tzinfo=UTC),
        to=datetime(2026, 1, 6, 9, tzinfo=east),
        after_seq=0,
        until_seq=9,
        sort="-confidence",
        page_size=5,
        cursor="c",
    )
    [request] = service.received
    assert (request.method, request.target) == ("POST", EDGE)
    assert request.json() == {
        "traders": [str(TRADER)],
        "symbols": ["BTC-USD", "ES"],
        "symbol_prefix": "BTC",
        "timeframes": ["1h"],
        "actions": ["exit_long"],
        "statuses": ["closed", "executed"],
        "tags": ["trend"],
        "min_confidence": 0.5,
        "max_confidence": 1,
        "min_price": -1.5,
        "max_price": 1e15,
        "from": "2026-01-05T00:00:00+00:00",
        "to": "2026-01-06T00:00:00+00:00",
        "after_seq": 0,
        "until_seq": 9,
        "sort": "-confidence",
        "page_size": 5,
        "cursor": "c",
    }
    assert request.headers["authorization"] == "Bearer token-0"
    assert request.headers["apikey"] == "key"


async def test_all_pages_are_followed_to_the_last(
    service: LoopbackService, query: AsyncSignalQuery
) -> None:
    first, second, third = ({**SIGNAL, "seq": seq} for seq in (1, 2, 3))
    service.script = [page(first, second, cursor="c2"), page(third)]
    seqs = [signal.seq async for signal in query.signals(symbols=iter(["BTC-USD"]))]
    assert seqs == [1, 2, 3]
    assert [request.json() for request in service.received] == [
        {"symbols": ["BTC-USD"], "page_size": 1000},
        {"symbols": ["BTC-USD"], "page_size": 1000, "cursor": "c2"},
    ]


def test_the_blocking_face_pages_the_same_way(service: LoopbackService) -> None:
    service.script = [page({**SIGNAL, "seq": 1}, cursor="c"), page(SIGNAL)]
    with SignalQuery(service.url, "key", AccessToken("t"), transport="rpc") as query:
        assert [signal.seq for signal in query.signals()] == [1, 7]
    assert [request.target for request in service.received] == [RPC, RPC]


async def test_only_the_fields_that_are_asked_for_are_sent_and_typed(
    service: LoopbackService, query: AsyncSignalQuery
) -> None:
    row = {"seq": 7, "generated_at": SIGNAL["generated_at"], "outcome": {"return": 0.5}}
    service.script = [page(row, cursor="c2"), page()]
    fields = ["outcome", "generated_at"]
    rows = [row async for row in query.rows(fields, statuses=["closed"], sort="oldest")]
    moment = datetime(2026, 1, 5, 10, 15, 0, 123456, UTC)
    assert rows == [{"seq": 7, "generated_at": moment, "outcome": Outcome(return_=0.5)}]
    asked = {
        "statuses": ["closed"],
        "sort": "oldest",
        "page_size": 1000,
        "fields": ["generated_at", "outcome"],
    }
    assert [one.json() for one in service.received] == [asked, {**asked, "cursor": "c2"}]


async def test_an_empty_page_with_a_cursor_is_not_the_last(
    service: LoopbackService, query: AsyncSignalQuery
) -> None:
    service.script = [page(cursor="c2"), page(SIGNAL)]
    assert [signal.seq async for signal in query.signals(statuses=["closed"])] == [7]


def test_the_blocking_face_goes_on_after_an_empty_page(service: LoopbackService) -> None:
    service.script = [page(cursor="c2"), page(SIGNAL)]
    with SignalQuery(service.url, "key", AccessToken("t")) as query:
        assert [signal.seq for signal in query.signals(statuses=["closed"])] == [7]


@pytest.mark.parametrize("transport", ["edge", "rpc"])
def test_each_question_goes_to_its_function(service: LoopbackService, transport: Any) -> None:
    facets = {
        "symbols": [{"value": "ES", "count": 2}],
        "traders": [{"value": str(TRADER), "count": 2}],
        "actions": [],
        "timeframes": [],
        "exact": True,
    }
    service.script = [
        json_answer({"count": 5, "exact": False}),
        page(SIGNAL, cursor="c2"),
        page({**SIGNAL, "seq": 8}),
        json_answer(facets),
    ]
    with SignalQuery(service.url, "key", AccessToken("t"), transport=transport) as query:
        assert query.count(exact=True, symbol_prefix="E", until_seq=3) == SignalCount(5, False)
        newest = [signal.seq for signal in query.latest(symbols=["ES"], from_=YEAR)]
        menu = query.facets(after_seq=2)
    assert newest == [7, 8]
    assert menu == Facets((Facet("ES", 2),), (Facet(TRADER, 2),), (), (), True)
    asked = {"symbols": ["ES"], "from": "2026-01-01T00:00:00+00:00", "page_size": 1000}
    targets = {
        "edge": [f"{EDGE}/{name}" for name in ("count", "latest", "latest", "facets")],
        "rpc": [
            f"/rest/v1/rpc/{name}"
            for name in ("count_signals", "latest_signals", "latest_signals", "signal_facets")
        ],
    }
    assert [one.target for one in service.received] == targets[transport]
    assert [one.json() for one in service.received] == [
        {"symbol_prefix": "E", "until_seq": 3, "exact": True},
        asked,
        {**asked, "cursor": "c2"},
        {"after_seq": 2},
    ]


async def test_an_answer_from_before_the_wanted_seq_is_an_error(
    service: LoopbackService, query: AsyncSignalQuery
) -> None:
    service.script = [page(SIGNAL, last_seq=7), page(SIGNAL, last_seq=7)]
    await query.page(at_least_seq=7)
    with pytest.raises(InvalidQueryError, match="only come to 7"):
        await query.page(at_least_seq=8)


@pytest.mark.parametrize(
    "problem",
    [
        failure(503, "unavailable"),
        failure(429, "unavailable"),
        failure(500, "internal"),
        failure(404, "NOT_FOUND"),
        answer(200, b"<html>Please sign in to the hotel's network</html>"),
        json_answer({"signals": [{}], "next_cursor": None, "last_seq": 1}),
        STALL,
        RESET,
        CLOSE,
    ],
    ids=str,
)
async def test_a_failure_that_may_pass_is_tried_again_after_growing_pauses(
    service: LoopbackService, naps: Naps, credentials: Renewable, problem: Step
) -> None:
    service.script = [problem, problem, page(SIGNAL)]
    timeout = 0.3 if problem is STALL else 10
    async with make_query(service, naps, credentials, timeout) as query:
        assert len((await query.page()).signals) == 1
    assert naps.seconds == [0.1, 0.2]


async def test_a_refused_connection_is_tried_again_after_growing_pauses(
    naps: Naps, credentials: Renewable
) -> None:
    with LoopbackService(lambda request: page(SIGNAL), refusing=True) as service:
        naps.after = lambda count: service.listen() if count == 2 else None
        async with make_query(service, naps, credentials) as query:
            assert len((await query.page()).signals) == 1
    assert naps.seconds == [0.1, 0.2]


async def test_retry_after_is_the_least_pause(
    service: LoopbackService, query: AsyncSignalQuery, naps: Naps
) -> None:
    service.script = [
        failure(503, "unavailable", retry_after="2"),
        failure(503, "unavailable", retry_after=f"{LONGEST_RETRY_AFTER:.0f}"),
        page(SIGNAL),
    ]
    await query.page()
    assert naps.seconds == [2.0, LONGEST_RETRY_AFTER]


async def test_a_retry_after_that_is_too_long_to_wait_for_is_raised_to_the_caller(
    service: LoopbackService, query: AsyncSignalQuery, naps: Naps
) -> None:
    service.script = [failure(429, "unavailable", retry_after="3600")]
    with pytest.raises(UnavailableError) as caught:
        await query.page()
    assert caught.value.retry_after == 3600.0
    assert (len(service.received), naps.seconds) == (1, [])


@pytest.mark.parametrize(
    ("problem", "raised"),
    [(failure(503, "unavailable"), UnavailableError), (CLOSE, ConnectionLostError)],
)
async def test_the_last_failure_is_raised_when_attempts_run_out(
    service: LoopbackService, query: AsyncSignalQuery, problem: Step, raised: type[Exception]
) -> None:
    service.script = [problem] * 4
    with pytest.raises(raised):
        await query.page()
    assert len(service.received) == 4


async def test_a_connection_that_stays_refused_is_raised_when_attempts_run_out(
    naps: Naps, credentials: Renewable
) -> None:
    with LoopbackService(refusing=True) as service:
        async with make_query(service, naps, credentials) as query:
            with pytest.raises(ConnectError):
                await query.page()
    assert len(naps.seconds) == 3


async def test_a_refused_token_is_renewed_once(
    service: LoopbackService, query: AsyncSignalQuery, credentials: Renewable
) -> None:
    service.script = [failure(401, "unauthorized"), page(SIGNAL)]
    await query.page()
    assert service.received[-1].headers["authorization"] == "Bearer token-1"
    service.script = [failure(401, "unauthorized")] * 2
    with pytest.raises(AuthenticationError):
        await query.page()
    assert credentials.renewed == 2


async def test_a_definite_error_is_raised_at_once(
    service: LoopbackService, query: AsyncSignalQuery
) -> None:
    service.script = [failure(400, "invalid_cursor")]
    with pytest.raises(ApiError) as caught:
        await query.page(cursor="not one of ours")
    assert caught.value.code == "invalid_cursor"
    assert len(service.received) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"symbols": []}, "no symbols"),
        ({"symbols": "ES"}, "pass a list"),
        ({"symbols": ["no spaces"]}, "no signal can have it"),
        ({"timeframes": ["7m"]}, "no signal can have it"),
        ({"actions": ["buy"]}, "no signal can have it"),
        ({"traders": ["me"]}, "not a UUID"),
        ({"traders": [UUID(int=n) for n in range(101)]}, "at most 100"),
        ({"min_confidence": 1.5}, "from 0 to 1"),
        ({"min_confidence": float("nan")}, "from 0 to 1"),
        ({"min_confidence": 0.6, "max_confidence": 0.5}, "no signal has both"),
        ({"max_price": float("inf")}, "from -1e.15 to 1e.15"),
        ({"min_price": 2, "max_price": 1}, "no signal has both"),
        ({"symbol_prefix": ""}, "no signal can have it"),
        ({"symbol_prefix": "E S"}, "no signal can have it"),
        ({"statuses": ["archived"]}, "no signal can have it"),
        ({"tags": [""]}, "no signal can have it"),
        ({"tags": ["\ud800"]}, "no signal can have it"),
        ({"tags": ["\0"]}, "no signal can have it"),
        ({"sort": "price"}, "newest, oldest, seq, -seq"),
        ({"after_seq": -1}, "0 or more"),
        ({"from_": datetime(2026, 1, 5)}, "time zone"),
        ({"from_": "2026-01-05"}, "must be a datetime"),
        ({"to": datetime.min.replace(tzinfo=timezone(timedelta(hours=2)))}, "years 1 to 9999"),
        ({"after_seq": 1.5}, "whole number"),
        ({"until_seq": "7"}, "whole number"),
        ({"page_size": True}, "whole number"),
        ({"after_seq": numpy.arange(2)}, "whole number"),
        ({"min_price": numpy.arange(2)}, "must be a number"),
        ({"page_size": "7"}, "whole number"),
        ({"page_size": 0}, "from 1 to 1000"),
        ({"page_size": 1001}, "from 1 to 1000"),
        ({"min_confidence": "0.5"}, "must be a number"),
        ({"max_price": True}, "must be a number"),
        ({"min_price": 10**400}, "must be a number"),
        ({"symbols": 5}, "pass a list"),
        ({"symbols": [5]}, "no signal can have it"),
        ({"tags": [None]}, "no signal can have it"),
        ({"traders": [5]}, "not a UUID"),
    ],
)
def test_a_filter_that_cannot_work_is_refused_before_anything_is_sent(
    options: Any, sentence: str
) -> None:
    with pytest.raises(InvalidQueryError, match=sentence):
        query_parameters(options)


@pytest.mark.parametrize("name", ["symbol", "from", "page_sise"])
def test_an_option_that_there_is_not_is_refused(name: str) -> None:
    unknown: Any = {name: 1}
    with pytest.raises(InvalidQueryError, match=f"'{name}' here: there are actions, after_seq"):
        page_call(unknown)


def test_numbers_may_be_those_of_numpy_and_decimal() -> None:
    options: Any = {
        "after_seq": numpy.int64(5),
        "page_size": numpy.int32(10),
        "min_confidence": numpy.float32(0.5),
        "min_price": Decimal("1.5"),
    }
    assert msgspec.json.decode(msgspec.json.encode(query_parameters(options))) == {
        "after_seq": 5,
        "page_size": 10,
        "min_confidence": 0.5,
        "min_price": 1.5,
    }


async def test_no_page_size_is_the_largest_where_all_pages_are_wanted(
    service: LoopbackService, query: AsyncSignalQuery
) -> None:
    service.script = [page(), page()]
    assert [signal async for signal in query.signals(page_size=None)] == []
    assert [signal async for signal in query.latest(page_size=None)] == []
    assert [request.json() for request in service.received] == [{"page_size": 1000}] * 2


def test_a_page_of_the_newest_signals_has_at_least_one() -> None:
    with pytest.raises(InvalidQueryError, match="page_size 0: it must be from 1"):
        latest_call({"page_size": 0})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (["prize"], "field 'prize' of signals: there are signal_id, seq"),
        ([], "rows without fields"),
        ("price", "pass a list"),
    ],
)
def test_a_field_that_no_signal_has_is_refused(fields: Any, sentence: str) -> None:
    with pytest.raises(InvalidQueryError, match=sentence):
        rows_call(fields, {})


@pytest.mark.parametrize("ask", [lambda options: count_call(True, options), facets_call])
def test_what_does_not_tell_its_seq_cannot_be_asked_for_one(ask: Callable[[Any], object]) -> None:
    with pytest.raises(InvalidQueryError, match="'at_least_seq' here"):
        ask({"at_least_seq": 1})


@pytest.mark.parametrize("library", ["pyarrow", "polars", "pandas"])
async def test_a_table_without_its_library_names_the_extra(
    service: LoopbackService,
    query: AsyncSignalQuery,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    make = {"pyarrow": query.to_arrow, "polars": query.to_polars, "pandas": query.to_pandas}
    extra = {"pyarrow": "arrow"}.get(library, library)
    with pytest.raises(ConfigurationError, match=rf"signal-persistence\[{extra}\]"):
        await make[library]()
    assert not service.received


def test_the_orders_are_those_of_the_contract() -> None:
    assert get_args(Sort) == CONTRACT.sorts


def test_an_unknown_transport_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'edge' or 'rpc'"):
        AsyncSignalQuery("http://project.test", "key", AccessToken("t"), transport="carrier pigeon")  # type: ignore[arg-type]


def test_pauses_are_jittered_and_bounded() -> None:
    assert [pause_before(attempt, lambda: 1.0) for attempt in (1, 2, 3, 9, 10_000)] == [
        0.1,
        0.2,
        0.4,
        3.0,
        3.0,
    ]
    assert pause_before(3, lambda: 0.25) == 0.1


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({}, True),
        ({"traders": [TRADER]}, True),
        ({"traders": [UUID(int=1)]}, False),
        ({"symbols": ["BTC-USD", "ES"]}, True),
        ({"symbols": ["ES"]}, False),
        ({"timeframes": ["1h"]}, False),
        ({"actions": ["exit_long"]}, False),
        ({"min_confidence": 1.0}, True),
        ({"max_confidence": 0.9}, False),
        ({"symbol_prefix": "BTC-"}, True),
        ({"symbol_prefix": "btc"}, False),
        ({"min_price": 43548.7734375, "max_price": 43548.7734375}, True),
        ({"min_price": 43548.8}, False),
        ({"max_price": 43548.7}, False),
        ({"tags": ["trend", "x"]}, True),
        ({"tags": ["tren"]}, False),
        ({"symbols": ["BTC-USD"], "actions": ["exit_long"]}, False),
    ],
)
def test_a_filter_tells_what_the_database_would(wanted: Any, matches: bool) -> None:
    signal = StoredSignal.from_json(msgspec.json.encode(SIGNAL))
    assert SignalFilter.of(wanted).matches(signal) is matches


@pytest.mark.parametrize("tags", [None, "trend", {"trend": 1}, [], [["trend"]], [None, 1]])
def test_only_an_array_of_strings_is_a_list_of_tags(tags: Any) -> None:
    signal = StoredSignal.from_json(msgspec.json.encode({**SIGNAL, "metadata": {"tags": tags}}))
    assert not SignalFilter.of({"tags": ["trend"]}).matches(signal)
