"""The producer's benchmarks measure, check the database and report; speed is not judged."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from local_stack.settings import REPOSITORY

NOTHING = {"lost": 0, "duplicated": 0, "reordered": 0, "phantoms": 0, "gaps": 0, "dead_lettered": 0}


def bench(name: str, tmp_path: Path, *options: str) -> dict[str, Any]:
    stack = f"test-{os.getpid()}-{name}"
    written = ["--stack-name", stack, "--json", str(tmp_path / "report.json")]
    answer = subprocess.run(
        ["scripts/bench", name, *options, *written],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        stdin=subprocess.DEVNULL,
    )
    assert answer.stdout, answer.stderr
    report: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert answer.returncode == (0 if report["ok"] else 1)
    assert not (REPOSITORY / ".stack" / stack).exists()
    return report


def test_a_short_benchmark_of_the_producer_reports_every_named_figure(tmp_path: Path) -> None:
    report = bench(
        "producer",
        tmp_path,
        *("--messages", "2000", "--runs", "1", "--memory-signals", "2000", "--backlog", "2000"),
    )
    peers = ("questdb", "questdb_flush", "confluent", "naive")
    for figures in (report, *report["modes"].values(), *(report[peer] for peer in peers)):
        assert set(figures["publish_us"]) == {"p50", "p95", "p99"}
        assert figures["per_s"] > 0
    assert set(report["modes"]) == {"memory", "never", "interval", "always", "always_8_threads"}
    assert set(report["memory"]) == {"memory", "interval", "questdb", "confluent", "naive"}
    assert report["drain_per_s"] > 0
    assert report["drain"]["published"] == 2000
    assert {name: report["drain"][name] for name in NOTHING} == NOTHING


def test_a_short_surge_is_stored_once_in_order_and_drained(tmp_path: Path) -> None:
    report = bench(
        "surge",
        tmp_path,
        *("--scale", "0.02", "--calm-seconds", "1", "--surge-seconds", "2"),
        *("--drain-limit-seconds", "60"),
    )
    assert report["published"] > report["offered_per_min"] / 60
    assert {name: report[name] for name in NOTHING} == NOTHING
    assert report["pending"] == 0
    assert report["drain_seconds"] is not None
