"""Run the snippets of docs/analysis.md: `python -m tests.analysis.document` writes what they show.

The first one reads an account; the others get the demo's signals in its place.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import chdir, redirect_stdout
from datetime import timedelta
from pathlib import Path

import matplotlib

from tests.analysis import real_data

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "analysis.md"
_SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL)


def first_snippet() -> str:
    """Return the snippet that reads an account."""
    first: str = _SNIPPET.findall(DOCUMENT.read_text())[0]
    return first


def shown() -> list[str]:
    """Return what the document says that each later snippet prints."""
    return [text for _, text in _SHOWN.findall(DOCUMENT.read_text())]


def pictures() -> set[str]:
    """Return the files that the document shows."""
    return set(re.findall(r"!\[[^]]+\]\((pictures/[\w.]+)\)", DOCUMENT.read_text()))


def run(directory: Path) -> list[str]:
    """Run the later snippets one after the other in `directory`; return what each printed."""
    matplotlib.use("Agg")
    (directory / "pictures").mkdir(exist_ok=True)
    names = {trader_id: name for name, trader_id in real_data.TRADERS.items()}
    scope = {
        "table": real_data.table(),
        "prices": real_data.prices(),
        "names": names,
        "timedelta": timedelta,
    }
    with chdir(directory), matplotlib.rc_context({"svg.hashsalt": "analysis"}):
        return [_printed(code, scope) for code in _SNIPPET.findall(DOCUMENT.read_text())[1:]]


def _printed(code: str, scope: dict[str, object]) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        # The code is the document's own.
        exec(compile(code, str(DOCUMENT), "exec"), scope)  # noqa: S102
    return out.getvalue()


def main() -> None:
    """Write pictures and printed text into the document."""
    os.environ.update(SOURCE_DATE_EPOCH="0")
    printed = iter(run(DOCUMENT.parent))
    text = _SHOWN.sub(
        lambda found: f"```python\n{found[1]}```\n\n```text\n{next(printed)}```",
        DOCUMENT.read_text(),
    )
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
