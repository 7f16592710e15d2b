"""The life of signals with many connections: one winner, exact expiry, and a job that catches up.

What expires at which instant is tested with a stopped clock in supabase/tests/lifecycle; here the
job commits, so its signals are really due.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from local_stack.settings import REPOSITORY
from tests.database.callers import (
    Caller,
    caller,
    callers,
    make_signals,
    new_account,
    new_trader,
    operator,
)
from tests.database.test_concurrency import DEADLINE_SECONDS, LOCK_ACCOUNT, wait_until_waiting
from tests.plugins.stack import RunningStack

CONTRACT = json.loads(
    (REPOSITORY / "supabase" / "functions" / "_shared" / "contract.json").read_text()
)
CONNECTIONS = 6
EVENTS = "select seq, status, signal_seq, expired_seqs from public.signal_events order by seq"
HEAD = """
select
  account.last_event_seq,
  (select count(*) from private.signal_events as event
    where event.account_no = account.account_no) as events,
  (select count(distinct event.seq) from private.signal_events as event
    where event.account_no = account.account_no) as seqs,
  (select coalesce(sum(link.last_seq - link.first_seq + 1), 0) from audit.links as link
    where link.account_no = account.account_no and link.kind = 'events') as linked
from private.accounts as account
where account.account_id = $1
"""
DUE = """
select count(*) from private.expiries as expiry
inner join private.accounts as account on account.account_no = expiry.account_no
where account.account_id = $1
"""


def change_of(signal: dict[str, Any], status: str, **fields: object) -> dict[str, Any]:
    key = ("trader_id", "symbol", "timeframe", "generated_at")
    return {name: signal[name] for name in key} | {"status": status} | fields


def closed(signal: dict[str, Any], close_reason: str) -> dict[str, Any]:
    return change_of(signal, "closed", exit_price=1.5, close_reason=close_reason)


async def advance(
    worker: Caller, changes: Sequence[dict[str, Any]], request_id: uuid.UUID | None = None
) -> str:
    answer: str = await worker.connection.fetchval(
        "select public.advance_signals($1, $2)", request_id or uuid.uuid4(), json.dumps(changes)
    )
    return answer


async def at_once(
    stack: RunningStack,
    account_id: uuid.UUID,
    requests: Sequence[tuple[uuid.UUID, list[dict[str, Any]]]],
) -> list[dict[str, Any]]:
    """Advance on connections of their own, all waiting for the account's lock at first."""
    async with callers(stack, account_id, len(requests)) as workers, operator(stack) as watcher:
        async with watcher.transaction():
            await watcher.execute(LOCK_ACCOUNT, account_id)
            advancing = [
                asyncio.create_task(advance(worker, changes, request_id))
                for worker, (request_id, changes) in zip(workers, requests, strict=True)
            ]
            async with operator(stack) as second_watcher:
                await wait_until_waiting(second_watcher, workers)
        return [json.loads(answer) for answer in await asyncio.gather(*advancing)]


async def assert_head(watcher: asyncpg.Connection, account_id: uuid.UUID, events: int) -> None:
    """Assert that the account has so many events, each seq once, all of them in audit links."""
    row = await watcher.fetchrow(HEAD, account_id)
    assert dict(row) == {
        "last_event_seq": events,
        "events": events,
        "seqs": events,
        "linked": events,
    }


async def test_the_words_are_the_contracts_in_its_order(stack: RunningStack) -> None:
    async with operator(stack) as database:
        assert await database.fetchval("select private.statuses()") == CONTRACT["statuses"]
        assert (
            await database.fetchval("select private.close_reasons()") == CONTRACT["close_reasons"]
        )


async def test_the_picture_of_the_states_shows_every_transition(stack: RunningStack) -> None:
    async with operator(stack) as database:
        rows = await database.fetch("select from_status, to_status from private.transitions")
    page = (REPOSITORY / "docs" / "lifecycle.md").read_text()
    assert {tuple(row) for row in rows} == set(
        re.findall(r"^  (\w+) --> (\w+)$", page, re.MULTILINE)
    )


async def test_numbers_and_reasons_are_as_large_as_the_contract_allows(
    stack: RunningStack,
) -> None:
    limits = CONTRACT["limits"]
    async with operator(stack) as watcher:
        account_id = await new_account(watcher)
    async with caller(stack, account_id) as worker:
        signals = make_signals(await new_trader(worker), 6)
        await worker.ingest(signals)
        await advance(worker, [change_of(signal, "executed") for signal in signals])
        for place, (field, most) in enumerate(
            {
                "exit_price": limits["price_magnitude"],
                "fees": limits["price_magnitude"],
                "return": limits["return_magnitude"],
            }.items()
        ):
            fits, too_large = signals[2 * place : 2 * place + 2]
            verdict = json.loads(
                await advance(
                    worker,
                    [
                        closed(fits, "manual") | {field: -most},
                        closed(too_large, "manual") | {field: most * 1.000001},
                    ],
                )
            )
            assert [item["code"] for item in verdict["items"]] == [f"invalid_{field}"]
        reason = "é" * limits["reason_characters"]
        [longer] = json.loads(
            await advance(worker, [closed(signals[1], "manual") | {"reason": reason + "é"}])
        )["items"]
        assert longer["code"] == "invalid_reason"
        verdict = json.loads(
            await advance(worker, [closed(signals[1], "manual") | {"reason": reason}])
        )
        assert verdict["accepted"] == 1


async def test_of_workers_that_close_a_signal_at_once_exactly_one_wins(
    stack: RunningStack,
) -> None:
    async with operator(stack) as watcher:
        account_id = await new_account(watcher)
        async with caller(stack, account_id) as first:
            [signal] = make_signals(await new_trader(first), 1)
            await first.ingest([signal])
            await advance(first, [change_of(signal, "executed")])
        reasons = ["take_profit", "stop_loss", "manual", "reversed", "time_limit", "exit_signal"]
        verdicts = await at_once(
            stack, account_id, [(uuid.uuid4(), [closed(signal, reason)]) for reason in reasons]
        )
        codes = sorted(item["code"] for verdict in verdicts for item in verdict["items"])
        assert sum(verdict["accepted"] for verdict in verdicts) == 1
        assert codes == ["invalid_transition"] * 5
        await assert_head(watcher, account_id, 2)


async def test_workers_that_report_the_same_are_told_that_it_is_recorded(
    stack: RunningStack,
) -> None:
    async with operator(stack) as watcher:
        account_id = await new_account(watcher)
        async with caller(stack, account_id) as first:
            signals = make_signals(await new_trader(first), 10)
            await first.ingest(signals)
        changes = [change_of(signal, "analyzed", reason="ok") for signal in signals]
        verdicts = await at_once(
            stack, account_id, [(uuid.uuid4(), changes) for _ in range(CONNECTIONS)]
        )
        assert sorted(verdict["accepted"] for verdict in verdicts) == [0] * 5 + [10]
        assert sorted(verdict["duplicate"] for verdict in verdicts) == [0] + [10] * 5
        await assert_head(watcher, account_id, 10)


async def test_one_request_sent_by_many_at_once_is_answered_the_same(stack: RunningStack) -> None:
    async with operator(stack) as watcher:
        account_id = await new_account(watcher)
        async with caller(stack, account_id) as first:
            [signal] = make_signals(await new_trader(first), 1)
            await first.ingest([signal])
        request = (uuid.uuid4(), [change_of(signal, "analyzed"), change_of(signal, "rejected")])
        verdicts = await at_once(stack, account_id, [request] * CONNECTIONS)
        assert len({json.dumps(verdict) for verdict in verdicts}) == 1
        assert verdicts[0]["accepted"] == 2
        await assert_head(watcher, account_id, 2)


async def test_ingest_and_advance_of_one_account_share_its_order_and_no_other_waits(
    stack: RunningStack,
) -> None:
    async with operator(stack) as watcher:
        alice, bob = await new_account(watcher), await new_account(watcher)
        async with caller(stack, alice) as worker, caller(stack, bob) as other:
            await other.connection.execute("set lock_timeout = '250ms'")
            signals = make_signals(await new_trader(worker), 3)
            foreign = make_signals(await new_trader(other), 3)
            await worker.ingest(signals)
            await other.ingest(foreign)
            async with worker.connection.transaction():
                await advance(worker, [change_of(signals[0], "analyzed")])
                verdict = json.loads(await advance(other, [change_of(foreign[0], "analyzed")]))
                assert verdict["accepted"] == 1
                async with caller(stack, alice) as impatient:
                    await impatient.connection.execute("set lock_timeout = '250ms'")
                    with pytest.raises(asyncpg.LockNotAvailableError):
                        await impatient.ingest(signals)
                    page = await impatient.ask("select public.query_events()")
                    assert page == {"events": [], "last_seq": 0}


async def test_five_thousand_changes_of_many_days_are_one_request(stack: RunningStack) -> None:
    async with operator(stack) as watcher:
        account_id = await new_account(watcher)
        async with caller(stack, account_id) as worker:
            signals = make_signals(await new_trader(worker), 5000)
            now = datetime.now(UTC)
            for number, signal in enumerate(signals):
                signal["generated_at"] = (now - timedelta(minutes=2 * number)).isoformat()
            await worker.ingest(signals)
            changes = [change_of(signal, "analyzed") for signal in signals]
            verdict = json.loads(await advance(worker, changes))
            assert (verdict["accepted"], verdict["items"]) == (5000, [])
        await assert_head(watcher, account_id, 5000)


@pytest_asyncio.fixture
async def job(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    """A connection that is the expiry job: the scheduled one is kept away meanwhile."""
    async with operator(stack) as connection:
        await connection.execute(
            "select pg_advisory_lock(hashtext('private.jobs'), hashtext('expiry'))"
        )
        yield connection


async def run_job(job: asyncpg.Connection) -> list[int]:
    """Take steps of the expiry job until nothing is left; return what each of them did."""
    # The job reads up to the oldest transaction that still writes, whatever it writes.
    now = await job.fetchval("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while await job.fetchval("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint") < now:
        assert time.monotonic() < deadline, "a transaction did not end"
        await asyncio.sleep(0.005)
    steps = []
    while done := await job.fetchval("select private.expiry_step()"):
        steps.append(done)
        assert len(steps) < 1000
    return steps


async def valid_signals(worker: Caller, count: int, valid: timedelta) -> list[dict[str, Any]]:
    """Signals of the last hour, which were valid for a time."""
    signals = make_signals(await new_trader(worker), count)
    for signal in signals:
        until = datetime.fromisoformat(signal["generated_at"]) + valid
        signal["valid_until"] = until.isoformat()
    return signals


async def test_the_job_tells_what_expired_once_and_nothing_that_was_used(
    stack: RunningStack, job: asyncpg.Connection
) -> None:
    async with operator(stack) as watcher:
        account_id = await new_account(watcher)
        async with caller(stack, account_id) as worker:
            signals = await valid_signals(worker, 6, timedelta(days=1))
            await worker.ingest(signals)
            await advance(worker, [change_of(signals[2], "executed")])
            await advance(worker, [change_of(signals[3], "analyzed")])
            await run_job(job)
            assert await watcher.fetchval(DUE, account_id) > 0
            await advance(worker, [change_of(signals[4], "cancelled")])
            await watcher.execute(
                "update private.expiries set due_at = now() where account_no = ("
                "select account_no from private.accounts where account_id = $1)",
                account_id,
            )
            await run_job(job)
            assert await watcher.fetchval(DUE, account_id) == 0
            events = [tuple(row) for row in await worker.connection.fetch(EVENTS)]
            assert events[3:] == [(4, "expired", 1, [[1, 2], [4, 4], [6, 6]])]
            await run_job(job)
            assert len(await worker.connection.fetch(EVENTS)) == 4
        await assert_head(watcher, account_id, 4)


async def test_two_runs_of_the_job_at_once_tell_each_signal_once(
    stack: RunningStack, job: asyncpg.Connection
) -> None:
    async with operator(stack) as watcher:
        account_ids = [await new_account(watcher) for _ in range(5)]
        for account_id in account_ids:
            async with caller(stack, account_id) as worker:
                await worker.ingest(await valid_signals(worker, 20, timedelta(seconds=1)))
        async with operator(stack) as second:
            await asyncio.gather(run_job(job), run_job(second))
        for account_id in account_ids:
            async with caller(stack, account_id) as worker:
                [event] = await worker.connection.fetch(EVENTS)
                assert tuple(event) == (1, "expired", 1, [[1, 20]])
            await assert_head(watcher, account_id, 1)


async def test_a_job_that_was_away_catches_up_in_bounded_steps(
    stack: RunningStack, job: asyncpg.Connection
) -> None:
    batches, size = 12, 4000
    async with operator(stack) as watcher:
        await run_job(job)
        account_id = await new_account(watcher)
        async with caller(stack, account_id) as worker:
            signals = await valid_signals(worker, batches * size, timedelta(minutes=3))
            for first in range(0, len(signals), size):
                await worker.ingest(signals[first : first + size])
            steps = await run_job(job)
            # Read once and told once, about 20,000 of each in a step and a batch more at most.
            assert sum(steps) >= 2 * batches * size
            assert max(steps) <= 2 * (20_000 + size)
            events = await worker.connection.fetch(EVENTS)
        told = sorted(tuple(run) for event in events for run in event["expired_seqs"])
        assert [first for first, _ in told] == [1] + [last + 1 for _, last in told[:-1]]
        assert told[-1][1] == batches * size
        await assert_head(watcher, account_id, len(events))


async def test_a_job_that_is_killed_loses_nothing(
    stack: RunningStack, job: asyncpg.Connection
) -> None:
    async with operator(stack) as watcher:
        account_id = await new_account(watcher)
        async with caller(stack, account_id) as worker:
            await worker.ingest(await valid_signals(worker, 50, timedelta(seconds=1)))
            for _ in range(3):
                victim = await asyncpg.connect(stack.database_url)
                await victim.execute("begin")
                await victim.fetchval("select private.expiry_step()")
                victim.terminate()
            await run_job(job)
            [event] = await worker.connection.fetch(EVENTS)
            assert tuple(event) == (1, "expired", 1, [[1, 50]])
        await assert_head(watcher, account_id, 1)
