"""When a query asks the read replica, and when the primary."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import msgspec
import pytest

from signal_persistence.credentials import AccessToken
from signal_persistence.errors import ApiError
from signal_persistence.query import SignalQuery
from signal_persistence.reading import Page
from signal_persistence.replica import ReadReplica
from tests.client.loopback_service import RESET, LoopbackService, Received, Step, answer
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
    assert query.page(at_least_seq=90).last_seq == 90
    assert not primary.received
    assert query.page(at_least_seq=91).last_seq == 100
    assert len(replica.received) == 2


def test_pages_never_go_back_in_time(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    replica.script = [at(90, cursor="c2"), at(80)]
    assert [found.last_seq for found in query.pages()] == [90, 100]
    assert primary.received[0].json()["cursor"] == "c2"


def test_what_does_not_tell_its_seq_is_asked_of_the_primary_when_a_seq_is_wanted(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    count = answer(200, b'{"count": 1, "exact": true}')
    replica.script, primary.script = [count], [count]
    query.count()
    query.count(at_least_seq=1)
    assert (len(replica.received), len(primary.received)) == (1, 1)


@pytest.mark.parametrize(
    "problem",
    [failure(503, "unavailable"), RESET, answer(200, b"<html>"), answer(404, b"no such function")],
    ids=str,
)
async def test_a_replica_that_fails_is_left_alone_for_a_while(
    replica: LoopbackService, problem: Step
) -> None:
    replica.script = [problem]
    clock = [100.0]
    reader = ReadReplica(replica.url, "key", AccessToken("t"), timeout=10, clock=lambda: clock[0])
    decode = msgspec.json.Decoder(Page).decode
    assert await reader.ask("query_signals", {}, decode) is None
    clock[0] += 4.9
    assert await reader.ask("query_signals", {}, decode) is None
    assert len(replica.received) == 1
    clock[0] += 0.2
    assert await reader.ask("query_signals", {}, decode) is not None
    await reader.aclose()


def test_the_primary_answers_for_a_replica_that_fails(
    query: SignalQuery, replica: LoopbackService
) -> None:
    replica.script = [RESET]
    assert query.page().last_seq == 100


def test_a_token_that_only_the_replica_refuses_is_no_error(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    replica.script = [failure(401, "unauthorized")]
    assert query.page().last_seq == 100
    assert query.page().last_seq == 90


def test_what_is_wrong_with_the_question_is_raised_at_once(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    replica.script = [failure(400, "invalid_cursor")]
    with pytest.raises(ApiError) as caught:
        query.page(cursor="not one of ours")
    assert caught.value.code == "invalid_cursor"
    assert not primary.received


def test_a_question_that_is_too_long_for_a_path_goes_to_the_primary(
    query: SignalQuery, primary: LoopbackService, replica: LoopbackService
) -> None:
    many: Any = ["x" * 100 + str(number) for number in range(90)]
    assert query.page(tags=many).last_seq == 100
    assert not replica.received
