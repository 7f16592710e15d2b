"""Run the snippets of docs/analysis.md: `python -m tests.analysis.document STACK` writes what they
show, with a running stack of that name.

The first one reads an account; the others get the demo's signals in its place.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import matplotlib

from local_stack.settings import StackSettings
from signal_persistence import AccessToken
from signal_persistence.caller import Caller
from signal_persistence.loop_thread import LoopThread
from signal_persistence.reader import Reader
from signal_persistence.time_series import AsyncTimeSeries, TimeSeries
from tests.analysis import real_data
from tests.database.series_world import CallsInTransaction, real_signals, series_world
from tests.plugins.stack import RunningStack

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


@contextmanager
def query_of_demo(stack: RunningStack) -> Iterator[SimpleNamespace]:
    """Yield a query of an account with the demo's signals, all in one autumn; nothing stays."""
    with series_world(stack) as world, closing(LoopThread("document")) as loop:
        world.store(real_signals(), trader_ids=True)
        caller = Caller(
            "", "", AccessToken("of the transaction"), transport=CallsInTransaction(world)
        )
        yield SimpleNamespace(time_series=TimeSeries(AsyncTimeSeries(Reader(caller, "rpc")), loop))


def run(directory: Path, query: SimpleNamespace) -> list[str]:
    """Run the later snippets one after the other in `directory`; return what each printed."""
    matplotlib.use("Agg")
    (directory / "pictures").mkdir(exist_ok=True)
    names = {trader_id: name for name, trader_id in real_data.TRADERS.items()}
    scope = {
        "table": real_data.table(),
        "prices": real_data.prices(),
        "names": names,
        "query": query,
        "UTC": UTC,
        "UUID": UUID,
        "datetime": datetime,
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
    settings = StackSettings.load(StackSettings(name=sys.argv[1]).directory)
    with query_of_demo(RunningStack(settings, "", "")) as query:
        printed = iter(run(DOCUMENT.parent, query))
    text = _SHOWN.sub(
        lambda found: f"```python\n{found[1]}```\n\n```text\n{next(printed)}```",
        DOCUMENT.read_text(),
    )
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
