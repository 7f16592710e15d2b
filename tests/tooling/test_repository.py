"""Rules for files that no linter knows."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from tests.tooling.repository import ROOT, files, text_of

REGISTRY_HOSTS = (
    "pypi" + ".org",
    "python" + "hosted",
    "registry." + "npmjs",
    "deb.debian" + ".org",
)
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:work|root|home/\w+)/[\w.]")
ENVIRONMENT_READS = (
    re.compile(r"""environ(?:\.get\(|\.pop\(|\.setdefault\(|\[)\s*["']([A-Z][A-Z0-9_]+)["']"""),
    re.compile(r"""environment\.get\("(SIGNALS?_[A-Z_]+)"\)"""),
    re.compile(r"""_variable\(environment, "([A-Z_]+)\""""),
    re.compile(r"""_variable\(environment, "[A-Z_]+", "([A-Z_]+)\""""),
    re.compile(r"""getenv\(\s*["']([A-Z][A-Z0-9_]+)["']"""),
    re.compile(r"""env_var=["']([A-Z][A-Z0-9_]+)["']"""),
    re.compile(r"""Deno\.env\.get\(\s*["']([A-Z][A-Z0-9_]+)["']"""),
    re.compile(r"""process\.env\.([A-Z][A-Z0-9_]+)"""),
)
SYSTEM_VARIABLES = {"PATH", "HOME", "USER", "TMPDIR", "LANG", "CI", "XDG_CACHE_HOME"}
"""What every machine has, with its usual meaning."""


def test_no_file_names_a_package_registry() -> None:
    found = [
        f"{path}: {host}" for path in files() for host in REGISTRY_HOSTS if host in text_of(path)
    ]
    assert not found


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_every_environment_variable_that_code_reads_is_in_the_example() -> None:
    read = {
        name: path
        for path in files(".py", ".ts", ".mjs")
        for pattern in ENVIRONMENT_READS
        for name in pattern.findall(text_of(path))
    }
    assert read, "the patterns no longer find how variables are read"
    example = text_of(Path(".env.example"))
    explained = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE))
    missing = {
        name: str(path)
        for name, path in read.items()
        if name not in explained | SYSTEM_VARIABLES and not re.search(rf"\b{name}\b", example)
    }
    assert not missing


def test_every_variable_of_the_example_is_explained_above_it() -> None:
    lines = text_of(Path(".env.example")).splitlines()
    unexplained = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r"#?[A-Z][A-Z0-9_]+=", line) and not before.startswith("# ")
    ]
    assert not unexplained


@pytest.mark.parametrize("script", sorted(p for p in files() if p.parent == Path("scripts")))
def test_a_script_is_executable_says_what_it_does_and_stops_at_errors(script: Path) -> None:
    lines = text_of(script).splitlines()
    assert os.access(ROOT / script, os.X_OK)
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert any(line.startswith("set -euo pipefail") for line in lines)


def test_nothing_imports_the_scripts() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path in files(".py")
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(name.split(".")[0] == "scripts" for name in _imported(node))
    ]
    assert not found


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def test_an_edge_function_imports_only_its_own_files_shared_ones_and_pinned_packages() -> None:
    functions = Path("supabase/functions")
    found = []
    for path in files(".ts"):
        if not path.is_relative_to(functions):
            continue
        own = path.relative_to(functions).parts[0]
        for specifier in re.findall(r"""(?:from|import\()\s*["']([^"']+)["']""", text_of(path)):
            if specifier.startswith("npm:"):
                allowed = re.search(r"@\d+\.\d+\.\d+", specifier) is not None
            elif specifier.startswith("."):
                target = Path(os.path.normpath(path.parent / specifier)).relative_to(functions)
                allowed = target.parts[0] in (own, "_shared")
            else:
                allowed = specifier.startswith("node:")
            if not allowed:
                found.append(f"{path}: {specifier}")
    assert not found
