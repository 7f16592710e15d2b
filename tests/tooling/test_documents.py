"""Documents say what is so: their commands exist, their tables and links agree with the code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.tooling.repository import ROOT, files, text_of

CONTRACT = json.loads(text_of(Path("supabase/functions/_shared/contract.json")))
PLAIN_SCRIPTS = {"check", "fix", "setup", "test"}
"""Scripts that take few options, all of which their own text names."""
PREPARATIONS = {"cd", "cp", "git", "pip", "export"}
"""Commands of the system that a document may show; what they do is not ours to test."""


def _commands() -> list[tuple[str, str]]:
    found = []
    for path in files(".md"):
        for block in re.findall(r"^```bash\n(.*?)^```", text_of(path), re.MULTILINE | re.DOTALL):
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            found += [(str(path), line) for line in lines if line and not line.startswith("#")]
    for path in files(".yml"):
        runs = re.findall(r"^ *- run: ((?:supabase|bash) .+)$", text_of(path), re.MULTILINE)
        found += [(str(path), line) for line in runs]
    return found


@cache
def _help(*command: str) -> str:
    """Return what a command prints for --help."""
    answer = subprocess.run(
        [*command, "--help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return answer.stdout + answer.stderr


def _described_options(words: list[str]) -> str:
    """Return the text that must name the options of a command; fail for an unknown command."""
    program = words[0]
    if program == "bash":
        assert words[1:] == [".ci/run"]
        return ""
    if program == "supabase":
        names = [word for word in words[1:] if not word.startswith("-")]
        depth = 2 if names[0] in ("db", "functions", "secrets", "config") else 1
        return _help("node_modules/.bin/supabase", *names[:depth])
    script = Path(program)
    assert script in files(), f"there is no {script}"
    if script.name in PLAIN_SCRIPTS:
        return text_of(script)
    if script.name == "bench":
        return _help(program, words[1])
    described = _help(program)
    if _has_subcommands(described):
        subcommand = next(word for word in words[1:] if not word.startswith("-"))
        return described + _help(program, subcommand)
    return described


def _has_subcommands(described: str) -> bool:
    """Tell by the usage: argparse ends it with "..." when the rest belongs to a subcommand."""
    usage = described.partition("\n\n")[0]
    return usage.endswith(" ...")


@pytest.mark.parametrize(("document", "command"), _commands())
def test_a_command_in_a_document_exists_with_its_options(document: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] in PREPARATIONS:
        return
    described = _described_options(words)
    options = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
    assert not {option for option in options if option not in described}


@pytest.mark.parametrize("document", files(".md"), ids=str)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!\w+:)([^)#\s]+)", text_of(document))
    missing = [name for name in targets if not (ROOT / document.parent / name).exists()]
    assert not missing


def test_the_error_page_lists_exactly_the_errors_and_item_codes_of_the_contract() -> None:
    page = text_of(Path("docs/error_codes.md"))
    errors = {
        (code, int(status), message)
        for code, status, message in re.findall(
            r"^\| `(\w+)` \| (\d{3}) \| (.+?) \|", page, re.MULTILINE
        )
    }
    items = set(re.findall(r"^\| `(\w+)` \| (?!\d{3} )(.+?) \|", page, re.MULTILINE))
    assert errors == {
        (code, error["status"], error["message"]) for code, error in CONTRACT["errors"].items()
    }
    assert items == set(CONTRACT["item_codes"].items())


def test_the_glossary_explains_every_action_and_the_columns_of_a_sync() -> None:
    glossary = text_of(Path("docs/glossary.md"))
    words = [*CONTRACT["actions"], "signal_id", "seq", "request_id", "natural key", "verdict"]
    assert not [word for word in words if word not in glossary]


def test_the_changelog_has_a_section_for_what_comes_next() -> None:
    assert "\n## Unreleased\n" in text_of(Path("CHANGELOG.md"))
