"""Reading the log of a slot, also while another process writes it."""

from __future__ import annotations

import logging
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from signal_persistence.spool.files import OS_FILES, Files, ReadFile
from signal_persistence.spool.frames import (
    HEADER_BYTES,
    Frame,
    frame_size,
    frames_from,
    header_checks,
    needed_bytes,
    scan,
    seed_of,
)
from signal_persistence.spool.ranges import Ranges
from signal_persistence.spool.segments import (
    Damage,
    first_fsns,
    keep_copy,
    missing,
    segment_path,
)

_log: Final = logging.getLogger("signal_persistence")
_CHUNK: Final = 256 * 1024
_FETCHED_AT_ONCE: Final = 1_000


@dataclass(slots=True)
class _Place:
    """A point in a segment: behind the frame `last_fsn`."""

    first_fsn: int
    file: ReadFile
    seed: int
    offset: int
    last_fsn: int
    searched: bool = False
    """Whether the unused room of the newest segment was searched for frames behind a hole."""


class LogReader:
    """Reads the log that another process, or nobody, writes. One thread at a time."""

    def __init__(
        self,
        directory: Path,
        uuid: UUID,
        *,
        files: Files = OS_FILES,
        segments: Callable[[], Sequence[int]] | None = None,
    ) -> None:
        """`directory` is `<slot>/log`, `uuid` that of slot.json.

        `segments` names the segments by their first fsn, for who knows them without looking.
        """
        self.damage = Damage()
        self._directory = directory
        self._uuid = uuid
        self._files = files
        self._segments = segments or (lambda: first_fsns(files, directory))
        self._place: _Place | None = None
        self._noted: set[tuple[int, int]] = set()

    def read(
        self, after_fsn: int, max_messages: int, max_bytes: int, through_fsn: int = sys.maxsize
    ) -> list[Frame]:
        """As `Log.read`: what the writer has published so far; an empty list if nothing is new.

        Nothing behind `through_fsn` is returned. Raises SpoolError.
        """
        frames: list[Frame] = []
        place = self._seek(after_fsn)
        while place is not None and len(frames) < max_messages:
            run = self._run(place, max_messages - len(frames))
            if run is None:
                place = self._next_segment(place)
                continue
            if not run:
                break
            for frame in run:
                if frame.fsn > after_fsn:
                    max_bytes -= len(frame.body)
                    if frame.fsn > through_fsn or (max_bytes < 0 and frames):
                        return frames
                    frames.append(frame)
                place.offset += frame_size(len(frame.body))
                place.last_fsn = frame.fsn
        return frames

    def fetch(self, fsns: Ranges) -> list[Frame]:
        """As `Log.fetch`. Raises SpoolError."""
        kept, self._place = self._place, None
        found: list[Frame] = []
        try:
            for first, last in fsns:
                while first <= last:
                    most = min(last - first + 1, _FETCHED_AT_ONCE)
                    frames = self.read(first - 1, most, sys.maxsize, last)
                    if not frames:
                        break
                    found += frames
                    first = frames[-1].fsn + 1
        finally:
            self.close()
            self._place = kept
        return found

    def close(self) -> None:
        """Close the file being read; reading again opens it again."""
        if self._place is not None:
            self._place.file.close()
            self._place = None

    def _seek(self, after_fsn: int) -> _Place | None:
        """Return a place at or before the first frame behind `after_fsn`, None without segments."""
        segments = self._segments()
        if not segments:
            return None
        wanted = segments[max(0, bisect_right(segments, after_fsn + 1) - 1)]
        place = self._place
        if place is not None and place.first_fsn == wanted and place.last_fsn <= after_fsn:
            return place
        return self._open(wanted)

    def _open(self, first_fsn: int) -> _Place | None:
        self.close()
        file = self._files.open(segment_path(self._directory, first_fsn))
        if file is None:
            return None
        try:
            head = file.read(0, HEADER_BYTES)
            if not header_checks(head, self._uuid, first_fsn) and head.strip(b"\0"):
                self._note(first_fsn, 0, len(head), 0)
        except Exception:
            file.close()
            raise
        seed = seed_of(self._uuid, first_fsn)
        self._place = _Place(first_fsn, file, seed, HEADER_BYTES, first_fsn - 1)
        return self._place

    def _next_segment(self, place: _Place) -> _Place | None:
        segments = self._segments()
        at = bisect_right(segments, place.first_fsn)
        if at == len(segments):
            return None
        # A segment that is gone was finished, and so were those behind it that are gone as well.
        if place.first_fsn in segments:
            self._note(segments[at], 0, 0, missing(place.last_fsn, segments[at]))
        return self._open(segments[at])

    def _run(self, place: _Place, limit: int) -> list[Frame] | None:
        """Return the next frames; none if there are none yet, None if the segment is through."""
        data = place.file.read(place.offset, _CHUNK)
        needed = needed_bytes(data)
        if needed > len(data):
            left = max(0, place.file.size() - place.offset)
            data = place.file.read(place.offset, min(needed, left))
        run, _ = frames_from(data, 0, place.seed, place.last_fsn, limit)
        return run or self._search(place, limit)

    def _search(self, place: _Place, limit: int) -> list[Frame] | None:
        """Look for frames behind bytes that are no frame, as `_run`."""
        # Asked first: a segment that is not the newest is complete when it is read after that.
        segments = self._segments()
        newest = not segments or place.first_fsn >= segments[-1]
        if newest and place.searched:
            return []
        place.searched = True
        data = place.file.read(place.offset, max(0, place.file.size() - place.offset))
        found = scan(data, 0, place.seed, place.last_fsn)
        if newest and found.frames:
            # The writer may have overtaken this look, which then saw the end of what it wrote and
            # not the beginning. It writes in order: all before a frame that is seen is there now.
            data = place.file.read(place.offset, len(data))
            found = scan(data, 0, place.seed, place.last_fsn)
        if not found.frames:
            if not newest and found.torn:
                self._note(place.first_fsn, place.offset, found.torn, 0)
            return [] if newest else None
        if found.gaps and found.gaps[0].offset == 0:
            lost = missing(place.last_fsn, found.frames[0].fsn)
            self._note(place.first_fsn, place.offset, found.gaps[0].size, lost)
            place.offset += found.gaps[0].size
            place.searched = False
        return found.frames[:1]

    def _note(self, first_fsn: int, offset: int, size: int, lost: int) -> None:
        if not (size or lost) or (first_fsn, offset) in self._noted:
            return
        self._noted.add((first_fsn, offset))
        self.damage.gaps += 1
        self.damage.gap_bytes += size
        self.damage.lost_frames += lost
        path = segment_path(self._directory, first_fsn)
        _log.error("%s is damaged at byte %d: %d bytes, %d signals", path, offset, size, lost)
        keep_copy(self._files, path, self._files.read(path) or b"")
