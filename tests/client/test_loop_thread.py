"""The thread of the event loop, and the threads that it has for what blocks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from signal_persistence.loop_thread import LoopThread


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread("test")
    yield thread
    thread.close()


async def in_threads(count: int, barrier: threading.Barrier) -> set[str]:
    """Have calls wait for each other in as many threads; return the names of these."""

    def meet() -> str:
        barrier.wait(20)
        return threading.current_thread().name

    return set(await asyncio.gather(*(asyncio.to_thread(meet) for _ in range(count))))


def test_calls_that_block_do_not_wait_for_each_other(loop_thread: LoopThread) -> None:
    for count in (1, 3, 8):
        loop_thread.run(in_threads(count, threading.Barrier(count)))


def test_more_calls_than_threads_are_all_made(loop_thread: LoopThread) -> None:
    before = threading.active_count()
    loop_thread.run(in_threads(40, threading.Barrier(8)))
    assert threading.active_count() <= before + 8


def test_what_a_call_raises_is_raised_to_who_waits_for_it(loop_thread: LoopThread) -> None:
    def fail() -> None:
        raise LookupError("no such name")

    async def call() -> None:
        await asyncio.to_thread(fail)

    with pytest.raises(LookupError, match="no such name"):
        loop_thread.run(call())


def test_the_threads_end_with_the_loop_and_keep_no_process_alive() -> None:
    thread = LoopThread("test-ending")
    thread.run(in_threads(3, threading.Barrier(3)))
    workers = [one for one in threading.enumerate() if one.name == "test-ending-worker"]
    assert len(workers) == 3
    assert all(worker.daemon for worker in workers)
    thread.close()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
