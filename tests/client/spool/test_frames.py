"""The reader of segments against damaged, cut and random bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from uuid import UUID
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_persistence.errors import SpoolError
from signal_persistence.spool.frames import HEADER_BYTES, Scan, frame_size, header
from signal_persistence.spool.segments import SegmentWriter, examine
from tests.client.spool.simulated_files import SimulatedFiles

UUID_OF_SLOT = UUID(int=7)
FIRST = 5
SIZE = 8192
BODIES = st.lists(st.binary(min_size=1, max_size=300), max_size=20)


def segment(bodies: list[bytes]) -> bytes:
    file = SimulatedFiles().create(Path("/x"), SIZE)
    writer = SegmentWriter(file, SIZE, UUID_OF_SLOT, 1, FIRST)
    for number, body in enumerate(bodies):
        assert writer.append(FIRST + number, number % 3, 1, body)
    return bytes(memoryview(file.buffer))


def flip(data: bytes, at: int, mask: int) -> bytes:
    at %= max(1, len(data))
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def overwrite(data: bytes, at: int, garbage: bytes) -> bytes:
    at %= max(1, len(data))
    return (data[:at] + garbage + data[at + len(garbage) :])[: len(data)]


DAMAGE: st.SearchStrategy[Callable[[bytes], bytes]] = st.one_of(
    st.builds(
        lambda at, mask: lambda data: flip(data, at, mask),
        st.integers(0, SIZE),
        st.integers(1, 255),
    ),
    st.builds(lambda size: lambda data: data[:size], st.integers(1, SIZE)),
    st.builds(
        lambda at, garbage: lambda data: overwrite(data, at, garbage),
        st.integers(0, SIZE),
        st.binary(min_size=1, max_size=600),
    ),
    st.builds(
        lambda at, size: lambda data: overwrite(data, at, bytes(size)),
        st.integers(0, SIZE),
        st.integers(1, 2000),
    ),
)


def assert_every_byte_is_accounted_for(data: bytes, found: Scan) -> None:
    frames = sum(frame_size(len(frame.body)) for frame in found.frames)
    gaps = sum(gap.size for gap in found.gaps if gap.offset >= HEADER_BYTES)
    # A file may be cut within the padding of its last frame.
    assert 0 <= HEADER_BYTES + frames + gaps - found.end < 8 or not found.frames
    assert not data[found.end + found.torn :].strip(b"\0")


@given(BODIES)
def test_what_was_written_is_read(bodies: list[bytes]) -> None:
    found = examine(segment(bodies), UUID_OF_SLOT, FIRST)
    assert [frame.body for frame in found.frames] == bodies
    assert [frame.fsn for frame in found.frames] == list(range(FIRST, FIRST + len(bodies)))
    assert [frame.lane for frame in found.frames] == [n % 3 for n in range(len(bodies))]
    assert (found.gaps, found.torn) == ([], 0)


@given(BODIES, st.lists(DAMAGE, min_size=1, max_size=3))
def test_damage_never_changes_a_frame_and_is_counted(
    bodies: list[bytes], damages: list[Callable[[bytes], bytes]]
) -> None:
    whole = segment(bodies)
    data = whole
    for damage in damages:
        data = damage(data)
    found = examine(data, UUID_OF_SLOT, FIRST)
    for frame in found.frames:
        assert bodies[frame.fsn - FIRST] == frame.body
    assert_every_byte_is_accounted_for(data, found)
    offset = HEADER_BYTES
    readable = {frame.fsn for frame in found.frames}
    for number, body in enumerate(bodies):
        end = offset + frame_size(len(body))
        if data[offset:end] == whole[offset:end]:
            assert FIRST + number in readable, "an undamaged frame is not found"
        offset = end


@given(st.binary(max_size=4096))
def test_random_bytes_hold_no_frame(data: bytes) -> None:
    found = examine(data, UUID_OF_SLOT, FIRST)
    assert found.frames == []
    assert_every_byte_is_accounted_for(data, found)


def test_a_frame_of_another_segment_is_no_frame() -> None:
    frames = segment([b"signal"])[HEADER_BYTES:]
    other = header(UUID_OF_SLOT, 1, FIRST - 1) + frames
    assert examine(other, UUID_OF_SLOT, FIRST - 1).frames == []


def test_frames_are_found_without_their_header() -> None:
    data = bytes(HEADER_BYTES) + segment([b"one", b"two"])[HEADER_BYTES:]
    assert [frame.body for frame in examine(data, UUID_OF_SLOT, FIRST).frames] == [b"one", b"two"]


def test_another_version_is_refused_with_advice() -> None:
    fields = struct.pack("<I16sQQ", 2, UUID_OF_SLOT.bytes, 1, FIRST)
    newer = b"SIGSPOOL" + fields[:4] + struct.pack("<I", crc32(fields)) + fields[4:] + bytes(16)
    with pytest.raises(SpoolError, match=r"format 2, this release knows 1; drain it"):
        examine(newer, UUID_OF_SLOT, FIRST)


def test_the_segment_of_another_slot_is_refused() -> None:
    with pytest.raises(SpoolError, match="moved"):
        examine(segment([b"x"]), UUID(int=8), FIRST)
