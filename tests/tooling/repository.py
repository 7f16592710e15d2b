"""What the tests of this folder know about the files of the repository."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@cache
def files(*suffixes: str) -> tuple[Path, ...]:
    """Return the committed and the new files, relative to ROOT; with `suffixes` only those."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(
        Path(name)
        for name in listed.splitlines()
        if (not suffixes or name.endswith(suffixes)) and (ROOT / name).is_file()
    )


def text_of(path: Path) -> str:
    """Return the text of a file of the repository; binary bytes are replaced."""
    return (ROOT / path).read_text(errors="replace")
