"""Fixtures for all rings of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["tests.plugins.identity", "tests.plugins.stack"]


@pytest.fixture(autouse=True)
def spool_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep producers, those of subprocesses too, out of the user's spool and of each other's."""
    monkeypatch.setenv("SIGNAL_SPOOL_DIR", str(tmp_path / "spool"))
