"""The settings of a producer, checked once; the names follow Kafka's producer."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from signal_persistence.batch import ENVELOPE_BYTES, BatchPolicy
from signal_persistence.contract import CONTRACT
from signal_persistence.errors import ConfigurationError
from signal_persistence.spool import FsyncPolicy, SpoolSettings

TransportName = Literal["edge", "rpc"]

_FIRST_BATCH_MESSAGES: Final = 500
_MEMORY_TIMEOUT_SECONDS: Final = 300.0
_SLOW_SHARE: Final = 0.25
"""An answer that takes this share of request_timeout_ms is a sign that less should be sent."""


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """What a producer may hold, for how long, and how it sends; see `Producer` for each name."""

    transport: TransportName = "edge"
    linger_ms: float = 100
    batch_max_messages: int = 5_000
    batch_max_bytes: int = 512 * 1024
    max_in_flight_requests: int = 5
    buffer_max_messages: int = 100_000
    buffer_max_bytes: int = 64 * 1024 * 1024
    max_block_ms: float = 1_000
    delivery_timeout_ms: float | None = None
    request_timeout_ms: float = 10_000
    retry_backoff_ms: float = 100
    retry_backoff_max_ms: float = 10_000
    close_timeout_ms: float = 5_000
    spool_dir: Path | None = None
    spool_fsync: FsyncPolicy = "interval"
    spool_fsync_interval_ms: float = 1_000
    spool_max_bytes: int = 10 * 1024**3
    dead_letters_max_bytes: int = 256 * 1024**2

    def __post_init__(self) -> None:
        limits = CONTRACT.limits
        _require(self.transport in ("edge", "rpc"), "transport", '"edge" or "rpc"')
        for name in ("linger_ms", "max_block_ms", "close_timeout_ms"):
            _require(getattr(self, name) >= 0, name, "0 or more")
        for field in dataclasses.fields(self):
            if field.name.startswith(("max_in", "buffer", "delivery", "request", "retry")):
                value = getattr(self, field.name)
                _require(value is None or value > 0, field.name, "more than 0")
        most = limits.batch_signals
        _require(1 <= self.batch_max_messages <= most, "batch_max_messages", f"1 to {most}")
        least, most = ENVELOPE_BYTES + 8192, limits.batch_bytes
        _require(least <= self.batch_max_bytes <= most, "batch_max_bytes", f"{least} to {most}")
        _ = self.spool

    @property
    def path(self) -> str:
        """Where batches are posted, below the project's URL."""
        if self.transport == "edge":
            return "/functions/v1/ingest-signals"
        return "/rest/v1/rpc/ingest_signals"

    @property
    def first_batch_messages(self) -> int:
        """How many signals make a batch full before it is known what the service can take."""
        return min(_FIRST_BATCH_MESSAGES, self.batch_max_messages)

    @property
    def slow_seconds(self) -> float:
        """From how many seconds on an answer is a sign of overload."""
        return self.request_timeout_ms / 1000 * _SLOW_SHARE

    @property
    def delivery_timeout(self) -> float:
        """In seconds, infinite when signals are kept until they are stored."""
        if self.delivery_timeout_ms is not None:
            return self.delivery_timeout_ms / 1000
        return _MEMORY_TIMEOUT_SECONDS if self.spool_dir is None else math.inf

    @property
    def spool(self) -> SpoolSettings:
        """What the spool makes of it. Raises ConfigurationError."""
        return SpoolSettings(
            fsync=self.spool_fsync,
            fsync_interval_ms=self.spool_fsync_interval_ms,
            max_bytes=self.spool_max_bytes,
            dead_letters_max_bytes=self.dead_letters_max_bytes,
        )

    @property
    def batch_policy(self) -> BatchPolicy:
        return BatchPolicy(self.linger_ms / 1000, self.batch_max_messages, self.batch_max_bytes)


def _require(fits: bool, name: str, expected: str) -> None:
    if not fits:
        raise ConfigurationError(f"Cannot use this {name}: it must be {expected}.")
