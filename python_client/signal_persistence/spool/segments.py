"""Segment files: named by their first frame, filled once from front to end, never written again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Final, Self
from uuid import UUID
from zlib import crc32

from signal_persistence.errors import SpoolError, SpoolFullError
from signal_persistence.spool.files import Files, MappedFile
from signal_persistence.spool.frames import (
    FRAME_BYTES,
    HEADER_BYTES,
    Frame,
    Gap,
    Scan,
    frame_size,
    header,
    header_checks,
    pack_checked,
    pack_frame_into,
    scan,
    seed_of,
    unpack_length_from,
)

_log: Final = logging.getLogger("signal_persistence")
_PAGE: Final = 4096
_COPIES_KEPT: Final = 8
FSN_BLOCK: Final = 1 << 32
"""After a loss of power numbers go on at the next multiple of this."""


@dataclass(slots=True)
class Damage:
    """What could not be read back; a copy of each damaged segment is kept as `….damaged`."""

    gaps: int = 0
    """Places where bytes between two frames are no frame (bit rot, or power lost)."""
    gap_bytes: int = 0
    torn_bytes: int = 0
    """Bytes behind the last frame: a write that was under way, never a published signal."""
    lost_frames: int = 0
    """Numbers that are missing between two frames."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery found in a directory of segments."""

    sizes: dict[int, int]
    """The bytes of each segment by its first fsn, in order."""
    last_fsn: int
    """The highest number found in a frame or a name, 0 if none."""
    damage: Damage


class SegmentWriter:
    """Fills one segment. Not thread-safe: one call at a time."""

    __slots__ = ("_buffer", "_end", "_file", "_seed", "_size", "last_fsn")

    def __init__(self, file: MappedFile, size: int, uuid: UUID, epoch: int, first_fsn: int) -> None:
        """`file` is new, of `size` bytes."""
        self._file: MappedFile | None = file
        self._buffer = file.buffer
        self._buffer[:HEADER_BYTES] = header(uuid, epoch, first_fsn)
        self._seed = seed_of(uuid, first_fsn)
        self._size = size
        self._end = HEADER_BYTES
        self.last_fsn = first_fsn - 1

    @classmethod
    def nowhere(cls) -> Self:
        """Return a writer without a file, which has room for nothing."""
        writer = cls.__new__(cls)
        writer._file = None
        writer._size = writer._end = writer.last_fsn = 0
        return writer

    def append(self, fsn: int, lane: int, kind: int, body: bytes) -> bool:
        """Write a frame, if there is room for it; `body` is not empty."""
        length = len(body)
        if not length:
            raise ValueError("Cannot write an empty frame: a length of zero ends a segment")
        at = self._end
        body_at = at + FRAME_BYTES
        end = body_at + length
        if end > self._size:
            return False
        checksum = crc32(body, crc32(pack_checked(fsn, lane, kind), self._seed ^ length))
        self._buffer[body_at:end] = body
        try:
            # Last, so that whoever reads meanwhile finds a length of zero rather than half a frame.
            pack_frame_into(self._buffer, at, length, checksum, fsn, lane, kind)
            self._end, self.last_fsn = end + 7 & -8, fsn
        except BaseException:
            # A signal handler raised. A frame that is there stays: somebody may have read it.
            if unpack_length_from(self._buffer, at)[0]:
                self._end, self.last_fsn = end + 7 & -8, fsn
            raise
        return True

    def sync(self) -> None:
        """Make the segment survive a loss of power."""
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Close the file; there is room for nothing any more."""
        self._size = 0
        if self._file is not None:
            self._file.close()


def segment_path(directory: Path, first_fsn: int) -> Path:
    """Return where the segment is that begins with a frame."""
    return directory / f"{first_fsn:020}.seg"


def first_fsns(files: Files, directory: Path) -> list[int]:
    """Return the numbers that the segments of a directory begin with, in order."""
    return [
        int(name[:20])
        for name in files.names(directory)
        if len(name) == 24 and name.endswith(".seg") and name[:20].isdecimal()
    ]


def wholly_through(fsn: int, firsts: Iterable[int]) -> list[int]:
    """Return the segments, of all in order, that hold nothing behind `fsn`; never the last one."""
    finished = takewhile(lambda pair: pair[1] <= fsn + 1, pairwise(firsts))
    return [first for first, _ in finished]


def segment_size(least: int, body_bytes: int) -> int:
    """Return the size of a new segment: whole pages, and room for a frame."""
    return -(-max(least, HEADER_BYTES + frame_size(body_bytes)) // _PAGE) * _PAGE


def missing(last_fsn: int, next_fsn: int) -> int:
    """Count the numbers between two frames that follow each other, 0 over a loss of power."""
    if (last_fsn + 1) // FSN_BLOCK != next_fsn // FSN_BLOCK:
        return 0
    return next_fsn - last_fsn - 1


def examine(data: bytes, uuid: UUID, first_fsn: int) -> Scan:
    """Find the frames and the damage of a whole segment.

    Raises SpoolError when it is of another slot or version.
    """
    intact = header_checks(data, uuid, first_fsn)
    found = scan(data, HEADER_BYTES, seed_of(uuid, first_fsn), first_fsn - 1)
    if not intact and data[:HEADER_BYTES].strip(b"\0"):
        found.gaps.insert(0, Gap(0, min(HEADER_BYTES, len(data))))
    return found


def recover(
    files: Files, directory: Path, uuid: UUID, visit: Callable[[Sequence[Frame]], None]
) -> Recovered:
    """Read all segments, cut what is behind the last frame of each, and make all of it durable.

    `visit` is called with the frames of each segment, in order. Raises SpoolError.
    """
    sizes: dict[int, int] = {}
    damage = Damage()
    last_fsn = 0
    for first_fsn in first_fsns(files, directory):
        path = segment_path(directory, first_fsn)
        data = files.read(path) or b""
        found = examine(data, uuid, first_fsn)
        _count(damage, found, data)
        if found.gaps or found.torn:
            keep_copy(files, path, data)
        damage.lost_frames += missing(last_fsn or first_fsn - 1, first_fsn)
        last_fsn = max(last_fsn, first_fsn - 1)
        if found.frames:
            span = found.frames[-1].fsn - last_fsn
            damage.lost_frames += span - len(found.frames)
            last_fsn = found.frames[-1].fsn
            files.truncate(path, found.end)
            sizes[first_fsn] = found.end
            visit(found.frames)
        else:
            files.remove(path)
    files.sync_directory(directory)
    return Recovered(sizes, last_fsn, damage)


def _count(damage: Damage, found: Scan, data: bytes) -> None:
    damage.gaps += len(found.gaps)
    damage.gap_bytes += sum(gap.size for gap in found.gaps)
    damage.torn_bytes += found.torn


def keep_copy(files: Files, path: Path, data: bytes) -> None:
    """Keep a damaged segment as it is for a person to look at, if there is room for it.

    Of many in one directory those with the highest numbers stay beside it.
    """
    copy = path.with_name(path.name + ".damaged")
    try:
        if files.size(copy) == 0:
            files.replace(copy, data)
        names = [name for name in files.names(path.parent) if name.endswith(".damaged")]
        for name in [name for name in names if name != copy.name][: 1 - _COPIES_KEPT]:
            _log.warning("Removed %s: there are %d others", path.with_name(name), _COPIES_KEPT)
            files.remove(path.with_name(name))
    except (SpoolError, SpoolFullError) as error:
        _log.warning("Cannot keep a copy of the damaged %s: %s", path, error)
