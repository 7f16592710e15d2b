"""A cache over the real stack: what it answers is what the database answers at that seq."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signal_persistence import (
    AccessToken,
    CachedSignals,
    Producer,
    Signal,
    SignalCache,
    SignalChange,
    SignalClient,
    SignalQuery,
    TransportError,
)
from signal_persistence.errors import ClosedError
from tests.client.cuttable_proxy import CuttableProxy
from tests.plugins.stack import MakeAccount, RunningStack

PATIENCE = 30.0


class Desk:
    """An account whose signals are written here, read through a cache and from the database."""

    def __init__(self, stack: RunningStack, make_account: MakeAccount) -> None:
        self.stack = stack
        self.account = make_account("elite")
        self.client = SignalClient.from_env(
            {
                "SUPABASE_URL": stack.api_url,
                "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
                "SIGNALS_ACCESS_TOKEN": self.account.access_token,
            }
        )
        self.traders = [self.client.create_trader(name).trader_id for name in ("a", "b")]
        self.producer: Producer = self.client.producer(spool_dir=None, linger_ms=0)
        self.query: SignalQuery = self.client.query(transport="rpc")
        self.cache: SignalCache = self.client.cache()
        self._next = 0

    def publish(self, fields: list[dict[str, Any]], *, tell: bool) -> None:
        """Store signals; tell the cache, as a process does that reads what it writes."""
        deliveries = [self.producer.publish(self._signal(**each)) for each in fields]
        for delivery in deliveries:
            report = delivery.result(PATIENCE)
            if tell:
                self.cache.wrote(report)

    def advance(self, number: int, status: Any) -> None:
        stored = self.stored(count=1000)
        if stored:
            change = SignalChange.of(stored[number % len(stored)], status, reason=f"no. {number}")
            self.cache.wrote(self.client.advance([change]))

    def stored(self, *, count: int, **options: Any) -> list[Any]:
        """What the database answers now."""
        within = options.pop("within", None)
        if within is not None:
            options["from_"] = datetime.now(UTC) - within
        return list(self.query.page(page_size=count, **options).signals)

    def check(self, answer: CachedSignals, count: int, options: dict[str, Any]) -> None:
        stored = self.stored(count=1000, **options)
        expected = [signal for signal in stored if signal.seq <= answer.seq]
        assert list(answer.signals) == expected[:count]
        assert answer.complete == (len(expected) <= count)

    def close(self) -> None:
        self.cache.close()
        self.query.close()
        self.producer.close()
        self.client.close()

    def _signal(self, trader: int = 0, age: float = 0.0, **changes: Any) -> Signal:
        self._next += 1
        fields: dict[str, Any] = {
            "trader_id": self.traders[trader],
            "symbol": "ES",
            "timeframe": "1m",
            "generated_at": datetime.now(UTC)
            - timedelta(minutes=30 + age)
            + timedelta(microseconds=self._next),
            "action": "enter_long",
            "confidence": 0.5,
            "price": 100.0,
        }
        signal = Signal(**fields | changes)
        if self._next % 5 == 0:
            ends = signal.generated_at + timedelta(minutes=1)
            return Signal(**{**fields, **changes, "valid_until": ends, "metadata": {"n": 0.1}})
        return signal


@pytest.fixture
def desk(stack: RunningStack, make_account: MakeAccount) -> Iterator[Desk]:
    desk = Desk(stack, make_account)
    yield desk
    desk.close()


def until(reached: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < ends, "what was waited for did not happen"
        time.sleep(0.01)


LONG_AGO = datetime.now(UTC) - timedelta(hours=6)
QUESTIONS: list[tuple[int, dict[str, Any]]] = [
    (1, {"symbols": ["ES"]}),
    (5, {"symbols": ["ES", "NQ"], "timeframes": ["1m"]}),
    (7, {"min_confidence": 0.5, "actions": ["enter_long"]}),
    (500, {"from_": LONG_AGO}),
    (500, {"within": timedelta(hours=3), "symbols": ["NQ"]}),
]


def any_step(chance: random.Random) -> tuple[Any, ...]:
    """A step of a process that writes and reads, as it may come."""
    match chance.choice(["publish", "advance", "wait", "read", "read", "read", "read"]):
        case "publish":
            fields = [any_signal(chance) for _ in range(chance.choice([1, 3, 30]))]
            return "publish", fields, chance.random() < 0.5
        case "advance":
            return "advance", chance.randrange(20), chance.choice(["analyzed", "executed"])
        case "wait":
            return "wait", chance.choice([0.0, 0.05, 0.3])
        case _:
            return "read", chance.randrange(len(QUESTIONS))


def any_signal(chance: random.Random) -> dict[str, Any]:
    return {
        "trader": chance.randrange(2),
        "symbol": chance.choice(["ES", "NQ"]),
        "timeframe": chance.choice(["1m", "5m"]),
        "confidence": chance.choice([0.3, 0.5, 0.7]),
        "age": chance.choice([0.0, 0.0, 20.0, 45.5]),
    }


# Not drawn by hypothesis, which takes the jitter of a background thread for a random strategy.
@pytest.mark.parametrize("seed", range(3))
def test_an_answer_is_what_the_database_answers_at_its_seq(desk: Desk, seed: int) -> None:
    chance = random.Random(seed)
    desk.cache.wait_until_live(PATIENCE)
    for _ in range(60):
        match any_step(chance):
            case ("publish", fields, tell):
                desk.publish(fields, tell=tell)
            case ("advance", number, status):
                desk.advance(number, status)
            case ("wait", seconds):
                time.sleep(seconds)
            case ("read", number):
                count, options = QUESTIONS[number]
                desk.check(desk.cache.newest(count, **options), count, options)
    stats = desk.cache.stats()
    assert stats.hits
    assert stats.merged


def test_an_own_write_is_always_seen_and_other_questions_stay_in_memory(desk: Desk) -> None:
    desk.cache.wait_until_live(PATIENCE)
    desk.cache.newest(symbols=["NQ"])
    for number in range(1, 21):
        delivery = desk.producer.publish(desk._signal())
        report = delivery.result(PATIENCE)
        desk.cache.wrote(report)
        answer = desk.cache.newest()
        assert len(answer.signals) == number
        assert answer.seq >= (report.seq or 0)
        assert len(desk.cache.newest(at_least=number).signals) == number
    loads = desk.cache.stats().loads
    assert desk.cache.newest(symbols=["NQ"], max_stale=60).cached
    assert desk.cache.stats().loads == loads


def test_what_another_process_writes_arrives_without_a_query(desk: Desk) -> None:
    desk.cache.wait_until_live(PATIENCE)
    assert desk.cache.latest(symbols=["ES"]) is None
    loads = desk.cache.stats().loads
    desk.publish([{}] * 45, tell=False)
    until(lambda: desk.cache.stats().merged == 45)
    answer = desk.cache.newest(1, symbols=["ES"], max_stale=60)
    assert answer.cached
    assert answer.seq == 45
    assert desk.cache.stats().loads == loads


def test_threads_share_a_cache_and_each_reads_forward_only(desk: Desk) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        seq = 0
        try:
            while not done.is_set():
                answer = desk.cache.newest(10)
                assert answer.seq >= seq
                seq = answer.seq
                assert [one.seq for one in answer.signals] == list(range(seq, max(seq - 10, 0), -1))
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    for _ in range(10):
        desk.publish([{}] * 7, tell=True)
    done.set()
    for reader in readers:
        reader.join(PATIENCE)
    assert not failures
    assert desk.cache.stats().hits > desk.cache.stats().loads


def test_a_forked_child_is_told_to_make_its_own(desk: Desk) -> None:
    desk.cache.newest()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        code = 1
        try:
            desk.cache.newest(max_stale=0)
        except ClosedError:
            desk.cache.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert desk.cache.newest().signals == ()


@pytest.fixture
async def proxy(stack: RunningStack) -> AsyncIterator[CuttableProxy]:
    async with CuttableProxy(stack.settings.api_port) as running:
        yield running


async def test_while_nothing_can_be_reached_it_says_how_old_an_answer_is(
    desk: Desk, proxy: CuttableProxy
) -> None:
    credentials = AccessToken(desk.account.access_token)
    client = SignalClient(proxy.url, desk.stack.publishable_key, credentials)
    with client:
        cache = client.async_cache(timeout=5.0)
    async with cache:
        await cache.wait_until_live(PATIENCE)
        assert (await cache.newest()).signals == ()
        proxy.block()
        await asyncio.to_thread(desk.publish, [{}] * 3, tell=False)
        with pytest.raises(TransportError):
            await cache.newest(max_stale=0.001)
        old = await cache.newest(max_stale=3600)
        assert old.cached
        assert old.signals == ()
        assert old.age > 0.001
        proxy.unblock()
        assert len((await cache.newest(at_least=3)).signals) == 3
        await cache.wait_until_live(PATIENCE)
