"""What dead processes left in the spool is delivered by one that lives, once and in order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any
from uuid import UUID

import pytest

import signal_persistence
from signal_persistence import AccessToken, DeliveryReport, Producer
from signal_persistence.adoption import ADOPT_INTERVAL, AdoptingEngine, _Orphan
from signal_persistence.engine import Engine
from signal_persistence.spool import Slot, list_slots
from tests.client.loopback_service import STALL, LoopbackService, Received, accept_all
from tests.client.scripted_service import ScriptedService, close, make_engine, make_signal, publish
from tests.client.test_producer_spool import assert_accounted, crash
from tests.client.virtual_time import run
from tests.client.waiting import wait_until

ACCOUNT = UUID(int=7)
ONE, TWO = UUID(int=1), UUID(int=2)
LONGEST = 1.2 * ADOPT_INTERVAL + 1
"""Within so many seconds an orphan is found, and delivered to a service that works."""
REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = str(Path(signal_persistence.__file__).parents[1])
TRADER = """
import sys
from signal_persistence import AccessToken, Producer
from uuid import UUID
from tests.client.scripted_service import make_signal
url, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
producer = Producer(url, "key", {UUID(int=7): AccessToken("t")}, linger_ms=1, batch_max_messages=5)
for number in range(first, first + count):
    producer.publish(make_signal(number))
print("published", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time must not jump while a thread works."""

    async def run_here(work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", run_here)


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    with LoopbackService(otherwise=accept_all) as listening:
        yield listening


def start_trader(service: LoopbackService, first: int, count: int) -> subprocess.Popen[str]:
    """Start a process that publishes signals of these numbers, and then waits to be killed."""
    trader = subprocess.Popen(
        [sys.executable, "-c", TRADER, service.url, str(first), str(count)],
        env={**os.environ, "PYTHONPATH": f"{PACKAGE}:{REPOSITORY}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert trader.stdout is not None
    assert trader.stdout.readline() == "published\n"
    return trader


def kill(trader: subprocess.Popen[str]) -> None:
    trader.kill()
    trader.communicate()


def numbers_in(request: Received) -> list[int]:
    return [round(signal["price"] - 100) for signal in request.json()["signals"]]


def wait_until_empty(producer: Producer) -> None:
    ends = time.monotonic() + 30
    while producer.stats().pending or not producer.stats().accepted:
        stats = producer.stats()
        assert stats.accepted == stats.delivered + stats.dead_lettered + stats.pending
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_what_three_killed_traders_left_is_delivered_once_and_in_order_of_each(
    service: LoopbackService,
) -> None:
    """Each was killed over a request: that is sent again as it was, under its request_id."""
    service.script = [STALL] * 3
    traders = [start_trader(service, 1000 * number, 20) for number in range(3)]
    service.wait_until_received(3)
    for trader in traders:
        kill(trader)
    stalled = {request.json()["request_id"]: request.body for request in service.received}
    del service.received[:]
    with Producer(service.url, "key", {ACCOUNT: AccessToken("t")}) as producer:
        wait_until(lambda: producer.stats().delivered >= 60)
        stats = producer.stats()
    assert (stats.recovered, stats.accepted, stats.pending) == (60, 60, 0)
    sent = defaultdict(list)
    for request in service.received:
        for number in numbers_in(request):
            sent[number // 1000].append(number % 1000)
    assert sent == {trader: list(range(20)) for trader in range(3)}
    again = {request.json()["request_id"]: request.body for request in service.received}
    assert stalled.items() <= again.items()


def test_an_adoption_that_is_killed_is_gone_on_with(service: LoopbackService) -> None:
    service.script = [STALL] * 4
    first, second = start_trader(service, 0, 20), start_trader(service, 1000, 20)
    service.wait_until_received(2)
    kill(first)
    kill(second)
    # Takes one slot for its own and adopts the other, and is killed over the first batch of both.
    third = start_trader(service, 2000, 20)
    service.wait_until_received(4)
    kill(third)
    del service.received[:]
    with Producer(service.url, "key", {ACCOUNT: AccessToken("t")}) as producer:
        wait_until_empty(producer)
        wait_until(lambda: producer.stats().delivered >= 60)
        assert producer.stats().recovered == 60
    sent = [number for request in service.received for number in numbers_in(request)]
    assert sorted(sent) == sorted(1000 * trader + n for trader in range(3) for n in range(20))
    for trader in range(3):
        own = [number for number in sent if number // 1000 == trader]
        assert own == sorted(own)


def test_a_producer_that_is_closed_while_it_looks_leaves_its_slot_to_the_next(
    service: LoopbackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever had the slot for a moment would have the next take another, and overtake."""
    adopt, looks, closed = Slot.adopt, threading.Event(), threading.Event()
    found: Queue[Slot | None] = Queue()

    def adopt_late(*arguments: Any, **options: Any) -> Slot | None:
        looks.set()
        assert closed.wait(30)
        found.put(adopt(*arguments, **options))
        return None

    monkeypatch.setattr(Slot, "adopt", adopt_late)
    service.script = [STALL]
    producer = Producer(service.url, "key", {ACCOUNT: AccessToken("t")})
    producer.publish(make_signal(1))
    assert looks.wait(30)
    producer.close(0)
    closed.set()
    assert found.get(timeout=30) is None


def adopting(service: ScriptedService, project: Path, **options: Any) -> Engine:
    return make_engine(service, project=project, make=AdoptingEngine, **options)


async def leave_orphan(project: Path, first: int, count: int, *accounts: UUID) -> None:
    """Publish as a process does that then dies before anything of it was stored."""
    dying = make_engine(
        ScriptedService(script=["lost"] * 1000),
        project=project,
        accounts=accounts or (ONE,),
        seed=1 + first,
        linger_ms=0,
        batch_max_messages=3,
    )
    for number in range(first, first + count):
        for account in accounts or (ONE,):
            publish(dying, make_signal(number), account)
    await asyncio.sleep(0.01)
    await crash(dying)


def keys_sent(service: ScriptedService, account: UUID = ONE) -> list[str]:
    return [
        k for request in service.requests if request.token == str(account) for k in request.keys
    ]


def keys(*numbers: int) -> list[str]:
    times = (make_signal(number).generated_at for number in numbers)
    return [when.isoformat().replace("+00:00", "Z") for when in times]


@pytest.mark.usefixtures("_no_threads")
def test_a_process_that_dies_beside_another_is_adopted_within_the_interval(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        service = ScriptedService()
        reports: list[DeliveryReport] = []
        engine = adopting(service, tmp_path, accounts=[ONE], on_delivery=reports.append)
        await asyncio.sleep(1)
        await leave_orphan(tmp_path, 10, 8)
        publish(engine, make_signal(1), ONE)
        assert await engine.flush(None) == 0
        assert keys_sent(service) == keys(1)
        await asyncio.sleep(LONGEST)
        assert keys_sent(service) == keys(1, *range(10, 18))
        assert_accounted(engine)
        stats = engine.stats()
        assert (stats.accepted, stats.recovered, stats.delivered) == (9, 8, 9)
        assert (stats.pending, stats.published_fsn, stats.acked_fsn) == (0, 1, 1)
        await asyncio.sleep(10 * LONGEST)
        assert engine.stats() == stats
        assert len(reports) == 9
        assert len(keys_sent(service)) == 9
        assert [slot.has_writer for slot in list_slots(tmp_path)] == [True, False]
        await close(engine, 1)

    run(scenario())


@pytest.mark.usefixtures("_no_threads")
def test_of_two_that_look_at_the_same_time_one_adopts(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = ScriptedService(delay=5)
        engines = [adopting(service, tmp_path, accounts=[ONE], seed=-n) for n in range(2)]
        await leave_orphan(tmp_path, 0, 9)
        await asyncio.sleep(LONGEST + 60)
        assert sorted(engine.stats().recovered for engine in engines) == [0, 9]
        assert keys_sent(service) == keys(*range(9))
        for engine in engines:
            assert_accounted(engine)
            await close(engine, 1)

    run(scenario())


@pytest.mark.usefixtures("_no_threads")
def test_an_orphan_of_accounts_that_are_not_served_is_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = ScriptedService()
        engine = adopting(service, tmp_path, accounts=[ONE])
        await leave_orphan(tmp_path, 0, 3, ONE, TWO)
        before = list_slots(tmp_path)
        await asyncio.sleep(LONGEST)
        assert list_slots(tmp_path) == before
        assert service.requests == []
        assert engine.stats().accepted == 0
        both = adopting(service, tmp_path, accounts=[TWO, ONE])
        assert both.stats().recovered == 6
        assert await both.flush(None) == 0
        assert keys_sent(service, ONE) == keys_sent(service, TWO) == keys(0, 1, 2)
        await close(both, 1)
        await close(engine, 1)

    run(scenario())


@pytest.mark.usefixtures("_no_threads")
def test_close_leaves_what_is_not_delivered_to_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = ScriptedService(gate=asyncio.Event())
        engine = adopting(service, tmp_path, accounts=[ONE, TWO])
        await leave_orphan(tmp_path, 0, 9)
        await asyncio.sleep(LONGEST)
        before = asyncio.get_running_loop().time()
        await close(engine, 1)
        assert asyncio.get_running_loop().time() - before < 1.5
        assert_accounted(engine)
        assert (engine.stats().pending, engine.stats().recovered) == (9, 9)
        begun = {request.request_id: request.keys for request in service.requests}
        del service.requests[:]
        service.gate = None
        engine = adopting(service, tmp_path, accounts=[ONE])
        assert engine.stats().recovered == 9
        assert await engine.flush(None) == 0
        assert keys_sent(service) == keys(*range(9))
        again = {request.request_id: request.keys for request in service.requests}
        assert begun.items() <= again.items()
        await close(engine, 1)

    run(scenario())


@pytest.mark.usefixtures("_no_threads")
def test_a_slot_that_is_opened_while_the_producer_closes_is_let_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = adopting(ScriptedService(), tmp_path, accounts=[ONE])
        await leave_orphan(tmp_path, 0, 3)
        await close(engine, 1)
        # The thread that was looking for an orphan meanwhile:
        assert engine._next_orphan() is None  # type: ignore[attr-defined]
        assert engine.stats().accepted == 0
        after = adopting(ScriptedService(), tmp_path, accounts=[ONE])
        assert after.stats().recovered == 3
        await close(after, 1)

    run(scenario())


@pytest.mark.usefixtures("_no_threads")
def test_many_orphans_are_delivered_few_at_a_time_and_one_that_cannot_be_holds_up_no_other(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        class OneIsRefused(ScriptedService):
            async def post(self, path: str, body: bytes, token: str, headers: Any = None) -> Any:
                self.script = [401] if token == str(TWO) else []
                return await super().post(path, body, token, headers)

        service = OneIsRefused(delay=0.5)
        engine = adopting(service, tmp_path, accounts=[ONE, TWO], max_in_flight_requests=2)
        seen = []
        # Alive all at once, so that each has a slot of its own.
        await asyncio.gather(
            leave_orphan(tmp_path, 0, 5, TWO),
            *(leave_orphan(tmp_path, 100 * number, 5) for number in range(1, 13)),
        )
        for _ in range(800):
            await asyncio.sleep(0.1)
            assert_accounted(engine)
            seen.append(len(engine._adopted[1]))  # type: ignore[attr-defined]
        assert max(seen) == 4
        assert service.most_in_flight <= 2
        expected = keys(*(100 * n + i for n in range(1, 13) for i in range(5)))
        assert sorted(service.stored[str(ONE)]) == sorted(expected)
        assert (engine.stats().delivered, engine.stats().pending) == (60, 5)
        assert engine.stats().outage_started_at is not None
        await close(engine, 1)

    run(scenario())


@pytest.mark.usefixtures("_no_threads")
def test_a_delivery_that_fails_stops_no_other_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = 2

    async def scenario() -> None:
        service = ScriptedService()
        engine = adopting(service, tmp_path, accounts=[ONE])
        await asyncio.gather(*(leave_orphan(tmp_path, 100 * number, 5) for number in (1, 2, 3)))
        flush = _Orphan.flush

        async def flush_or_fail(orphan: Engine, seconds: float | None) -> int:
            nonlocal failing
            failing -= 1
            if failing >= 0:
                raise OSError("of a kind that nobody thought of")
            return await flush(orphan, seconds)

        monkeypatch.setattr(_Orphan, "flush", flush_or_fail)
        for moment in range(100):
            await asyncio.sleep(LONGEST / 20)
            assert_accounted(engine)
            if moment == 50:
                await leave_orphan(tmp_path, 400, 5)
        stats = engine.stats()
        assert (stats.recovered, stats.delivered, stats.pending) == (20, 20, 0)
        assert sorted(keys_sent(service)) == sorted(
            keys(*(100 * number + n for number in (1, 2, 3, 4) for n in range(5)))
        )
        await close(engine, 1)

    run(scenario())
