"""A disk that is really full, a limit on file sizes, and a disk that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import signal_persistence

PRELUDE = """
import os, resource, sys
from pathlib import Path
from uuid import uuid4
from signal_persistence.errors import SpoolError, SpoolFullError
from signal_persistence.spool import JournalBatch, Part, Slot, SpoolSettings

project = Path(sys.argv[1])
settings = SpoolSettings(fsync="always", segment_bytes=65536, journal_bytes=16384)

def fill(slot):
    try:
        while True:
            slot.log.append(0, b"x" * 1000)
    except SpoolFullError as error:
        return error.reason
"""
FULL = """
slot = Slot.open(project, ["a"], settings)
before = len(list((slot.path / "log").iterdir()))
assert fill(slot) == "no_space"
assert fill(slot) == "no_space", "it is still full"
last = slot.log.published_fsn
slot.log.await_durable(last)
assert last >= 63
names = [path.name for path in (slot.path / "log").iterdir()]
read, after = 0, 0
while frames := slot.log.read(after, 1000, 10**6):
    read, after = read + len(frames), frames[-1].fsn
assert read == last, "what was accepted is there"

# The journal goes on: what it needs was taken before. More than its file holds is written.
for number in range(1, 300):
    batch = JournalBatch(uuid4(), "a", (Part(slot.uuid, ((number, number),)),))
    slot.journal.begin(batch)
    slot.journal.finish(batch.request_id)
slot.close()

# A restart on the full disk finds everything.
slot = Slot.open(project, ["a"], settings)
assert slot.recovered.signals == last - min(last, 299), slot.recovered
"""
ROOM_AGAIN = """
slot.log.finish_through(last)
make_room()
assert slot.log.append(0, b"y" * 1000) == last + 1
slot.close()
print("as expected")
"""
READ_ONLY = """
try:
    Slot.open(project, ["a"], settings)
except SpoolError as error:
    assert "mount it writable, or set spool_dir" in str(error), error
    print("as expected")
"""


def run(code: str, argument: str | Path, *before: str) -> str:
    command = [*before, sys.executable, "-c", PRELUDE + code, str(argument)]
    env = {**os.environ, "PYTHONPATH": str(Path(signal_persistence.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    return done.stdout + done.stderr


def in_namespace(*mount: str) -> list[str]:
    """Return what runs a command where this user may mount; skips where no user may."""
    allowed = subprocess.run(["unshare", "-Urm", "true"], capture_output=True)
    if allowed.returncode:
        pytest.skip("this system lets no user mount a file system")
    return ["unshare", "-Urm", "sh", "-ec", f'{" ".join(mount)}; exec "$@"', "sh"]


def test_a_full_disk_refuses_and_everything_accepted_is_kept(tmp_path: Path) -> None:
    filler = tmp_path / "filler"
    code = f"""
filler = Path({str(filler)!r})
with open(filler, "wb") as file:
    file.write(bytes(512 * 1024))
{FULL}
def make_room():
    filler.unlink()
{ROOM_AGAIN}"""
    mount = in_namespace("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path))
    assert "as expected" in run(code, tmp_path / "project", *mount)


def test_a_limit_of_the_file_size_refuses_in_the_same_way(tmp_path: Path) -> None:
    code = """
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
slot = Slot.open(project, ["a"], settings)
slot.log.append(0, b"x" * 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
assert fill(slot) == "no_space"
last = slot.log.published_fsn
assert len(slot.log.read(0, 1000, 10**6)) == last == 63
assert len(list((slot.path / "log").iterdir())) == 1, "no half segment is left"
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert slot.log.append(0, b"y") == last + 1
slot.close()
print("as expected")
"""
    assert "as expected" in run(code, tmp_path)


def test_a_read_only_disk_is_refused_with_advice(tmp_path: Path) -> None:
    mount = in_namespace("mount", "--bind", "-o", "ro", str(tmp_path), str(tmp_path))
    assert "as expected" in run(READ_ONLY, tmp_path / "project", *mount)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_of_somebody_else_is_refused_with_advice(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code = READ_ONLY.replace("mount it writable", "make it writable for this user")
    assert "as expected" in run(code, tmp_path / "project")
