"""Show how the demonstration goes: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.messages import Observed, Published

_LINE_EVERY: Final = 2.0


@dataclass(slots=True)
class Progress:
    """The latest word of every process."""

    tier_of: dict[str, str]
    published: dict[str, Published] = field(default_factory=dict)
    observed: Observed | None = None
    started_at: float = field(default_factory=time.monotonic)

    def rows(self) -> Iterator[tuple[str, int, int, int, int, str]]:
        """(tier, offered, stored, refused, observed, state of its subscriber)"""
        for tier in dict.fromkeys(self.tier_of.values()):
            mine = [told for told in self.published.values() if self.tier_of[told.sender] == tier]
            stored = sum(told.outcomes.get("accepted", 0) for told in mine)
            refused = sum(sum(told.outcomes.values()) for told in mine) - stored
            observed = self.observed.counts.get(tier, 0) if self.observed else 0
            state = self.observed.states.get(tier, "") if self.observed else ""
            yield tier, sum(told.offered for told in mine), stored, refused, observed, state


class Display(Protocol):
    def update(self, progress: Progress) -> None: ...


class _LineDisplay:
    def __init__(self) -> None:
        self._next = 0.0

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LINE_EVERY
        parts = [
            f"{tier}: {offered} offered, {stored} stored, {refused} refused, {observed} observed"
            for tier, offered, stored, refused, observed, _ in progress.rows()
        ]
        say(f"{now - progress.started_at:5.1f} s  {'; '.join(parts)}")


class _TableDisplay:
    def __init__(self, live: Live) -> None:
        self._live = live

    def update(self, progress: Progress) -> None:
        seconds = time.monotonic() - progress.started_at
        table = Table(title=f"Signals after {seconds:.1f} s")
        table.add_column("account")
        for name in ("offered", "stored", "refused", "observed"):
            table.add_column(name, justify="right")
        table.add_column("subscriber")
        for tier, *counts, state in progress.rows():
            table.add_row(tier, *(f"{count:,}" for count in counts), state)
        self._live.update(table)


def say(line: str) -> None:
    """Tell the reader something; standard output is for the report alone."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def open_display() -> Iterator[Display]:
    """A table that is drawn anew on a terminal, a line every two seconds elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LineDisplay()
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield _TableDisplay(live)
