"""A thread that runs an event loop, so that blocking faces can share the asyncio engines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from signal_persistence.errors import ClosedError

T = TypeVar("T")


_MOST_THREADS: Final = 8


class _DaemonThreads(ThreadPoolExecutor):
    """Threads for what blocks: names to look up, tokens to fetch, disks to wait for.

    Python ends its own executors before it calls what is registered with atexit, which is when a
    producer that nobody closed sends what is left, and from 3.12 on it starts no thread any more
    then: so the first one starts at once. Being daemons, none of them keeps the process alive.
    """

    def __init__(self, name: str) -> None:
        super().__init__(max_workers=_MOST_THREADS)
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0
        self._start_thread()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a thread call `fn`; calls wait for each other when all threads are busy."""
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        self._jobs.put(job)
        if not self._idle.acquire(blocking=False) and self._started < _MOST_THREADS:
            with suppress(RuntimeError):
                self._start_thread()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after what is queued, without waiting for them."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        self._started += 1

    def _run(self) -> None:
        while True:
            if self._jobs.empty():
                self._idle.release()
            job = self._jobs.get()
            if job is None:
                return
            job()
            # Not held while waiting for the next.
            del job


class LoopThread:
    """One daemon thread with one event loop, owned by whoever made it; `close()` ends both."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_DaemonThreads(f"{name}-worker"))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and block until it ends; never call this on the loop's thread."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise ClosedError from None
        try:
            return future.result()
        except CancelledError:
            raise ClosedError from None
        except BaseException:
            # A KeyboardInterrupt in the waiting thread must not leave the work behind.
            future.cancel()
            raise

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have the loop call `callback` soon; does nothing when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def finish(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run `work()` and then end the loop, without waiting for either."""

        def begin() -> None:
            task = self._loop.create_task(work())
            task.add_done_callback(lambda _: self._loop.stop())

        self.call_soon(begin)

    def is_current(self) -> bool:
        """Say whether the caller runs on the loop's thread."""
        return threading.current_thread() is self._thread

    def close(self, timeout: float = 1.0) -> None:
        """Cancel what still runs, end the loop and wait for the thread up to `timeout` seconds."""
        if not self._thread.is_alive():
            return
        self.call_soon(self._loop.stop)
        if not self.is_current():
            self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._end_tasks()
            self._loop.close()

    def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            # Bounded: a task that refuses to be cancelled must not keep the thread alive.
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
