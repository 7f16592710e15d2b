"""Processes that begin in a millisecond: they are forked from one that has imported the client.

`python -m tests.client.faults.zygote` reads a plan a line, forks a trader for it and answers with
its pid; an empty line is answered with the wait status of the oldest trader that was not asked for.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections import deque
from types import TracebackType
from typing import Self

from local_stack.settings import REPOSITORY
from tests.client.faults import trader


class Zygote:
    """The test's end; it and all traders hold the descriptor `alive` until they are gone."""

    def __init__(self, alive: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            pass_fds=[alive],
        )

    def start(self, plan: trader.Plan) -> int:
        """Fork a trader and return its pid; it stays a zombie until `end_of_oldest`."""
        return int(self._ask(plan.to_json()))

    def end_of_oldest(self) -> int:
        """Wait for the oldest trader to end, and return its status as os.waitpid does."""
        return int(self._ask(""))

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdout is not None
        self._process.communicate(timeout=10)


def ended(pid: int, seconds: float) -> bool:
    """Wait for a process, of whatever parent, to end; say whether it did within `seconds`."""
    watched = os.pidfd_open(pid)
    try:
        return bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)


def _main() -> None:
    pids: deque[int] = deque()
    for line in sys.stdin:
        if line.strip():
            pid = os.fork()
            if pid == 0:
                os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdin.fileno())
                os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
                trader.run(trader.Plan.from_json(line))
                return
            pids.append(pid)
            print(pid, flush=True)  # noqa: T201
        else:
            print(os.waitpid(pids.popleft(), 0)[1], flush=True)  # noqa: T201


if __name__ == "__main__":
    _main()
