"""Figures of benchmarks: percentiles by nearest rank, medians over runs, one JSON object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import machine, medians, percentiles, write


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {"p50": 50, "p95": 95, "p99": 99}


def test_a_weighted_value_counts_as_often_as_its_weight() -> None:
    assert percentiles([1.0, 9.0], [90, 10]) == {"p50": 1, "p95": 9, "p99": 9}
    assert percentiles([1.0, 9.0], [98, 2]) == {"p50": 1, "p95": 1, "p99": 9}


def test_percentiles_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentiles([])


def test_medians_are_taken_of_every_number_nested_ones_included() -> None:
    runs = [{"rate": rate, "ack_ms": {"p95": rate * 2}, "name": "x"} for rate in (3, 1, 2)]
    assert medians(runs) == {"rate": 2, "ack_ms": {"p95": 4}}


def test_a_report_is_printed_as_the_last_line_and_written_to_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {"bench": "ingest", "machine": machine(), "runs": 3, "ok": True}
    write(report, tmp_path / "reports" / "ingest.json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == report
    assert json.loads((tmp_path / "reports" / "ingest.json").read_text()) == report


def test_a_report_without_its_required_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks machine, ok"):
        write({"bench": "ingest", "runs": 3}, None)
