"""Every command that the client's README shows is run, in the order in which it is shown."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tests.client.cli.conftest import ROOT, Signals
from tests.client.cli.test_publish_and_read import line

README = ROOT / "python_client" / "README.md"
ENDLESS = ("signals tail", "signals agent")
"""Commands that run until they are interrupted; then they end by themselves."""


def shown_commands() -> list[str]:
    section = README.read_text().partition("\n## Command line\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [text.partition("  #")[0].strip() for text in lines]


@pytest.fixture
def workplace(signals: Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with `signals` on the PATH."""
    command = tmp_path / "bin" / "signals"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m signal_persistence.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return tmp_path


def run(command: str, workplace: Path) -> str:
    process = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", f"exec {command}" if "|" not in command else command],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        told = ""
        if command.startswith(ENDLESS):
            assert process.stderr is not None
            told = process.stderr.readline()
            assert told, command
            process.send_signal(signal.SIGINT)
        written, complaints = process.communicate(timeout=60)
    finally:
        process.kill()
    expected = 130 if command.startswith("signals tail") else 0
    assert process.returncode == expected, (command, written, told + complaints)
    return written


def test_every_command_runs(signals: Signals, trader_id: UUID, workplace: Path) -> None:
    (workplace / "signals.jsonl").write_text(line(trader_id, 1) + line(trader_id, 2))
    commands = shown_commands()
    assert len(commands) >= 14
    for command in commands:
        if not command.startswith("signals "):
            assert command == "pip install 'signal-persistence[cli]'"
            continue
        if "KEY_ID" in command:
            listed = json.loads(run("signals keys list --json", workplace))
            command = command.replace("KEY_ID", listed["key_id"])
        run(command, workplace)
    assert signals.must("query", "--format", "jsonl").count("\n") == 3
    assert signals.must("keys", "list", "--json") == ""
