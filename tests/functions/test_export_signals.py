"""What export-signals sends, over HTTP: all of it, in whatever pieces, as the columns say."""

from __future__ import annotations

import csv
import gzip
import io
import json

import httpx
import pytest

from tests.functions.worker import Json, Worker, batch

COUNT = 120


@pytest.fixture
def trader(elite_worker: Worker) -> Worker:
    """A worker with 120 stored signals, each a minute older than the one before."""
    signals = [
        elite_worker.signal(
            number,
            symbol="=ES" if number % 3 else "BTC-USD",
            metadata={"text": 'a "word",\nanother', "tags": ["odd"]} if number % 2 else None,
            price=number / 4,
        )
        for number in range(COUNT)
    ]
    assert elite_worker.ingest(batch(signals)).json()["accepted"] == COUNT
    return elite_worker


def rows(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def seqs(answer: httpx.Response) -> list[int]:
    return [int(row["seq"]) for row in rows(answer)]


def test_a_reader_of_csv_gets_every_signal_as_a_query_shows_it(trader: Worker) -> None:
    answer = trader.export()
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"] == 'attachment; filename="signals.csv"'
    assert answer.headers["cache-control"] == "private, no-store"
    stored = trader.stored()
    for row, signal in zip(rows(answer), stored, strict=True):
        assert row.keys() == signal.keys() - {"status", "outcome"}
        assert row["signal_id"] == signal["signal_id"]
        assert row["generated_at"] == signal["generated_at"]
        assert row["symbol"] == signal["symbol"].replace("=ES", "'=ES")
        assert float(row["price"]) == signal["price"]
        assert row["stop_loss"] == ""
        assert json.loads(row["metadata"] or "null") == signal["metadata"]


def test_a_reader_of_ndjson_gets_every_signal_as_a_query_shows_it(trader: Worker) -> None:
    answer = trader.export(format="ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert told == [
        {name: value for name, value in signal.items() if name not in ("status", "outcome")}
        for signal in trader.stored()
    ]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_pieces_joined_are_the_whole(trader: Worker, form: str) -> None:
    whole = trader.export(format=form)
    assert (whole.headers["export-after-seq"], whole.headers["export-until-seq"]) == ("0", "120")
    assert whole.headers["export-end-seq"] == "120"
    parts = [
        trader.export(format=form, after_seq=after, until_seq=until, with_header=after == 0)
        for after, until in ((0, 7), (7, 7), (7, 100), (100, 120))
    ]
    assert b"".join(part.content for part in parts) == whole.content


def test_a_packed_answer_is_the_same(trader: Worker) -> None:
    headers = trader.headers() | {"accept-encoding": "gzip"}
    with trader.http.stream("GET", "/functions/v1/export-signals", headers=headers) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        sent = b"".join(answer.iter_raw())
    assert gzip.decompress(sent) == trader.export().content
    assert len(sent) < len(trader.export().content) / 2


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"symbols": "BTC-USD"}, list(range(1, 121, 3))),
        ({"symbols": "BTC-USD", "after_seq": 50, "until_seq": 60}, [52, 55, 58]),
        ({"after_seq": 118}, [119, 120]),
        ({"until_seq": 2}, [1, 2]),
        ({"until_seq": 0}, []),
        ({"after_seq": 120}, []),
        ({"after_seq": 9_000_000}, []),
        ({"actions": "exit_long"}, []),
        ({"symbol_prefix": "BTC", "until_seq": 7}, [1, 4, 7]),
        ({"tags": "even,odd", "until_seq": 5}, [2, 4]),
        ({"statuses": "generated", "after_seq": 118}, [119, 120]),
        ({"statuses": "closed"}, []),
        ({"min_price": 1.25, "max_price": 1.75}, [6, 7, 8]),
        ({"max_confidence": 0.5}, []),
        ({"from": "2001-01-01T00:00:00Z", "to": "2001-01-02T00:00:00Z"}, []),
    ],
)
def test_a_filter_selects_what_it_names(
    trader: Worker, parameters: Json, expected: list[int]
) -> None:
    assert seqs(trader.export(**parameters)) == expected


def test_a_span_of_time_is_found(trader: Worker) -> None:
    times = [signal["generated_at"].replace("+", "%2B") for signal in trader.stored()]
    # The first is the newest.
    answer = trader.http.get(
        f"/functions/v1/export-signals?from={times[20]}&to={times[10]}",
        headers=trader.headers(),
    )
    assert seqs(answer) == list(range(12, 22))
    assert answer.headers["export-after-seq"] == "11"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"format": "xlsx"}, "invalid_filter"),
        ({"after_seq": -1}, "invalid_filter"),
        ({"after_seq": 5, "until_seq": 4}, "invalid_filter"),
        ({"with_header": "yes"}, "invalid_filter"),
        ({"from": "yesterday"}, "invalid_filter"),
        ({"page_size": 5}, "invalid_request"),
        ({"traders": "me"}, "invalid_filter"),
    ],
)
def test_a_bad_question_gets_a_sentence(worker: Worker, parameters: Json, code: str) -> None:
    answer = worker.export(**parameters)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_nobody_else_reads_them(trader: Worker, worker: Worker) -> None:
    assert rows(worker.export()) == []
    assert trader.export(token=None).status_code == 401
    assert trader.export(token="x.y.z").status_code == 401


def test_an_answer_that_nobody_reads_to_its_end_does_no_harm(trader: Worker) -> None:
    headers = trader.headers() | {"accept-encoding": "identity"}
    with trader.http.stream("GET", "/functions/v1/export-signals", headers=headers) as answer:
        assert next(answer.iter_raw(100)).startswith(b"signal_id,seq,")
    assert len(rows(trader.export())) == COUNT
