"""A trader process that publishes, flushes, forks, closes and begins again until it is killed."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self
from unittest import mock
from uuid import UUID

from signal_persistence import Producer, UndeliveredError, settings
from signal_persistence.spool import SpoolSettings
from tests.client.faults.desk import Desk, Stream
from tests.client.faults.journal import Phase, PhaseMark
from tests.client.faults.watch import watching

FILE_OPERATIONS: Final = frozenset(
    {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.listdir"}
    | {"os.scandir", "os.link", "mmap.__new__", "fcntl.flock", "fcntl.lockf", "os.posix_fallocate"}
)
"""Audit events of Python; before one of them a trader can kill itself."""
SMALL_SEGMENTS: Final = partial(SpoolSettings, segment_bytes=16 * 1024, journal_bytes=4096)
"""A few dozen signals fill a segment, so that kills hit the change to the next one too."""
LIFETIME_SECONDS: Final = 30.0
"""What nobody kills ends by itself, in case the test was killed."""


@dataclass(frozen=True)
class Plan:
    """One life of one line of trader processes."""

    desk: Desk
    line: str
    life: int
    accounts: Sequence[UUID]
    seed: int
    forks: bool
    dies_before: int | None = None
    """Which file operation in the spool it does not live to do; None: it is killed from outside."""

    @property
    def mark(self) -> Path:
        return self.desk.folder / f"{self.line}.{self.life}.phase"

    def to_json(self) -> str:
        value = dict(vars(self))
        value["desk"] = self.desk.to_json()
        value["accounts"] = [str(account) for account in self.accounts]
        return json.dumps(value)

    @classmethod
    def from_json(cls, text: str) -> Self:
        value = json.loads(text)
        value["desk"] = Desk.from_json(value["desk"])
        value["accounts"] = [UUID(account) for account in value["accounts"]]
        return cls(**value)


def run(plan: Plan) -> None:
    """Live until killed: producer after producer, a stream per account with each."""
    randomness = random.Random(plan.seed)
    mark = PhaseMark(plan.mark)
    if plan.dies_before is not None:
        _die_before(plan.dies_before, plan.desk.spool)
    with mock.patch.object(settings, "SpoolSettings", SMALL_SEGMENTS):
        _live(plan, mark, randomness)


def _live(plan: Plan, mark: PhaseMark, randomness: random.Random) -> None:
    ends = time.monotonic() + LIFETIME_SECONDS
    for opening in itertools.count():
        name = f"{plan.line}.{plan.life:04}.{opening:02}"
        mark.enter(Phase.OPENING)
        fsync = randomness.choice(["never", "interval", "always"])
        producer = plan.desk.producer(*plan.accounts, spool_fsync=fsync)
        streams = [plan.desk.stream(name, account) for account in plan.accounts]
        mark.enter(Phase.PUBLISHING)
        with watching(producer, streams[0].journal):
            for moment in range(randomness.randrange(2, 40)):
                _trade(producer, streams, randomness)
                if plan.forks and randomness.random() < 0.2:
                    mark.enter(Phase.FORKING)
                    _fork(plan, producer, f"{name}.{moment:02}", randomness)
                    mark.enter(Phase.PUBLISHING)
            mark.enter(Phase.CLOSING)
            with suppress(UndeliveredError):
                producer.close(randomness.choice([0, 0.02, 1]))
        if time.monotonic() > ends:
            sys.exit(f"{name} was not killed")


def _trade(producer: Producer, streams: Sequence[Stream], randomness: random.Random) -> None:
    for stream in streams:
        stream.publish(producer, randomness.randrange(1, 8))
    if randomness.random() < 0.05:
        producer.flush(randomness.random() * 0.05)
    time.sleep(randomness.random() * 0.005)


def _fork(plan: Plan, producer: Producer, name: str, randomness: random.Random) -> None:
    """Have a child publish through the producer that it inherited, and end in one of three ways."""
    seed, patient = randomness.random(), randomness.random() < 0.5
    child = os.fork()
    if child:
        if patient:
            os.waitpid(child, 0)
        return
    code = 1
    try:
        stream = plan.desk.stream(name, plan.accounts[0])
        own = random.Random(seed)
        stream.publish(producer, own.randrange(1, 20))
        way = own.randrange(3)
        if way == 0:
            producer.close(own.random() * 0.2)
        elif way == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        code = 0
    finally:
        os._exit(code)


def _die_before(number: int, folder: Path) -> None:
    """Have this process kill itself before its file operation of this number below `folder`."""
    countdown = iter(range(number - 1, -1, -1))
    prefix = os.fsencode(folder)

    def before(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_OPERATIONS and _concerns(arguments[0], prefix) and not next(countdown):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(before)


def _concerns(target: object, prefix: bytes) -> bool:
    """Say whether an operation is on a path of the spool, or on something already open."""
    if isinstance(target, str | os.PathLike | bytes):
        return os.fsencode(target).startswith(prefix)
    return isinstance(target, int)
