"""The bytes of a segment: a header, then frames. Pure: no file is touched here.

    header  magic 8 · version u32 · crc32 u32 · slot uuid 16 · epoch u64 · first fsn u64 · zeros 16
    frame   length u32 · crc32 u32 · fsn u64 · lane u16 · kind u16 · body of `length` bytes

Numbers are little-endian. Frames begin at multiples of 8, and a length of zero ends them. The
checksum of a frame covers everything but itself and starts from a number made of the slot's uuid
and the segment's first fsn: a frame of another file never checks, and the frames of a segment whose
header is damaged still do.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID
from zlib import crc32

import msgspec

from signal_persistence.errors import SpoolError

MAGIC: Final = b"SIGSPOOL"
VERSION: Final = 1
HEADER_BYTES: Final = 64
FRAME_BYTES: Final = 20
"""What a frame takes beside its body, without the padding to the next multiple of 8."""
SIGNAL: Final = 1
"""The kind of a frame of the log."""
RECORD: Final = 2
"""The kind of a frame of the journal."""

_HEADER: Final = struct.Struct("<8sII16sQQ16x")
_CHECKED_HEADER: Final = struct.Struct("<I16sQQ")
_FRAME: Final = struct.Struct("<IIQHH")
_CHECKED: Final = struct.Struct("<QHH")
_NOT_ZERO: Final = re.compile(rb"[^\0]")

pack_frame_into: Final = _FRAME.pack_into
"""Write length, checksum, fsn, lane and kind at an offset of a buffer."""
unpack_length_from: Final = struct.Struct("<I").unpack_from
"""Return the length of the frame at an offset of a buffer, in a tuple; zero where there is none."""
pack_checked: Final = _CHECKED.pack
"""Return fsn, lane and kind as the checksum of a frame covers them, before its body."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame as it was read; its checksum was right."""

    fsn: int
    lane: int
    body: bytes
    kind: int = SIGNAL


class Gap(NamedTuple):
    """Bytes of a segment that are no frame."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a segment holds: frames, and gaps where bytes are damaged."""

    frames: list[Frame]
    gaps: list[Gap]
    """Damage with a good frame behind it: what was there is lost."""
    end: int
    """Where the last good frame ends."""
    torn: int
    """How many bytes behind `end` are not unused: a write that was under way, or damage."""


def header(uuid: UUID, epoch: int, first_fsn: int) -> bytes:
    """Return the header of a segment."""
    checked = crc32(_CHECKED_HEADER.pack(VERSION, uuid.bytes, epoch, first_fsn))
    return _HEADER.pack(MAGIC, VERSION, checked, uuid.bytes, epoch, first_fsn)


def header_checks(data: bytes, uuid: UUID, first_fsn: int) -> bool:
    """Say whether a segment begins with its header; False when that is damaged.

    Raises SpoolError when it is the undamaged header of another slot or version.
    """
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        return False
    _, version, checked, uuid_bytes, epoch, first = _HEADER.unpack_from(data)
    if checked != crc32(_CHECKED_HEADER.pack(version, uuid_bytes, epoch, first)):
        return False
    if version != VERSION:
        raise SpoolError(
            f"Cannot read the spool: it is of format {version}, this release knows {VERSION}; "
            "drain it with the release that wrote it, or move its directory away."
        )
    if uuid_bytes != uuid.bytes or first != first_fsn:
        raise SpoolError(
            "Cannot read the spool: a segment is not the one that its name and slot.json say; "
            "somebody moved it: put it back."
        )
    return True


def seed_of(uuid: UUID, first_fsn: int) -> int:
    """Return what the checksums of a segment's frames start from."""
    return crc32(first_fsn.to_bytes(8, "little"), crc32(uuid.bytes))


def frame_size(body_bytes: int) -> int:
    """Return how many bytes of a segment a frame takes."""
    return FRAME_BYTES + body_bytes + 7 & -8


def needed_bytes(data: bytes) -> int:
    """Return how many bytes the frame that `data` begins with says it takes."""
    return frame_size(int.from_bytes(data[:4], "little"))


def frames_from(
    data: bytes, at: int, seed: int, after_fsn: int, limit: int = sys.maxsize
) -> tuple[list[Frame], int]:
    """Return the unbroken run of frames that begins at a multiple of 8, and where it ends.

    At most `limit` frames are returned; they ascend from behind `after_fsn`.
    """
    frames: list[Frame] = []
    size = len(data)
    while len(frames) < limit and at + FRAME_BYTES < size:
        length, checksum, fsn, lane, kind = _FRAME.unpack_from(data, at)
        body_at = at + FRAME_BYTES
        end = body_at + length
        if not length or end > size or fsn <= after_fsn:
            break
        # fsn, lane, kind and body lie side by side.
        if crc32(data[at + 8 : end], seed ^ length) != checksum:
            break
        frames.append(Frame(fsn, lane, data[body_at:end], kind))
        after_fsn = fsn
        at = end + 7 & -8
    return frames, min(at, size)


def scan(data: bytes, at: int, seed: int, after_fsn: int) -> Scan:
    """Find every frame from `at` on; behind damage, go on at the next place where one checks."""
    frames, end = frames_from(data, at, seed, after_fsn)
    gaps: list[Gap] = []
    while True:
        last_fsn = frames[-1].fsn if frames else after_fsn
        again = _next_frame(data, end, seed, last_fsn)
        if again is None:
            return Scan(frames, gaps, end, _used(data, end))
        gaps.append(Gap(end, again - end))
        more, end = frames_from(data, again, seed, last_fsn)
        frames += more


def _next_frame(data: bytes, at: int, seed: int, after_fsn: int) -> int | None:
    while used := _NOT_ZERO.search(data, at):
        at = max(at, used.start() & -8)
        if frames_from(data, at, seed, after_fsn, limit=1)[0]:
            return at
        at += 8
    return None


def _used(data: bytes, at: int) -> int:
    return len(data[at:].rstrip(b"\0"))
