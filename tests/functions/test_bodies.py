"""How a body may be sent: size, encoding, type; and what browsers ask first."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.functions.worker import Worker, batch

MEBIBYTE = 2**20
FUNCTIONS = ["ingest-signals", "query-signals"]


def padded(worker: Worker, size: int) -> bytes:
    """Return a valid batch of one signal in exactly `size` bytes."""
    body = json.dumps(batch([worker.signal()])).encode()
    return body + b" " * (size - len(body))


def test_a_gzip_body_is_stored_like_a_plain_one(worker: Worker) -> None:
    packed = gzip.compress(json.dumps(batch(worker.signals(50))).encode())
    answer = worker.ingest(packed, headers={"content-encoding": "gzip"})
    assert answer.json()["accepted"] == 50


def test_a_body_of_one_mebibyte_is_read_and_one_byte_more_is_not(worker: Worker) -> None:
    assert worker.ingest(padded(worker, MEBIBYTE)).status_code == 200
    assert_too_large(worker, padded(worker, MEBIBYTE + 1))
    packed = gzip.compress(padded(worker, MEBIBYTE))
    assert worker.ingest(packed, headers={"content-encoding": "gzip"}).status_code == 200
    assert_too_large(worker, gzip.compress(padded(worker, MEBIBYTE + 1)), encoding="gzip")


def test_a_much_larger_body_is_answered_rather_than_cut_off(worker: Worker) -> None:
    assert_too_large(worker, padded(worker, 8 * MEBIBYTE))


def test_a_gzip_bomb_is_refused(worker: Worker) -> None:
    bomb = gzip.compress(b" " * (128 * MEBIBYTE))
    assert len(bomb) < MEBIBYTE
    assert_too_large(worker, bomb, encoding="gzip")
    assert worker.ingest(batch([worker.signal()])).status_code == 200


def assert_too_large(worker: Worker, body: bytes, encoding: str = "identity") -> None:
    answer = worker.ingest(body, headers={"content-encoding": encoding})
    assert (answer.status_code, answer.json()["code"]) == (413, "batch_too_large")


@pytest.mark.parametrize("body", [b"no gzip", b"", gzip.compress(b"{}")[:-4]])
def test_a_broken_gzip_body_is_refused(worker: Worker, body: bytes) -> None:
    answer = worker.ingest(body, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-ndjson"},
        {"content-encoding": "br"},
        {"content-encoding": "deflate"},
    ],
    ids=str,
)
def test_another_type_or_encoding_is_refused(worker: Worker, headers: dict[str, str]) -> None:
    answer = worker.ingest(batch([worker.signal()]), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_browser_of_any_origin_may_call(worker: Worker, function: str) -> None:
    asked = "authorization,content-encoding,content-type,apikey,x-client-info,x-correlation-id"
    answer = worker.http.options(
        f"/functions/v1/{function}",
        headers={
            "origin": "https://console.example.com",
            "access-control-request-method": "POST",
            "access-control-request-headers": asked,
        },
    )
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    assert set(asked.split(",")) <= set(allowed)


def test_a_browser_may_read_errors_too(worker: Worker) -> None:
    answer = worker.ingest("{", headers={"origin": "https://console.example.com"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "retry-after" in answer.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize(
    ("function", "method", "allowed"),
    [
        ("ingest-signals", "GET", "POST"),
        ("ingest-signals", "PUT", "POST"),
        ("ingest-signals", "DELETE", "POST"),
        ("query-signals", "PUT", "GET, POST"),
        ("query-signals", "PATCH", "GET, POST"),
    ],
)
def test_another_method_is_refused_and_the_allowed_ones_named(
    worker: Worker, function: str, method: str, allowed: str
) -> None:
    answer = worker.http.request(
        method,
        f"/functions/v1/{function}",
        headers={
            "apikey": worker.stack.publishable_key,
            "authorization": f"Bearer {worker.account.access_token}",
        },
    )
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed
