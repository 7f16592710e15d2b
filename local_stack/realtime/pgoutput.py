"""Decode PostgreSQL's `pgoutput` replication messages, as far as inserted rows need it.

The format is in the PostgreSQL manual, "Logical Replication Message Formats", version 1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_RELATION = ord("R")
_INSERT = ord("I")


Row = dict[str, str | None]
"""One inserted row: the text that PostgreSQL prints for each column, or None for null."""


@dataclass(slots=True)
class Decoder:
    """Remembers the columns of each relation, which the server sends before its first row."""

    _columns: dict[int, list[str]] = field(default_factory=dict)

    def decode(self, message: bytes) -> Row | None:
        """Return the row of an insert message; None for every other message."""
        kind = message[0]
        if kind == _INSERT:
            return self._insert(message)
        if kind == _RELATION:
            self._relation(message)
        return None

    def _relation(self, message: bytes) -> None:
        relation_id: int = struct.unpack_from(">I", message, 1)[0]
        _schema, start = _c_string(message, 5)
        _table, start = _c_string(message, start)
        start += 1  # replica identity
        count: int = struct.unpack_from(">H", message, start)[0]
        start += 2
        columns = []
        for _ in range(count):
            name, start = _c_string(message, start + 1)  # 1: flags
            columns.append(name)
            start += 8  # type, type modifier
        self._columns[relation_id] = columns

    def _insert(self, message: bytes) -> Row:
        relation_id: int = struct.unpack_from(">I", message, 1)[0]
        start = 8  # kind, relation id, 'N', number of columns
        row: Row = {}
        for name in self._columns[relation_id]:
            kind = message[start : start + 1]
            start += 1
            if kind != b"t":
                row[name] = None
                continue
            length: int = struct.unpack_from(">I", message, start)[0]
            start += 4
            row[name] = message[start : start + length].decode()
            start += length
        return row


def _c_string(message: bytes, start: int) -> tuple[str, int]:
    end = message.index(b"\0", start)
    return message[start:end].decode(), end + 1
