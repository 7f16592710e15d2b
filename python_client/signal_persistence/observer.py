"""What a producer tells whoever measures it; `metrics.ProducerMetrics` is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from signal_persistence.delivery import DeliveryReport
from signal_persistence.ledger import ProducerStats


class ProducerObserver(Protocol):
    """Told what happens in a producer, from whatever thread it happens on.

    The producer waits for each call: it must be short and must not raise. All times are seconds
    since the call of publish().
    """

    def attached(self, stats: Callable[[], ProducerStats]) -> None:
        """The producer was made; `stats` returns its counts of one moment."""
        ...

    def accepted(self, seconds: float) -> None:
        """publish() has put a signal into the buffer, or with a spool into the log on disk."""
        ...

    def fsynced(self, seconds: Sequence[float]) -> None:
        """So many signals are on the disk for good: the fdatasync that covers them is done."""
        ...

    def settled(self, reports: Sequence[DeliveryReport]) -> None:
        """These signals have their last word."""
        ...
