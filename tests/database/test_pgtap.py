"""Every file of supabase/tests, run as `supabase test db` runs it: by psql, with pgTAP.

Each file is one transaction that it rolls back itself, so the files leave nothing behind.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.database import bubblewrap
from local_stack.settings import REPOSITORY, StackSettings
from tests.database.tap import problems
from tests.plugins.stack import RunningStack

FOLDER = REPOSITORY / "supabase" / "tests"
FILES = sorted(FOLDER.rglob("*.sql"))
MOUNTED = "/tmp/tests"
# pg_prove's own options: a statement that fails ends the file.
OPTIONS = (
    *("--no-psqlrc", "--no-align", "--quiet", "--pset=pager=off", "--tuples-only"),
    *("--set=ON_ERROR_STOP=1", "--host=/run/pg", "--username=postgres", "--dbname=postgres"),
)


def psql(settings: StackSettings, *options: str) -> subprocess.CompletedProcess[str]:
    """Run PostgreSQL's own psql, as the role `postgres`, with the test files at MOUNTED."""
    port = f"--port={settings.database_port}"
    command = bubblewrap(
        settings.data_directory, settings.socket_directory, "psql", *OPTIONS, port, *options
    )
    mounts_end = command.index("--clearenv")
    command[mounts_end:mounts_end] = ["--ro-bind", str(FOLDER), MOUNTED]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def pgtap(stack: RunningStack) -> Iterator[RunningStack]:
    """The stack with pgTAP while these tests run, as `supabase test db` has it."""
    installed = psql(
        stack.settings, "--command=select from pg_extension where extname = 'pgtap'"
    ).stdout
    create = psql(
        stack.settings, "--command=create extension if not exists pgtap with schema extensions"
    )
    assert create.returncode == 0, create.stderr
    yield stack
    if not installed:
        psql(stack.settings, "--command=drop extension if exists pgtap")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_pgtap_file(pgtap: RunningStack, path: Path) -> None:
    done = psql(pgtap.settings, f"--file={MOUNTED}/{path.relative_to(FOLDER)}")
    found = problems(done.stdout, path.read_text())
    if done.returncode:
        found.append(done.stderr.strip())
    assert not found, "\n".join(found)


def test_there_are_pgtap_files() -> None:
    assert FILES
