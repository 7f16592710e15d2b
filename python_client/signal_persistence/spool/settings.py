"""The settings of a spool, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from signal_persistence.errors import ConfigurationError

FsyncPolicy = Literal["never", "interval", "always"]


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """How much a slot may hold, and when it is synced to the disk.

    `fsync` says what survives a loss of power (a killed process loses nothing in any mode):
    `"never"` what the system happened to write, `"interval"` everything older than
    `fsync_interval_ms`, `"always"` everything that publish() returned for. `max_bytes` bounds the
    log of one slot, `dead_letters_max_bytes` all dead letters of a project.
    """

    fsync: FsyncPolicy = "interval"
    fsync_interval_ms: float = 1_000
    max_bytes: int = 10 * 1024**3
    dead_letters_max_bytes: int = 256 * 1024**2
    segment_bytes: int = 4 * 1024**2
    journal_bytes: int = 1024**2

    def __post_init__(self) -> None:
        _require(self.fsync in get_args(FsyncPolicy), "fsync", '"never", "interval" or "always"')
        _require(self.fsync_interval_ms > 0, "fsync_interval_ms", "more than 0")
        least = 4096
        for name in ("segment_bytes", "journal_bytes", "dead_letters_max_bytes"):
            _require(getattr(self, name) >= least, name, f"{least} or more")
        least = 2 * self.segment_bytes
        _require(self.max_bytes >= least, "max_bytes", f"{least} (two segments) or more")


def _require(fits: bool, name: str, expected: str) -> None:
    if not fits:
        raise ConfigurationError(f"Cannot use this spool_{name}: it must be {expected}.")
