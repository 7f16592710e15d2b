"""Calling a function of the user's where it can do no harm."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Final

_log: Final = logging.getLogger(__name__)


class UserCallback:
    """Calls one function, one call after the other; what it raises is logged and counted.

    A coroutine function is awaited on the event loop; any other runs on a daemon thread of its
    own, so that it may block for as long as it likes.
    """

    def __init__(self, name: str, function: Callable[..., object]) -> None:
        self._name = name
        self._function = function
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.errors = 0

    async def call_with_each(self, arguments: Iterable[tuple[object, ...]]) -> None:
        """Call it with one tuple of `arguments` after the other, and return when it is over.

        They are iterated over where the function runs, the next one when the last has returned.
        """
        if inspect.iscoroutinefunction(self._function):
            for values in arguments:
                try:
                    await self._function(*values)
                except Exception:
                    self._failed()
        else:
            await self._on_thread(arguments)

    def is_current(self) -> bool:
        """Say whether the caller is the function itself, on its thread."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """Let the thread end after the call that runs."""
        self._jobs.put(None)

    def _failed(self) -> None:
        self.errors += 1
        _log.exception("%s raised", self._name)

    async def _on_thread(self, arguments: Iterable[tuple[object, ...]]) -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def job() -> None:
            for values in arguments:
                try:
                    self._function(*values)
                except BaseException:
                    # Even SystemExit: nothing a callback does may end the thread.
                    self._failed()
            try:
                loop.call_soon_threadsafe(over.set)
            except RuntimeError:
                _log.debug("%s returned after its subscriber had ended", self._name)

        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        await over.wait()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
