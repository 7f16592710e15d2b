"""How much memory this process takes, as the kernel counts it."""

from __future__ import annotations

import gc
from pathlib import Path


def anonymous_mb() -> float:
    """Return the resident memory that no file backs; a mapped log can be written out any time."""
    return _resident("RssAnon")


def mapped_mb() -> float:
    """Return the resident pages of mapped files."""
    return _resident("RssFile")


def collected_mb() -> float:
    """Return the anonymous memory after a garbage collection."""
    gc.collect()
    return anonymous_mb()


def _resident(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(name)
