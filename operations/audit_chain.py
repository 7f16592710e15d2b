"""The audit chain computed again outside the database: the bytes of docs/audit.md, hashed here.

Pure: rows come in as they are stored, and what is wrong with them comes out.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
Type: TypeAlias = str
"""A column's type as PostgreSQL names it: one of OIDS."""

OIDS: Final[Mapping[Type, int]] = {
    "bytea": 17,
    "int8": 20,
    "text": 25,
    "float8": 701,
    "timestamptz": 1184,
    "uuid": 2950,
}
SIGNAL: Final[Sequence[Type]] = (
    *("int8", "uuid", "text", "text", "timestamptz", "text"),
    *("float8", "float8", "float8", "float8", "timestamptz", "text"),
)
EVENT: Final[Sequence[Type]] = (
    *("int8", "int8", "uuid", "text", "text", "timestamptz", "text", "timestamptz"),
    *("timestamptz", "float8", "float8", "text", "float8", "float8", "text", "text"),
)
LINK: Final[Sequence[Type]] = (
    *("bytea", "uuid", "int8", "text", "int8", "int8"),
    *("timestamptz", "timestamptz", "timestamptz", "bytea"),
)
ROWS: Final[Mapping[str, Sequence[Type]]] = {"signals": SIGNAL, "events": EVENT}


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ended when its head was exported."""

    account_id: uuid.UUID
    link_no: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """One row of audit.links."""

    link_no: int
    kind: str
    first_seq: int
    last_seq: int
    first_generated_at: datetime
    last_generated_at: datetime
    received_at: datetime
    digest: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """The first link of an account that is not as it was, and what is wrong with it."""

    account_id: uuid.UUID
    link_no: int
    problem: str


class Chain:
    """Walks one account's chain from a head that is trusted (by default from its beginning)."""

    def __init__(self, account_id: uuid.UUID, start: Head | None = None) -> None:
        self.head = start or Head(account_id, 0, b"")
        self.next_seqs = {} if start else dict.fromkeys(ROWS, 1)

    def extend(self, link: Link, stored: bytes | None) -> Broken | None:
        """Append the link when it is the successor of the head and of what is stored.

        `stored` is the digest of what is stored now in the link's range, None for nothing at all.
        """
        link_no = self.head.link_no + 1
        problem = self._problem(link, link_no, stored)
        if problem:
            return Broken(self.head.account_id, link_no, problem)
        self.head = Head(self.head.account_id, link_no, link.hash)
        self.next_seqs[link.kind] = link.last_seq + 1
        return None

    def _problem(self, link: Link, link_no: int, stored: bytes | None) -> str | None:
        if link.link_no != link_no:
            return "link_missing" if link.link_no > link_no else "link_twice"
        in_order = self.next_seqs.get(link.kind, link.first_seq) == link.first_seq
        if link.hash != link_hash(self.head, link) or not in_order:
            return "link_altered" if in_order else "order_changed"
        return None if stored == link.digest else "content_changed"

    def end(self, exported: Head) -> Broken | None:
        """Tell whether the chain, walked as far as the exported head, ends in it."""
        if self.head.link_no < exported.link_no:
            return Broken(exported.account_id, self.head.link_no + 1, "link_missing")
        if self.head.hash != exported.hash:
            return Broken(exported.account_id, exported.link_no, "head_mismatch")
        return None


def link_hash(previous: Head, link: Link) -> bytes:
    """Return the hash that a link must have behind the previous one."""
    values = (
        *(previous.hash, previous.account_id, link.link_no, link.kind),
        *(link.first_seq, link.last_seq, link.first_generated_at, link.last_generated_at),
        *(link.received_at, link.digest),
    )
    return hashlib.sha256(record_bytes(LINK, values)).digest()


def digests(
    kind: str, rows: Iterable[Sequence[Any]], links: Sequence[Link]
) -> Iterator[bytes | None]:
    """Return the digest of each link's rows; rows and links come in the order of seq."""
    waiting = iter(rows)
    row = next(waiting, None)
    for link in links:
        digest = hashlib.sha256()
        count = 0
        while row is not None and row[0] <= link.last_seq:
            if row[0] >= link.first_seq:
                digest.update(record_bytes(ROWS[kind], row))
                count += 1
            row = next(waiting, None)
        yield digest.digest() if count else None


def record_bytes(types: Sequence[Type], values: Sequence[Any]) -> bytes:
    """Return what PostgreSQL's record_send returns for a row of these values."""
    parts = [struct.pack(">i", len(types))]
    for name, value in zip(types, values, strict=True):
        data = None if value is None else _value_bytes(name, value)
        parts.append(struct.pack(">Ii", OIDS[name], -1 if data is None else len(data)))
        if data is not None:
            parts.append(data)
    return b"".join(parts)


def _value_bytes(name: Type, value: Any) -> bytes:
    match name:
        case "int8":
            return struct.pack(">q", value)
        case "float8":
            return struct.pack(">d", value)
        case "timestamptz":
            return struct.pack(">q", (value - POSTGRES_EPOCH) // timedelta(microseconds=1))
        case "uuid":
            return uuid.UUID(str(value)).bytes
        case "text":
            return str(value).encode()
        case _:
            return bytes(value)
