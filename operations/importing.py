"""Send old signals to private.import_signals, chunk by chunk, and keep account of the answers."""

from __future__ import annotations

import csv
import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import psycopg2

from operations.history import HistoryFile, SignalReader

CHUNK_BYTES: Final = 1_000_000
PATIENCE_SECONDS: Final = 60.0
"""How long the database may be away, or a partition in use, before the import gives up."""
PAUSE_SECONDS: Final = 0.5
IMPORT: Final = "select private.import_signals(%s::uuid, %s::uuid, %s::jsonb)"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are sent together; `lines` says where each signal was in the file."""

    number: int
    lines: Sequence[int]
    signals: Sequence[str]

    @property
    def payload(self) -> str:
        return f"[{','.join(self.signals)}]"

    def request_id(self, account_id: uuid.UUID) -> uuid.UUID:
        """Return the id that this content has as this chunk of the account, today and ever."""
        digest = hashlib.sha256(self.payload.encode()).hexdigest()
        return uuid.uuid5(account_id, f"{self.number} {digest}")


def chunks(file: HistoryFile, reader: SignalReader, rows: int) -> Iterator[Chunk]:
    """Cut a file into chunks of at most `rows` rows and about a megabyte."""
    number = size = 0
    lines: list[int] = []
    signals: list[str] = []
    for line, values in file.rows():
        signal = reader.signal(values)
        if lines and (len(lines) == rows or size + len(signal) > CHUNK_BYTES):
            yield Chunk(number, lines, signals)
            number, size, lines, signals = number + 1, 0, [], []
        lines.append(line)
        signals.append(signal)
        size += len(signal)
    if lines:
        yield Chunk(number, lines, signals)


class Database:
    """A connection as the owner of the tables, made again when it is lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    def __enter__(self) -> Self:
        self._connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own."""
        with self._connection.cursor() as cursor:
            cursor.execute(query, tuple(map(str, values)))
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

    def rows_patiently(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement that may run twice; wait while the database or a lock is away."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if self._connection.closed:
                    self._connect()
                return self.rows(query, *values)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_SECONDS)

    def _connect(self) -> None:
        self._connection = psycopg2.connect(self._url, application_name="import_history")
        self._connection.autocommit = True


@dataclass(slots=True)
class Outcome:
    """What became of the rows so far."""

    stored: int = 0
    stored_before: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def duplicate(self) -> int:
        return self.refused["duplicate"]

    @property
    def rejected(self) -> int:
        return self.refused.total() - self.duplicate

    @property
    def rows(self) -> int:
        return self.stored + self.stored_before + self.refused.total()

    def add(self, verdict: Mapping[str, Any], last_seq_before: int) -> None:
        if verdict["accepted"] and verdict["first_seq"] <= last_seq_before:
            self.stored_before += verdict["accepted"]
        else:
            self.stored += verdict["accepted"]
        self.refused.update(item["code"] for item in verdict["items"])


class Rejects:
    """FILE.rejects.csv: each row that was not stored, by its line, with the reason."""

    def __init__(self, file: HistoryFile, closing: ExitStack) -> None:
        self._path = file.path.with_name(file.path.name + ".rejects.csv")
        self._path.unlink(missing_ok=True)
        self._closing = closing
        self._writer: Any = None

    def add(self, chunk: Chunk, items: Sequence[Mapping[str, Any]]) -> None:
        if items and self._writer is None:
            opened = self._closing.enter_context(self._path.open("w", newline=""))
            self._writer = csv.writer(opened)
            self._writer.writerow(("line", "code", "message", "signal"))
        for item in items:
            place = item["index"]
            self._writer.writerow(
                (chunk.lines[place], item["code"], item["message"], chunk.signals[place])
            )


@dataclass(slots=True)
class Import:
    """One run: the files of one account, chunk by chunk."""

    database: Database
    account_id: uuid.UUID
    chunk_rows: int
    last_seq_before: int
    outcome: Outcome = field(default_factory=Outcome)

    def add_file(
        self, file: HistoryFile, reader: SignalReader, progress: Callable[[int], None]
    ) -> None:
        with ExitStack() as closing, ThreadPoolExecutor(max_workers=1) as sender:
            rejects = Rejects(file, closing)
            answer = None
            # While the database has one chunk the next is read: one in flight, in their order.
            for chunk in chunks(file, reader, self.chunk_rows):
                following = sender.submit(self._send, chunk)
                if answer is not None:
                    self._note(answer.result(), rejects, progress)
                answer = following
            if answer is not None:
                self._note(answer.result(), rejects, progress)

    def _send(self, chunk: Chunk) -> tuple[Chunk, Mapping[str, Any]]:
        ((verdict,),) = self.database.rows_patiently(
            IMPORT, self.account_id, chunk.request_id(self.account_id), chunk.payload
        )
        return chunk, verdict

    def _note(
        self,
        answered: tuple[Chunk, Mapping[str, Any]],
        rejects: Rejects,
        progress: Callable[[int], None],
    ) -> None:
        chunk, verdict = answered
        rejects.add(chunk, verdict["items"])
        self.outcome.add(verdict, self.last_seq_before)
        progress(self.outcome.rows)
