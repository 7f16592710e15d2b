"""Slots and the processes that take them: races, crashes, forks, credentials of others."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import signal_persistence
from signal_persistence.errors import ClosedError, SpoolError
from signal_persistence.spool import (
    JournalBatch,
    Part,
    SenderSlot,
    Slot,
    SpoolSettings,
    default_spool_directory,
    list_slots,
    project_directory,
    slots,
)
from signal_persistence.spool.files import MappedFile, OsFiles
from tests.client.waiting import wait_until

SETTINGS = SpoolSettings(fsync="never", segment_bytes=4096, journal_bytes=4096)
LANES = ("a", "b")
PACKAGE = str(Path(signal_persistence.__file__).parents[1])
"""Other processes use the client that this one uses."""
PRELUDE = """
import os, sys
from pathlib import Path
from signal_persistence.spool import Slot, SpoolSettings
settings = SpoolSettings(fsync="never", segment_bytes=4096, journal_bytes=4096)
project = Path(sys.argv[1])
"""


def open_slot(project: Path, lanes: tuple[str, ...] = LANES) -> Slot:
    return Slot.open(project, lanes, SETTINGS)


def process(project: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(project)],
        env={**os.environ, "PYTHONPATH": PACKAGE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def finish(child: subprocess.Popen[str]) -> None:
    child.communicate("")
    assert child.returncode == 0


def test_each_process_gets_a_slot_of_its_own(tmp_path: Path) -> None:
    code = """
sys.stdin.readline()
slot = Slot.open(project, ["a"], settings)
print(slot.name, flush=True)
sys.stdin.readline()
"""
    racers = [process(tmp_path, code) for _ in range(4)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    names = {read_line(racer) for racer in racers}
    for racer in racers:
        finish(racer)
    assert len(names) == 4


def test_what_a_killed_process_published_is_adopted(tmp_path: Path) -> None:
    child = process(
        tmp_path,
        """
slot = Slot.open(project, ["a"], settings)
for number in range(100):
    slot.log.append(0, b"%d" % number)
print(slot.uuid, flush=True)
sys.stdin.readline()
""",
    )
    uuid = UUID(read_line(child))
    child.kill()
    child.communicate()
    with open_slot(tmp_path) as slot:
        assert (slot.name, slot.uuid, slot.lanes) == ("0001", uuid, LANES)
        assert (slot.recovered.signals, slot.recovered.acked_fsn) == (100, 0)
        frames = slot.log.read(0, 1_000, 10**6)
        assert [frame.body for frame in frames] == [b"%d" % number for number in range(100)]
        assert slot.log.append(slot.lane("b"), b"mine") == 101


def test_other_orphans_are_adopted_once_and_only_while_they_hold_signals(tmp_path: Path) -> None:
    own, other, empty = (open_slot(tmp_path) for _ in range(3))
    other.log.append(0, b"left behind")
    for slot in (other, empty):
        slot.close()
    adopted = Slot.adopt(tmp_path, LANES, SETTINGS)
    assert adopted is not None
    assert (adopted.name, adopted.recovered.signals) == ("0002", 1)
    assert Slot.adopt(tmp_path, LANES, SETTINGS) is None
    adopted.log.finish_through(adopted.log.published_fsn)
    adopted.close()
    assert Slot.adopt(tmp_path, LANES, SETTINGS) is None
    own.close()


def test_an_adopted_slot_gets_no_lanes_that_would_keep_others_from_it(tmp_path: Path) -> None:
    theirs = open_slot(tmp_path, ("b",))
    theirs.log.append(0, b"left behind")
    theirs.close()
    adopted = Slot.adopt(tmp_path, LANES, SETTINGS)
    assert adopted is not None
    assert adopted.lanes == ("b",)
    adopted.close()
    with open_slot(tmp_path, ("b",)) as again:
        assert (again.name, again.recovered.signals) == ("0001", 1)


def test_an_orphan_that_cannot_be_read_does_not_keep_others_from_being_adopted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, other = open_slot(tmp_path), open_slot(tmp_path)
    for slot in (damaged, other):
        slot.log.append(0, b"left behind")
        slot.close()
    change_slot_file(damaged, version=2)
    adopted = Slot.adopt(tmp_path, LANES, SETTINGS)
    assert adopted is not None
    assert adopted.name == "0002"
    assert "Cannot adopt slot" in caplog.text
    adopted.close()


def test_a_slot_with_lanes_of_others_is_left_alone_until_it_is_empty(tmp_path: Path) -> None:
    theirs = open_slot(tmp_path, ("a", "z"))
    theirs.log.append(1, b"for z")
    theirs.close()
    with open_slot(tmp_path) as mine:
        assert mine.name == "0002"
    assert Slot.adopt(tmp_path, LANES, SETTINGS) is None
    again = open_slot(tmp_path, ("z", "a", "c"))
    assert (again.name, again.lanes) == ("0001", ("a", "z", "c"))
    again.log.finish_through(1)
    again.close()
    with open_slot(tmp_path) as mine:
        assert (mine.name, mine.lanes, mine.log.append(0, b"x")) == ("0001", LANES, 2)


def test_a_journal_that_cannot_be_synced_does_not_keep_the_log_from_it(tmp_path: Path) -> None:
    class FailingFiles(OsFiles):
        failing = False

        def create(self, path: Path, size: int) -> MappedFile:
            file = super().create(path, size)
            original = file.sync

            def sync() -> None:
                if self.failing and path.parent.name == "journal":
                    raise SpoolError("Cannot use the spool: the disk fails.")
                original()

            file.sync = sync  # type: ignore[method-assign]
            return file

    files = FailingFiles()
    settings = SpoolSettings(fsync="interval", fsync_interval_ms=1)
    with Slot.open(tmp_path, LANES, settings, files=files) as slot:
        files.failing = True
        slot.journal.begin(JournalBatch(uuid4(), "a", (Part(slot.uuid, ((1, 1),)),)))
        for number in range(1, 4):
            slot.log.append(0, b"x")
            wait_until(lambda: slot.log.durable_fsn == number)  # noqa: B023
        files.failing = False


def test_a_finished_slot_keeps_no_segment(tmp_path: Path) -> None:
    with open_slot(tmp_path) as slot:
        for _ in range(50):
            slot.log.append(0, b"x" * 500)
        slot.log.finish_through(50)
    assert list((slot.path / "log").iterdir()) == []


def test_a_batch_is_sent_again_under_its_id_by_whoever_comes_next(tmp_path: Path) -> None:
    slot = open_slot(tmp_path)
    for _ in range(10):
        slot.log.append(0, b"x")
    done, under_way = (
        JournalBatch(uuid4(), "a", (Part(slot.uuid, fsns),)) for fsns in (((1, 3),), ((4, 8),))
    )
    slot.journal.begin(done)
    slot.journal.begin(under_way)
    slot.journal.finish(done.request_id)
    slot.close()
    with open_slot(tmp_path) as slot:
        assert list(slot.journal.open_batches) == [under_way]
        assert slot.journal.begun_through(slot.uuid, "a") == 8
        assert (slot.recovered.signals, slot.recovered.acked_fsn) == (7, 3)


def test_a_forked_child_leaves_the_slot_to_its_parent(tmp_path: Path) -> None:
    slot = open_slot(tmp_path)
    slot.log.append(0, b"parent")
    batch = JournalBatch(uuid4(), "a", (Part(slot.uuid, ((1, 1),)),))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            refused = 0
            for write in (lambda: slot.log.append(0, b"child"), lambda: slot.journal.begin(batch)):
                try:
                    write()
                except ClosedError:
                    refused += 1
            slot.close()
            with Slot.open(tmp_path, LANES, SETTINGS) as own:
                os.write(writing, f"{refused} {own.name}".encode())
                os.read(reading, 0)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reading, 100) == b"2 0002"
    os.close(reading)
    os.close(writing)
    assert slot.log.append(0, b"parent again") == 2
    slot.close()


def test_a_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    parent = process(
        tmp_path,
        """
slot = Slot.open(project, ["a"], settings)
slot.log.append(0, b"x")
child = os.fork()
if child == 0:
    # Said by the child: only then its fork hook has let go of the copies.
    print(os.getpid(), flush=True)
    os.close(1)
    sys.stdin.readline()
    os._exit(0)
sys.stdin.readline()
""",
    )
    child = int(read_line(parent))
    parent.kill()
    parent.wait()
    try:
        with open_slot(tmp_path) as slot:
            assert (slot.name, slot.recovered.signals) == ("0001", 1)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate()


def test_who_looks_at_a_slot_for_a_moment_does_not_send_its_owner_to_another(
    tmp_path: Path,
) -> None:
    with open_slot(tmp_path) as left:
        left.log.append(0, b"signal")
    # As one does who tries a slot, finds it to be for others, and lets go of it.
    trying, tried = (
        OsFiles().lock(path) for path in (tmp_path / "slots.lock", left.path / "writer.lock")
    )
    assert trying is not None
    assert tried is not None

    def let_go() -> None:
        tried.release()
        trying.release()

    in_a_moment = threading.Timer(0.05, let_go)
    in_a_moment.start()
    with open_slot(tmp_path) as slot:
        assert (slot.name, slot.recovered.signals) == ("0001", 1)
    in_a_moment.join()


def test_a_slot_of_others_that_is_emptied_does_not_go_before_one_that_holds_signals(
    tmp_path: Path,
) -> None:
    others = open_slot(tmp_path, ("b",))
    others.log.finish_through(others.log.append(0, b"signal"))
    with open_slot(tmp_path, ("a",)) as left:
        left.log.append(0, b"signal")

    class EmptiedMeanwhile(OsFiles):
        def names(self, directory: Path) -> Sequence[str]:
            names = super().names(directory)
            if directory == others.path / "log":
                others.close()
            return names

    with Slot.open(tmp_path, ("a",), SETTINGS, files=EmptiedMeanwhile()) as slot:
        assert (slot.name, slot.recovered.signals) == (left.name, 1)


def test_one_who_was_stopped_while_he_tried_slots_stops_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slots, "_TRYING_SECONDS", 0.01)
    stopped = OsFiles().lock(tmp_path / "slots.lock")
    assert stopped is not None
    with open_slot(tmp_path) as slot:
        assert slot.name == "0001"
        assert list_slots(tmp_path)[0].has_writer
    assert "has held slots.lock" in caplog.text
    stopped.release()


def test_a_sender_of_its_own_reads_a_living_writer(tmp_path: Path) -> None:
    writer = Slot.open(tmp_path, LANES, SETTINGS, as_sender=False)
    sender = SenderSlot.open(writer.path)
    assert sender is not None
    assert SenderSlot.open(writer.path) is None
    with pytest.raises(SpoolError, match="writing only"):
        _ = writer.journal
    for _ in range(30):
        writer.log.append(1, b"x" * 500)
    assert len(sender.log.read(0, 100, 10**6)) == 30
    assert sender.lanes() == LANES
    assert sender.writer_is_alive()
    assert not sender.remove_through(30)
    writer.close()
    assert not sender.writer_is_alive()
    assert sender.remove_through(30)
    assert len(list((sender.path / "log").iterdir())) == 1
    # Nobody else sends from it meanwhile.
    with open_slot(tmp_path) as other:
        assert other.name == "0002"
    sender.close()


def test_a_slot_that_was_never_used_has_nothing_to_send(tmp_path: Path) -> None:
    (tmp_path / "slots" / "0001").mkdir(parents=True)
    assert SenderSlot.open(tmp_path / "slots" / "0001") is None
    assert list_slots(tmp_path) == []


def change_slot_file(slot: Slot, **changes: object) -> None:
    path = slot.path / "slot.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_another_version_is_refused_with_advice(tmp_path: Path) -> None:
    with open_slot(tmp_path) as slot:
        slot.log.append(0, b"x")
    change_slot_file(slot, version=2)
    with pytest.raises(SpoolError, match=r"format 2, this release knows 1; drain it"):
        open_slot(tmp_path)
    change_slot_file(slot, version=1)
    with open_slot(tmp_path) as again:
        assert again.recovered.signals == 1


def test_a_slot_whose_description_is_damaged_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_slot(tmp_path) as slot:
        slot.log.append(0, b"x")
    content = (slot.path / "slot.json").read_bytes()
    for damaged in (content[:40], None):
        if damaged is None:
            (slot.path / "slot.json").unlink()
        else:
            (slot.path / "slot.json").write_bytes(damaged)
        caplog.clear()
        with open_slot(tmp_path) as other:
            assert other.name == "0002"
        assert "left alone" in caplog.text
    (slot.path / "slot.json").write_bytes(content)
    with open_slot(tmp_path) as again:
        assert (again.name, again.recovered.signals) == ("0001", 1)


def test_damage_is_logged_and_numbers_behind_it_are_not_used_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_slot(tmp_path) as slot:
        for _ in range(3):
            slot.log.append(0, b"x" * 100)
    segment = next((slot.path / "log").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    for second_and_third in (120, 240):
        data[64 + second_and_third + 60] ^= 1
    segment.write_bytes(data)
    with caplog.at_level(logging.INFO), open_slot(tmp_path) as slot:
        found = slot.recovered
        assert (found.signals, found.lost_frames) == (1, 0)
        assert (found.damaged_bytes, found.torn_bytes) == (0, 240)
        assert slot.log.append(0, b"new") == 1 << 32
    assert "Cut 240 bytes" in caplog.text
    assert list_slots(tmp_path)[0].damaged[0].read_bytes() == data


def test_slots_are_listed_with_who_has_them(tmp_path: Path) -> None:
    with open_slot(tmp_path) as slot:
        slot.log.append(0, b"x")
        (info,) = list_slots(tmp_path)
        assert (info.name, info.uuid, info.lanes) == ("0001", slot.uuid, LANES)
        assert info.has_writer
        assert info.has_sender
        assert (slot.path / "writer.lock").read_text() == f"{os.getpid()}\n"
    (info,) = list_slots(tmp_path)
    assert not info.has_writer
    assert not info.has_sender
    assert (info.epoch, info.log_bytes) == (1, 4096)


def test_a_project_has_the_name_of_its_host(tmp_path: Path) -> None:
    directory = project_directory(tmp_path, "https://Abc.supabase.co/")
    assert directory == tmp_path / "abc.supabase.co"
    assert project_directory(tmp_path, "http://127.0.0.1:54321").name == "127.0.0.1_54321"


def test_the_spool_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.delenv("SIGNAL_SPOOL_DIR", raising=False)
    assert default_spool_directory() == Path("/state/signal-persistence/spool")
    monkeypatch.setenv("SIGNAL_SPOOL_DIR", "/elsewhere")
    assert default_spool_directory() == Path("/elsewhere")
