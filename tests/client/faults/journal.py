"""What a process that may be killed says it did: counters in files that are mapped into memory.

The kernel keeps what was written however the process ends. Nothing here knows the client.
"""

from __future__ import annotations

import enum
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_OFFERED, _ACCEPTED, _LOOKS, _VIOLATIONS = range(4)
_WORD: Final = 8


class Journal:
    """Counts one stream of signals numbered from 1, published one after the other by one process.

    The numbers that publish() took are 1 to `accepted`. `offered` is one more while a call has not
    returned: whoever is killed then leaves one signal that may be stored or not.
    """

    def __init__(self, path: Path) -> None:
        """Begin the journal of a new stream."""
        self._words = _new_words(path, 4)

    def offer(self) -> int:
        """Note that the next signal is about to be published, and return its number."""
        self._words[_OFFERED] += 1
        return self._words[_OFFERED]

    def accept(self) -> None:
        """Note that publish() returned."""
        self._words[_ACCEPTED] = self._words[_OFFERED]

    def looked(self, *, violated: bool) -> None:
        """Note that the producer's counts were looked at, and whether they contradicted."""
        self._words[_LOOKS] += 1
        self._words[_VIOLATIONS] += violated


@dataclass(frozen=True, slots=True)
class Told:
    """A journal as it is read afterwards."""

    offered: int
    accepted: int
    looks: int
    violations: int

    @classmethod
    def read(cls, path: Path) -> Self:
        # A process that was killed while it made the file has published nothing.
        return cls(*(memoryview(path.read_bytes()).cast("Q") or [0] * 4))


class Phase(enum.IntEnum):
    """What a trader process is about."""

    STARTING = 0
    OPENING = 1
    PUBLISHING = 2
    FORKING = 3
    CLOSING = 4


class PhaseMark:
    """Says to the processes around what this one is about."""

    def __init__(self, path: Path) -> None:
        self._words = _new_words(path, 1)

    def enter(self, phase: Phase) -> None:
        self._words[0] = phase

    @staticmethod
    def read(path: Path) -> Phase:
        """Return the phase of the process with this file, STARTING before it has made it."""
        try:
            return Phase(int.from_bytes(path.read_bytes(), "little"))
        except FileNotFoundError:
            return Phase.STARTING


def _new_words(path: Path, count: int) -> memoryview:
    with path.open("x+b") as file:
        file.truncate(count * _WORD)
        return memoryview(mmap.mmap(file.fileno(), count * _WORD)).cast("Q")
