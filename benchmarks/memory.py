"""How much memory a process takes, as the kernel counts it."""

from __future__ import annotations

import gc
from pathlib import Path


def anonymous_mb(process: int | str = "self") -> float:
    """Return the resident memory that no file backs; a mapped log can be written out any time."""
    return _resident("RssAnon", process)


def mapped_mb() -> float:
    """Return the resident pages of mapped files."""
    return _resident("RssFile")


def collected_mb() -> float:
    """Return the anonymous memory after a garbage collection."""
    gc.collect()
    return anonymous_mb()


def _resident(name: str, process: int | str = "self") -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(name)
