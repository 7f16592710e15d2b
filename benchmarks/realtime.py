"""scripts/bench realtime: from a commit to the callback of a subscriber, and what is missed.

A stack of its own (fsync on) runs on this machine beside the writers and the subscribers. Each
subscriber follows an account of its own, as traders do; together the accounts store --rate signals
a minute, in batches of --batch over direct connections. All subscribers are in one process. Then
one fault after another strikes, for a moment, a subscriber of the package and beside it the
official `realtime` client, used as its documentation shows. The figures:

live_ms        by the number of subscribers: from the beginning of the statement that stores a
               signal (its commit is some milliseconds later) to the call of on_signal with it
unobserved     signals that were stored and reached a subscriber of the package never; repeated
               and not_in_order: more than once, or in another order than that of their seq
connect_seconds    until all subscribers were live
plain_missed   by fault: of how many signals the official client told none of its callbacks, though
               it had 5 seconds after the fault; ours_missed: the same of the package
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from realtime import AsyncRealtimeClient

from benchmarks.processes import run_together
from benchmarks.project import Project, bench_project, say
from benchmarks.report import machine, percentiles, write
from benchmarks.sockets import INGEST, Listener, make_listeners
from local_stack.errors import StackError
from local_stack.settings import SECRET_KEY
from signal_persistence import AccessToken, AsyncSubscriber, StoredSignal

P95_LIMIT_MS = 100.0
WRITERS = 4
CONNECT_AT_ONCE = 16
CONNECT_SECONDS = 100.0
HEAD_START_SECONDS = 0.05
"""So much for each subscriber, the writers come later: they wait a minute for them, no longer."""
ARRIVAL_SECONDS = 30.0
FAULT_SECONDS = 2.0
FAULT_BATCH = 5
FAULT_PAUSE = 0.1
CLOSE_SECONDS = 2.0
COMMITS = """
select account.account_id, batch.first_seq, batch.last_seq, batch.received_at
from private.batches as batch
inner join private.accounts as account using (account_no)
where account.account_id = any($1::uuid[])
"""
FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "restart of the server (1012)": {"kind": "close_sockets", "code": 1012, "count": 2},
    "connection cut": {"kind": "close_sockets", "code": 1006, "count": 2},
    "token expired at the server": {"kind": "expire_token", "count": 2},
    "limit of messages reached": {
        "kind": "close_channel",
        "message": "Too many messages per second",
        "count": 2,
    },
    "channel crashed": {"kind": "phx_error", "count": 2},
    "half-open connection": {"kind": "freeze"},
    "broadcasts dropped": {"kind": "drop"},
    "an exception in a callback": {},
    "replication slot lost": {"kind": "lose_slot"},
}
OF_ALL_TOPICS = {"replication slot lost"}
RAISING = "an exception in a callback"


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """Store `batch` signals of one account after the other, evenly, over some connections."""

    database_url: str
    accounts: tuple[tuple[str, str], ...]
    batches: int
    batch: int
    seconds: float
    head_start: float


@dataclass(frozen=True, slots=True)
class FollowPlan:
    """Follow each account until `expected` signals of it have come, or time is up."""

    url: str
    key: str
    accounts: tuple[tuple[str, str], ...]
    expected: int
    check_interval: float | None
    seconds: float


@dataclass(slots=True)
class Followed:
    """What the subscribers of one process saw: account → (seq, when) of each call."""

    arrivals: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    connect_seconds: float = 0.0
    callback_errors: int = 0


def main(argv: list[str]) -> int:
    options = _parse(argv)
    # Every lost connection is told, and every exception that a callback is made to raise.
    logging.disable(logging.CRITICAL)
    with bench_project(options.stack_name) as project:
        deliveries = {
            str(count): measure_delivery(project, count, options) for count in options.subscribers
        }
        missed = asyncio.run(measure_faults(project))
    report = _report(options, deliveries, missed)
    write(report, options.json)
    return 0 if report["ok"] else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench realtime",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--subscribers", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--rate", type=float, default=100_000, help="signals per minute")
    parser.add_argument("--batch", type=int, default=10, help="signals in each statement")
    parser.add_argument("--seconds", type=float, default=20, help="of each number of subscribers")
    parser.add_argument("--check-interval", type=float, help="else what the service says")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(argv)
    if min(options.rate, options.batch, options.seconds, *options.subscribers) <= 0:
        parser.error("--rate, --batch, --seconds and --subscribers must be more than 0")
    return options


def measure_delivery(project: Project, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Have `count` subscribers follow as many accounts; return what they saw, and when."""
    listeners = asyncio.run(make_listeners(project, count))
    rounds = max(1, round(options.rate / 60 * options.seconds / options.batch / count))
    seconds = rounds * count * options.batch / (options.rate / 60)
    expected = rounds * options.batch
    plans: list[IngestPlan | FollowPlan] = [
        IngestPlan(
            project.database_url,
            tuple((one.account_id, one.trader_id) for one in listeners),
            rounds * count,
            options.batch,
            seconds,
            count * HEAD_START_SECONDS,
        ),
        FollowPlan(
            project.url,
            project.key,
            tuple((one.account_id, one.token) for one in listeners),
            expected,
            options.check_interval,
            seconds,
        ),
    ]
    results = run_together(_work, plans, CONNECT_SECONDS + seconds + ARRIVAL_SECONDS)
    followed: Followed = results[1]
    figures = asyncio.run(_figures(project.database_url, followed, expected))
    say(f"{count} subscribers: {figures['live_ms']} ms, unobserved {figures['unobserved']}")
    return {"rate_per_min": round(count * expected * 60 / results[0]), **figures}


def _work(plan: IngestPlan | FollowPlan, wait_for_the_others: Callable[[], None]) -> Any:
    if isinstance(plan, IngestPlan):
        return asyncio.run(_ingest(plan, wait_for_the_others))
    return asyncio.run(_follow(plan, wait_for_the_others))


async def _ingest(plan: IngestPlan, wait_for_the_others: Callable[[], None]) -> float:
    """Store everything at its time; return the seconds it took."""
    numbers = iter(range(plan.batches))
    async with asyncpg.create_pool(plan.database_url, min_size=WRITERS, max_size=WRITERS) as pool:
        await asyncio.sleep(plan.head_start)
        await asyncio.to_thread(wait_for_the_others)
        started = time.perf_counter()

        async def write_some() -> None:
            for number in numbers:
                due = started + plan.seconds * number / plan.batches
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                async with pool.acquire() as connection:
                    account = plan.accounts[number % len(plan.accounts)]
                    await store(connection, *account, plan.batch)

        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(write_some())
        return time.perf_counter() - started


async def store(
    connection: asyncpg.Connection[Any], account_id: str, trader_id: str, count: int
) -> None:
    """Ingest `count` new signals, as the account itself."""
    claims = json.dumps({"sub": account_id, "role": "authenticated"})
    now = datetime.now(UTC)
    signals = [
        {
            "trader_id": trader_id,
            "symbol": "BTC/USDT",
            "timeframe": "1m",
            "generated_at": (now - timedelta(microseconds=number)).isoformat(),
            "action": "enter_long",
            "confidence": 0.75,
            "price": 1000,
        }
        for number in range(count)
    ]
    row = await connection.fetchrow(INGEST, claims, uuid.uuid4(), json.dumps(signals))
    if row is None or json.loads(row[1])["accepted"] != count:
        raise RuntimeError(f"Cannot benchmark: not all signals were accepted: {row}")


async def _follow(plan: FollowPlan, wait_for_the_others: Callable[[], None]) -> Followed:
    result = Followed()
    subscribers = [
        _subscriber(plan, account_id, token, result) for account_id, token in plan.accounts
    ]
    started = time.perf_counter()
    waiting = iter(subscribers)

    async def connect_some() -> None:
        for subscriber in waiting:
            await subscriber.start()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECT_AT_ONCE):
            group.create_task(connect_some())
    await asyncio.gather(*(one.wait_until_live(CONNECT_SECONDS) for one in subscribers))
    result.connect_seconds = round(time.perf_counter() - started, 1)
    await asyncio.to_thread(wait_for_the_others)
    ends = time.perf_counter() + plan.seconds + ARRIVAL_SECONDS
    while time.perf_counter() < ends:
        if all(len(seen) >= plan.expected for seen in result.arrivals.values()):
            break
        await asyncio.sleep(0.1)
    result.callback_errors = sum(one.callback_errors for one in subscribers)
    await asyncio.gather(*(one.close() for one in subscribers))
    return result


def _subscriber(plan: FollowPlan, account_id: str, token: str, result: Followed) -> AsyncSubscriber:
    arrivals = result.arrivals[account_id] = []

    async def note(signal: StoredSignal) -> None:
        arrivals.append((signal.seq, time.time()))

    return AsyncSubscriber(
        plan.url,
        plan.key,
        AccessToken(token),
        after_seq=0,
        check_interval=plan.check_interval,
        transport="rpc",
        on_signal=note,
    )


async def _figures(database_url: str, followed: Followed, expected: int) -> dict[str, Any]:
    stored_at = await _stored_at(database_url, list(followed.arrivals))
    took, unobserved, repeated, not_in_order = [], 0, 0, 0
    for account_id, arrivals in followed.arrivals.items():
        seqs = [seq for seq, _ in arrivals]
        unobserved += expected - len(set(seqs))
        repeated += len(seqs) - len(set(seqs))
        not_in_order += seqs != sorted(seqs)
        took += [(at - stored_at[account_id][seq]) * 1000 for seq, at in arrivals]
    return {
        "live_ms": percentiles(took),
        "unobserved": unobserved,
        "repeated": repeated,
        "not_in_order": not_in_order,
        "connect_seconds": followed.connect_seconds,
        "callback_errors": followed.callback_errors,
    }


async def _stored_at(database_url: str, accounts: list[str]) -> Mapping[str, Mapping[int, float]]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(COMMITS, accounts)
    finally:
        await connection.close()
    stored_at: dict[str, dict[int, float]] = {account: {} for account in accounts}
    for account_id, first, last, at in rows:
        stored_at[str(account_id)] |= dict.fromkeys(range(first, last + 1), at.timestamp())
    return stored_at


async def measure_faults(project: Project) -> dict[str, dict[str, int]]:
    """Strike both clients with each fault; return what each missed, and of how many."""
    listeners = await make_listeners(project, len(FAULTS))
    contests = [
        Contest(project, listener, name) for name, listener in zip(FAULTS, listeners, strict=True)
    ]
    missed = {}
    for together in (True, False):
        chosen = [one for one in contests if (one.name in OF_ALL_TOPICS) is not together]
        for one, found in zip(
            chosen, await asyncio.gather(*(c.run() for c in chosen)), strict=True
        ):
            missed[one.name] = found
            say(f"{one.name}: {found}")
    return missed


class Contest:
    """One fault, one account, both clients."""

    def __init__(self, project: Project, listener: Listener, name: str) -> None:
        self._project = project
        self._listener = listener
        self.name = name
        self._fault = dict(FAULTS[name])
        topic = listener.topic.removeprefix("realtime:")
        self._topic = {} if name in OF_ALL_TOPICS else {"topic": topic}
        self._ours: set[int] = set()
        self._plain: set[int] = set()
        self._stored = 0
        self._raises = name == RAISING

    async def run(self) -> dict[str, int]:
        ours = AsyncSubscriber(
            self._project.url,
            self._project.key,
            AccessToken(self._listener.token),
            after_seq=0,
            on_signal=self._note,
        )
        connection = await asyncpg.connect(self._project.database_url)
        plain = await self._plain_client()
        async with ours:
            await ours.wait_until_live(CONNECT_SECONDS)
            await self._store(connection, 1.0)
            await self._admin("POST", json=self._fault | self._topic)
            await self._store(connection, FAULT_SECONDS)
            await self._admin("DELETE", params=self._topic)
            await self._store(connection, 5.0)
            ends = time.perf_counter() + ARRIVAL_SECONDS
            for _ in iter(lambda: len(self._ours) < self._stored, False):
                await asyncio.sleep(0.1)
                if time.perf_counter() > ends:
                    break
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await plain.close()
        await connection.close()
        return {
            "stored": self._stored,
            "ours_missed": self._stored - len(self._ours),
            "plain_missed": self._stored - len(self._plain),
        }

    def _note(self, signal: StoredSignal) -> None:
        self._ours.add(signal.seq)
        self._raise_once(len(self._ours))

    async def _plain_client(self) -> AsyncRealtimeClient:
        url = f"{self._project.url}/realtime/v1"
        client = AsyncRealtimeClient(url, token=self._project.key)
        await client.set_auth(self._listener.token)
        topic = self._listener.topic.removeprefix("realtime:")
        channel = client.channel(
            topic,
            {
                "config": {
                    "broadcast": {"ack": False, "self": False},
                    "presence": {"key": "", "enabled": False},
                    "private": True,
                }
            },
        )
        channel.on_broadcast("signals_ingested", self._note_plain)
        await channel.subscribe()
        return client

    def _note_plain(self, message: Mapping[str, Any]) -> None:
        for signal in message["payload"].get("signals", []):
            self._plain.add(signal["seq"])
        self._raise_once(len(self._plain))

    def _raise_once(self, seen: int) -> None:
        if self._raises and seen == FAULT_BATCH * 12:
            raise ValueError("a bug of the application")

    async def _store(self, connection: asyncpg.Connection[Any], seconds: float) -> None:
        for _ in range(round(seconds / FAULT_PAUSE)):
            one = self._listener
            await store(connection, one.account_id, one.trader_id, FAULT_BATCH)
            self._stored += FAULT_BATCH
            await asyncio.sleep(FAULT_PAUSE)

    async def _admin(self, method: str, **what: Any) -> None:
        if not self._fault:
            return
        url = f"{self._project.url}/local/realtime/faults"
        async with httpx.AsyncClient(headers={"apikey": SECRET_KEY}) as http:
            answer = await http.request(method, url, **what)
            answer.raise_for_status()


def _report(
    options: argparse.Namespace,
    deliveries: Mapping[str, Mapping[str, Any]],
    missed: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    unobserved = sum(one["unobserved"] for one in deliveries.values())
    wrong = sum(one["repeated"] + one["not_in_order"] for one in deliveries.values())
    ours = sum(one["ours_missed"] for one in missed.values())
    checks = {
        "live p95": all(one["live_ms"]["p95"] < P95_LIMIT_MS for one in deliveries.values()),
        "unobserved": unobserved == 0,
        "once and in order": wrong == 0,
        "missed under faults": ours == 0,
    }
    return {
        "bench": "realtime",
        "machine": machine(),
        "runs": 1,
        "ok": all(checks.values()),
        "failed": [name for name, held in checks.items() if not held],
        "asked": {"rate_per_min": options.rate, "batch": options.batch, "seconds": options.seconds},
        "check_interval": options.check_interval,
        "live_ms": {count: one["live_ms"] for count, one in deliveries.items()},
        "unobserved": unobserved,
        "deliveries": deliveries,
        "stored_under_faults": {name: one["stored"] for name, one in missed.items()},
        "ours_missed": {name: one["ours_missed"] for name, one in missed.items()},
        "plain_missed": {name: one["plain_missed"] for name, one in missed.items()},
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(str(error))
