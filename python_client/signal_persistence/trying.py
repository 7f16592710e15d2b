"""Doing what may fail, again and again, without its failures stopping anything else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from signal_persistence.errors import SignalPersistenceError

T = TypeVar("T")

_log: Final = logging.getLogger("signal_persistence")


class Trying:
    """Logs a failure when it is a new one, counts it, and goes on."""

    def __init__(self) -> None:
        self.failures = 0
        """How often something failed."""
        self._said: dict[str, str] = {}

    def do(self, what: str, work: Callable[[], T], otherwise: T) -> T:
        """Return what `work()` does, or `otherwise` if it raises.

        `what` completes the sentence "Cannot …". What fails again for the same reason is not logged
        again before it has worked.
        """
        try:
            done = work()
        except Exception as error:
            self.failures += 1
            reason = str(error)
            if self._said.get(what) != reason:
                foreseen = isinstance(error, SignalPersistenceError)
                _log.error("Cannot %s: trying again: %s", what, reason, exc_info=not foreseen)
            self._said[what] = reason
            return otherwise
        self._said.pop(what, None)
        return done
