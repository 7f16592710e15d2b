"""The server is killed at random moments of ingest and of every job, and nothing goes wrong.

SIGKILL ends all backends at once, as a crash does. Writers do what the producer does: a batch
without an answer goes out again with the same request_id. At the end what the writers were told is
compared with what is stored, in whatever tier it is by then.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signal_persistence.signal import signal_id
from tests.checkers.histories import AccountHistory, Stored, anomalies
from tests.database.killed_server import CUT_OFF, Link, Server, migrated_server

KILLS = int(os.environ.get("SIGNAL_TEST_KILLS", "50"))
SEED = int(os.environ.get("SIGNAL_TEST_SEED", "0")) or random.randrange(1, 2**32)
WRITERS = 3
FRESH, REPEATED = 40, 3
DAYS_BACK = 6
NIGHTS = 0.02
SYMBOLS = ("ES", "NQ", "BTC/USD")
STEPS = (
    "pack_step",
    "merge_step",
    "reclaim_step",
    "rollup_step",
    "expiry_step",
    "retention_step",
    "partitions_step",
)
ATTEMPTS_TO_REST = 5_000
SMALL_ALLOWANCES = "update private.tiers set hot_signals = 100, warm_signals = 100"
"""So that signals are packed and merged early, again and again."""
NIGHT = """
with day as (update private.days set packed_at = null)
update private.account_passes set finished_at = '-infinity'
"""
"""What has been packed or looked at today is due again."""


class Writer:
    """A trader process of an account of its own: one batch at a time, each until its answer."""

    def __init__(self, server: Server, account_id: uuid.UUID, randomness: random.Random) -> None:
        self.account_id = account_id
        self.offered: list[uuid.UUID] = []
        self.acknowledged: list[uuid.UUID] = []
        self._randomness = randomness
        self._sent: list[dict[str, Any]] = []
        claims = json.dumps({"sub": str(account_id), "role": "authenticated"})
        self._link = Link(
            server.settings.socket_dsn("authenticator"),
            "set role authenticated",
            f"select set_config('request.jwt.claims', '{claims}', false)",
        )

    async def run(self, stop: asyncio.Event) -> None:
        with self._link:
            created = await self._link.value("select public.create_trader('momentum')")
            trader_id = json.loads(created)["trader_id"]
            while not stop.is_set():
                await self._publish(self._batch(trader_id))

    def _batch(self, trader_id: str) -> list[dict[str, Any]]:
        fresh = [self._signal(trader_id) for _ in range(FRESH)]
        again = self._randomness.sample(self._sent, min(REPEATED, len(self._sent)))
        self._sent += fresh
        return self._randomness.sample(fresh + again, len(fresh) + len(again))

    def _signal(self, trader_id: str) -> dict[str, Any]:
        back = self._randomness.randrange(DAYS_BACK * 86_400 * 1_000_000)
        generated_at = datetime.now(UTC) - timedelta(microseconds=back)
        return {
            "trader_id": trader_id,
            "symbol": self._randomness.choice(SYMBOLS),
            "timeframe": "1m",
            "generated_at": generated_at.isoformat(),
            "action": self._randomness.choice(["enter_long", "exit_long"]),
            "confidence": round(self._randomness.random(), 2),
            "price": round(self._randomness.uniform(10, 100), 2),
            "valid_until": (generated_at + timedelta(hours=1)).isoformat(),
        }

    async def _publish(self, batch: list[dict[str, Any]]) -> None:
        ids = [self._id_of(signal) for signal in batch]
        self.offered += ids
        answer = await self._link.value(
            "select public.ingest_signals($1, $2)", uuid.uuid4(), json.dumps(batch)
        )
        verdict = json.loads(answer)
        refused = {item["index"]: item["code"] for item in verdict["items"]}
        assert set(refused.values()) <= {"duplicate"}, verdict
        self.acknowledged += [each for index, each in enumerate(ids) if index not in refused]

    def _id_of(self, signal: dict[str, Any]) -> uuid.UUID:
        generated_at = datetime.fromisoformat(signal["generated_at"])
        trader_id = uuid.UUID(signal["trader_id"])
        return signal_id(self.account_id, trader_id, signal["symbol"], "1m", generated_at)


async def run_jobs(server: Server, randomness: random.Random, stop: asyncio.Event) -> None:
    """Run steps of random jobs, as pg_cron would; what is cut off is run again some time."""
    with Link(server.settings.database_url) as link:
        while not stop.is_set():
            try:
                await link.fetch(f"select private.{randomness.choice(STEPS)}()")
                if randomness.random() < NIGHTS:
                    await link.fetch(NIGHT)
            except CUT_OFF:
                await asyncio.sleep(0.02)


async def kill_again_and_again(server: Server, randomness: random.Random) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(randomness.uniform(0.05, 0.8))
        server.kill()
        server.start()


async def come_to_rest(link: Link) -> None:
    """Run every job until it has nothing left to do."""
    await link.fetch(NIGHT)
    for step in STEPS:
        for _ in range(ATTEMPTS_TO_REST):
            if not await link.value(f"select private.{step}()"):
                break
        else:
            pytest.fail(f"{step} does not come to an end")


async def history_of(link: Link, writer: Writer) -> AccountHistory:
    rows = await link.fetch(
        "select signal_id, seq from public.signals where account_id = $1 order by seq",
        writer.account_id,
    )
    return AccountHistory(
        stored=[Stored(uuid.UUID(bytes=row["signal_id"].bytes), row["seq"]) for row in rows],
        offered={"writer": sorted(set(writer.offered))},
        acknowledged={"writer": writer.acknowledged},
    )


async def assert_chain(link: Link, account_id: uuid.UUID) -> None:
    next_link: int | None = 1
    while next_link is not None:
        text = await link.value(
            "select private.verify_audit($1, $2, null)::text", account_id, next_link
        )
        answer = json.loads(text)
        assert answer["broken"] is None, answer
        next_link = answer["next_link"]


async def assert_sound(link: Link, writers: Sequence[Writer]) -> None:
    assert await link.value("select count(*) from private.segments") > 0
    for writer in writers:
        history = await history_of(link, writer)
        assert len(history.stored) == len(writer.acknowledged) > 0
        # A batch is in random order, so the order of the offers says nothing.
        found = anomalies({str(writer.account_id): history})
        found.pop("reordered")
        assert not any(found.values()), {name: told[:3] for name, told in found.items() if told}
        await assert_chain(link, writer.account_id)
    assert await link.fetch("select * from private.rollup_differences()") == []


@pytest.mark.timeout(KILLS * 6 + 120)
def test_nothing_is_lost_or_doubled_when_the_server_is_killed_again_and_again() -> None:
    print(f"SIGNAL_TEST_SEED={SEED}")  # noqa: T201
    with migrated_server() as server:
        asyncio.run(survive_kills(server))


async def survive_kills(server: Server) -> None:
    randomness = random.Random(SEED)
    with Link(server.settings.database_url) as operator:
        writers = []
        await operator.fetch(SMALL_ALLOWANCES)
        for _ in range(WRITERS):
            account_id = uuid.UUID(int=randomness.getrandbits(128), version=4)
            await operator.value("select private.set_account_tier($1, 'elite')", account_id)
            writers.append(Writer(server, account_id, random.Random(randomness.random())))
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.run(stop))
            for _ in range(2):
                jobs = random.Random(randomness.random())
                group.create_task(run_jobs(server, jobs, stop))
            await kill_again_and_again(server, randomness)
            stop.set()
        await come_to_rest(operator)
        await assert_sound(operator, writers)
