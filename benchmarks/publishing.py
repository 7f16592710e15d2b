"""One producer process of the end-to-end benchmark: publish evenly, note what came back."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from benchmarks.stored import SYMBOLS, Journal
from signal_persistence import AccessToken, DeliveryReport, Producer, Signal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK_SECONDS = 0.01
PUBLISH_SAMPLE = 97
"""Every so manieth publish() is timed, so that timing costs nothing."""
DRAIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """One account that a process publishes for."""

    account_id: str
    trader_id: str
    access_token: str
    starts_after: float = 0.0
    """Seconds into the run: traders are not in step, so neither are their batches."""


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """What one process does: `signals_per_second` over all its targets for `seconds`."""

    url: str
    key: str
    targets: tuple[Target, ...]
    signals_per_second: float
    seconds: float
    batch_max_messages: int
    linger_ms: float = 100
    agent_spool: Path | None = None
    """The spool whose agent sends for this process; None: it has its own, and sends by itself."""
    place: int = 0
    places: int = 1
    """How many processes may publish for one account: no two make the same signal."""


@dataclass(slots=True)
class Published:
    """What one process did, and what its delivery reports said."""

    journals: list[Journal]
    published_seconds: float = 0.0
    """From the first publish() to the last."""
    finished_seconds: float = 0.0
    """From the first publish() to the last verdict."""
    statuses: Counter[str] = field(default_factory=Counter)
    requests: dict[UUID, list[float]] = field(default_factory=dict)
    """request_id → [milliseconds from sending it to its verdict, number of its signals]."""
    publish_us: list[float] = field(default_factory=list)
    retried: int = 0

    def note(self, report: DeliveryReport) -> None:
        self.statuses[report.status] += 1
        if report.request_id is None:
            return
        request = self.requests.get(report.request_id)
        if request is None:
            self.requests[report.request_id] = [report.round_trip * 1000, 1]
            self.retried += report.attempts > 1
        else:
            request[1] += 1


def publish(plan: PublishPlan, wait_for_the_others: Callable[[], None]) -> Published:
    """Publish what the plan says and wait for every verdict."""
    result = Published([Journal(target.account_id) for target in plan.targets])
    credentials = {
        UUID(target.account_id): AccessToken(target.access_token) for target in plan.targets
    }
    with (
        _spool(plan) as spool_dir,
        Producer(
            plan.url,
            plan.key,
            credentials,
            spool_dir=spool_dir,
            on_delivery=result.note,
            linger_ms=plan.linger_ms,
            batch_max_messages=plan.batch_max_messages,
            agent=plan.agent_spool is not None,
        ) as producer,
    ):
        wait_for_the_others()
        started = time.perf_counter()
        _publish_evenly(plan, producer, result, started)
        result.published_seconds = time.perf_counter() - started
        producer.flush(DRAIN_SECONDS)
        result.finished_seconds = time.perf_counter() - started
    return result


@contextmanager
def _spool(plan: PublishPlan) -> Iterator[Path]:
    if plan.agent_spool is not None:
        yield plan.agent_spool
        return
    with tempfile.TemporaryDirectory(prefix="signal-bench-") as directory:
        yield Path(directory)


def _publish_evenly(
    plan: PublishPlan, producer: Producer, result: Published, started: float
) -> None:
    base = int(time.time() * 1_000_000) // plan.places * plan.places + plan.place
    rate = plan.signals_per_second / len(plan.targets)
    total = round(rate * plan.seconds)
    accounts = [UUID(target.account_id) for target in plan.targets]
    traders = [UUID(target.trader_id) for target in plan.targets]
    done = [0] * len(accounts)
    while min(done) < total:
        elapsed = time.perf_counter() - started
        for place, target in enumerate(plan.targets):
            due = min(total, int((elapsed - target.starts_after) * rate) + 1)
            for number in range(done[place], due):
                symbol = number % len(SYMBOLS)
                microseconds = base + number * plan.places
                price = 1000 + number % 9973 / 4
                signal = _signal(traders[place], symbol, microseconds, price)
                result.journals[place].note(microseconds, symbol, price)
                before = time.perf_counter()
                producer.publish(signal, account_id=accounts[place])
                if number % PUBLISH_SAMPLE == 0:
                    result.publish_us.append((time.perf_counter() - before) * 1_000_000)
            done[place] = max(done[place], due)
        time.sleep(TICK_SECONDS)


def _signal(trader_id: UUID, symbol: int, microseconds: int, price: float) -> Signal:
    return Signal(
        trader_id=trader_id,
        symbol=SYMBOLS[symbol],
        timeframe="1m",
        generated_at=EPOCH + timedelta(microseconds=microseconds),
        action="enter_long",
        confidence=0.75,
        price=price,
        stop_loss=price - 5,
        take_profit=price + 10,
        metadata={"strategy": "bench"},
    )
