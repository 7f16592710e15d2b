"""The load test runs against a project of which it knows a URL and two keys, and judges it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from local_stack.settings import REPOSITORY
from tests.plugins.stack import RunningStack

LOCUSTFILE = "loadtests/locustfile.py"


def _locust(
    stack: RunningStack, reports: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "--locustfile", LOCUSTFILE, "--headless"]
    profile = ["--load-profile", "smoke", "--warm-up-seconds", "2", "--stop-timeout", "10"]
    names = ["--host", stack.api_url, "--csv", str(reports / "load")]
    keys = {
        "SUPABASE_ANON_KEY": stack.publishable_key,
        "SUPABASE_SERVICE_ROLE_KEY": stack.secret_key,
        "PYTHONPATH": ".",
    }
    return subprocess.run(
        [*command, *profile, *names, *options],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **keys, **environment},
    )


def _result(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    lines = [line for line in answer.stdout.splitlines() if line.startswith('{"load"')]
    assert len(lines) == 1, answer.stdout + answer.stderr
    result: dict[str, Any] = json.loads(lines[0])
    return result


def test_a_load_that_holds_its_thresholds_exits_with_0_and_writes_its_reports(
    stack: RunningStack, tmp_path: Path
) -> None:
    answer = _locust(stack, tmp_path, "--seconds", "5", "--html", str(tmp_path / "load.html"))
    result = _result(answer)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert result["ok"]
    assert result["load"]["accepted"] > 0
    assert result["load"]["failures"] == 0
    assert (tmp_path / "load_stats.csv").is_file()
    assert (tmp_path / "load.html").is_file()


def test_a_load_that_misses_a_threshold_exits_with_1_and_names_it(
    stack: RunningStack, tmp_path: Path
) -> None:
    answer = _locust(stack, tmp_path, "--seconds", "1", "--p95-ms", "0.001")
    assert answer.returncode == 1
    assert [sentence for sentence in _result(answer)["violations"] if "ingest p95" in sentence]


def test_a_project_that_cannot_be_prepared_ends_the_load_with_one_sentence(
    stack: RunningStack, tmp_path: Path
) -> None:
    answer = _locust(
        stack, tmp_path, "--seconds", "30", SUPABASE_SERVICE_ROLE_KEY=stack.publishable_key
    )
    assert answer.returncode == 1
    assert "Cannot prepare the load test: POST /auth/v1/admin/users" in answer.stderr


def test_a_load_without_keys_does_not_start(stack: RunningStack, tmp_path: Path) -> None:
    answer = _locust(stack, tmp_path, SUPABASE_ANON_KEY="")
    assert answer.returncode != 0
    assert "SUPABASE_ANON_KEY and SUPABASE_SERVICE_ROLE_KEY must be set" in answer.stderr
