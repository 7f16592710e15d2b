"""Run one function in several processes that start their work at the same moment."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

Plan = TypeVar("Plan")
Result = TypeVar("Result")
PATIENCE_SECONDS = 60.0
"""Beyond the time that the work itself is meant to take."""


def run_together(
    work: Callable[[Plan, Callable[[], None]], Result], plans: Sequence[Plan], seconds: float
) -> list[Result]:
    """Return what `work(plan, wait_for_the_others)` returns, one process for each plan.

    Raises RuntimeError when a process fails or is not done in time; all are ended then.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(plans))
    running = []
    try:
        for plan in plans:
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(work, plan, barrier, sending))
            process.start()
            sending.close()
            running.append((process, receiving))
        return [_receive(receiving, seconds + PATIENCE_SECONDS) for _, receiving in running]
    finally:
        for process, receiving in running:
            receiving.close()
            process.join(5)
            process.kill()


def _child(
    work: Callable[[Plan, Callable[[], None]], Result],
    plan: Plan,
    barrier: Barrier,
    sending: Connection,
) -> None:
    def wait_for_the_others() -> None:
        barrier.wait(PATIENCE_SECONDS)

    sending.send(work(plan, wait_for_the_others))


def _receive(receiving: Connection, timeout: float) -> Any:
    if not receiving.poll(timeout):
        raise RuntimeError(f"Cannot finish the benchmark: a process was not done in {timeout:g} s")
    try:
        return receiving.recv()
    except EOFError:
        raise RuntimeError("Cannot finish the benchmark: a process failed; see above") from None
