"""Signals that the service finally refused, one a line, in files that a person can read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from signal_persistence.spool.files import OS_FILES, Files

_log: Final = logging.getLogger("signal_persistence")
_FILES_KEPT: Final = 8
"""A file is put aside when it has this part of what all may have together."""
_encoder: Final = msgspec.json.Encoder()


class DeadLetter(msgspec.Struct, frozen=True):
    """A signal that was not stored, and why; `signal` is its JSON as it was published."""

    account: str
    """The lane: an account id, or what the credentials call themselves."""
    code: str
    message: str
    request_id: str
    at: datetime
    slot: str
    fsn: int
    signal: msgspec.Raw


_decoder: Final = msgspec.json.Decoder(DeadLetter)


class DeadLetters:
    """The dead letters of one slot: `<directory>/<date>-<slot>.jsonl`.

    A file that has become large is put aside under a number before a new one is begun.
    """

    def __init__(
        self, directory: Path, slot: str, max_bytes: int, *, files: Files = OS_FILES
    ) -> None:
        """`directory` is `<project>/dead_letters`; it is made with the first letter."""
        self.dropped = 0
        """How many letters were removed because all files together passed `max_bytes`."""
        self._directory = directory
        self._slot = slot
        self._max_bytes = max_bytes
        self._files = files

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Write the letters and sync them to the disk, in the file of the first one's day.

        When all files of the directory together pass `max_bytes`, the oldest are removed, counted
        in `dropped` and logged as an error. Raises SpoolFullError("no_space") or SpoolError; then
        none of them is written: add all of them again later.
        """
        if not letters:
            return
        lines = b"".join(_encoder.encode(letter) + b"\n" for letter in letters)
        self._files.make_directory(self._directory)
        path = self._directory / f"{letters[0].at:%Y-%m-%d}-{self._slot}.jsonl"
        self._put_aside(path)
        self._make_room(len(lines))
        self._files.append(path, b"\n" + lines if self._is_torn(path) else lines)

    @staticmethod
    def read(directory: Path, *, files: Files = OS_FILES) -> Iterator[DeadLetter]:
        """Iterate over all letters, oldest file first; a torn line is logged and passed over.

        A letter that was added twice (a crash in between) comes twice: `slot` and `fsn` tell.
        """
        for path in _paths(directory, files):
            for number, line in enumerate((files.read(path) or b"").splitlines(), 1):
                try:
                    yield _decoder.decode(line)
                except msgspec.DecodeError as error:
                    _log.error("%s, line %d is no dead letter: %s", path, number, error)

    def _put_aside(self, path: Path) -> None:
        if self._files.size(path) >= self._max_bytes // _FILES_KEPT:
            numbers = [_number(other) for other in _paths(self._directory, self._files)]
            aside = path.with_suffix(f".{max(numbers) + 1:06}.jsonl")
            self._files.rename(path, aside)
            self._files.sync_directory(self._directory)

    def _make_room(self, size: int) -> None:
        sizes = {path: self._files.size(path) for path in _paths(self._directory, self._files)}
        for path in list(sizes):
            if sum(sizes.values()) + size <= self._max_bytes:
                return
            dropped = (self._files.read(path) or b"").count(b"\n")
            self._files.remove(path)
            self._files.sync_directory(self._directory)
            del sizes[path]
            self.dropped += dropped
            _log.error("Removed %s with %d dead letters to make room for newer", path, dropped)

    def _is_torn(self, path: Path) -> bool:
        """Say whether the file ends in the middle of a line: power was lost in a write."""
        file = self._files.open(path)
        if file is None:
            return False
        try:
            return file.read(max(0, file.size() - 1), 1) not in (b"", b"\n")
        finally:
            file.close()


def _paths(directory: Path, files: Files) -> list[Path]:
    return [directory / name for name in files.names(directory) if name.endswith(".jsonl")]


def _number(path: Path) -> int:
    middle = path.name.split(".")[1]
    return int(middle) if middle.isdecimal() else 0
