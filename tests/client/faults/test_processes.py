"""However an application starts, forks and ends its processes, what it published is stored once.

Each scenario runs in an interpreter of its own. Afterwards the slots are delivered, as the next
process would, and the database is compared with the journals.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local_stack.settings import REPOSITORY
from tests.client.faults import scenarios
from tests.client.faults.desk import Desk, MakeDesk
from tests.client.faults.oracle import assert_sound, deliver_all
from tests.client.faults.scenarios import COUNT, SCENARIOS, Scenario, over
from tests.plugins.stack import RunningStack

SETTINGS: dict[str, Any] = {"linger_ms": 20, "batch_max_messages": 20}
PATIENCE_SECONDS = 30.0


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_what_processes_published_is_stored_once_in_the_order_of_each(
    stack: RunningStack, make_desk: MakeDesk, scenario: Scenario
) -> None:
    desk = make_desk(**SETTINGS)
    ended = play(scenario, desk)
    try:
        assert ended == scenario.code, output(desk).read_text()
        deliver_all(desk)
        slots = list(desk.spool.glob("*/slots/*/"))
    finally:
        over(desk).touch()
    counts = assert_sound(desk, stack.database_url)
    assert scenario.streams in (None, counts["accepted"] / COUNT)
    assert scenario.slots in (None, len(slots))


def play(scenario: Scenario, desk: Desk) -> int:
    """Run a scenario, wait for all its processes but those it leaves, and return its exit code."""
    readable, writable = os.pipe()
    with closing(os.fdopen(readable)) as gone, output(desk).open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", scenarios.__name__, scenario.name, desk.to_json()],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[writable],
            start_new_session=True,
        )
        os.close(writable)
        try:
            if not scenario.leaves_processes:
                # The pipe ends when no process has it open any more.
                assert select.select([gone], [], [], PATIENCE_SECONDS)[0], "a process does not end"
            return process.wait(PATIENCE_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def output(desk: Desk) -> Path:
    """Return the file with what the processes printed."""
    return desk.folder / "output"
