"""An event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs timers in order at once; `time()` is what it would be had one waited."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("Nothing is left that could ever happen: the test would hang.")
        # The loop's resolution: rounding must not leave a timer a hair in the future for ever.
        self._loop.now += max(timeout, 1e-9) if timeout > 0 else 0.0
        return super().select(0)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in virtual time, failing if it waits for something that nothing will bring."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
