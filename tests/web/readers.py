"""Subscribers of web/live in one Deno process, told what to do and watched from Python."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from tests.checkers.histories import Stored
from tests.plugins.stack import RunningStack

ROOT: Final = Path(__file__).parents[2]
WEB: Final = ROOT / "web"
CLOSE_SECONDS: Final = 30.0
PROBLEMS_KEPT: Final = 20


@dataclass(slots=True)
class Reader:
    """What one subscriber has told."""

    name: str
    states: list[tuple[str, str | None]] = field(default_factory=list)
    observed: list[Stored] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    early_events: list[int] = field(default_factory=list)
    """Events that came before their signal: there should be none."""
    problems: list[str] = field(default_factory=list)
    known: set[UUID] = field(default_factory=set)
    """Signals that were handed out before it."""
    refreshed: int = 0
    error: str | None = None
    cursor: int | None = None
    event_cursor: int | None = None
    closed: bool = False

    @property
    def state(self) -> tuple[str, str | None]:
        return self.states[-1] if self.states else ("connecting", "not_joined")

    def hear(self, event: Mapping[str, Any]) -> None:
        match event:
            case {"state": state, "reason": reason}:
                self.states.append((state, reason))
            case {"seq": seq, "signal_id": signal_id}:
                self.observed.append(Stored(UUID(signal_id), seq))
            case {"event_seq": seq, "of": signal_id}:
                self.events.append(seq)
                if UUID(signal_id) not in self.known | {one.signal_id for one in self.observed}:
                    self.early_events.append(seq)
            case {"problem": problem}:
                self.problems = [*self.problems[-PROBLEMS_KEPT:], problem]
            case {"refresh": True}:
                self.refreshed += 1
            case {"error": error}:
                self.error = error
            case {"cursor": cursor, "event_cursor": event_cursor}:
                self.cursor, self.event_cursor, self.closed = cursor, event_cursor, True
            case _:
                raise ValueError(f"unknown event {event}")


class Readers:
    """The Deno process, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._readers: dict[str, Reader] = {}
        self._changed = asyncio.Condition()
        self.ended = False

    async def open(self, name: str, *tokens: str, **options: Any) -> Reader:
        """Begin a subscriber; it asks for the next one of `tokens` when one was refused."""
        reader = self._readers[name] = Reader(name)
        await self._tell(do="open", reader=name, tokens=tokens, options=options)
        return reader

    async def renew(self, reader: Reader, *tokens: str) -> None:
        """Let a subscriber use other tokens from now on."""
        await self._tell(do="renew", reader=reader.name, tokens=tokens)

    async def pause(self, reader: Reader, seconds: float) -> None:
        await self._tell(do="pause", reader=reader.name, seconds=seconds)

    async def close(self, reader: Reader) -> None:
        await self._tell(do="close", reader=reader.name)
        await self.until(lambda: reader.closed, CLOSE_SECONDS)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until `condition()` holds, looking whenever something was told; say whether."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: condition() or self.ended)
        except TimeoutError:
            pass
        return condition()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                event = json.loads(line)
                self._readers[event.pop("reader")].hear(event)
                async with self._changed:
                    self._changed.notify_all()
        finally:
            self.ended = True
            async with self._changed:
                self._changed.notify_all()

    async def _tell(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def readers_process(stack: RunningStack, url: str | None = None) -> AsyncIterator[Readers]:
    """Run web/live/tests/live_readers.ts; at the end it has to end by itself, without an error."""
    process = await asyncio.create_subprocess_exec(
        ROOT / ".venv" / "bin" / "deno",
        "run",
        "--quiet",
        "--no-check",
        "--allow-all",
        f"--config={WEB / 'deno.json'}",
        str(WEB / "live" / "tests" / "live_readers.ts"),
        json.dumps({"url": url or stack.api_url, "key": stack.publishable_key}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    readers = Readers(process)
    listening = asyncio.create_task(readers.listen())
    try:
        yield readers
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(CLOSE_SECONDS):
            assert await process.wait() == 0, "the readers' process ended with an error"
            await listening
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        listening.cancel()
