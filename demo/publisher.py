"""A trader process: replay markets through strategies and publish what they decide."""

from __future__ import annotations

import logging
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Final

from demo.messages import Failed, Message, Published, PublisherResult, Ready
from demo.plan import DemoAccount, Endpoint, WorkerPlan
from demo.replay import Decided, SignalMaker, decisions
from signal_persistence import DeliveryReport, PasswordCredentials, Producer

_TELL_EVERY: Final = 0.25
_FLUSH_SECONDS: Final = 60.0
_NAP: Final = 0.002
"""Shorter waits are not worth a sleep: the next signals go out together."""


@dataclass(frozen=True, slots=True)
class PublisherJob:
    """Everything a publisher process needs to know."""

    endpoint: Endpoint
    account: DemoAccount
    plan: WorkerPlan
    seconds: float


def publish(job: PublisherJob, messages: Queue[Message], start: Event) -> None:
    """The main function of the process: wait for the start, publish, send the result."""
    # Refusals are part of the plan and are counted; a warning for each would bury the progress.
    logging.getLogger("signal_persistence").setLevel(logging.ERROR)
    try:
        messages.put(_publish(job, messages, start))
    except Exception:
        messages.put(Failed(job.plan.name, traceback.format_exc()))


def _publish(job: PublisherJob, messages: Queue[Message], start: Event) -> PublisherResult:
    result = PublisherResult(job.plan.name, job.account.tier)
    outcomes: Counter[str] = Counter()

    def reported(report: DeliveryReport) -> None:
        outcomes[report.code or report.status] += 1
        result.ack_ms.append(report.round_trip * 1000)
        if report.status == "accepted":
            result.accepted.append(report.signal.signal_id(job.account.account_id))

    credentials = PasswordCredentials(
        job.endpoint.url, job.endpoint.publishable_key, job.account.email, job.account.password
    )
    maker = SignalMaker(job.account.trader_ids, lambda: datetime.now(UTC))
    # A demo leaves nothing behind: its accounts are new each time, and all is delivered in the end.
    with (
        tempfile.TemporaryDirectory(prefix="signal-demo-") as spool_dir,
        Producer(
            job.endpoint.url,
            job.endpoint.publishable_key,
            credentials,
            spool_dir=spool_dir,
            on_delivery=reported,
            max_block_ms=_FLUSH_SECONDS * 1000,
        ) as producer,
    ):
        messages.put(Ready(job.plan.name))
        start.wait()
        tell_at = 0.0
        for decided in _paced(job):
            signal = maker.signal(decided)
            producer.publish(signal)
            result.offered.append(signal.signal_id(job.account.account_id))
            if time.monotonic() >= tell_at:
                tell_at = time.monotonic() + _TELL_EVERY
                messages.put(Published(job.plan.name, len(result.offered), dict(outcomes)))
        producer.flush(_FLUSH_SECONDS)
    messages.put(Published(job.plan.name, len(result.offered), dict(outcomes)))
    result.outcomes = dict(outcomes)
    return result


def _paced(job: PublisherJob) -> Iterator[Decided]:
    """Let decisions through at the planned rate until the time is over."""
    started = time.monotonic()
    ends = started + job.seconds
    for number, decided in enumerate(_endless(job.plan)):
        due = started + number / job.plan.signals_per_second
        now = time.monotonic()
        if now >= ends or due >= ends or number == job.plan.at_most:
            return
        if due - now > _NAP:
            time.sleep(due - now)
        yield decided


def _endless(plan: WorkerPlan) -> Iterator[Decided]:
    """Begin again when the prices end: the clock has moved on, so the signals are new."""
    while True:
        yield from decisions(plan.traders, plan.symbols)
