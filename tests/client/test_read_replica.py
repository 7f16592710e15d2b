"""When a query asks the read replica, and when the primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import msgspec
import pytest

from signal_persistence.caller import Caller
from signal_persistence.client import SignalClient
from signal_persistence.credentials import AccessToken
from signal_persistence.errors import ApiError, ConnectError
from signal_persistence.query import AsyncSignalQuery, SignalQuery
from signal_persistence.reader import Reader
from signal_persistence.reading import Page
from signal_persistence.replica import ReadReplica
from tests.client.loopback_service import RESET, STALL, LoopbackService, Received, Step, answer
from tests.client.test_query_requests import SIGNAL, failure, page

TRADERS = [UUID(int=number) for number in (1, 2)]


def at(seq: int, *, cursor: str | None = None) -> Step:
    return page({**SIGNAL, "seq": seq}, cursor=cursor, last_seq=seq)


@pytest.fixture
def primary() -> Iterator[LoopbackService]:
    with LoopbackService(lambda request: at(100)) as service:
        yield service


@pytest.fixture
def replica() -> Iterator[LoopbackService]:
    with LoopbackService(lambda request: at(90)) as service:
        yield service


@pytest.fixture
def query(primary: LoopbackService, replica: LoopbackService) -> Iterator[SignalQuery]:
    with SignalQuery(primary.url, "key", AccessToken("t"), read_url=replica.url) as query:
        yield query


class Clock:
    """Tells a time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FailingOnce:
    """Credentials that cannot be had the first time."""

    def __init__(self) -> None:
        self.asked = 0

    async def access_token(self, *, refresh: bool = False) -> str:
        self.asked += 1
        if self.asked == 1:
            raise ConnectError
        return "t"


@asynccontextmanager
async def replica_of(
    service: LoopbackService, clock: Clock, timeout: float = 10
) -> AsyncIterator[ReadReplica]:
    replica = ReadReplica(service.url, "key", AccessToken("t"), timeout=timeout, clock=clock)
    try:
        yield replica
    finally:
        await replica.aclose()


async def last_seq(replica: ReadReplica) -> int | None:
    page = await replica.ask("query_signals", {}, msgspec.json.Decoder(Page).decode)
    return None if page is None else page.last_seq


def asked(request: Received) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.target).query)


def test_the_replica_is_asked_by_get_as_postgresql_reads_values(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    query.page(
        traders=TRADERS,
        tags=['say "no"', "a,b", "back\\slash"],
        min_confidence=0.5,
        from_=datetime(2026, 1, 5, tzinfo=UTC),
    )
    [request] = replica.received
    assert (request.method, request.headers["authorization"]) == ("GET", "Bearer t")
    assert urlsplit(request.target).path == "/rest/v1/rpc/query_signals"
    assert asked(request) == {
        "traders": ["{" + ",".join(f'"{trader}"' for trader in TRADERS) + "}"],
        "tags": [r'{"a,b","back\\slash","say \"no\""}'],
        "min_confidence": ["0.5"],
        "from": ["2026-01-05T00:00:00+00:00"],
    }
    assert not primary.received


def test_a_replica_that_is_behind_the_wanted_seq_is_not_believed(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    assert [row["seq"] for row in query.rows(["price"], at_least_seq=90)] == [90]
    assert not primary.received
    assert [row["seq"] for row in query.rows(["price"], at_least_seq=91)] == [100]
    assert len(replica.received) == 2


@pytest.mark.parametrize(
    "read",
    [
        lambda query: query.page(at_least_seq=1),
        lambda query: list(query.signals(at_least_seq=1)),
        lambda query: list(query.latest(at_least_seq=1)),
        lambda query: list(query.rows(["outcome"], at_least_seq=1)),
        lambda query: list(query.rows(["price"], statuses=["closed"], at_least_seq=1)),
    ],
)
def test_a_status_that_has_to_be_fresh_is_asked_of_the_primary(
    query: SignalQuery,
    primary: LoopbackService,
    replica: LoopbackService,
    read: Callable[[SignalQuery], object],
) -> None:
    read(query)
    assert (len(primary.received), len(replica.received)) == (1, 0)


def test_a_table_of_what_became_of_signals_is_asked_of_the_primary(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    table = query.to_arrow(lifecycle=True)
    assert (table.column("seq").to_pylist(), replica.received) == ([100], [])


def test_a_client_makes_queries_that_leave_the_replica_alone(
    primary: LoopbackService, replica: LoopbackService
) -> None:
    with (
        SignalClient(primary.url, "key", AccessToken("t"), read_url=replica.url) as client,
        client.query(replica=False) as query,
    ):
        assert query.page().last_seq == 100
        assert isinstance(client.async_query(replica=False), AsyncSignalQuery)
    assert not replica.received


def test_pages_never_go_back_in_time(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    replica.script = [at(90, cursor="c2"), at(80)]
    assert [found.last_seq for found in query.pages()] == [90, 100]
    assert primary.received[0].json()["cursor"] == "c2"


@pytest.mark.parametrize(
    "problem",
    [
        failure(503, "unavailable"),
        failure(401, "unauthorized"),
        failure(403, "forbidden"),
        failure(405, "method_not_allowed"),
        failure(413, "batch_too_large"),
        answer(414, b"too long"),
        answer(400, b"<html>a gateway's</html>"),
        answer(404, b"no such function"),
        answer(200, b"<html>"),
        RESET,
    ],
    ids=str,
)
async def test_a_replica_that_fails_is_left_alone_for_a_while(
    replica: LoopbackService, problem: Step
) -> None:
    replica.script = [problem]
    clock = Clock()
    async with replica_of(replica, clock) as reader:
        assert await last_seq(reader) is None
        clock.now += 4.9
        assert await last_seq(reader) is None
        assert len(replica.received) == 1
        clock.now += 0.2
        assert await last_seq(reader) == 90


async def test_each_rest_is_twice_as_long_up_to_a_minute_and_an_outage_is_told_once(
    replica: LoopbackService, caplog: pytest.LogCaptureFixture
) -> None:
    replica.otherwise = lambda request: failure(503, "unavailable")
    clock = Clock()
    async with replica_of(replica, clock) as reader:
        for rest in (5, 10, 20, 40, 60, 60):
            assert await last_seq(reader) is None
            asked = len(replica.received)
            clock.now += rest - 0.1
            assert await last_seq(reader) is None
            assert len(replica.received) == asked
            clock.now += 0.1
        assert len(caplog.records) == 1
        replica.script = [at(90), failure(503, "unavailable")]
        assert await last_seq(reader) == 90
        assert await last_seq(reader) is None
        clock.now += 5
        assert await last_seq(reader) is None
        assert len(replica.received) == asked + 3
    assert len(caplog.records) == 2


async def test_while_a_replica_is_tried_the_others_do_not_wait_for_it(
    replica: LoopbackService,
) -> None:
    replica.otherwise = lambda request: STALL
    async with replica_of(replica, Clock(), timeout=0.3) as reader:
        assert await asyncio.gather(*(last_seq(reader) for _ in range(15))) == [None] * 15
    assert len(replica.received) == 1


async def test_a_try_that_is_cancelled_leaves_the_next_to_others(replica: LoopbackService) -> None:
    replica.script = [STALL]
    async with replica_of(replica, Clock()) as reader:
        tried = asyncio.create_task(last_seq(reader))
        await asyncio.to_thread(replica.wait_until_received, 1)
        tried.cancel()
        await asyncio.gather(tried, return_exceptions=True)
        assert await last_seq(reader) == 90


async def test_nobody_waits_longer_than_two_seconds_for_a_replica(
    replica: LoopbackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal_persistence.replica._LONGEST_SECONDS", 0.2)
    replica.script = [STALL]
    async with replica_of(replica, Clock(), timeout=60) as reader, asyncio.timeout(30):
        assert await last_seq(reader) is None


def test_the_primary_answers_for_a_replica_that_fails(
    query: SignalQuery, replica: LoopbackService
) -> None:
    replica.script = [RESET]
    assert query.page().last_seq == 100


@pytest.mark.parametrize("code", ["invalid_cursor", "query_too_wide"])
def test_only_what_the_primary_finds_wrong_with_a_question_is_raised(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService, code: str
) -> None:
    """A replica that is behind lacks the trader of a cursor, or rollups: it proves nothing."""
    replica.script = [failure(400, code), failure(400, code)]
    assert query.page(cursor="of the primary").last_seq == 100
    primary.script = [failure(400, code)]
    with pytest.raises(ApiError) as caught:
        query.page(cursor="not one of ours")
    assert caught.value.code == code
    assert query.page().last_seq == 90


def test_a_token_that_cannot_be_had_is_no_fault_of_the_replica(
    primary: LoopbackService, replica: LoopbackService, caplog: pytest.LogCaptureFixture
) -> None:
    with SignalQuery(primary.url, "key", FailingOnce(), read_url=replica.url) as query:
        assert query.page().last_seq == 100
        assert query.page().last_seq == 90
    assert not caplog.records


def test_a_question_that_is_too_long_for_a_path_goes_to_the_primary(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    many: Any = ["x" * 100 + str(number) for number in range(90)]
    assert query.page(tags=many).last_seq == 100
    assert not replica.received


async def test_the_connections_to_the_primary_are_closed_when_the_replicas_cannot_be() -> None:
    class Unclosable:
        async def aclose(self) -> None:
            raise ConnectError

    class Closable:
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    unclosable, primary = Unclosable(), Closable()
    with pytest.raises(ConnectError):
        await Reader(cast(Caller, primary), "edge", cast(ReadReplica, unclosable)).aclose()
    assert primary.closed
