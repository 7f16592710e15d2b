"""The benchmarks of storage run through at a tiny size and report every named figure."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.questions import READS
from local_stack.settings import REPOSITORY


def _bench(tmp_path: Path, name: str, *options: str) -> dict[str, Any]:
    """Run a benchmark on a stack of its own; speed is not judged, so it may say that it failed."""
    stack = f"test-{os.getpid()}-{name}"
    written = ["--stack-name", stack, "--json", str(tmp_path / "report.json")]
    answer = subprocess.run(
        ["scripts/bench", name, "--runs", "1", *options, *written],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
        stdin=subprocess.DEVNULL,
    )
    assert answer.stdout, answer.stderr
    report: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert answer.returncode == (0 if report["ok"] else 1)
    assert not list((REPOSITORY / ".stack").glob(f"{stack}*"))
    return report


@pytest.mark.timeout(180)
def test_storage_weighs_signals_at_every_age_and_loses_none(tmp_path: Path) -> None:
    report = _bench(
        tmp_path, "storage", "--copies", "1", "--signals", "3000", "--kinds", "realistic"
    )
    assert report["signals"] == 3000
    assert report["hot_bytes_after_packing"] == 0
    assert 0 < report["warm_bytes"] < report["hot_bytes"]
    assert 0 < report["cold_bytes"] < report["hot_bytes"]
    assert report["pack_rows_per_s"] > 0
    assert report["billion_gb"] == pytest.approx(sum(report["billion_parts_gb"].values()), abs=0.1)
    assert {"ledger_bytes", "audit_bytes", "rollup_bytes", "merge_rows_per_s"} <= set(report)


@pytest.mark.timeout(180)
def test_reads_asks_ours_and_both_peers_the_same_and_gets_the_same(tmp_path: Path) -> None:
    report = _bench(tmp_path, "reads", "--scale", "0.001", "--accounts", "20", "--calls", "3")
    assert set(report["reads"]) == set(READS)
    figures = {"p50_ms", "p95_ms", "p99_ms", "http_p95_ms", "plain_p95_ms", "timescale_p95_ms"}
    for read in report["reads"].values():
        assert figures | {"tier"} <= set(read)
        assert read["signals"] > 0


@pytest.mark.timeout(180)
def test_mixed_packs_and_rolls_up_beside_ingest_and_loses_nothing(tmp_path: Path) -> None:
    length = ["--seconds", "3", "--alone-seconds", "2", "--warm-up-seconds", "1"]
    size = ["--rate", "6000", "--hot-signals", "10000", "--old-signals", "20000"]
    report = _bench(tmp_path, "mixed", *length, *size)
    assert report["ingest_slowdown"] > 0
    assert report["read_slowdown"] > 0
    assert report["published"] == 300
    zero = ("lost", "duplicated", "phantoms", "gaps", "failed_jobs")
    assert [report[name] for name in zero] == [0] * len(zero)
    assert report["jobs"]["rows"]["pack"] >= 20_000
    assert report["jobs"]["rows"]["rollup"] > 0


@pytest.mark.timeout(180)
def test_export_takes_out_all_there_is_as_both_peers_do(tmp_path: Path) -> None:
    report = _bench(tmp_path, "export", "--signals", "1400", "--peer-rows", "500")
    assert report["rows"] == 1400
    assert set(report["seconds"]) == {"csv", "ndjson", "parquet"}
    assert min(*report["seconds"].values(), report["copy_seconds"], report["peer_seconds"]) > 0
    assert {"copy_ratio", "view_ratio", "peer_ratio", "client_mb", "bytes_per_row"} <= set(report)
