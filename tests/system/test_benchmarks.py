"""The end-to-end benchmark measures, reads everything back and reports; speed is not judged."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from local_stack.settings import REPOSITORY


def test_a_short_benchmark_loses_nothing_and_reports_every_named_figure(tmp_path: Path) -> None:
    length = ["--rate", "6000", "--seconds", "1", "--runs", "1", "--warm-up-seconds", "0.5"]
    short = ["--search-steps", "0", "--naive-seconds", "1", "--accounts", "2"]
    name = f"test-{os.getpid()}-bench"
    written = ["--stack-name", name, "--json", str(tmp_path / "report.json")]
    answer = subprocess.run(
        ["scripts/bench", "end-to-end", *length, *short, *written],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert answer.stdout, answer.stderr
    report = json.loads(answer.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert answer.returncode == (0 if report["ok"] else 1)
    assert report["published"] == 100
    zero = ("lost", "duplicated", "phantoms", "gaps", "not_accepted")
    assert [report[name] for name in zero] == [0] * len(zero)
    assert set(report["ack_ms"]) == {"p50", "p95", "p99"}
    assert report["naive"]["rate_per_min"] > 0
    assert {"machine", "runs", "rate_per_min", "naive_ratio", "highest_rate_per_min"} <= set(report)
    assert not (REPOSITORY / ".stack" / name).exists()
