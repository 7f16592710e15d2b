"""Python, TypeScript and SQL accept and refuse the same signals and name them alike.

Python refuses exactly what the database refuses. TypeScript may leave metadata to the database
(parsing has lost how its numbers were written), but refuses nothing that the database takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signal_persistence.contract import CONTRACT
from signal_persistence.jsonb import NotJsonbError, jsonb_size
from signal_persistence.signal import from_json_object, problem_of
from tests.client.scripted_service import make_signal
from tests.contract.signal_texts import JSON_VALUES, RIGHT, any_signals
from tests.plugins.stack import MakeAccount, RunningStack

DATABASE_ONLY = {None, "stale", "in_future", "unknown_trader"}
ACCOUNT = UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2")
SCRIPT = Path(__file__).with_name("signal_contract.ts")
thorough = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class TypeScript:
    """One Deno process that checks a signal a line."""

    def __init__(self) -> None:
        deno = Path(sys.executable).with_name("deno")
        self.process = subprocess.Popen(
            [deno, "run", "--quiet", "--no-prompt", "--cached-only", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def check(self, account_id: UUID, signal: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # ASCII, so that the surrogates of hostile strings survive the pipe as escapes.
        line = json.dumps({"account_id": str(account_id), "signal": signal}, allow_nan=False)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.communicate(timeout=10)


class Sql:
    """The function of the database that checks a batch."""

    def __init__(self, database_url: str) -> None:
        self.connection = psycopg2.connect(database_url)
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()

    def can_hold(self, text: str) -> bool:
        return bool(self.one("select pg_input_is_valid(%s, 'jsonb')", text))

    def code(self, text: str) -> str | None:
        code: str | None = self.one(
            "select (private.parse_signals(%s::uuid, %s::jsonb))[1].code", str(ACCOUNT), f"[{text}]"
        )
        return code

    def one(self, query: str, *arguments: Any) -> Any:
        self.cursor.execute(query, arguments)
        row = self.cursor.fetchone()
        assert row is not None
        return row[0]

    def close(self) -> None:
        self.connection.close()


@pytest.fixture(scope="module")
def typescript() -> Iterator[TypeScript]:
    process = TypeScript()
    yield process
    process.close()


@pytest.fixture(scope="module")
def sql(stack: RunningStack) -> Iterator[Sql]:
    connection = Sql(stack.database_url)
    yield connection
    connection.close()


def metadata_text(value: dict[str, Any]) -> str:
    """The JSON text of metadata exactly as the client sends it."""
    body = make_signal(0, metadata=value).to_json().decode()
    return body[body.index('"metadata":') + len('"metadata":') : -1]


@thorough
@given(any_signals())
def test_all_three_refuse_the_same_signals_with_the_same_code(
    sql: Sql, typescript: TypeScript, signal: Any
) -> None:
    text = json.dumps(signal, allow_nan=False)
    python_code = problem_of(signal)
    typescript_code = typescript.check(ACCOUNT, signal)["code"]
    if not sql.can_hold(text):
        # One NUL makes the database refuse the whole text: then the others must have seen it.
        assert python_code is not None
        assert typescript_code == python_code
        return
    sql_code = sql.code(text)
    assert (None if sql_code in DATABASE_ONLY else sql_code) == python_code
    assert typescript_code == python_code or (
        python_code == "invalid_metadata" and typescript_code is None
    )


@thorough
@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4))
def test_python_knows_the_size_of_metadata_as_the_database_prints_it(sql: Sql, value: Any) -> None:
    text = metadata_text(value)
    try:
        size = jsonb_size(value)
    except NotJsonbError:
        assert not sql.can_hold(text)
        return
    assert size == sql.one("select octet_length(%s::jsonb::text)", text)


@thorough
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_python_knows_how_long_the_database_prints_a_number(sql: Sql, number: float) -> None:
    text = metadata_text({"n": number})
    assert jsonb_size({"n": number}) == sql.one("select octet_length(%s::jsonb::text)", text)


@settings(max_examples=300, deadline=None)
@given(account_id=st.uuids(), key=st.fixed_dictionaries(RIGHT))
def test_python_and_typescript_compute_the_same_signal_id(
    typescript: TypeScript, account_id: UUID, key: dict[str, Any]
) -> None:
    expected = typescript.check(account_id, key)["signal_id"]
    assert str(from_json_object(key).signal_id(account_id)) == expected


def test_stored_signals_have_the_id_that_python_and_typescript_computed(
    stack: RunningStack, make_account: MakeAccount, typescript: TypeScript
) -> None:
    account = make_account("elite")
    headers = {
        "apikey": stack.publishable_key,
        "authorization": f"Bearer {account.access_token}",
    }
    start = datetime.now(UTC) - timedelta(days=6)
    with httpx.Client(base_url=stack.api_url, headers=headers, timeout=30) as client:
        trader = client.post("/rest/v1/rpc/create_trader", json={"name": "ids"}).json()
        signals = [
            {
                "trader_id": trader["trader_id"].upper(),
                "symbol": symbol,
                "timeframe": timeframe,
                "generated_at": (start + timedelta(seconds=number, microseconds=number)).isoformat(
                    timespec="microseconds"
                ),
                "action": "exit_short",
                "confidence": 1,
                "price": -0.5,
            }
            for number, (timeframe, symbol) in enumerate(
                (timeframe, symbol)
                for timeframe in sorted(CONTRACT.timeframes)
                for symbol in ("BTC/USD", "a", "._/:=@#!&^+-" + "Z" * 19)
            )
        ]
        answer = client.post(
            "/rest/v1/rpc/ingest_signals", json={"request_id": str(uuid4()), "signals": signals}
        )
        assert answer.json()["accepted"] == len(signals)
        rows = client.get("/rest/v1/signals", params={"select": "seq,signal_id", "order": "seq"})
    stored = [row["signal_id"] for row in rows.json()]
    assert stored == [str(from_json_object(s).signal_id(account.account_id)) for s in signals]
    assert stored == [typescript.check(account.account_id, s)["signal_id"] for s in signals]
