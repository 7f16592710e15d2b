"""The settings of a producer, checked once; the names follow Kafka's producer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from signal_persistence.batch import ENVELOPE_BYTES, BatchPolicy
from signal_persistence.contract import CONTRACT
from signal_persistence.errors import ConfigurationError

TransportName = Literal["edge", "rpc"]


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """What a producer may hold, for how long, and how it sends; see `Producer` for each name."""

    transport: TransportName = "edge"
    linger_ms: float = 100
    batch_max_messages: int = 500
    batch_max_bytes: int = 512 * 1024
    max_in_flight_requests: int = 5
    buffer_max_messages: int = 100_000
    buffer_max_bytes: int = 64 * 1024 * 1024
    max_block_ms: float = 1_000
    delivery_timeout_ms: float = 300_000
    request_timeout_ms: float = 10_000
    retry_backoff_ms: float = 100
    retry_backoff_max_ms: float = 10_000
    close_timeout_ms: float = 5_000

    def __post_init__(self) -> None:
        limits = CONTRACT.limits
        _require(self.transport in ("edge", "rpc"), "transport", '"edge" or "rpc"')
        for name in ("linger_ms", "max_block_ms", "close_timeout_ms"):
            _require(getattr(self, name) >= 0, name, "0 or more")
        for field in dataclasses.fields(self):
            if field.name.startswith(("max_in", "buffer", "delivery", "request", "retry")):
                _require(getattr(self, field.name) > 0, field.name, "more than 0")
        most = limits.batch_signals
        _require(1 <= self.batch_max_messages <= most, "batch_max_messages", f"1 to {most}")
        least, most = ENVELOPE_BYTES + 8192, limits.batch_bytes
        _require(least <= self.batch_max_bytes <= most, "batch_max_bytes", f"{least} to {most}")

    @property
    def path(self) -> str:
        """Where batches are posted, below the project's URL."""
        if self.transport == "edge":
            return "/functions/v1/ingest-signals"
        return "/rest/v1/rpc/ingest_signals"

    @property
    def batch_policy(self) -> BatchPolicy:
        return BatchPolicy(self.linger_ms / 1000, self.batch_max_messages, self.batch_max_bytes)


def _require(fits: bool, name: str, expected: str) -> None:
    if not fits:
        raise ConfigurationError(f"Cannot use this {name}: it must be {expected}.")
