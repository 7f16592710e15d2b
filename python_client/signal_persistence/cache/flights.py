"""One run of each piece of work at a time, shared by everyone who wants it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from signal_persistence.errors import ClosedError

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0


class SingleFlight(Generic[T]):
    """Runs work by key, on one event loop.

    Who is cancelled leaves the others waiting; when the last one leaves, the work is cancelled.
    What the work raises is raised to all that waited for it, and the next one tries anew.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}
        self._closed = False

    async def run(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work()` returns, or what a run of it that is under way returns.

        Raises ClosedError once it is closed.
        """
        if self._closed:
            raise ClosedError
        flight = self._flights.get(key)
        if flight is None or flight.task.done():
            flight = _Flight(asyncio.get_running_loop().create_task(work()))
            # An error is raised to those who wait, and to nobody when all of them have left.
            flight.task.add_done_callback(_retrieve)
            self._flights[key] = flight
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if self._closed and flight.task.cancelled():
                raise ClosedError from None
            raise
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 or flight.task.done():
                flight.task.cancel()
                self._forget(key, flight)

    async def close(self) -> None:
        """Cancel what is under way; whoever waits for it gets a ClosedError."""
        self._closed = True
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
