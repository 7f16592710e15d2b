"""The database says what contract.json says: words, messages, statuses, each limit at its edge."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from local_stack.settings import REPOSITORY
from tests.database.callers import (
    Caller,
    caller,
    make_signals,
    new_account,
    new_trader,
    operator,
    sign_up,
)
from tests.plugins.stack import RunningStack

CONTRACT = json.loads(
    (REPOSITORY / "supabase" / "functions" / "_shared" / "contract.json").read_text()
)
LIMITS = CONTRACT["limits"]
SOURCES = """
select proname, prosrc from pg_proc
where pronamespace in ('public'::regnamespace, 'private'::regnamespace)
"""
RAISED = re.compile(r"private\.raise_error\(\s*(\d+),\s*'(\w+)'")


@pytest_asyncio.fixture
async def database(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    async with operator(stack) as connection:
        yield connection


@pytest_asyncio.fixture
async def alice(stack: RunningStack, database: asyncpg.Connection) -> AsyncIterator[Caller]:
    async with caller(stack, await new_account(database)) as connected:
        yield connected


async def verdict_of(caller: Caller, signals: list[dict[str, Any]]) -> dict[str, Any]:
    verdict: dict[str, Any] = json.loads(await caller.ingest(signals))
    return verdict


async def codes_of(caller: Caller, signals: list[dict[str, Any]]) -> list[str]:
    return [item["code"] for item in (await verdict_of(caller, signals))["items"]]


async def test_the_codes_and_messages_of_items_are_the_contracts(
    database: asyncpg.Connection,
) -> None:
    rows = await database.fetch("select code, message from private.item_codes")
    assert {row["code"]: row["message"] for row in rows} == CONTRACT["item_codes"]


async def test_the_timeframes_and_actions_are_the_contracts_in_its_order(
    database: asyncpg.Connection,
) -> None:
    assert await database.fetchval("select private.timeframes()") == CONTRACT["timeframes"]
    assert await database.fetchval("select private.actions()") == CONTRACT["actions"]


async def test_the_orders_of_signals_are_the_contracts(database: asyncpg.Connection) -> None:
    assert await database.fetchval("select private.sorts()") == CONTRACT["sorts"]


async def test_every_error_that_a_function_raises_is_in_the_catalogue(
    database: asyncpg.Connection,
) -> None:
    raised = {
        (code, int(status))
        for row in await database.fetch(SOURCES)
        for status, code in RAISED.findall(row["prosrc"])
    }
    assert len(raised) >= 8
    catalogue = {(code, error["status"]) for code, error in CONTRACT["errors"].items()}
    assert raised <= catalogue


async def test_a_signal_with_every_field_of_the_contract_is_stored_and_read_back(
    alice: Caller,
) -> None:
    [signal] = make_signals(await new_trader(alice), 1)
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    signal |= {"stop_loss": 1.0, "take_profit": 2.0, "valid_until": later, "metadata": {"a": 1}}
    assert list(signal) == CONTRACT["fields"]
    assert (await verdict_of(alice, [signal]))["accepted"] == 1
    [stored] = (await alice.ask("select public.query_signals()"))["signals"]
    assert list(stored) == ["signal_id", "seq", *CONTRACT["fields"], "status", "outcome"]


@pytest.mark.parametrize("field", CONTRACT["fields"])
async def test_a_field_may_be_left_out_unless_the_contract_requires_it(
    alice: Caller, field: str
) -> None:
    signal = make_signals(await new_trader(alice), 1)[0]
    signal.pop(field, None)
    expected = [f"invalid_{field}"] if field in CONTRACT["required"] else []
    assert await codes_of(alice, [signal]) == expected


async def test_every_timeframe_and_action_of_the_contract_is_accepted(alice: Caller) -> None:
    trader_id = await new_trader(alice)
    signals = [
        signal | {"timeframe": timeframe, "action": action}
        for timeframe in CONTRACT["timeframes"]
        for action, signal in zip(CONTRACT["actions"], make_signals(trader_id, 4), strict=True)
    ]
    assert await codes_of(alice, signals) == []
    stored = (await alice.ask("select public.query_signals(page_size => 1000)"))["signals"]
    assert {(each["timeframe"], each["action"]) for each in stored} == {
        (each["timeframe"], each["action"]) for each in signals
    }


async def test_a_batch_has_as_many_signals_as_the_contract_allows(alice: Caller) -> None:
    most = LIMITS["batch_signals"]
    assert (await verdict_of(alice, [{}] * most))["rejected"] == most
    with pytest.raises(asyncpg.PostgresError) as raised:
        await alice.ingest([{}] * (most + 1))
    assert (raised.value.sqlstate, raised.value.detail) == ("PT413", "batch_too_large")


async def test_a_batch_of_the_contracts_bytes_is_taken(alice: Caller) -> None:
    body = "x" * (LIMITS["batch_bytes"] - 100)
    answer = json.loads(
        await alice.connection.fetchval(
            "select public.ingest_signals($1, $2)", uuid.uuid4(), json.dumps([body])
        )
    )
    assert answer["rejected"] == 1


@pytest.mark.parametrize("letter", ["x", "é", '"', "\\", "\n", "\u0001", "😀"])
async def test_metadata_has_as_many_bytes_as_the_contract_allows(
    alice: Caller, letter: str
) -> None:
    def written(text: str) -> int:
        return len(json.dumps({"k": text}, ensure_ascii=False).encode())

    most = LIMITS["metadata_bytes"]
    trader_id = await new_trader(alice)
    text = letter * ((most - written("")) // (written(letter) - written("")))
    text += "x" * (most - written(text))
    assert written(text) == most
    fits, too_long = make_signals(trader_id, 2)
    assert await codes_of(alice, [fits | {"metadata": {"k": text}}]) == []
    refused = await codes_of(alice, [too_long | {"metadata": {"k": text + "x"}}])
    assert refused == ["invalid_metadata"]


@pytest.mark.parametrize("field", ["price", "stop_loss", "take_profit"])
@pytest.mark.parametrize("sign", [1, -1])
async def test_a_price_has_the_magnitude_that_the_contract_allows(
    alice: Caller, field: str, sign: int
) -> None:
    most = sign * LIMITS["price_magnitude"]
    fits, too_large = make_signals(await new_trader(alice), 2)
    codes = await codes_of(alice, [fits | {field: most}, too_large | {field: most * 1.000001}])
    assert codes == [f"invalid_{field}"]


async def test_the_window_of_generated_at_is_the_contracts(
    database: asyncpg.Connection, alice: Caller
) -> None:
    second = timedelta(seconds=1)
    oldest = timedelta(seconds=LIMITS["oldest_seconds"])
    future = timedelta(seconds=LIMITS["future_seconds"])
    now = await database.fetchval("select now()")
    # A second within and well without: the clock of the database runs on.
    moments = [now - oldest + 30 * second, now - oldest - second]
    moments += [now + future - second, now + future + 30 * second]
    signals = make_signals(await new_trader(alice), len(moments))
    for signal, moment in zip(signals, moments, strict=True):
        signal["generated_at"] = moment.isoformat()
    items = (await verdict_of(alice, signals))["items"]
    assert [(item["index"], item["code"]) for item in items] == [(1, "stale"), (3, "in_future")]


async def refusal(caller: Caller, query: str, *values: object) -> tuple[str, str] | None:
    try:
        await caller.connection.fetchval(query, *values)
    except asyncpg.PostgresError as error:
        return error.sqlstate, error.detail
    return None


async def test_pages_and_filters_are_as_large_as_the_contract_allows(alice: Caller) -> None:
    pages = "select public.query_signals(page_size => $1)"
    assert await refusal(alice, pages, LIMITS["page_size"]) is None
    assert await refusal(alice, pages, LIMITS["page_size"] + 1) == ("PT400", "invalid_filter")
    most = LIMITS["filter_values"]
    for name, values in {
        "traders": [uuid.uuid4()],
        "symbols": ["BTC"],
        "timeframes": ["1m"],
        "actions": ["enter_long"],
    }.items():
        query = f"select public.query_signals({name} => $1)"
        assert await refusal(alice, query, values * most) is None
        assert await refusal(alice, query, values * (most + 1)) == ("PT400", "invalid_filter")


async def test_a_page_has_the_contracts_size_when_nothing_is_said(alice: Caller) -> None:
    size = LIMITS["default_page_size"]
    await alice.ingest(make_signals(await new_trader(alice), size + 1))
    page = await alice.ask("select public.query_signals()")
    assert (len(page["signals"]), page["next_cursor"] is None) == (size, False)


async def test_a_trader_has_a_name_as_long_as_the_contract_allows(alice: Caller) -> None:
    most = LIMITS["trader_name_characters"]
    query = "select public.create_trader($1)"
    assert await refusal(alice, query, "é" * most) is None
    assert await refusal(alice, query, "é" * (most + 1)) == ("PT400", "invalid_request")


async def test_api_keys_have_the_scopes_names_number_and_pace_of_the_contract(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    assert await database.fetchval("select private.api_key_scopes()") == CONTRACT["scopes"]
    account_id = await new_account(database)
    await sign_up(database, account_id)
    async with caller(stack, account_id) as owner:
        await assert_keys_are_limited(owner)


async def assert_keys_are_limited(owner: Caller) -> None:
    create = "select public.create_api_key($1, $2)"
    longest = LIMITS["api_key_name_characters"]
    assert await refusal(owner, create, "é" * (longest + 1), ["signals:read"]) == (
        "PT400",
        "invalid_request",
    )
    most = LIMITS["api_keys"]
    keys = [await owner.ask(create, "é" * longest, CONTRACT["scopes"]) for _ in range(most)]
    assert re.fullmatch(CONTRACT["patterns"]["api_key"], keys[0]["api_key"])
    assert await refusal(owner, create, "one more", ["signals:read"]) == (
        "PT403",
        "api_key_limit_reached",
    )


async def test_an_api_key_is_exchanged_as_often_and_for_as_long_as_the_contract_says(
    database: asyncpg.Connection,
) -> None:
    source = await database.fetchval(
        "select prosrc from pg_proc where oid = 'private.exchange_api_key'::regproc"
    )
    assert f"'{LIMITS['api_key_token_seconds'] // 60} minutes'" in source
    paid = await database.fetchval(
        "select prosrc from pg_proc where oid = 'private.pay_for_exchange'::regproc"
    )
    assert LIMITS["api_key_exchanges_per_minute"] == 60
    assert "interval '1 second'" in paid
    assert "v_now + interval '1 minute'" in paid
