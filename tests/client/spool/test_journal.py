"""The journal: cut at every byte, damaged, and started over many times."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from signal_persistence.errors import ClosedError, SpoolError
from signal_persistence.spool import Journal, JournalBatch, Part, SpoolSettings
from signal_persistence.spool.frames import HEADER_BYTES
from signal_persistence.spool.settings import FsyncPolicy
from tests.client.spool.simulated_files import SimulatedFiles

SLOT, OTHER = UUID(int=1), UUID(int=2)
SETTINGS = SpoolSettings(fsync="never", journal_bytes=4096)
State = tuple[tuple[JournalBatch, ...], int, int]


def batch(number: int, *fsns: tuple[int, int], slot: UUID = SLOT, lane: str = "a") -> JournalBatch:
    return JournalBatch(UUID(int=number), lane, (Part(slot, fsns),))


def state(journal: Journal) -> State:
    return (
        tuple(journal.open_batches),
        journal.begun_through(SLOT, "a"),
        journal.begun_through(SLOT, "b"),
    )


def story(journal: Journal) -> list[State]:
    """Write one record after the other; return the state after each."""
    whole = batch(4, (5, 6), (9, 9))
    steps: tuple[Callable[[], None], ...] = (
        lambda: journal.begin(batch(1, (1, 3), (7, 7))),
        lambda: journal.begin(batch(2, (4, 4), lane="b")),
        lambda: journal.finish(UUID(int=1)),
        lambda: journal.begin(batch(3, (1, 50), slot=OTHER)),
        lambda: journal.begin(whole),
        lambda: journal.split(whole.request_id, [batch(5, (5, 6)), batch(6, (9, 9))]),
        lambda: journal.finish(UUID(int=2)),
        lambda: journal.begin(batch(7, (10, 12))),
    )
    states = [state(journal)]
    for step in steps:
        step()
        states.append(state(journal))
    return states


def journal_file(directory: Path) -> Path:
    return next(directory.glob("*.seg"))


def test_every_cut_leaves_the_state_of_some_moment() -> None:
    files = SimulatedFiles()
    states = story(Journal.open(Path("/whole"), SETTINGS, files=files))
    name = next(name for name in files.names(Path("/whole")) if name.endswith(".seg"))
    content = (files.read(Path("/whole", name)) or b"").rstrip(b"\0")
    seen: list[State] = []
    for cut in range(HEADER_BYTES, len(content) + 1):
        files = SimulatedFiles()
        files.replace(Path("/cut", name), content[:cut].ljust(4096, b"\0"))
        found = state(Journal.open(Path("/cut"), SETTINGS, files=files))
        if not seen or seen[-1] != found:
            seen.append(found)
    assert seen == states


def test_nothing_behind_damage_is_believed(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SETTINGS)
    journal.begin(batch(1, (1, 3)))
    journal.begin(batch(2, (4, 6)))
    journal.close()
    path = journal_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"fsns":[[1,3]]', b'"fsns":[[1,2]]'))
    again = Journal.open(tmp_path, SETTINGS)
    # Were the second batch believed, 1 to 3 would count as finished.
    assert state(again) == ((), 0, 0)
    again.close()


def test_the_file_is_renewed_without_forgetting_anything(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SETTINGS)
    journal.begin(batch(1_000, (1, 1), lane="b"))
    for number in range(1, 500):
        journal.begin(batch(number, (number, number)))
        if number != 250:
            journal.finish(UUID(int=number))
        assert len(list(tmp_path.iterdir())) == 2
    expected = ((batch(1_000, (1, 1), lane="b"), batch(250, (250, 250))), 499, 1)
    assert state(journal) == expected
    journal.close()
    again = Journal.open(tmp_path, SETTINGS)
    assert state(again) == expected
    again.close()


def test_a_state_larger_than_a_file_gets_a_larger_file(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SETTINGS)
    for number in range(1, 200):
        journal.begin(batch(number, (number, number)))
    expected = state(journal)
    assert len(expected[0]) == 199
    journal.close()
    again = Journal.open(tmp_path, SETTINGS)
    assert state(again) == expected
    again.close()


def test_a_full_disk_does_not_stop_the_journal(tmp_path: Path) -> None:
    files = SimulatedFiles()
    journal = Journal.open(tmp_path, SETTINGS, files=files)
    files.full = True
    for number in range(1, 25):
        journal.begin(batch(number, (number, number)))
        journal.finish(UUID(int=number))
    assert state(journal) == ((), 24, 0)


def test_a_batch_that_is_not_whole_gets_another_id(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SETTINGS)
    whole, partly, gone = batch(1, (1, 2)), batch(2, (3, 5)), batch(3, (6, 6))
    for each in (whole, partly, gone):
        journal.begin(each)
    there = {1, 2, 4}

    def found(part: Part) -> tuple[tuple[int, int], ...]:
        return (
            tuple(
                (fsn, fsn)
                for first, last in part.fsns
                for fsn in range(first, last + 1)
                if fsn in there
            )
            if part != whole.parts[0]
            else part.fsns
        )

    journal.reconcile(found, lambda: UUID(int=99))
    assert list(journal.open_batches) == [whole, batch(99, (4, 4))]
    assert journal.begun_through(SLOT, "a") == 6
    journal.close()


@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
def test_a_batch_that_got_a_new_id_keeps_it_through_a_loss_of_power(fsync: FsyncPolicy) -> None:
    for seed in range(20):
        files = SimulatedFiles()
        settings = SpoolSettings(fsync=fsync, journal_bytes=4096)
        journal = Journal.open(Path("/whole"), settings, files=files)
        journal.begin(batch(1, (1, 3)))
        journal.reconcile(lambda part: ((1, 2),), lambda: UUID(int=99))
        files.lose_power(random.Random(seed))
        again = Journal.open(Path("/whole"), settings, files=files)
        assert list(again.open_batches) == [batch(99, (1, 2))], f"seed {seed}"


def test_what_a_failed_sync_forgot_is_written_again(tmp_path: Path) -> None:
    files = SimulatedFiles()
    settings = SpoolSettings(fsync="always", journal_bytes=4096)
    journal = Journal.open(tmp_path, settings, files=files)
    journal.begin(batch(1, (1, 3)))
    files.failing_syncs = 1
    journal.begin(batch(2, (4, 4)))
    files.lose_power(random.Random(0))
    again = Journal.open(tmp_path, settings, files=files)
    assert list(again.open_batches) == [batch(1, (1, 3)), batch(2, (4, 4))]


@pytest.mark.parametrize("fsync", ["interval", "always"])
def test_a_journal_that_no_sync_can_save_refuses_until_the_disk_works_again(
    tmp_path: Path, fsync: FsyncPolicy
) -> None:
    files = SimulatedFiles()
    settings = SpoolSettings(fsync=fsync, journal_bytes=4096)
    journal = Journal.open(tmp_path, settings, files=files)
    journal.begin(batch(1, (1, 3)))
    files.failing_syncs = 100
    halves = UUID(int=1), [batch(3, (1, 1)), batch(4, (2, 3))]

    def write_both() -> None:
        journal.begin(batch(2, (4, 4)))
        journal.split(*halves)
        journal.sync()

    for _ in range(3):
        with pytest.raises(SpoolError):
            write_both()
    files.failing_syncs = 0
    write_both()
    files.lose_power(random.Random(0))
    again = Journal.open(tmp_path, settings, files=files)
    assert {each.parts for each in again.open_batches} == {
        each.parts for each in (batch(2, (4, 4)), *halves[1])
    }


def test_halves_that_were_refused_may_be_others_the_next_time(tmp_path: Path) -> None:
    """Whoever tries again has new ids for them, and the journal knows those that it sends."""
    files = SimulatedFiles()
    settings = SpoolSettings(fsync="always", journal_bytes=4096)
    journal = Journal.open(tmp_path, settings, files=files)
    journal.begin(batch(1, (1, 2)))
    files.failing_syncs = 2
    with pytest.raises(SpoolError):
        journal.split(UUID(int=1), [batch(2, (1, 1)), batch(3, (2, 2))])
    journal.split(UUID(int=1), [batch(4, (1, 1)), batch(5, (2, 2))])
    assert list(journal.open_batches) == [batch(4, (1, 1)), batch(5, (2, 2))]


def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SETTINGS)
    journal.close()
    journal.close()
    with pytest.raises(ClosedError):
        journal.begin(batch(1, (1, 1)))
