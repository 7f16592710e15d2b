"""Running the user's delivery callbacks where they can do no harm.

Callbacks run one after another on a thread or a task of their own. What they raise is logged, and
how long they take delays only later callbacks, never the sending. No report is dropped: a signal
keeps its place in the producer's buffer until its callback has returned, so slow callbacks are
bounded by `buffer_max_messages` and in the end push back on publish().
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Final, Protocol

from signal_persistence.delivery import DeliveryReport

DeliveryCallback = Callable[[DeliveryReport], Any]
Job = tuple[DeliveryCallback, DeliveryReport]

_log: Final = logging.getLogger("signal_persistence")


class Dispatcher(Protocol):
    """Hands reports to callbacks, in order."""

    errors: int

    def put(self, jobs: Sequence[Job]) -> None: ...

    def waiting(self) -> int: ...

    def is_current(self) -> bool: ...

    def end(self) -> None: ...


class ThreadDispatcher:
    """Runs callbacks on a daemon thread that starts with the first of them."""

    def __init__(self, when_done: Callable[[], object]) -> None:
        self.errors = 0
        self._when_done = when_done
        self._queue: SimpleQueue[Sequence[Job] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._put = 0
        self._done = 0

    def put(self, jobs: Sequence[Job]) -> None:
        """Queue callbacks; called on the engine's loop only.

        Those of a batch come together, because every call wakes the thread.
        """
        self._put += len(jobs)
        self._queue.put(jobs)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="signal-callbacks", daemon=True)
            self._thread.start()

    def waiting(self) -> int:
        """How many callbacks have not returned."""
        return self._put - self._done

    def is_current(self) -> bool:
        """Say whether the caller is a callback."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """Let the thread end after what is queued."""
        self._queue.put(None)

    def _run(self) -> None:
        while (jobs := self._queue.get()) is not None:
            for callback, report in jobs:
                try:
                    callback(report)
                except BaseException:
                    # Even SystemExit: nothing a callback does may end the thread.
                    self.errors += 1
                    _log.exception("An on_delivery callback failed")
                self._done += 1
                self._when_done()


class TaskDispatcher:
    """Runs callbacks, plain or async, on a task of the producer's event loop."""

    def __init__(self, when_done: Callable[[], object]) -> None:
        self.errors = 0
        self._when_done = when_done
        self._queue: deque[Job] = deque()
        self._task: asyncio.Task[None] | None = None
        self._running = 0

    def put(self, jobs: Sequence[Job]) -> None:
        """Queue callbacks; called on the loop."""
        self._queue.extend(jobs)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="signal-callbacks"
            )

    def waiting(self) -> int:
        """How many callbacks have not returned."""
        return len(self._queue) + self._running

    def is_current(self) -> bool:
        """Say whether the caller is a callback."""
        return self._task is not None and asyncio.current_task() is self._task

    def end(self) -> None:
        """Stop what has not returned, unless the caller is the callback that runs."""
        if self._task is not None and not self.is_current():
            self._task.cancel()

    async def _run(self) -> None:
        while self._queue:
            callback, report = self._queue.popleft()
            self._running = 1
            try:
                outcome = callback(report)
                if inspect.isawaitable(outcome):
                    await outcome
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._failed()
            except (Exception, SystemExit):
                self._failed()
            finally:
                self._running = 0
            self._when_done()

    def _failed(self) -> None:
        self.errors += 1
        _log.exception("An on_delivery callback failed")
