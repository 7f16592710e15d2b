"""The command itself: installed by name, and clear when its extra is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module

from tests.client.cli.conftest import ROOT

BLOCKED = """
import sys
sys.modules["typer"] = None
from signal_persistence.cli.__main__ import main
main()
"""


def test_the_script_of_the_package_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["signals"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_without_the_extra_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=ROOT / "python_client",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'signal-persistence[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_explains_itself() -> None:
    for command in ("", "publish", "tail", "query", "spool", "spool replay", "keys", "doctor"):
        done = subprocess.run(
            [sys.executable, "-m", "signal_persistence.cli", *command.split(), "--help"],
            cwd=ROOT / "python_client",
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"Usage: signals {command}".rstrip() in done.stdout
