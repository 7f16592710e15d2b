"""Describe the machine, take percentiles and medians, and write a benchmark's one JSON object."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MINIMUM_RUNS = 3
PERCENTILES = (50, 95, 99)


def machine() -> dict[str, Any]:
    """Describe this machine as far as it explains a figure."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def percentiles(
    values: Sequence[float], weights: Sequence[float] | None = None
) -> dict[str, float]:
    """Return `{"p50", "p95", "p99"}` by nearest rank, each value counted `weights` times.

    Raises ValueError without values: a percentile of nothing is no figure.
    """
    if not values:
        raise ValueError("Cannot take percentiles: there are no values")
    counted = sorted(zip(values, weights or [1.0] * len(values), strict=True))
    total = sum(weight for _, weight in counted)
    result: dict[str, float] = {}
    passed = 0.0
    remaining = iter(counted)
    value = counted[0][0]
    for percentile in PERCENTILES:
        while passed < total * percentile / 100:
            value, weight = next(remaining)
            passed += weight
        result[f"p{percentile}"] = round(value, 3)
    return result


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one mapping with the median of every number of `runs`, nested mappings included."""
    result: dict[str, Any] = {}
    for name, first in runs[0].items():
        values = [run[name] for run in runs]
        if isinstance(first, Mapping):
            result[name] = medians(values)
        elif isinstance(first, int | float) and not isinstance(first, bool):
            result[name] = statistics.median(values)
    return result


def write(report: Mapping[str, Any], path: Path | None) -> None:
    """Print `report` as one JSON line, the last of the output, and write it to `path` too."""
    missing = {"bench", "machine", "runs", "ok"} - report.keys()
    if missing:
        raise ValueError(f"Cannot write the report: it lacks {', '.join(sorted(missing))}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report), flush=True)
