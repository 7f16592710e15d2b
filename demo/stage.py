"""Hold a demonstration: start the processes, follow their messages, gather the evidence."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any, Final

from demo.checks import Evidence
from demo.display import Display, Progress, say
from demo.follower import NAME as FOLLOWER
from demo.follower import Finish, FollowerJob, follow
from demo.isolation import intrude
from demo.messages import (
    Failed,
    FollowerResult,
    Message,
    Observed,
    Published,
    PublisherResult,
    Ready,
)
from demo.plan import DemoAccount, Endpoint, WorkerPlan
from demo.publisher import PublisherJob, publish
from demo.setting import DemoError
from signal_persistence import PasswordCredentials, SignalQuery
from tests.checkers.histories import Stored

_PATIENCE_SECONDS: Final = 120.0
"""How long a process may be silent before the demonstration is called off."""
_END_SECONDS: Final = 5.0


def perform(
    endpoint: Endpoint,
    accounts: Mapping[str, DemoAccount],
    plans: Sequence[WorkerPlan],
    seconds: float,
    display: Display,
) -> Evidence:
    """Publish for `seconds` while everything is followed, then read everything back."""
    context = multiprocessing.get_context("spawn")
    messages: Queue[Message] = context.Queue()
    finish: Queue[Finish] = context.Queue()
    start = context.Event()
    follower = FollowerJob(endpoint, list(accounts.values()))
    jobs = [PublisherJob(endpoint, accounts[plan.tier], plan, seconds) for plan in plans]
    with _processes(
        context,
        [
            (FOLLOWER, follow, (follower, messages, finish)),
            *((job.plan.name, publish, (job, messages, start)) for job in jobs),
        ],
    ) as processes:
        progress = Progress({plan.name: plan.tier for plan in plans})
        hall = _Hall(messages, processes, progress, display)
        say("Waiting until every process is ready and every subscriber is live")
        hall.until(lambda: len(hall.ready) == len(processes), show=False)
        began = datetime.now(UTC)
        hall.progress.started_at = time.monotonic()
        start.set()
        hall.until(lambda: len(hall.published) == len(plans))
        ended = datetime.now(UTC)
        stored = {tier: read_back(endpoint, account) for tier, account in accounts.items()}
        finish.put({tier: signals[-1].seq if signals else 0 for tier, signals in stored.items()})
        hall.until(lambda: hall.followed is not None)
        followed = hall.followed
    if followed is None:
        raise DemoError("Cannot judge the demonstration: the follower has no result.")
    intrusion = intrude(endpoint, accounts["free"], accounts["elite"])
    minutes = int(ended.timestamp() // 60 - began.timestamp() // 60) + 1
    return Evidence(hall.published, followed, stored, intrusion, minutes)


def read_back(endpoint: Endpoint, account: DemoAccount) -> list[Stored]:
    """Return everything the account stores, by seq."""
    credentials = PasswordCredentials(
        endpoint.url, endpoint.publishable_key, account.email, account.password
    )
    with SignalQuery(endpoint.url, endpoint.publishable_key, credentials) as query:
        return [
            Stored(found.signal_id, found.seq) for found in query.signals(after_seq=0, sort="seq")
        ]


class _Hall:
    """Where the messages of all processes come together."""

    def __init__(
        self,
        messages: Queue[Message],
        processes: Sequence[SpawnProcess],
        progress: Progress,
        display: Display,
    ) -> None:
        self._messages = messages
        self._processes = processes
        self._display = display
        self.progress = progress
        self.ready: set[str] = set()
        self.published: list[PublisherResult] = []
        self.followed: FollowerResult | None = None

    def until(self, reached: Callable[[], bool], *, show: bool = True) -> None:
        """Take messages in until `reached`; raise DemoError when a process fails or is silent."""
        heard_at = time.monotonic()
        while not reached():
            try:
                self._take_in(self._messages.get(timeout=0.2))
                heard_at = time.monotonic()
            except Empty:
                self._look_after_processes(time.monotonic() - heard_at)
            if show:
                self._display.update(self.progress)

    def _take_in(self, message: Message) -> None:
        match message:
            case Ready():
                self.ready.add(message.sender)
            case Published():
                self.progress.published[message.sender] = message
            case Observed():
                self.progress.observed = message
            case PublisherResult():
                self.published.append(message)
            case FollowerResult():
                self.followed = message
            case Failed():
                raise DemoError(f"Process {message.sender} failed:\n{message.error}")

    def _look_after_processes(self, silent_seconds: float) -> None:
        for process in self._processes:
            if process.exitcode not in (None, 0):
                raise DemoError(f"Process {process.name} died with exit code {process.exitcode}.")
        if silent_seconds > _PATIENCE_SECONDS:
            raise DemoError("No process has been heard of; scripts/stack logs may tell why.")


@contextmanager
def _processes(
    context: SpawnContext, mains: Sequence[tuple[str, Callable[..., None], tuple[Any, ...]]]
) -> Iterator[list[SpawnProcess]]:
    """Start the processes, and leave none behind."""
    processes = [
        context.Process(target=_act, args=(main, arguments), name=name, daemon=True)
        for name, main, arguments in mains
    ]
    try:
        for process in processes:
            process.start()
        yield processes
        for process in processes:
            process.join(_END_SECONDS)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()


def _act(main: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run a process: an interrupt from the keyboard is for the one that holds it to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(*arguments)
