"""The demonstration, run as a newcomer runs it: it sets everything up and finds nothing wrong."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack import control
from local_stack.settings import StackSettings

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKS = 19


@pytest.fixture
def demo_stack() -> Iterator[StackSettings]:
    """The settings of a stack that only this test's demonstration uses."""
    settings = StackSettings(name=f"test-{os.getpid()}-demo")
    try:
        yield settings
    finally:
        if (settings.directory / "stack.json").exists():
            control.remove(StackSettings.load(settings.directory))
        (Path(settings.state_root) / f"{settings.name}.demo-lock").unlink(missing_ok=True)


@pytest.mark.timeout(300)
def test_the_demonstration_stores_and_shows_every_signal_once(
    demo_stack: StackSettings, tmp_path: Path
) -> None:
    file = tmp_path / "demo.json"
    finished = subprocess.run(
        ["scripts/demo", "--seconds", "10", "--json", str(file)],
        cwd=REPOSITORY,
        env={**os.environ, "SIGNAL_DEMO_STACK": demo_stack.name},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.stdout, finished.stderr
    told = json.loads(finished.stdout.splitlines()[-1])
    assert told == json.loads(file.read_text())
    failed = [name for name, holds in told["checks"].items() if not holds]
    assert not failed, finished.stderr
    assert finished.returncode == 0
    assert told["ok"] is True
    assert len(told["checks"]) == CHECKS
    assert told["published"] == told["stored"] == told["observed"] > 1000
    assert told["duplicates"] == told["gaps"] == told["leaked"] == 0
    assert told["quota_rejected"] == 50
    for figure in ("ack_ms", "live_ms"):
        assert 0 < told[figure]["p50"] <= told[figure]["p95"] <= told[figure]["p99"]
    assert not control.is_running(StackSettings.load(demo_stack.directory))
