"""What query-signals finds, over HTTP, and that it answers as the database function does."""

from __future__ import annotations

import pytest

from tests.functions.worker import Json, Worker, batch


@pytest.fixture
def reader(worker: Worker) -> Worker:
    """A worker with ten stored signals; number 0 is the newest and has seq 1."""
    signals = [
        worker.signal(
            number,
            symbol="ES" if number % 2 else "BTC-USD",
            confidence=number / 10,
            action="exit_long" if number == 9 else "enter_long",
        )
        for number in range(10)
    ]
    assert worker.ingest(batch(signals)).json()["accepted"] == 10
    return worker


def seqs(page: Json) -> list[int]:
    return [signal["seq"] for signal in page["signals"]]


def test_without_a_filter_the_newest_come_first(reader: Worker) -> None:
    answer = reader.query()
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert seqs(answer.json()) == list(range(1, 11))
    assert answer.json()["last_seq"] == 10


def test_the_answer_is_that_of_the_database_function(reader: Worker) -> None:
    parameters: Json = {"symbols": ["ES"], "sort": "seq", "page_size": 3}
    direct = reader.http.post(
        "/rest/v1/rpc/query_signals",
        headers={
            "apikey": reader.stack.publishable_key,
            "authorization": f"Bearer {reader.account.access_token}",
        },
        json=parameters,
    )
    assert direct.status_code == 200, direct.text
    assert reader.query(**parameters).json() == direct.json()
    assert reader.query_by_post(parameters).json() == direct.json()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"symbols": "ES"}, [2, 4, 6, 8, 10]),
        ({"symbols": ["ES", "BTC-USD"]}, list(range(1, 11))),
        ({"symbols": "ES,BTC-USD"}, list(range(1, 11))),
        ({"symbols": "es"}, []),
        ({"actions": "exit_long"}, [10]),
        ({"timeframes": "1m,5m", "min_confidence": "0.75"}, [9, 10]),
        ({"symbol_prefix": "BTC"}, [1, 3, 5, 7, 9]),
        ({"max_confidence": "0.2"}, [1, 2, 3]),
        ({"min_price": "97250.6"}, []),
        ({"statuses": "generated,closed", "page_size": 1}, [1]),
        ({"tags": "none"}, []),
        ({"sort": "oldest"}, list(range(10, 0, -1))),
        ({"sort": "-confidence", "page_size": 3}, [10, 9, 8]),
        ({"after_seq": 2, "until_seq": 4}, [3, 4]),
        ({"after_seq": 8}, [9, 10]),
        ({"after_seq": "9007199254740993"}, []),
        ({"to": "2020-01-01T00:00:00Z"}, []),
        ({"from": "2020-01-01T02:00:00+02:00", "page_size": 2}, [1, 2]),
    ],
    ids=str,
)
def test_a_filter_keeps_what_it_names(
    reader: Worker, parameters: Json, expected: list[int]
) -> None:
    answer = reader.query(**parameters)
    assert answer.status_code == 200, answer.text
    assert seqs(answer.json()) == expected


def test_pages_joined_are_the_list(reader: Worker) -> None:
    for sort in ("newest", "seq", "confidence"):
        page = reader.query(sort=sort, page_size=3).json()
        found = seqs(page)
        while page["next_cursor"]:
            page = reader.query(sort=sort, page_size=3, cursor=page["next_cursor"]).json()
            found += seqs(page)
        assert found == list(range(1, 11))


@pytest.mark.parametrize(
    ("parameters", "code", "named"),
    [
        ({"symbol": "ES"}, "invalid_request", '"symbol"'),
        ({"page_size": ["1", "2"]}, "invalid_request", "page_size"),
        ({"page_size": "0"}, "invalid_filter", "page_size"),
        ({"page_size": "1001"}, "invalid_filter", "page_size"),
        ({"min_confidence": "NaN"}, "invalid_filter", "min_confidence"),
        ({"after_seq": "-1"}, "invalid_filter", "after_seq"),
        ({"after_seq": "9223372036854775808"}, "invalid_filter", "after_seq"),
        ({"from": "yesterday"}, "invalid_filter", "from"),
        ({"to": "2026-02-30T00:00:00Z"}, "invalid_filter", "to"),
        ({"traders": "me"}, "invalid_filter", "traders"),
        ({"sort": "price"}, "invalid_filter", "sort"),
        ({"fields": "seq,colour"}, "invalid_filter", "fields"),
        ({"symbol_prefix": "*"}, "invalid_filter", "symbol_prefix"),
        ({"symbols": "\0"}, "invalid_filter", "symbols"),
        ({"cursor": "not-a-cursor"}, "invalid_cursor", "cursor"),
    ],
    ids=str,
)
def test_a_parameter_that_is_not_understood_is_named(
    reader: Worker, parameters: Json, code: str, named: str
) -> None:
    answer = reader.query(**parameters)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert named in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "invalid_request"),
        ({"symbol": "ES"}, "invalid_request"),
        ({"symbols": "ES"}, "invalid_filter"),
        ({"page_size": "10"}, "invalid_filter"),
        ({"min_confidence": True}, "invalid_filter"),
    ],
    ids=str,
)
def test_a_body_that_is_no_filter_is_refused(reader: Worker, body: object, code: str) -> None:
    answer = reader.query_by_post(body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_a_path_below_tells_of_the_signals_what_it_names(reader: Worker) -> None:
    count = reader.query("/count", symbols="ES", exact="true")
    assert count.json() == {"count": 5, "exact": True}, count.text
    facets = reader.query("/facets", min_confidence="0.8").json()
    assert facets["symbols"] == [{"value": "BTC-USD", "count": 1}, {"value": "ES", "count": 1}]
    assert facets["traders"] == [{"value": reader.trader_id, "count": 2}]
    assert facets["exact"] is True
    latest = reader.query("/latest").json()
    assert [(signal["symbol"], signal["seq"]) for signal in latest["signals"]] == [
        ("BTC-USD", 1),
        ("ES", 2),
    ]
    assert reader.query_by_post({"symbols": ["ES"]}, "/count").json()["count"] == 5
    assert reader.query("/nothing").json()["code"] == "not_found"


@pytest.mark.parametrize("path", ["", "/count", "/facets", "/latest"])
def test_an_answer_that_the_caller_has_is_not_sent_again(reader: Worker, path: str) -> None:
    answer = reader.query(path)
    assert answer.status_code == 200, answer.text
    tag = answer.headers["etag"]
    again = reader.query(path, headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    assert "etag" in again.headers["access-control-expose-headers"]
    assert reader.ingest(batch([reader.signal(10)])).json()["accepted"] == 1
    changed = reader.query(path, headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_only_what_can_no_longer_change_is_kept_by_a_cache(reader: Worker) -> None:
    closed = reader.query("/count", to="2020-01-01T00:00:00Z")
    assert closed.headers["cache-control"].startswith("private, max-age=")
    assert closed.headers["vary"].lower() == "authorization"
    assert reader.query("/count").headers["cache-control"] == "private, no-cache"
