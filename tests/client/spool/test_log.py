"""The log on the real file system of the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from signal_persistence.errors import ClosedError, ConfigurationError, SpoolError, SpoolFullError
from signal_persistence.spool import FsyncPolicy, Log, LogReader, SpoolSettings
from signal_persistence.spool.files import MappedFile, OsFiles, ReadFile
from signal_persistence.spool.frames import frame_size

SLOT = UUID(int=1)
SMALL = SpoolSettings(fsync="never", segment_bytes=4096, max_bytes=10 * 4096)


class CountingFiles(OsFiles):
    """Counts syncs of segments; a sync waits for `gate` and fails if `failing`."""

    def __init__(self) -> None:
        self.syncs = 0
        self.started = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False

    def create(self, path: Path, size: int) -> MappedFile:
        file = super().create(path, size)
        original = file.sync

        def sync() -> None:
            self.syncs += 1
            self.started.set()
            assert self.gate.wait(30)
            if self.failing:
                raise SpoolError("Cannot use the spool: the disk fails.")
            original()

        file.sync = sync  # type: ignore[method-assign]
        return file


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log.open(tmp_path, SLOT, SMALL)
    yield log
    log.close()


def settings(fsync: FsyncPolicy) -> SpoolSettings:
    return SpoolSettings(fsync=fsync)


def fill(log: Log) -> None:
    while True:
        log.append(0, b"x" * 1000)


def bodies(log: Log, after_fsn: int = 0) -> list[bytes]:
    return [frame.body for frame in log.read(after_fsn, 10_000, 10**9)]


def test_frames_are_read_in_order_across_segments(log: Log) -> None:
    written = [b"%d" % number * 50 for number in range(1, 200)]
    assert [log.append(3, body) for body in written] == list(range(1, 200))
    frames = log.read(0, 1_000, 10**9)
    assert [frame.body for frame in frames] == written
    assert {frame.lane for frame in frames} == {3}
    assert bodies(log, after_fsn=150) == written[150:]


def test_reading_stops_at_the_limits_and_goes_on_from_there(log: Log) -> None:
    for number in range(100):
        log.append(0, b"x" * (number + 1))
    read: list[int] = []
    while frames := log.read(read[-1] if read else 0, 7, 300):
        assert len(frames) <= 7
        assert len(frames) == 1 or sum(len(frame.body) for frame in frames) <= 300
        read += [frame.fsn for frame in frames]
    assert read == list(range(1, 101))


def test_single_frames_are_fetched_by_number(log: Log) -> None:
    for number in range(1, 101):
        log.append(0, b"%d" % number)
    wanted = ((2, 4), (50, 50), (52, 52), (99, 120))
    assert [frame.fsn for frame in log.fetch(wanted)] == [2, 3, 4, 50, 52, 99, 100]
    log.finish_through(60)
    assert [frame.fsn for frame in log.fetch(((1, 3), (99, 99)))][-1] == 99


def test_a_frame_larger_than_a_segment_gets_its_own(log: Log) -> None:
    large = b"x" * 10_000
    for body in (b"a", large, b"b"):
        log.append(0, body)
    assert bodies(log) == [b"a", large, b"b"]


def test_threads_get_each_number_once(log: Log) -> None:
    numbers: list[int] = []

    def publish() -> None:
        numbers.extend([log.append(0, b"signal") for _ in range(100)])

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 801))
    assert len(bodies(log)) == 800


def test_an_empty_frame_is_refused(log: Log) -> None:
    with pytest.raises(ValueError, match="empty"):
        log.append(0, b"")
    assert log.published_fsn == 0


def test_the_limit_refuses_and_finishing_makes_room(log: Log, tmp_path: Path) -> None:
    with pytest.raises(SpoolFullError, match="spool_max_bytes") as refused:
        fill(log)
    assert refused.value.reason == "limit"
    last = log.published_fsn
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= SMALL.max_bytes
    log.finish_through(last)
    assert log.append(0, b"x" * 1000) == last + 1
    assert log.first_fsn > 1


def test_copies_of_damaged_segments_are_few_and_take_no_room_from_signals(tmp_path: Path) -> None:
    for number in range(1, 13):
        (tmp_path / f"{number:020}.seg.damaged").write_bytes(bytes(5 * 4096))
    log = Log.open(tmp_path, SLOT, SMALL)
    assert log.append(0, b"x" * 1000) == 1
    log.close()
    segment = tmp_path / f"{1:020}.seg"
    (segment.with_name(segment.name + ".damaged")).unlink()
    segment.write_bytes(segment.read_bytes() + b"torn")
    Log.open(tmp_path, SLOT, SMALL).close()
    kept = sorted(path.name for path in tmp_path.glob("*.damaged"))
    assert kept == [f"{number:020}.seg.damaged" for number in (1, *range(6, 13))]


def test_only_segments_that_are_wholly_finished_go(log: Log, tmp_path: Path) -> None:
    for _ in range(12):
        log.append(0, b"x" * 1000)
    log.finish_through(4)  # the first segment has room for three
    assert min(tmp_path.iterdir()).name.endswith("04.seg")
    assert bodies(log)[0] == b"x" * 1000
    log.finish_through(12)
    assert len(list(tmp_path.iterdir())) == 1


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    first = Log.open(tmp_path, SLOT, SMALL)
    first.append(0, b"one")
    first.close()
    second = Log.open(tmp_path, SLOT, SMALL)
    assert second.append(0, b"two") == 2
    assert bodies(second) == [b"one", b"two"]
    second.close()


def test_a_closed_log_refuses(log: Log) -> None:
    log.append(0, b"x")
    log.close()
    log.close()
    with pytest.raises(ClosedError):
        log.append(0, b"y")


def test_waiting_publishers_share_a_sync(tmp_path: Path) -> None:
    files = CountingFiles()
    log = Log.open(tmp_path, SLOT, settings("always"), files=files)
    log.append(0, b"first")
    files.gate.clear()
    leader = threading.Thread(target=log.await_durable, args=(1,))
    leader.start()
    assert files.started.wait(30)
    numbers = [log.append(0, b"more") for _ in range(20)]
    followers = [threading.Thread(target=log.await_durable, args=(fsn,)) for fsn in numbers]
    for thread in followers:
        thread.start()
    assert log.durable_fsn == 0
    files.gate.set()
    for thread in (leader, *followers):
        thread.join()
    assert log.durable_fsn == 21
    assert files.syncs == 2
    log.close()


@pytest.mark.parametrize("fsync", ["never", "interval"])
def test_nobody_waits_for_the_disk_unless_always(tmp_path: Path, fsync: FsyncPolicy) -> None:
    files = CountingFiles()
    log = Log.open(tmp_path, SLOT, settings(fsync), files=files)
    log.await_durable(log.append(0, b"x"))
    assert (files.syncs, log.durable_fsn) == (0, 0)
    log.close()
    assert files.syncs == (fsync == "interval")


def test_a_disk_that_failed_once_is_not_trusted_again(tmp_path: Path) -> None:
    files = CountingFiles()
    log = Log.open(tmp_path, SLOT, settings("always"), files=files)
    fsn = log.append(0, b"x")
    files.failing = True
    with pytest.raises(SpoolError, match="Restart"):
        log.await_durable(fsn)
    files.failing = False
    for again in (lambda: log.append(0, b"y"), lambda: log.await_durable(fsn), log.sync):
        with pytest.raises(SpoolError, match="Restart"):
            again()
    assert bodies(log) == [b"x"]
    log.close()


def test_another_reader_follows_the_writer(tmp_path: Path) -> None:
    writer = Log.open(tmp_path, SLOT, SMALL)
    reader = LogReader(tmp_path, SLOT)
    assert reader.read(0, 10, 10**6) == []
    read: list[bytes] = []
    written: list[bytes] = []
    last = 0
    for number in range(300):
        written.append(b"%d" % number * 20)
        writer.append(1, written[-1])
        if number % 7 == 0:
            for frame in reader.read(last, 5, 10**6):
                read.append(frame.body)
                last = frame.fsn
    while frames := reader.read(last, 50, 10**6):
        read += [frame.body for frame in frames]
        last = frames[-1].fsn
    assert read == written
    assert reader.damage.gaps == reader.damage.lost_frames == 0
    writer.close()
    reader.close()


class OvertakenFiles(OsFiles):
    """The second look at an empty rest is slow: the writer goes on between its two halves."""

    def __init__(self, go_on: Callable[[], None], late_bytes: int) -> None:
        self.looks = 0
        self._go_on = go_on
        self._late_bytes = late_bytes

    def open(self, path: Path) -> ReadFile | None:
        file = super().open(path)
        assert file is not None
        original = file.read

        def read(offset: int, size: int) -> bytes:
            before = original(offset, size)
            if offset + size < SMALL.segment_bytes or any(before):
                return before
            self.looks += 1
            if self.looks != 2:
                return before
            self._go_on()
            return before[: self._late_bytes] + original(offset, size)[self._late_bytes :]

        return SlowFile(file, read)


class SlowFile:
    def __init__(self, file: ReadFile, read: Callable[[int, int], bytes]) -> None:
        self.read = read
        self.size = file.size
        self.close = file.close


def test_a_reader_that_the_writer_overtakes_passes_over_nothing(tmp_path: Path) -> None:
    writer = Log.open(tmp_path, SLOT, SMALL)
    bodies = [b"%d" % number * 20 for number in range(5)]

    def go_on() -> None:
        for body in bodies:
            writer.append(1, body)

    files = OvertakenFiles(go_on, late_bytes=frame_size(len(bodies[0])))
    reader = LogReader(tmp_path, SLOT, files=files)
    writer.append(1, b"first")
    read: list[bytes] = []
    last = 0
    for _ in range(10):
        for frame in reader.read(last, 10, 10**6):
            read.append(frame.body)
            last = frame.fsn
    assert files.looks >= 2
    assert read == [b"first", *bodies]
    assert reader.damage.gaps == 0
    writer.close()
    reader.close()


def test_a_reader_passes_over_damage_and_keeps_a_copy(tmp_path: Path) -> None:
    writer = Log.open(tmp_path, SLOT, SMALL)
    for _ in range(9):
        writer.append(0, b"x" * 1000)
    writer.close()
    segment = min(tmp_path.iterdir())
    data = bytearray(segment.read_bytes())
    data[64 + 1024 + 500] ^= 1
    segment.write_bytes(data)
    reader = LogReader(tmp_path, SLOT)
    assert [frame.fsn for frame in reader.read(0, 100, 10**6)] == [1, *range(3, 10)]
    assert (reader.damage.gaps, reader.damage.lost_frames) == (1, 1)
    assert reader.damage.gap_bytes == 1024
    assert segment.with_name(segment.name + ".damaged").read_bytes() == data
    reader.close()


def test_a_limit_below_two_segments_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="spool_max_bytes"):
        SpoolSettings(max_bytes=4096)
