"""A slot against a plain model, on a file system that loses power at any moment."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from signal_persistence.errors import SpoolFullError
from signal_persistence.spool import (
    Frame,
    FsyncPolicy,
    JournalBatch,
    Part,
    Slot,
    SpoolSettings,
    compact,
    expand,
)
from tests.client.spool.simulated_files import PowerLostError, SimulatedFiles

PROJECT = Path("/spool/project")
LANES = ("account-a", "account-b")
CHANCE = st.randoms(use_true_random=False)


class SlotMachine(RuleBasedStateMachine):
    """What was published, begun and finished is known here; the slot has to know it too."""

    def __init__(self) -> None:
        super().__init__()
        self.files = SimulatedFiles()
        self.given: dict[int, tuple[int, bytes]] = {}
        """Every number ever given, and the signal it was given to."""
        self.begun: dict[UUID, tuple[Part, ...]] = {}
        """Every request_id ever used, and its signals."""
        self.finished: set[int] = set()
        self.held: set[int] = set()
        """What was published and is not lost."""
        self.batches: dict[UUID, JournalBatch] = {}
        """The open ones, in order."""
        self.sure_batches: set[UUID] = set()
        """Open ones that a synced journal knows."""
        self.sure_finished: set[int] = set()
        """Those that a synced journal knows as finished."""
        self.slot: Slot

    @initialize(fsync=st.sampled_from(("never", "interval", "always")))
    def start(self, fsync: FsyncPolicy) -> None:
        self.settings = SpoolSettings(
            fsync=fsync,
            fsync_interval_ms=1e9,
            segment_bytes=4096,
            journal_bytes=4096,
            max_bytes=64 * 4096,
        )
        self.slot = self.open()

    def teardown(self) -> None:
        self.stop_thread()

    # What a producer does.

    @rule(
        lane=st.integers(0, 1),
        sizes=st.lists(st.integers(1, 700), min_size=1, max_size=24),
        then_sync=st.booleans(),
    )
    def publish(self, lane: int, sizes: list[int], then_sync: bool) -> None:
        def append_all() -> None:
            for size in sizes:
                body = b"%d:%d:" % (lane, len(self.given)) + b"x" * size
                fsn = self.slot.log.append(lane, body)
                assert fsn not in self.given, "a number stands for two signals"
                self.given[fsn] = lane, body
                self.held.add(fsn)
                self.slot.log.await_durable(fsn)
            if then_sync:
                self.slot.log.sync()

        with suppress(SpoolFullError):
            self.unless_power_is_lost(append_all)

    @rule()
    def sync(self) -> None:
        def sync() -> None:
            self.slot.log.sync()
            self.slot.journal.sync()
            self.journal_was_synced()

        self.unless_power_is_lost(sync)

    @rule(lane=st.integers(0, 1), most=st.integers(1, 6))
    def begin(self, lane: int, most: int) -> None:
        waiting = self.waiting(lane)[:most]
        if waiting:
            batch = self.new_batch(lane, waiting)

            def opened() -> None:
                self.opened([batch])
                if self.settings.fsync == "always":
                    self.journal_was_synced()

            self.unless_full(lambda: self.slot.journal.begin(batch), opened)

    @precondition(lambda self: self.batches)
    @rule(which=st.integers(0, 100))
    def finish(self, which: int) -> None:
        batch = self.batch(which)
        fsns = set(self.fsns(batch))
        self.sure_batches.discard(batch.request_id)

        def finish() -> None:
            self.slot.journal.finish(batch.request_id)
            self.finished |= fsns
            del self.batches[batch.request_id]
            unfinished = self.held - self.finished
            self.slot.log.finish_through(
                min(unfinished, default=self.slot.log.published_fsn + 1) - 1
            )

        self.unless_full(finish, lambda: None)

    @precondition(lambda self: self.batches)
    @rule(which=st.integers(0, 100))
    def split(self, which: int) -> None:
        batch = self.batch(which)
        fsns = self.fsns(batch)
        if len(fsns) < 2:
            return
        self.sure_batches.discard(batch.request_id)
        lane = LANES.index(batch.lane)
        middle = len(fsns) // 2
        halves = [self.new_batch(lane, fsns[:middle]), self.new_batch(lane, fsns[middle:])]

        def replaced() -> None:
            before, self.batches = self.batches, {}
            for each in before.values():
                self.opened(halves if each is batch else [each])

        self.unless_full(lambda: self.slot.journal.split(batch.request_id, halves), replaced)

    @rule(full=st.sampled_from((False, False, True)))
    def fill_or_empty_the_disk(self, full: bool) -> None:
        self.files.full = full

    # What happens to a producer.

    @rule(chance=CHANCE)
    def write_back(self, chance: random.Random) -> None:
        self.files.write_back(chance)

    @rule(steps=st.integers(0, 40))
    def lose_power_soon(self, steps: int) -> None:
        self.files.steps_left = steps

    @rule(how=st.sampled_from(("kill", "close", "rot")), chance=CHANCE, flip=st.integers(1, 255))
    def end_the_process(self, how: str, chance: random.Random, flip: int) -> None:
        if how == "kill":
            self.kill()
        elif how == "close":
            self.close()
        else:
            self.rot(chance, flip)

    def kill(self) -> None:
        self.stop_thread()
        self.files.kill_process()
        self.files.full, self.files.steps_left = False, None
        self.reopen_unharmed()

    def close(self) -> None:
        self.files.steps_left = None
        self.slot.close()
        self.journal_was_synced()
        if self.held <= self.finished and not self.files.full:
            log = self.slot.path / "log"
            assert not [name for name in self.files.names(log) if name.endswith(".seg")]
        self.files.full = False
        self.reopen_unharmed()

    @rule(chance=CHANCE, again_after=st.none() | st.integers(0, 12))
    def lose_power(self, chance: random.Random, again_after: int | None) -> None:
        self.recover_from_power_loss(chance, again_after)

    def recover_from_power_loss(self, chance: random.Random, again_after: int | None) -> None:
        sure = {
            fsn
            for fsn in self.held - self.finished
            if self.settings.fsync != "never" and fsn <= self.slot.log.durable_fsn
        }
        self.stop_thread()
        self.files.full = False
        self.files.lose_power(chance)
        self.files.steps_left = again_after
        try:
            self.slot = self.open()
        except PowerLostError:
            self.files.lose_power(chance)
            self.slot = self.open()
        self.files.steps_left = None
        survivors = self.frames()
        assert sure <= set(survivors), "a synced signal is lost"
        for request_id in self.sure_batches & set(self.batches):
            if set(self.fsns(self.batches[request_id])) <= set(survivors):
                open_now = {batch.request_id for batch in self.slot.journal.open_batches}
                assert request_id in open_now, "a synced batch is forgotten"
        self.go_on_with(survivors)
        assert not self.sure_finished & (self.held - self.finished), "a finished one comes back"

    def rot(self, chance: random.Random, flip: int) -> None:
        self.stop_thread()
        self.files.kill_process()
        self.files.full, self.files.steps_left = False, None
        log = self.slot.path / "log"
        names = [name for name in self.files.names(log) if name.endswith(".seg")]
        if names:
            path = log / chance.choice(names)
            self.files.rot(path, chance.randrange(self.files.size(path)), flip)
        before = self.held - self.finished
        self.slot = self.open()
        survivors = self.frames()
        lost = before - set(survivors)
        if lost:
            found = self.slot.recovered
            assert found.damaged_bytes + found.torn_bytes > 0, "a signal is lost silently"
            assert len(lost) == 1, "more is lost than is damaged"
        self.go_on_with(survivors)

    @invariant()
    def numbers_ascend(self) -> None:
        if self.given:
            assert self.slot.log.published_fsn >= max(self.given)

    # How the model looks at the slot.

    def open(self) -> Slot:
        slot = Slot.open(PROJECT, LANES, self.settings, files=self.files)
        assert slot.name == "0001"
        return slot

    def stop_thread(self) -> None:
        syncing = getattr(getattr(self, "slot", None), "_syncing", None)
        if syncing is not None:
            syncing.stop()

    def reopen_unharmed(self) -> None:
        """After the end of the process alone, the slot knows everything as before."""
        before, self.slot = self.slot.recovered, self.open()
        recovered = self.slot.recovered
        assert recovered.torn_bytes == 0
        assert recovered.lost_frames <= before.lost_frames
        assert recovered.damaged_bytes <= before.damaged_bytes
        assert set(self.frames()) >= self.held - self.finished
        assert list(self.slot.journal.open_batches) == list(self.batches.values())
        assert recovered.signals == len(self.held - self.finished)
        for lane in range(len(LANES)):
            begun = self.slot.journal.begun_through(self.slot.uuid, LANES[lane])
            assert self.waiting(lane) == sorted(
                fsn for fsn in self.held if self.given[fsn][0] == lane and fsn > begun
            )

    def go_on_with(self, survivors: dict[int, Frame]) -> None:
        """After losses: nothing false is there, and nothing that is there is forgotten."""
        journal = self.slot.journal
        in_batches: set[int] = set()
        for batch in journal.open_batches:
            known = self.begun.setdefault(batch.request_id, batch.parts)
            assert batch.parts == known, "a request_id stands for two lists of signals"
            in_batches |= set(self.fsns(batch))
        assert in_batches <= set(survivors), "a batch is open that cannot be sent"
        begun = [journal.begun_through(self.slot.uuid, lane) for lane in LANES]
        waiting = {fsn for fsn, frame in survivors.items() if fsn > begun[frame.lane]}
        unfinished = waiting | in_batches
        assert (self.held - self.finished) & set(survivors) <= unfinished, "a signal is forgotten"
        assert self.slot.recovered.signals == len(unfinished)
        assert self.slot.recovered.acked_fsn < min(unfinished, default=1 << 62)
        self.held = set(survivors)
        self.finished = set(survivors) - unfinished
        self.batches = {batch.request_id: batch for batch in journal.open_batches}
        # A journal begins with a synced file.
        self.sure_batches, self.sure_finished = set(self.batches), set(self.finished)

    def journal_was_synced(self) -> None:
        if self.settings.fsync != "never":
            self.sure_batches = set(self.batches)
            self.sure_finished = set(self.finished)

    def frames(self) -> dict[int, Frame]:
        """Read the whole log, in pieces; every frame must be what was published."""
        found: dict[int, Frame] = {}
        last = 0
        while frames := self.slot.log.read(last, 7, 1500):
            for frame in frames:
                assert frame.fsn > last, "frames are out of order"
                assert self.given[frame.fsn] == (frame.lane, frame.body)
                last = frame.fsn
                found[last] = frame
        return found

    def waiting(self, lane: int) -> list[int]:
        in_batches = {fsn for batch in self.batches.values() for fsn in self.fsns(batch)}
        unfinished = self.held - self.finished - in_batches
        return sorted(fsn for fsn in unfinished if self.given[fsn][0] == lane)

    def batch(self, which: int) -> JournalBatch:
        return list(self.batches.values())[which % len(self.batches)]

    def fsns(self, batch: JournalBatch) -> list[int]:
        return [fsn for part in batch.parts for fsn in expand(part.fsns)]

    def new_batch(self, lane: int, fsns: list[int]) -> JournalBatch:
        batch = JournalBatch(uuid4(), LANES[lane], (Part(self.slot.uuid, compact(fsns)),))
        self.begun[batch.request_id] = batch.parts
        return batch

    def opened(self, batches: list[JournalBatch]) -> None:
        self.batches |= {batch.request_id: batch for batch in batches}

    def unless_full(self, write: Callable[[], None], then: Callable[[], None]) -> None:
        with suppress(SpoolFullError):
            if self.unless_power_is_lost(write):
                then()

    def unless_power_is_lost(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except PowerLostError:
            self.recover_from_power_loss(random.Random(len(self.given)), None)
            return False
        return True


@pytest.mark.timeout(300)
def test_a_slot_loses_nothing_that_it_promised_to_keep(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "signal_persistence")
    run_state_machine_as_test(
        SlotMachine,
        settings=settings(
            max_examples=150,
            database=None,
            phases=(Phase.generate,),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("seed", range(10))
def test_a_sync_covers_the_segments_that_became_full(seed: int) -> None:
    machine = SlotMachine()
    machine.start("interval")
    machine.publish(0, [400] * 30, then_sync=True)
    assert len(machine.files.names(machine.slot.path / "log")) > 1
    machine.lose_power(random.Random(seed), None)
    assert machine.held == set(range(1, 31))
    machine.teardown()


def test_numbers_jump_again_when_power_is_lost_before_anything_was_synced() -> None:
    machine = SlotMachine()
    machine.start("never")
    for seed in range(20):
        machine.publish(0, [400] * 3, then_sync=False)
        machine.lose_power(random.Random(seed), None)
        machine.numbers_ascend()
    machine.teardown()
