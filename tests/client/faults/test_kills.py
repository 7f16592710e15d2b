"""Trader processes are killed at random moments and begin again, and no signal is lost or doubled.

Each notes in a journal of its own which publish() returned. Half are killed by the clock, in a
phase that is drawn (opening a spool and adopting what it holds, publishing, forking, closing), half
kill themselves before a drawn file operation: a segment's beginning, a rename, a lock. In the end
the slots are delivered and the journals are compared with the real database.
"""

from __future__ import annotations

import os
import random
import select
import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from tests.client.faults.desk import Desk, MakeDesk
from tests.client.faults.journal import Phase, PhaseMark
from tests.client.faults.oracle import assert_sound, deliver_all, found
from tests.client.faults.trader import Plan
from tests.client.faults.zygote import Zygote, ended
from tests.plugins.stack import RunningStack

KILLS = int(os.environ.get("SIGNAL_TEST_KILLS", "200"))
SEED = int(os.environ.get("SIGNAL_TEST_SEED", "0")) or random.randrange(1, 2**32)
DEADLINE_SECONDS = 30.0
OPERATIONS = 120
"""The file operations before which a trader may kill itself: a third of them open the spool."""
SETTINGS: dict[str, Any] = {
    "linger_ms": 5,
    "batch_max_messages": 50,
    "retry_backoff_ms": 5,
    "retry_backoff_max_ms": 100,
}


@dataclass(frozen=True)
class Line:
    """A trader that is started again whenever it was killed.

    One that is `alone` at its accounts should have its signals stored in the order of its calls,
    those of all its lives. Where processes share an account, each of them keeps its own order.
    """

    name: str
    accounts: Sequence[UUID]
    alone: bool


@pytest.mark.timeout(KILLS + 120)
def test_nothing_is_lost_or_doubled_when_traders_are_killed_again_and_again(
    stack: RunningStack, make_desk: MakeDesk
) -> None:
    desk = make_desk(4, **SETTINGS)
    first, second, third, shared = desk.tokens
    lines = [
        Line("alone", [first], alone=True),
        Line("pair", [second, third], alone=True),
        Line("left", [shared], alone=False),
        Line("right", [shared], alone=False),
    ]
    killed = kill_all(desk, lines, KILLS)
    deliver_all(desk)
    alone = {line.name for line in lines if line.alone}
    counts = assert_sound(desk, stack.database_url, lambda stream: writer_of(stream, alone))
    print(f"killed while {killed}; {counts}")  # noqa: T201
    assert killed.total() >= KILLS
    assert counts["accepted"] > killed.total()
    assert counts["looks"] > 0
    if KILLS >= 100:
        assert set(killed) >= set(Phase) - {Phase.STARTING}, killed


def test_the_same_harness_sees_what_a_producer_without_a_spool_loses(
    stack: RunningStack, make_desk: MakeDesk
) -> None:
    desk = make_desk(1, **SETTINGS, spool_dir=None)
    line = Line("alone", [desk.account_id], alone=True)
    kill_all(desk, [line], 8)
    assert set(found(desk, stack.database_url)) == {"lost"}


def kill_all(desk: Desk, lines: Sequence[Line], kills: int) -> Counter[Phase]:
    """Kill so many traders of all lines together; return in which phase they were."""
    print(f"SIGNAL_TEST_SEED={SEED}")  # noqa: T201
    share = -(-kills // len(lines))
    readable, alive = os.pipe()
    with ThreadPoolExecutor(len(lines)) as pool:
        runs = [pool.submit(kill_line, desk, line, share, alive) for line in lines]
        killed = sum((run.result() for run in runs), Counter[Phase]())
    os.close(alive)
    with closing(os.fdopen(readable)) as left:
        # The children that traders forked end by themselves.
        assert select.select([left], [], [], DEADLINE_SECONDS)[0], "a forked child does not end"
    return killed


def kill_line(desk: Desk, line: Line, kills: int, alive: int) -> Counter[Phase]:
    randomness = random.Random(f"{SEED} {line.name}")
    killed: Counter[Phase] = Counter()
    with Zygote(alive) as zygote:
        for life in range(kills):
            seed, by_itself = randomness.getrandbits(32), randomness.random() < 0.5
            before = randomness.randrange(1, OPERATIONS) if by_itself else None
            plan = Plan(desk, line.name, life, line.accounts, seed, not line.alone, before)
            pid = zygote.start(plan)
            if not by_itself:
                phase = randomness.choice(list(Phase))
                await_phase(plan, phase, pid)
            # One who has not killed itself by then has no more file operations.
            ended(pid, 0.6 if by_itself else randomness.expovariate(1 / 0.02))
            killed[PhaseMark.read(plan.mark)] += 1
            os.kill(pid, signal.SIGKILL)
            status = zygote.end_of_oldest()
            assert os.WIFSIGNALED(status), f"{line.name}.{life} ended by itself: {status}"
    return killed


def await_phase(plan: Plan, phase: Phase, pid: int) -> None:
    """Wait for the trader to be in this phase; a phase that does not come is not waited for."""
    for _ in range(300):
        if PhaseMark.read(plan.mark) >= phase or ended(pid, 0.001):
            return


def writer_of(stream: str, alone: set[str]) -> str:
    """Name who published a stream: a whole line if it was alone, else only one producer."""
    line = stream.split(".")[0]
    return line if line in alone else stream
