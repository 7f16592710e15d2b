"""Hours of faults in a row: SIGNAL_TEST_SOAK_SECONDS says how long, a few seconds without it.

Two accounts store 100,000 signals a minute together, subscribers of every kind follow, and Realtime
fails in another way every few seconds. At the end everything was seen once, in order, by everyone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import pytest

from signal_persistence import AsyncProducer, AsyncSubscriber, Signal, SubscriptionState
from tests.checkers.histories import AccountHistory, Reader, Stored
from tests.client.live.faults import LiveFaults
from tests.client.live.judging import judge, stored_of
from tests.client.live.recorder import Recorder
from tests.client.publisher import Publisher
from tests.plugins.stack import MakeAccount, RunningStack

SECONDS: Final = float(os.environ.get("SIGNAL_TEST_SOAK_SECONDS", "4"))
PER_SECOND: Final = 100_000 / 60
HEALED_WITHIN: Final = 60.0
_TICK: Final = 0.02
_log: Final = logging.getLogger(__name__)
FAULTS: Final[list[dict[str, Any]]] = [
    *({"kind": "close_sockets", "code": code} for code in (1000, 1001, 1006, 1011, 1012, 4000)),
    {"kind": "close_channel", "message": "Too many messages per second"},
    {"kind": "phx_error"},
    {"kind": "expire_token"},
    {"kind": "refuse_handshake", "status": 503},
    {"kind": "refuse_join", "reason": "RealtimeRestarting: Realtime is restarting"},
    {"kind": "freeze"},
    {"kind": "drop_heartbeats"},
    {"kind": "drop"},
    {"kind": "drop", "count": 5},
    {"kind": "duplicate", "count": 20},
    {"kind": "delay", "ms": 800},
    {"kind": "reorder", "count": 20},
    {"kind": "garble", "count": 5},
    {"kind": "stall_replication"},
    {"kind": "lose_slot"},
]


@dataclass(frozen=True)
class Followed:
    """An account, and who follows it."""

    publisher: Publisher
    all_of_it: Recorder
    slowly: Recorder
    one_symbol: Recorder

    @property
    def recorders(self) -> tuple[Recorder, ...]:
        return self.all_of_it, self.slowly, self.one_symbol


def followed(stack: RunningStack, make_account: MakeAccount) -> Followed:
    publisher = Publisher(stack, make_account("elite"))
    make = partial(AsyncSubscriber, stack.api_url, stack.publishable_key, publisher.credentials)
    return Followed(
        publisher,
        Recorder(make),
        Recorder(make, buffer_signals=200),
        Recorder(make, symbols=["NQ"], transport="rpc"),
    )


@pytest.mark.timeout(SECONDS + 4 * HEALED_WITHIN)
async def test_everything_is_seen_once_in_order_whatever_fails_in_between(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    seed = random.randrange(2**32)
    _log.warning("The faults are those of seed %d", seed)
    accounts = [followed(stack, make_account) for _ in range(2)]
    recorders = [recorder for account in accounts for recorder in account.recorders]
    async with AsyncExitStack() as running:
        faults = await running.enter_async_context(LiveFaults(stack))
        for recorder in recorders:
            await running.enter_async_context(recorder)
        ends = time.monotonic() + SECONDS
        failing = asyncio.create_task(fail_at_random(faults, recorders, random.Random(seed), ends))
        symbols = await asyncio.gather(
            *(publish(stack, one.publisher, PER_SECOND / 2, ends) for one in accounts)
        )
        await failing
        await faults.heal()
        for account, symbol_of in zip(accounts, symbols, strict=True):
            await until_all_is_seen(account, symbol_of)
        await until(lambda: all(is_live(recorder) for recorder in recorders))
    judge([await told(stack, one, of) for one, of in zip(accounts, symbols, strict=True)])


async def publish(
    stack: RunningStack, publisher: Publisher, per_second: float, ends: float
) -> dict[UUID, str]:
    """Publish at an even rate until it ends; return the symbol of each signal."""
    symbol_of: dict[UUID, str] = {}
    began = time.monotonic()
    async with AsyncProducer(
        stack.api_url, stack.publishable_key, publisher.credentials, batch_max_messages=500
    ) as producer:
        while (now := time.monotonic()) < ends:
            for number in range(len(symbol_of), int((now - began) * per_second)):
                signal = Signal(
                    trader_id=publisher.trader_id,
                    symbol="NQ" if number % 10 == 0 else "ES",
                    timeframe="1m",
                    generated_at=datetime.now(UTC),
                    action="enter_long",
                    confidence=0.5,
                    price=1640.25,
                )
                symbol_of[signal.signal_id(publisher.account.account_id)] = signal.symbol
                await producer.publish(signal)
            await asyncio.sleep(_TICK)
        assert await producer.flush(HEALED_WITHIN) == 0
    return symbol_of


async def fail_at_random(
    faults: LiveFaults, recorders: list[Recorder], chance: random.Random, ends: float
) -> None:
    while (left := ends - time.monotonic()) > 0:
        fault = chance.choice(FAULTS)
        await faults.inject(fault)
        chance.choice(recorders).be_slow(chance.random() * 3)
        await asyncio.sleep(min(left, 0.5 + chance.random() * 6))
        if chance.random() < 0.7:
            await faults.heal()


def is_live(recorder: Recorder) -> bool:
    return recorder.subscriber.state is SubscriptionState.LIVE


async def until_all_is_seen(account: Followed, symbol_of: dict[UUID, str]) -> None:
    everything = len(symbol_of)
    some = sum(symbol == "NQ" for symbol in symbol_of.values())
    wanted = zip(account.recorders, (everything, everything, some), strict=True)
    for recorder, count in wanted:
        await until(lambda: len(recorder.observed) >= count)  # noqa: B023 (awaited here)


async def until(reached: Callable[[], bool]) -> None:
    ends = time.monotonic() + HEALED_WITHIN
    while not reached():
        assert time.monotonic() < ends, "it has not healed"
        await asyncio.sleep(_TICK)


async def told(
    stack: RunningStack, account: Followed, symbol_of: dict[UUID, str]
) -> tuple[str, AccountHistory]:
    stored: list[Stored] = await stored_of(stack, account.publisher)
    wanted = {signal_id for signal_id, symbol in symbol_of.items() if symbol == "NQ"}
    readers = (
        Reader("all of it", account.all_of_it.observed),
        Reader("slowly", account.slowly.observed),
        Reader("one symbol", account.one_symbol.observed, wanted=wanted),
    )
    return str(account.publisher.account.account_id), AccountHistory(stored, readers=readers)
