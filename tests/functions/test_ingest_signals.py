"""What ingest-signals makes of a batch, over HTTP, down to the rows."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.functions.worker import Worker, batch

CONTRACT_ORDER = ["index", "code", "message"]


def test_a_batch_is_stored_and_its_verdict_counts_it(worker: Worker) -> None:
    sent = batch(worker.signals(3))
    answer = worker.ingest(sent, headers={"x-correlation-id": "test-1"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-correlation-id"] == "test-1"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.json() == {
        "request_id": sent["request_id"],
        "accepted": 3,
        "duplicate": 0,
        "rejected": 0,
        "first_seq": 1,
        "last_seq": 3,
        "items": [],
    }
    assert [signal["seq"] for signal in worker.stored()] == [1, 2, 3]


def test_a_replay_gets_the_same_bytes_and_changes_nothing(worker: Worker) -> None:
    sent = batch([*worker.signals(2), worker.signal(0), worker.signal(5, price="high")])
    first = worker.ingest(sent)
    assert first.json()["accepted"] == 2
    for _ in range(2):
        again = worker.ingest(sent)
        assert (again.status_code, again.content) == (200, first.content)
    assert len(worker.stored()) == 2


def test_a_request_id_cannot_be_used_for_another_batch(worker: Worker) -> None:
    request_id = str(uuid.uuid4())
    assert worker.ingest(batch([worker.signal(1)], request_id)).status_code == 200
    answer = worker.ingest(batch([worker.signal(2)], request_id))
    assert (answer.status_code, answer.json()["code"]) == (409, "request_id_reused")
    assert answer.json()["request_id"] == request_id
    assert len(worker.stored()) == 1


def test_an_empty_batch_is_answered(worker: Worker) -> None:
    verdict = worker.ingest(batch([])).json()
    assert (verdict["accepted"], verdict["first_seq"], verdict["items"]) == (0, None, [])


def wrong_signals(worker: Worker) -> list[tuple[object, str]]:
    """Each with the code that refuses it."""
    return [
        (None, "invalid_signal"),
        ([worker.signal()], "invalid_signal"),
        ("signal", "invalid_signal"),
        (worker.signal(seq=1), "unknown_field"),
        (worker.signal(__proto__={}), "unknown_field"),
        (worker.signal(trader_id="me"), "invalid_trader_id"),
        (worker.signal(trader_id=str(uuid.uuid4())), "unknown_trader"),
        (worker.signal(symbol="BTC USD"), "invalid_symbol"),
        (worker.signal(symbol="\0"), "invalid_symbol"),
        (worker.signal(timeframe="2m"), "invalid_timeframe"),
        (worker.signal(generated_at="2026-02-30T00:00:00Z"), "invalid_generated_at"),
        (worker.signal(generated_at=1), "invalid_generated_at"),
        (worker.signal(generated_at="2020-01-01T00:00:00Z"), "stale"),
        (worker.signal(generated_at="2999-01-01T00:00:00Z"), "in_future"),
        (worker.signal(action="buy"), "invalid_action"),
        (worker.signal(confidence="0.5"), "invalid_confidence"),
        (worker.signal(confidence=True), "invalid_confidence"),
        (worker.signal(confidence=1.5), "invalid_confidence"),
        (worker.signal(price=None), "invalid_price"),
        (worker.signal(price=2e15), "invalid_price"),
        (worker.signal(stop_loss="1"), "invalid_stop_loss"),
        (worker.signal(take_profit=False), "invalid_take_profit"),
        (worker.signal(valid_until="2020-01-01T00:00:00Z"), "invalid_valid_until"),
        (worker.signal(metadata=[]), "invalid_metadata"),
        (worker.signal(metadata={"a": "x" * 2048}), "invalid_metadata"),
        (worker.signal(metadata={"a": "\0"}), "invalid_metadata"),
        (worker.signal(metadata={"a": "\ud800"}), "invalid_metadata"),
    ]


def test_bad_signals_are_named_by_index_and_the_good_ones_between_them_stored(
    worker: Worker,
) -> None:
    wrong = wrong_signals(worker)
    signals: list[object] = []
    for number, (signal, _) in enumerate(wrong):
        signals += [worker.signal(number), signal]
    verdict = worker.ingest(batch(signals)).json()
    assert [(item["index"], item["code"]) for item in verdict["items"]] == [
        (2 * number + 1, code) for number, (_, code) in enumerate(wrong)
    ]
    assert all(list(item) == CONTRACT_ORDER and item["message"] for item in verdict["items"])
    assert (verdict["accepted"], verdict["rejected"]) == (len(wrong), len(wrong))
    assert (verdict["first_seq"], verdict["last_seq"]) == (1, len(wrong))
    assert [signal["seq"] for signal in worker.stored()] == list(range(1, len(wrong) + 1))


def test_a_signal_beside_a_bad_one_is_stored_digit_by_digit(worker: Worker) -> None:
    metadata = '{"id": 12345678901234567890, "size": 1.50, "__proto__": {"a": 1}}'
    good = json.dumps(worker.signal(metadata="here")).replace('"here"', metadata)
    sent = f'{{"request_id": "{uuid.uuid4()}", "signals": [1, {good}]}}'
    assert worker.ingest(sent).json()["accepted"] == 1
    text = worker.query().text
    assert "12345678901234567890" in text
    assert "1.50" in text
    assert "__proto__" in text


@pytest.mark.parametrize(
    ("field", "written", "code"),
    [
        ("metadata", '{"a": "\\u0000", "a": 1}', "invalid_metadata"),
        ("metadata", '{"a": "\\ud800", "a": 1}', "invalid_metadata"),
        ("metadata", '{"a": 1e-20000}', "invalid_metadata"),
        ("metadata", '{"a": 1e200000}', "invalid_metadata"),
        ("metadata", f'{{"a": {"[" * 30_000}{"]" * 30_000}}}', "invalid_metadata"),
        ("metadata", f'{{"a": {"[" * 30_000}{"]" * 30_000}, "a": 1}}', "invalid_metadata"),
        ("confidence", "1e-20000", "invalid_confidence"),
        ("confidence", "1e-400", "invalid_confidence"),
        ("price", "1e400", "invalid_price"),
        ("price", "1e200000", "invalid_price"),
        ("price", "1e-1073741824", "invalid_price"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_the_database_cannot_hold_refuses_one_signal_and_not_its_batch(
    worker: Worker, field: str, written: str, code: str
) -> None:
    bad = json.dumps(worker.signal(1, **{field: "here"})).replace('"here"', written)
    good = json.dumps(worker.signal(2))
    sent = f'{{"request_id": "{uuid.uuid4()}", "signals": [{bad}, {good}]}}'
    answer = worker.ingest(sent)
    assert answer.status_code == 200, answer.text
    assert [(item["index"], item["code"]) for item in answer.json()["items"]] == [(0, code)]
    assert answer.json()["accepted"] == 1
    assert worker.ingest(sent).content == answer.content


@pytest.mark.parametrize(
    ("field", "written", "stored"),
    [("confidence", "1.00000000000000000001", 1.0), ("price", "1000000000000000.01", 1e15)],
)
def test_a_number_is_judged_as_the_double_that_is_stored(
    worker: Worker, field: str, written: str, stored: float
) -> None:
    signal = json.dumps(worker.signal(1, **{field: "here"})).replace('"here"', written)
    sent = f'{{"request_id": "{uuid.uuid4()}", "signals": [{signal}]}}'
    assert worker.ingest(sent).json()["accepted"] == 1
    assert [signal[field] for signal in worker.stored()] == [stored]


def test_a_repeated_name_counts_as_its_last_value(worker: Worker) -> None:
    signal = json.dumps(worker.signal())[:-1] + ', "symbol": "ETH-USD"}'
    sent = f'{{"signals": [7], "request_id": "{uuid.uuid4()}", "signals": [{signal}]}}'
    assert worker.ingest(sent).json()["accepted"] == 1
    assert [signal["symbol"] for signal in worker.stored()] == ["ETH-USD"]


def test_signals_beyond_the_quota_are_refused_one_by_one(worker: Worker) -> None:
    verdict = worker.ingest(batch(worker.signals(102))).json()
    assert verdict["accepted"] == 100
    assert [(item["index"], item["code"]) for item in verdict["items"]] == [
        (100, "quota_exceeded"),
        (101, "quota_exceeded"),
    ]


def test_a_full_batch_is_stored(elite_worker: Worker) -> None:
    signals = [elite_worker.signal(n % 1000, symbol=f"S{n // 1000}") for n in range(5000)]
    compact = json.dumps(batch(signals), separators=(",", ":"))
    assert len(compact) < 2**20
    verdict = elite_worker.ingest(compact).json()
    assert (verdict["accepted"], verdict["last_seq"]) == (5000, 5000)


def test_a_batch_of_nothing_but_bad_signals_gets_a_code_for_each(worker: Worker) -> None:
    verdict = worker.ingest(batch([{}] * 5000)).json()
    assert (verdict["accepted"], verdict["rejected"]) == (0, 5000)
    assert [item["index"] for item in verdict["items"]] == list(range(5000))
    assert {item["code"] for item in verdict["items"]} == {"invalid_trader_id"}


REQUEST_ID = "0d9f2c1e-5a77-4c0b-8f6d-3b1a2c4d5e6f"
MALFORMED: dict[str, tuple[object, int, str, str]] = {
    "no JSON": ("signals", 400, "invalid_json", "JSON"),
    "nothing": ("", 400, "invalid_json", "JSON"),
    "half a body": (f'{{"request_id": "{REQUEST_ID}", "signals": [', 400, "invalid_json", "JSON"),
    "NaN": (f'{{"request_id": "{REQUEST_ID}", "signals": [NaN]}}', 400, "invalid_json", "JSON"),
    "no UTF-8": (b'{"request_id": "\xff", "signals": []}', 400, "invalid_json", "JSON"),
    "an array": ([batch([])], 400, "invalid_request", "not a JSON object"),
    "an unknown name": ({**batch([]), "account": 1}, 400, "invalid_request", '"account"'),
    "no request_id": ({"signals": []}, 400, "invalid_request", "request_id"),
    "a wrong request_id": (batch([], "one"), 400, "invalid_request", "request_id"),
    "no signals": ({"request_id": REQUEST_ID}, 400, "invalid_request", "signals"),
    "signals in an object": ({**batch([]), "signals": {}}, 400, "invalid_request", "signals"),
    "5001 signals": (batch([1] * 5001), 413, "batch_too_large", "split"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_body_that_is_no_batch_is_refused_whole(worker: Worker, name: str) -> None:
    body, status, code, sentence = MALFORMED[name]
    answer = worker.ingest(body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert sentence in answer.json()["message"]


def test_an_error_names_the_request_by_its_own_id_or_else_the_correlation_id(
    worker: Worker,
) -> None:
    headers = {"x-correlation-id": "correlation-1"}
    readable = worker.ingest({"request_id": REQUEST_ID, "signals": 1}, headers=headers)
    assert readable.json()["request_id"] == REQUEST_ID
    unreadable = worker.ingest("{", headers=headers)
    assert unreadable.json()["request_id"] == "correlation-1"
    insane = worker.ingest("{", headers={"x-correlation-id": "a b" * 100})
    assert uuid.UUID(insane.json()["request_id"])
    assert insane.headers["x-correlation-id"] == insane.json()["request_id"]
