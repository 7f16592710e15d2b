"""Logs are JSON lines that lead from the client to the service, and never tell a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import psycopg2
import pytest

from signal_persistence import AccessToken, AsyncSignalQuery, SignalClient
from signal_persistence.logs import JsonFormatter, correlation, correlation_id, request_headers
from tests.client.loopback_service import LoopbackService, json_answer
from tests.client.scripted_service import make_signal
from tests.plugins.stack import Account, RunningStack

TOKEN = (
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)
PAGE: dict[str, Any] = {"signals": [], "next_cursor": None, "last_seq": 0}


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the package logs, at every level, as JSON lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("signal_persistence")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


def logged(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_record_is_one_json_line_with_its_fields(lines: io.StringIO) -> None:
    log = logging.getLogger("signal_persistence.test")
    with correlation("order-7"):
        log.warning("%d signals\nwait", 3, extra={"account_id": "a", "codes": {"stale": 2}})
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed", extra={"level": "spoofed"})
    first, second = logged(lines)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "warning",
        "logger": "signal_persistence.test",
        "message": "3 signals\nwait",
        "correlation_id": "order-7",
        "account_id": "a",
        "codes": {"stale": 2},
    }
    assert second["level"] == "error"
    assert "correlation_id" not in second
    assert second["exception"].endswith("ValueError: no")


@pytest.mark.parametrize(
    "extra",
    [
        {"access_token": "opensesame1"},
        {"password": "opensesame1"},
        {"nested": {"headers": {"Authorization": "Basic opensesame1"}}},
        {"apikey": "opensesame1"},
        {"header": "Bearer opensesame1"},
        {"url": "postgresql://postgres:opensesame1@db.example.com/postgres"},
        {"key": "sb_secret_opensesame1"},
        {"values": ["sb_secret_opensesame1", TOKEN]},
        {"error": ValueError(f"refused {TOKEN}")},
    ],
)
def test_no_secret_is_logged_as_a_field_or_in_a_text(
    lines: io.StringIO, extra: dict[str, Any]
) -> None:
    log = logging.getLogger("signal_persistence.test")
    log.error("with %s", extra, extra=extra)
    text = lines.getvalue()
    assert "…" in text
    assert TOKEN not in text
    plain = logged(lines)[0]
    assert "opensesame1" not in json.dumps({name: plain[name] for name in extra})


def test_a_correlation_id_is_of_its_thread_and_task_and_ends_with_its_block() -> None:
    seen: list[str | None] = []

    async def task() -> None:
        with correlation("inner"):
            await asyncio.sleep(0)
            seen.append(correlation_id())

    async def tasks() -> None:
        with correlation("outer"):
            await asyncio.gather(task(), task())
            seen.append(correlation_id())

    asyncio.run(tasks())
    with correlation("here"):
        thread = threading.Thread(target=lambda: seen.append(correlation_id()))
        thread.start()
        thread.join()
    assert seen == ["inner", "inner", "outer", None]
    assert correlation_id() is None
    for bad in ("", "a b", "x" * 65, "ä", "a\n"):
        with pytest.raises(ValueError, match="Cannot use this correlation id"), correlation(bad):
            pass


async def test_every_request_carries_the_correlation_id_of_its_work(lines: io.StringIO) -> None:
    with LoopbackService(otherwise=lambda request: json_answer(PAGE)) as service:
        async with AsyncSignalQuery(service.url, "key", AccessToken(TOKEN)) as query:
            with correlation("report-1"):
                await query.page()
            await query.page()
            await query.page()
        ids = [request.headers["x-correlation-id"] for request in service.received]
    assert ids[0] == "report-1"
    assert len(set(ids)) == 3
    answered = [line for line in logged(lines) if "status" in line]
    assert [(line["correlation_id"], line["status"]) for line in answered] == [
        (identity, 200) for identity in ids
    ]
    assert TOKEN not in lines.getvalue()


def test_a_client_without_an_event_loop_carries_it_too() -> None:
    with (
        LoopbackService(otherwise=lambda request: json_answer(PAGE)) as service,
        SignalClient(service.url, "key", AccessToken("token")) as client,
        client.query() as query,
    ):
        with correlation("report-2"):
            query.page()
        assert service.received[0].headers["x-correlation-id"] == "report-2"


def test_the_trace_of_opentelemetry_goes_along_when_the_application_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    propagate = ModuleType("opentelemetry.propagate")
    propagate.inject = lambda carrier: carrier.update(traceparent=trace, baggage="user=7")  # type: ignore[attr-defined]
    assert set(request_headers()) == {"x-correlation-id"}
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", propagate)
    headers = request_headers()
    assert headers.pop("x-correlation-id")
    assert headers == {"traceparent": trace}


def test_the_ledger_has_the_correlation_id_of_the_change(
    stack: RunningStack, account: Account, lines: io.StringIO
) -> None:
    environment = {
        "SUPABASE_URL": stack.api_url,
        "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
        "SIGNALS_ACCESS_TOKEN": account.access_token,
    }
    with SignalClient.from_env(environment) as client, correlation() as identity:
        client.advance([])
        client.account()
    with psycopg2.connect(stack.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from private.advances where correlation_id = %s", (identity,)
        )
        assert cursor.fetchone() == (1,)
    connection.close()
    assert {line["correlation_id"] for line in logged(lines) if "status" in line} == {identity}


def test_the_ledger_has_the_correlation_id_of_a_batch_and_its_log_lines(
    stack: RunningStack, account: Account, lines: io.StringIO
) -> None:
    environment = {
        "SUPABASE_URL": stack.api_url,
        "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
        "SIGNALS_ACCESS_TOKEN": account.access_token,
    }
    with SignalClient.from_env(environment) as client, client.producer() as producer:
        producer.publish(make_signal(0))
        assert producer.flush(20) == 0
    [line] = [line for line in logged(lines) if "ingest" in line["message"]]
    with psycopg2.connect(stack.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select request_id::text from private.batches where correlation_id = %s",
            (line["correlation_id"],),
        )
        [(request_id,)] = cursor.fetchall()
    connection.close()
    assert line["correlation_id"].startswith(request_id)
