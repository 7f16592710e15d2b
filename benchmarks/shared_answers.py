"""Answers in shared memory: what `scripts/bench cache` compares a cache in each process with.

One process writes, any number read without a lock: each slot has a version, odd while it is being
written. Python objects cannot be shared, so a reader copies and decodes. The layout is as good to
the reader as it can be: who reads knows the place of its answer, and no slot is ever full.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from multiprocessing.shared_memory import SharedMemory

import msgspec

from signal_persistence import StoredSignal

_HEAD = struct.Struct("<QQ")
"""Version and length of what follows."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[StoredSignal, ...]).decode


class SharedAnswers:
    """Slots of equal size in a named piece of shared memory."""

    def __init__(self, slots: int, slot_bytes: int, name: str | None = None) -> None:
        """Without a name a new piece is made, which `close` removes."""
        self.slot_bytes = slot_bytes
        self._owned = name is None
        self._memory = SharedMemory(name, create=self._owned, size=slots * slot_bytes)
        self.name = self._memory.name
        assert self._memory.buf is not None  # noqa: S101
        self._buffer = self._memory.buf

    def write(self, slot: int, signals: Sequence[StoredSignal]) -> int:
        """Put an answer into a slot; return its bytes."""
        body = _encode(tuple(signals))
        start = slot * self.slot_bytes
        version, _ = _HEAD.unpack_from(self._buffer, start)
        _HEAD.pack_into(self._buffer, start, version + 1, len(body))
        self._buffer[start + _HEAD.size : start + _HEAD.size + len(body)] = body
        _HEAD.pack_into(self._buffer, start, version + 2, len(body))
        return len(body)

    def read(self, slot: int) -> tuple[StoredSignal, ...]:
        """Return the answer in a slot, as it was at one moment."""
        start = slot * self.slot_bytes
        buffer = self._buffer
        while True:
            version, length = _HEAD.unpack_from(buffer, start)
            body = bytes(buffer[start + _HEAD.size : start + _HEAD.size + length])
            if version % 2 == 0 and _HEAD.unpack_from(buffer, start)[0] == version:
                return _decode(body)

    def close(self) -> None:
        del self._buffer
        self._memory.close()
        if self._owned:
            self._memory.unlink()
