"""Ways in which the processes of an application begin, fork and end around a producer.

`python -m tests.client.faults.scenarios NAME DESK` plays one in an interpreter of its own. Every
publish() that returns is in a journal; what is stored in the end is compared with the journals by
the test, so a scenario itself asserts nothing.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext
from pathlib import Path
from typing import Final

from signal_persistence import ClosedError, Producer
from tests.client.faults.desk import Desk
from tests.client.faults.watch import watching

COUNT: Final = 50
"""Signals that one stream publishes where nothing else is said."""
Start = ForkContext | SpawnContext | ForkServerContext


@dataclass(frozen=True)
class Scenario:
    """What one process does, how many signals are accepted in all and how the process ends."""

    play: Callable[[Desk], None]
    streams: int | None
    """How many streams publish COUNT signals each; None: as many as they get to."""
    code: int = 0
    slots: int | None = None
    """How many slots there are in the end, where that matters."""
    leaves_processes: bool = False
    """Whether a process is left behind until the file `over` is there."""

    @property
    def name(self) -> str:
        return self.play.__name__


SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(
    streams: int | None, code: int = 0, slots: int | None = None, *, leaves_processes: bool = False
) -> Callable[[Callable[[Desk], None]], Callable[[Desk], None]]:
    def add(play: Callable[[Desk], None]) -> Callable[[Desk], None]:
        SCENARIOS[play.__name__] = Scenario(play, streams, code, slots, leaves_processes)
        return play

    return add


KEPT: Final[list[Producer]] = []


def keep(producer: Producer) -> Producer:
    """Hold on to a producer until the interpreter ends."""
    KEPT.append(producer)
    return producer


def trade(desk: Desk, producer: Producer, name: str, count: int = COUNT) -> None:
    """Publish a stream while another thread looks at the producer's counts."""
    stream = desk.stream(name)
    with watching(producer, stream.journal):
        stream.publish(producer, count)


def fork(work: Callable[[], object]) -> int:
    """Do some work in a child that ends without any cleaning up; return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def wait(*pids: int) -> None:
    """Wait for children; one that failed makes this process fail."""
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    if failed:
        sys.exit(f"{len(failed)} children failed")


@contextmanager
def child_too(producer: Producer, work: Callable[[], object]) -> Iterator[None]:
    """Have a child do some work and close the producer it inherited, at the same time."""

    def work_and_close() -> None:
        work()
        producer.close()

    pid = fork(work_and_close)
    yield
    wait(pid)


@scenario(streams=2)
def fork_before_the_first_signal(desk: Desk) -> None:
    with desk.producer() as producer, child_too(producer, partial(trade, desk, producer, "child")):
        trade(desk, producer, "parent")


@scenario(streams=3)
def fork_between_signals(desk: Desk) -> None:
    with desk.producer() as producer:
        trade(desk, producer, "parent.before")
        with child_too(producer, partial(trade, desk, producer, "child")):
            trade(desk, producer, "parent.after")


@scenario(streams=2)
def fork_with_everything_stored(desk: Desk) -> None:
    with desk.producer() as producer:
        trade(desk, producer, "parent")
        producer.flush()
        with child_too(producer, partial(trade, desk, producer, "child")):
            pass


@scenario(streams=3)
def child_ends_without_closing(desk: Desk) -> None:
    with desk.producer() as producer:
        trade(desk, producer, "parent.before")
        wait(fork(partial(trade, desk, producer, "child")))
        trade(desk, producer, "parent.after")


@scenario(streams=2)
def child_leaves_through_the_block_of_its_parent(desk: Desk) -> None:
    with desk.producer() as producer:
        trade(desk, producer, "parent")
        pid = os.fork()
        if pid == 0:
            trade(desk, producer, "child")
            sys.exit()
        wait(pid)


@scenario(streams=2)
def parent_ends_before_its_child(desk: Desk) -> None:
    producer = desk.producer()
    trade(desk, producer, "parent")
    parent = os.getpid()

    def outlive() -> None:
        while os.getppid() == parent:
            time.sleep(0.001)
        trade(desk, producer, "child")
        producer.close()

    fork(outlive)
    os._exit(0)


@scenario(streams=4)
def grandchildren_publish(desk: Desk) -> None:
    def publish_below(generation: int) -> None:
        trade(desk, producer, f"generation.{generation}")
        if generation < 3:
            with child_too(producer, partial(publish_below, generation + 1)):
                pass

    with desk.producer() as producer:
        publish_below(0)


@scenario(streams=4 + 8)
def fork_while_threads_publish(desk: Desk) -> None:
    with desk.producer() as producer:
        names = [f"thread.{number}" for number in range(4)]
        threads = [
            threading.Thread(target=trade, args=(desk, producer, name, COUNT)) for name in names
        ]
        for thread in threads:
            thread.start()
        children = []
        for number in range(8):
            children.append(fork(partial(trade, desk, producer, f"child.{number}")))
            time.sleep(0.003)
        for thread in threads:
            thread.join()
        wait(*children)


@scenario(streams=2)
def fork_in_a_delivery_callback(desk: Desk) -> None:
    children: list[int] = []

    def fork_once(_: object) -> None:
        if not children:
            children.append(fork(partial(trade, desk, producer, "child")))

    with desk.producer(on_delivery=fork_once) as producer:
        trade(desk, producer, "parent")
        producer.flush()
    wait(*children)


@scenario(streams=2)
def fork_while_another_thread_closes(desk: Desk) -> None:
    producer = desk.producer()
    trade(desk, producer, "parent")
    closing = threading.Thread(target=producer.close)
    closing.start()

    def publish_by_a_new_one() -> None:
        with desk.producer() as own:
            trade(desk, own, "child")

    pid = fork(publish_by_a_new_one)
    closing.join()
    wait(pid)


def work_with_a_producer_of_its_own(text: str, name: str) -> None:
    desk = Desk.from_json(text)
    with desk.producer() as producer:
        trade(desk, producer, name)


def work_and_leave_it_open(text: str, name: str) -> None:
    desk = Desk.from_json(text)
    trade(desk, desk.producer(), name)


def start_processes(desk: Desk, start: Start, work: Callable[[str, str], None]) -> None:
    with desk.producer() as producer:
        trade(desk, producer, "parent")
        arguments = [(desk.to_json(), f"worker.{number}") for number in range(3)]
        workers = [start.Process(target=work, args=each) for each in arguments]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            sys.exit("a worker failed")


@scenario(streams=4)
def multiprocessing_by_fork(desk: Desk) -> None:
    start_processes(desk, multiprocessing.get_context("fork"), work_with_a_producer_of_its_own)


@scenario(streams=4)
def multiprocessing_by_spawn(desk: Desk) -> None:
    start_processes(desk, multiprocessing.get_context("spawn"), work_with_a_producer_of_its_own)


@scenario(streams=4)
def multiprocessing_by_forkserver(desk: Desk) -> None:
    start_processes(
        desk, multiprocessing.get_context("forkserver"), work_with_a_producer_of_its_own
    )


@scenario(streams=4)
def multiprocessing_workers_leave_their_producers_open(desk: Desk) -> None:
    start_processes(desk, multiprocessing.get_context("fork"), work_and_leave_it_open)


@scenario(streams=5)
def a_pool_of_processes_inherits_the_producer(desk: Desk) -> None:
    with desk.producer() as producer:
        trade(desk, producer, "parent")
        keep(producer)
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
            work = partial(publish_by_the_kept_one, desk)
            list(pool.map(work, [f"task.{number}" for number in range(4)]))


def publish_by_the_kept_one(desk: Desk, name: str) -> None:
    [producer] = KEPT
    trade(desk, producer, name)


@scenario(streams=1 + 4)
def workers_of_a_preloading_server(desk: Desk) -> None:
    """What gunicorn --preload does: import the application, fork, replace the dead, end by SIGTERM.

    A worker leaves by sys.exit, so its atexit functions run; one is killed and replaced.
    """
    producer = desk.producer()
    trade(desk, producer, "master")

    def serve(name: str) -> None:
        asked_to_end = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())
        trade(desk, producer, name)
        Path(desk.folder, f"{name}.served").touch()
        while not asked_to_end.is_set():
            time.sleep(0.001)
        atexit._run_exitfuncs()

    def served(name: str) -> None:
        while not Path(desk.folder, f"{name}.served").exists():
            time.sleep(0.001)

    workers = {name: fork(partial(serve, name)) for name in ("worker.1", "worker.2", "worker.3")}
    for name in workers:
        served(name)
    os.kill(workers["worker.2"], signal.SIGKILL)
    os.waitpid(workers.pop("worker.2"), 0)
    workers["worker.4"] = fork(partial(serve, "worker.4"))
    served("worker.4")
    for pid in workers.values():
        os.kill(pid, signal.SIGTERM)
    wait(*workers.values())


@scenario(streams=1)
def end_without_any_cleaning_up(desk: Desk) -> None:
    trade(desk, desk.producer(), "only")
    os._exit(0)


@scenario(streams=1, code=-signal.SIGTERM)
def end_by_sigterm(desk: Desk) -> None:
    producer = desk.producer()
    trade(desk, producer, "only")
    os.kill(os.getpid(), signal.SIGTERM)


@scenario(streams=1, code=3)
def end_by_a_handler_of_sigterm(desk: Desk) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    with desk.producer() as producer:
        trade(desk, producer, "only")
        os.kill(os.getpid(), signal.SIGTERM)


@scenario(streams=1)
def end_of_the_interpreter_without_closing(desk: Desk) -> None:
    producer = keep(desk.producer())
    trade(desk, producer, "only")


@scenario(streams=1)
def end_with_a_producer_that_nobody_holds(desk: Desk) -> None:
    trade(desk, desk.producer(), "only")
    gc.collect()


@scenario(streams=1, code=1)
def end_by_an_error_in_the_block(desk: Desk) -> None:
    with desk.producer() as producer:
        trade(desk, producer, "only")
        raise RuntimeError("planned")


@scenario(streams=1, code=1)
def end_by_an_error_without_a_block(desk: Desk) -> None:
    producer = keep(desk.producer())
    trade(desk, producer, "only")
    raise RuntimeError("planned")


@scenario(streams=None)
def end_while_a_daemon_thread_publishes(desk: Desk) -> None:
    producer = desk.producer()
    stream = desk.stream("daemon")

    def publish_until_the_end() -> None:
        with suppress(ClosedError):
            while True:
                stream.publish(producer)

    threading.Thread(target=publish_until_the_end, daemon=True).start()
    time.sleep(0.05)


@scenario(streams=None)
def publish_after_the_producer_was_closed_at_exit(desk: Desk) -> None:
    producer = keep(desk.producer())
    trade(desk, producer, "before")
    late = desk.stream("late")

    def publish_late() -> None:
        with suppress(ClosedError):
            late.publish(producer, COUNT)

    atexit.register(publish_late)


@scenario(streams=8)
def threads_share_a_producer(desk: Desk) -> None:
    with desk.producer() as producer, concurrent.futures.ThreadPoolExecutor(8) as pool:
        work = partial(trade, desk, producer)
        list(pool.map(work, [f"thread.{number}" for number in range(8)]))


@scenario(streams=2, slots=2)
def two_producers_of_one_process(desk: Desk) -> None:
    with desk.producer() as first, desk.producer() as second:
        trade(desk, first, "first")
        trade(desk, second, "second")


@scenario(streams=3, slots=1)
def one_producer_after_the_other(desk: Desk) -> None:
    for number in range(3):
        with desk.producer() as producer:
            trade(desk, producer, f"producer.{number}")


@scenario(streams=2)
def two_event_loops_after_one_another(desk: Desk) -> None:
    asyncio.run(publish_in_a_loop(desk, "first", close=True))
    asyncio.run(publish_in_a_loop(desk, "second", close=True))


@scenario(streams=1)
def an_event_loop_ends_with_its_producer_open(desk: Desk) -> None:
    asyncio.run(publish_in_a_loop(desk, "only", close=False))


async def publish_in_a_loop(desk: Desk, name: str, *, close: bool) -> None:
    producer = desk.async_producer()
    stream = desk.stream(name)
    for _ in range(COUNT):
        number = stream.journal.offer()
        await producer.publish(desk.signal(name, number, desk.account_id))
        stream.journal.accept()
    if close:
        await producer.close()


def over(desk: Desk) -> Path:
    """Return the file that the test makes when what is left of a scenario shall end."""
    return desk.folder / "over"


@scenario(streams=1, code=-signal.SIGKILL, slots=1, leaves_processes=True)
def a_program_that_was_started_outlives_the_process(desk: Desk) -> None:
    """Whoever comes next gets the slot: no descriptor of it may have gone to the program."""
    trade(desk, desk.producer(), "only")
    wait_for_the_end = f"until [ -e {over(desk)} ]; do sleep 0.05; done"
    subprocess.Popen(["sh", "-c", wait_for_the_end], close_fds=False)
    os.kill(os.getpid(), signal.SIGKILL)


@scenario(streams=1, code=-signal.SIGKILL, slots=1, leaves_processes=True)
def a_forked_child_outlives_the_process(desk: Desk) -> None:
    """Whoever comes next gets the slot: the child must not keep its parent's locks."""
    trade(desk, desk.producer(), "only")
    began = desk.folder / "began"

    def wait_for_the_end() -> None:
        began.touch()
        while not over(desk).exists():
            time.sleep(0.01)

    fork(wait_for_the_end)
    while not began.exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


@scenario(streams=2)
def the_working_directory_changes(desk: Desk) -> None:
    os.chdir(desk.folder)
    with desk.producer(spool_dir=desk.spool.relative_to(desk.folder)) as producer:
        trade(desk, producer, "before")
        os.chdir("/")
        trade(desk, producer, "after")


@scenario(streams=2)
def finalizers_publish_in_the_middle_of_publishing(desk: Desk) -> None:
    """The garbage collector may run anywhere, also where the producer holds a lock."""
    producer = desk.producer()
    finalizers, numbers = desk.stream("finalizers"), itertools.count()

    class Talkative:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            if next(numbers) < COUNT:
                finalizers.publish(producer)

    stream = desk.stream("stream")
    gc.set_threshold(3)
    with producer:
        for _ in range(COUNT):
            Talkative()
            Talkative()
            stream.publish(producer)
        gc.collect()


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]].play(Desk.from_json(sys.argv[2]))
