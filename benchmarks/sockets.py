"""scripts/bench sockets: thousands of accounts listen at once, each on its own private channel.

A stack of its own (fsync on) runs on this machine beside the clients, which are one process of bare
WebSockets (protocol 1.0.0): the figures are those of both on these cores. Each account joins its
topic, which row level security of the database decides; then one signal of each is ingested and has
to arrive. Then the gateway is restarted, one more signal of each is ingested while nobody listens,
and all come back, spread over --spread seconds; each asks for what it missed by seq. The figures:

joined, join_seconds           sockets whose join was answered with ok, and how long all took
observed, observe_ms           accounts that got the broadcast of their signal, and how long after
                               its ingest began
server_mb, server_kb           anonymous memory of the gateway with all sockets joined, and of it
                               what one socket takes
clients_mb, client_kb          the same of this process
restart_seconds                from the end of the gateway, which says goodbye to all, to its next
rejoined, rejoin_seconds       joined again after the restart, from the first attempt to the last
attempts_failed                connects and joins that had to be tried again
healed                         accounts that have the signal they missed
rejoin_ms                      connect, join and question together
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import jwt
import uvloop

from benchmarks.memory import anonymous_mb
from benchmarks.project import Project, bench_project, say
from benchmarks.report import machine, percentiles, write
from local_stack import control
from local_stack.errors import StackError
from local_stack.settings import JWT_SECRET, StackSettings

HEARTBEAT_SECONDS = 25.0
ANSWER_SECONDS = 30.0
"""How long a join or a question may take."""
ARRIVAL_SECONDS = 60.0
"""How long after the last ingest the last broadcast may come."""
RESTART_SECONDS = 30.0
ATTEMPTS = 8
FAILURES_TOLD = 10
FIRST_BACKOFF_SECONDS = 0.5
FILES_BESIDE_SOCKETS = 200
TOKEN_SECONDS = 4 * 3600
ADD_ACCOUNTS = """
with account as (
  insert into private.accounts (account_id, tier)
  select gen_random_uuid(), 'elite' from generate_series(1, $1::integer)
  returning account_no, account_id
)
insert into private.traders (account_no, name)
select account_no, 'sockets' from account
returning (select account_id from account where account.account_no = traders.account_no), trader_id
"""
# The caller first, as the gateway sets it; then what a request asks for.
INGEST = "select set_config('request.jwt.claims', $1, false), public.ingest_signals($2, $3)"


@dataclass(slots=True, eq=False)
class Listener:
    """One account, its socket, and the newest signal that it knows."""

    account_id: str
    trader_id: str
    token: str
    last_seq: int = 0
    socket: aiohttp.ClientWebSocketResponse | None = None
    reading: asyncio.Task[None] | None = None
    ingested_at: float = 0.0
    arrived_at: float | None = None

    @property
    def topic(self) -> str:
        return f"realtime:account:{self.account_id}:signals"

    async def join(self, http: aiohttp.ClientSession, key: str) -> None:
        """Connect, join, and read from then on. Raise when the server refuses either."""
        socket = await http.ws_connect(
            "/realtime/v1/websocket", params={"apikey": key}, max_msg_size=1_000_000
        )
        self.socket = socket
        config = {"broadcast": {"self": False, "ack": False}, "private": True}
        payload = {"config": config, "access_token": self.token}
        await _send(socket, self.topic, "phx_join", payload, ref="1")
        reply = await socket.receive_json(timeout=ANSWER_SECONDS)
        if reply["payload"]["status"] != "ok":
            await socket.close()
            raise RefusedError(reply["payload"]["response"]["reason"])
        self.reading = asyncio.create_task(self._read(socket))

    async def heal(self, http: aiohttp.ClientSession, key: str) -> None:
        """Ask for everything after what is known."""
        answer = await http.post(
            "/rest/v1/rpc/query_signals",
            json={"after_seq": self.last_seq},
            headers={"apikey": key, "Authorization": f"Bearer {self.token}"},
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        )
        answer.raise_for_status()
        for found in (await answer.json())["signals"]:
            self.last_seq = max(self.last_seq, found["seq"])

    async def heartbeat(self) -> None:
        if self.socket is not None and not self.socket.closed:
            await _send(self.socket, "phoenix", "heartbeat", {}, ref=None)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            frame = json.loads(message.data)
            if frame["event"] == "broadcast":
                told = frame["payload"]["payload"]
                if told["first_seq"] <= self.last_seq + 1:  # a gap is for heal()
                    self.arrived_at = time.perf_counter()
                    self.last_seq = max(self.last_seq, told["last_seq"])


class RefusedError(Exception):
    """Cannot join: the server refused it."""


@dataclass(slots=True)
class Crowd:
    """All listeners, and what they need of the project."""

    project: Project
    listeners: Sequence[Listener]
    http: aiohttp.ClientSession
    attempts_failed: int = 0

    async def join(self, listener: Listener) -> None:
        await self._insist(lambda: listener.join(self.http, self.project.key))

    async def _insist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try again, ever later, as a client does."""
        for number in range(ATTEMPTS):
            try:
                await attempt()
                return
            except (aiohttp.ClientError, OSError, RefusedError, TimeoutError, TypeError) as error:
                self.attempts_failed += 1
                if self.attempts_failed <= FAILURES_TOLD:
                    say(f"an attempt failed: {error!r}")
                await asyncio.sleep(FIRST_BACKOFF_SECONDS * 2**number * random.uniform(0.5, 1))

    async def come_back(self, listener: Listener, spread: float) -> float:
        """Join again at a moment within the spread, and heal; return the seconds that took."""
        await asyncio.sleep(random.uniform(0, spread))
        started = time.perf_counter()
        await self.join(listener)
        await self._insist(lambda: listener.heal(self.http, self.project.key))
        return time.perf_counter() - started

    async def keep_alive(self) -> None:
        """Send the heartbeats of all, evenly, until cancelled."""
        while True:
            for place, listener in enumerate(self.listeners):
                await listener.heartbeat()
                if place % 50 == 0:
                    await asyncio.sleep(HEARTBEAT_SECONDS * 50 / len(self.listeners))

    async def ingest_one_each(self, writers: int) -> None:
        """Store one signal of each account, over so many connections."""
        pool = await asyncpg.create_pool(
            self.project.database_url, min_size=writers, max_size=writers
        )
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")

        async def ingest(listener: Listener) -> None:
            claims = json.dumps({"sub": listener.account_id, "role": "authenticated"})
            body = json.dumps([_signal(listener.trader_id, at)])
            async with pool.acquire() as connection:
                listener.ingested_at = time.perf_counter()
                _, verdict = await connection.fetchrow(INGEST, claims, uuid.uuid4(), body)
            if json.loads(verdict)["accepted"] != 1:
                raise RuntimeError(f"Cannot benchmark: a signal was not accepted: {verdict[:300]}")

        async with pool:
            await _each(self.listeners, ingest, writers)

    async def wait_until(self, reached: Callable[[Listener], bool], seconds: float) -> int:
        """Wait until all have reached it, but not longer; return how many have."""
        deadline = time.perf_counter() + seconds
        while True:
            count = sum(map(reached, self.listeners))
            if count == len(self.listeners) or time.perf_counter() > deadline:
                return count
            await asyncio.sleep(0.1)


def main(argv: list[str]) -> int:
    options = _parse(argv)
    _allow_files(options.sockets + FILES_BESIDE_SOCKETS)
    with bench_project(options.stack_name) as project:
        settings = StackSettings.load(StackSettings(name=options.stack_name).directory)
        report = uvloop.run(measure(project, settings, options))
    write(report, options.json)
    return 0 if report["ok"] else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench sockets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=64, help="joins under way at first")
    parser.add_argument("--spread", type=float, default=60, help="seconds that rejoins spread over")
    parser.add_argument("--writers", type=int, default=4, help="connections that ingest")
    parser.add_argument("--stack-name", default="bench", help="of the stack made for this")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args(argv)
    if min(options.sockets, options.at_once, options.writers) < 1 or options.spread < 0:
        parser.error("--sockets, --at-once and --writers must be at least 1, --spread at least 0")
    return options


async def measure(
    project: Project, settings: StackSettings, options: argparse.Namespace
) -> dict[str, Any]:
    """Join all, broadcast to each, restart the gateway, and have all come back."""
    listeners = await make_listeners(project, options.sockets)
    gateway_mb, own_mb = anonymous_mb(_gateway(settings)["pid"]), anonymous_mb()
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        http = aiohttp.ClientSession(project.url, connector=connector)
        crowd = Crowd(project, listeners, await stack.enter_async_context(http))
        heartbeats = asyncio.create_task(crowd.keep_alive())
        stack.callback(heartbeats.cancel)
        joined = await _joined(crowd, options.at_once)
        server_mb, clients_mb = anonymous_mb(_gateway(settings)["pid"]), anonymous_mb()
        observed = await _observed(crowd, options.writers)
        returned = await _returned(crowd, settings, options)
    count = len(listeners)
    figures = {
        **joined,
        **observed,
        **returned,
        "attempts_failed": crowd.attempts_failed,
        "server_mb": round(server_mb, 1),
        "server_kb": round((server_mb - gateway_mb) * 1024 / count, 1),
        "clients_mb": round(clients_mb, 1),
        "client_kb": round((clients_mb - own_mb) * 1024 / count, 1),
    }
    reached = (figures[name] for name in ("joined", "observed", "rejoined", "healed"))
    return {
        "bench": "sockets",
        "machine": machine(),
        "runs": 1,
        "sockets": count,
        "spread_seconds": options.spread,
        **figures,
        "ok": all(number == count for number in reached),
    }


async def make_listeners(project: Project, count: int) -> list[Listener]:
    """Create accounts, each with a trader and a token of the project's shared secret."""
    connection = await asyncpg.connect(project.database_url)
    try:
        rows = await connection.fetch(ADD_ACCOUNTS, count)
        await connection.execute("analyze private.accounts, private.traders")
    finally:
        await connection.close()
    expires_at = int(time.time()) + TOKEN_SECONDS
    return [
        Listener(str(account_id), str(trader_id), _token(str(account_id), expires_at))
        for account_id, trader_id in rows
    ]


async def _joined(crowd: Crowd, at_once: int) -> dict[str, Any]:
    say(f"{len(crowd.listeners)} sockets join")
    started = time.perf_counter()
    await _each(crowd.listeners, crowd.join, at_once)
    took = time.perf_counter() - started
    joined = sum(map(_is_listening, crowd.listeners))
    return {
        "joined": joined,
        "join_seconds": round(took, 2),
        "joins_per_s": round(joined / took, 1),
    }


async def _observed(crowd: Crowd, writers: int) -> dict[str, Any]:
    say("each gets a broadcast")
    started = time.perf_counter()
    await crowd.ingest_one_each(writers)
    ingest_seconds = time.perf_counter() - started
    observed = await crowd.wait_until(lambda each: each.arrived_at is not None, ARRIVAL_SECONDS)
    took = [
        (each.arrived_at - each.ingested_at) * 1000
        for each in crowd.listeners
        if each.arrived_at is not None
    ]
    return {
        "observed": observed,
        "observe_ms": percentiles(took) if took else None,
        "broadcasts_per_s": round(len(crowd.listeners) / ingest_seconds, 1),
    }


async def _returned(
    crowd: Crowd, settings: StackSettings, options: argparse.Namespace
) -> dict[str, Any]:
    say("the gateway restarts; each account misses a signal")
    restart_seconds = await restart_gateway(settings)
    await crowd.wait_until(lambda each: not _is_listening(each), RESTART_SECONDS)
    await crowd.ingest_one_each(options.writers)
    say(f"all come back within {options.spread:g} s")
    started = time.perf_counter()
    took = await asyncio.gather(
        *(crowd.come_back(listener, options.spread) for listener in crowd.listeners)
    )
    return {
        "restart_seconds": round(restart_seconds, 2),
        "rejoined": sum(map(_is_listening, crowd.listeners)),
        "rejoin_seconds": round(time.perf_counter() - started, 2),
        "rejoin_ms": percentiles([seconds * 1000 for seconds in took]),
        "healed": sum(each.last_seq == 2 for each in crowd.listeners),
    }


async def _send(
    socket: aiohttp.ClientWebSocketResponse,
    topic: str,
    event: str,
    payload: object,
    ref: str | None,
) -> None:
    frame = {"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": ref}
    await socket.send_str(json.dumps(frame))


async def restart_gateway(settings: StackSettings) -> float:
    """End the gateway; return the seconds until the supervisor has another in its place."""
    before = _gateway(settings)["pid"]
    started = time.perf_counter()
    os.kill(before, signal.SIGTERM)
    while (now := _gateway(settings))["state"] != "running" or now["pid"] == before:
        if time.perf_counter() > started + RESTART_SECONDS:
            raise RuntimeError("Cannot finish the benchmark: the gateway does not come back")
        await asyncio.sleep(0.05)
    return time.perf_counter() - started


def _gateway(settings: StackSettings) -> dict[str, Any]:
    gateway: dict[str, Any] = control.status(settings)["services"]["gateway"]
    return gateway


def _is_listening(listener: Listener) -> bool:
    return listener.reading is not None and not listener.reading.done()


def _token(account_id: str, expires_at: int) -> str:
    claims = {"sub": account_id, "role": "authenticated", "aud": "authenticated"}
    return jwt.encode({**claims, "exp": expires_at}, JWT_SECRET, algorithm="HS256")


def _signal(trader_id: str, generated_at: str) -> dict[str, Any]:
    return {
        "trader_id": trader_id,
        "symbol": "BTC/USDT",
        "timeframe": "1m",
        "generated_at": generated_at,
        "action": "enter_long",
        "confidence": 0.75,
        "price": 1000,
    }


def _allow_files(count: int) -> None:
    """A socket is an open file, of which most machines allow fewer at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise SystemExit(
            f"Cannot open {count} files: this machine allows {hard}; use fewer --sockets, or raise "
            "the limit (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


async def _each(
    listeners: Iterable[Listener], work: Callable[[Listener], Awaitable[None]], at_once: int
) -> None:
    remaining = iter(listeners)

    async def do_the_next() -> None:
        for listener in remaining:
            await work(listener)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(do_the_next())


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(str(error))
