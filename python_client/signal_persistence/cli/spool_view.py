"""What a spool holds, seen from outside: nothing here writes, so its producers may be running."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from signal_persistence.errors import ConfigurationError
from signal_persistence.outbox import DEAD_LETTERS
from signal_persistence.spool import (
    DeadLetter,
    Frame,
    JournalBatch,
    LogReader,
    SlotInfo,
    default_spool_directory,
    expand,
    list_slots,
    project_directory,
    read_journal,
)
from signal_persistence.spool.files import OsFiles

_READ_MESSAGES: Final = 10_000
_READ_BYTES: Final = 4 * 1024**2
_letter_decoder: Final = msgspec.json.Decoder(DeadLetter)


class _LookingOnly(OsFiles):
    """Keeps no copies of what is damaged: whoever owns the slot does that."""

    def replace(self, path: Path, content: bytes) -> None:
        """Leave everything as it is."""


_FILES: Final = _LookingOnly()


@dataclass(frozen=True, slots=True)
class LetterFile:
    """A file of dead letters; `unreadable` counts the lines that are none."""

    path: Path
    letters: Sequence[DeadLetter]
    bytes: int
    unreadable: int

    @property
    def slot(self) -> str:
        """The slot whose signals they are."""
        return slot_of(self.path)


class Sent:
    """What the senders of a slot wrote down: the slot's own, and the agent of the host."""

    def __init__(self, project: Path, slot: SlotInfo) -> None:
        folders = (slot.path / "journal", project / "agent" / "journal")
        states = [read_journal(folder, files=_FILES) for folder in folders]
        self._uuid = slot.uuid
        self.batches: Sequence[JournalBatch] = [
            batch
            for state in states
            for batch in state.batches.values()
            if any(part.slot == slot.uuid for part in batch.parts)
        ]
        self._begun = [
            max(state.begun.get((slot.uuid, lane), 0) for state in states) for lane in slot.lanes
        ]
        self._in_batches = {
            fsn for batch in self.batches for part in self._parts(batch) for fsn in expand(part)
        }

    def is_pending(self, frame: Frame) -> bool:
        """Say whether the signal is neither stored nor a dead letter, as far as is known."""
        # A lane that was added since slot.json was read is of signals published since.
        known = frame.lane < len(self._begun)
        return known and (frame.fsn > self._begun[frame.lane] or frame.fsn in self._in_batches)

    def signals_in(self, batch: JournalBatch) -> int:
        """Return how many signals of this slot are in a batch."""
        return sum(last - first + 1 for part in self._parts(batch) for first, last in part)

    def _parts(self, batch: JournalBatch) -> Iterator[tuple[tuple[int, int], ...]]:
        return (part.fsns for part in batch.parts if part.slot == self._uuid)


def spool_directory(chosen: Path | None) -> Path:
    """Return the spool's directory, as producers find it."""
    return chosen or default_spool_directory()


def projects(spool: Path) -> list[Path]:
    """Return the directories of the projects that have anything in the spool."""
    names = _FILES.names(spool)
    return [
        spool / name
        for name in names
        if (spool / name / "slots").is_dir() or (spool / name / DEAD_LETTERS).is_dir()
    ]


def one_project(spool: Path, name: str | None) -> Path:
    """Return the project that is named, or of SUPABASE_URL, or else the only one.

    Raises ConfigurationError.
    """
    there = projects(spool)
    if name is not None:
        there = [project for project in there if project.name == name]
    elif url := os.environ.get("SUPABASE_URL"):
        there = [project_directory(spool, url)]
    if len(there) != 1:
        names = ", ".join(project.name for project in projects(spool)) or "none"
        raise ConfigurationError(
            f"Cannot tell which project is meant: give --project; in {spool} there are: {names}."
        )
    return there[0]


def slots(project: Path) -> list[SlotInfo]:
    """Return the slots of a project."""
    return list_slots(project, files=_FILES)


def one_slot(project: Path, name: str) -> SlotInfo:
    """Return a slot by its name. Raises ConfigurationError."""
    for slot in slots(project):
        if slot.name == name:
            return slot
    raise ConfigurationError(f"Cannot find slot {name} in {project}: signals spool ls lists them.")


def pending(project: Path, slot: SlotInfo) -> Iterator[Frame]:
    """Iterate over the signals of a slot that are neither stored nor dead letters, in order.

    Raises SpoolError.
    """
    # The journal first: what is begun meanwhile is still counted as pending, never missed.
    sent = Sent(project, slot)
    reader = LogReader(slot.path / "log", slot.uuid, files=_FILES)
    try:
        fsn = 0
        while frames := reader.read(fsn, _READ_MESSAGES, _READ_BYTES):
            yield from (frame for frame in frames if sent.is_pending(frame))
            fsn = frames[-1].fsn
    finally:
        reader.close()


def pending_by_account(project: Path, slot: SlotInfo) -> Mapping[str, int]:
    """Count the pending signals of each account."""
    lanes = Counter(frame.lane for frame in pending(project, slot))
    return {slot.lanes[lane]: count for lane, count in lanes.items()}


def letter_files(project: Path, slot: str | None = None) -> Iterator[LetterFile]:
    """Iterate over the files of dead letters, oldest first, of all slots or of one."""
    folder = project / DEAD_LETTERS
    for name in _FILES.names(folder):
        path = folder / name
        if path.suffix == ".jsonl" and slot in (None, slot_of(path)):
            yield _read_letters(path)


def slot_of(path: Path) -> str:
    """Return the slot that a file of dead letters (`<date>-<slot>[.<n>].jsonl`) is of."""
    return path.name.split(".")[0].rpartition("-")[2]


def _read_letters(path: Path) -> LetterFile:
    content = _FILES.read(path) or b""
    letters: list[DeadLetter] = []
    unreadable = 0
    for line in content.splitlines():
        try:
            letters.append(_letter_decoder.decode(line))
        except msgspec.DecodeError:
            unreadable += bool(line)
    return LetterFile(path, letters, len(content), unreadable)


def writer_pid(slot: SlotInfo) -> str:
    """Return who writes to the slot now, for people."""
    return _holder(slot.path / "writer.lock", slot.has_writer)


def sender_pid(slot: SlotInfo) -> str:
    """Return who sends from the slot now, for people."""
    return _holder(slot.path / "sender.lock", slot.has_sender)


def _holder(path: Path, held: bool) -> str:
    pid = (_FILES.read(path) or b"").decode("ascii", "replace").strip()
    return f"pid {pid}" if held else "nobody"
