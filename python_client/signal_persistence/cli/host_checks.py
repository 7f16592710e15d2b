"""What `signals doctor` looks at on this host: versions, the spool and its disk."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

from signal_persistence.cli import spool_view as view
from signal_persistence.cli.finding import Finding
from signal_persistence.cli.output import size
from signal_persistence.errors import SignalPersistenceError
from signal_persistence.spool import SpoolSettings
from signal_persistence.spool.files import OS_FILES

_LITTLE_ROOM: Final = 1024**3
_TOO_LITTLE_ROOM: Final = 4 * SpoolSettings().segment_bytes
_SLOW_SYNC: Final = 0.1
"""Seconds of one fsync, from which on `spool_fsync="always"` is hard to bear."""


def versions() -> Finding:
    """Name the versions of this client, of its contract and of Python."""
    contract = files("signal_persistence").joinpath("contract.json").read_bytes()
    mark = hashlib.sha256(contract).hexdigest()[:12]
    client = version("signal-persistence")
    return Finding(
        "versions", "ok", f"client {client}, contract {mark}, Python {platform.python_version()}"
    )


def spool(directory: Path) -> Iterator[Finding]:
    """Look at a spool, whose directory need not exist, and at its disk."""
    place = _nearest(directory)
    problem, seconds = _try_to_write(place)
    advice = "make it writable for this user, or set SIGNAL_SPOOL_DIR"
    if problem is not None:
        yield Finding("spool", "fail", f"{directory} cannot be written: {problem}", advice)
        return
    if seconds > _SLOW_SYNC:
        yield Finding(
            "spool",
            "warn",
            f"{directory} is writable, but one fsync takes {seconds * 1000:.0f} ms",
            'with spool_fsync="always" every publish() waits for that: use a faster local disk',
        )
    else:
        there = "is writable" if place == directory else "is made by the first producer"
        yield Finding("spool", "ok", f"{directory} {there}, fsync {seconds * 1000:.1f} ms")
    yield _disk(place)
    yield from _contents(directory)


def _nearest(directory: Path) -> Path:
    """Return the directory, or the nearest above it that exists."""
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _try_to_write(place: Path) -> tuple[str | None, float]:
    """Write, sync and lock a file as a producer does; return what is wrong, and the seconds."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as folder:
            OS_FILES.replace(Path(folder) / "written", b"by signals doctor")
            seconds = time.monotonic() - began
            lock = OS_FILES.lock(Path(folder) / "lock")
            if lock is None:
                return "its locks do not work; it must be on a local file system", seconds
            lock.release()
            return None, seconds
    except OSError as error:
        return error.strerror or type(error).__name__, 0.0
    except SignalPersistenceError as error:
        return str(error), 0.0


def _disk(place: Path) -> Finding:
    """Compare what is free for this user with what a producer needs."""
    try:
        disk = os.statvfs(place)
    except OSError as error:
        return Finding("disk", "fail", f"{place} cannot be asked: {error.strerror}", "replace it")
    free = disk.f_bavail * disk.f_frsize
    found = f"{size(free)} free"
    advice = "free some space, or set SIGNAL_SPOOL_DIR to another disk"
    if free < _TOO_LITTLE_ROOM or (disk.f_files and not disk.f_favail):
        return Finding("disk", "fail", f"{found}: publish() soon raises SpoolFullError", advice)
    if free < _LITTLE_ROOM:
        return Finding("disk", "warn", found, advice)
    return Finding("disk", "ok", found)


def _contents(directory: Path) -> Iterator[Finding]:
    try:
        for project in view.projects(directory):
            yield from _project(project)
    except (OSError, SignalPersistenceError) as error:
        yield Finding("spooled", "fail", str(error), "make the spool readable for this user")


def _project(project: Path) -> Iterator[Finding]:
    slots = view.slots(project)
    damaged = sum(len(slot.damaged) for slot in slots)
    orphaned = waiting = 0
    for slot in slots:
        count = sum(view.pending_by_account(project, slot).values())
        waiting += count
        orphaned += 0 if slot.has_writer or slot.has_sender else count
    found = f"{project.name}: {len(slots)} slots, {waiting} signals wait to be sent"
    if orphaned:
        yield Finding(
            "spooled",
            "warn",
            f"{found}, {orphaned} of them of producers that have ended",
            "start a producer or `signals agent` with the same account: it sends them",
        )
    else:
        yield Finding("spooled", "ok", found)
    if damaged:
        yield Finding(
            "damage",
            "warn",
            f"{project.name}: {damaged} damaged segments are kept",
            "`signals spool show` names them; check the disk, then remove them",
        )
    letters = sum(len(file.letters) for file in view.letter_files(project))
    if letters:
        yield Finding(
            "dead letters",
            "warn",
            f"{project.name}: {letters} signals were refused",
            "`signals spool export --dead-letters` says why, `signals spool replay` sends again",
        )
