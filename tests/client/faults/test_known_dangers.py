"""What the random tests of this folder found once, as small as it can be shown."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from signal_persistence import AccessToken, Producer, Signal
from signal_persistence.spool import Slot, SpoolSettings
from signal_persistence.spool.files import Lock, OsFiles
from tests.client.faults.zygote import ended

ACCOUNT = UUID("7d444840-9dc0-11d1-b245-5ffdce74fad2")
SETTINGS = SpoolSettings()
NOBODY = "http://127.0.0.1:9"
DEADLINE_SECONDS = 10.0


class WatchedFiles(OsFiles):
    """The real files; tells which locks were asked for."""

    def __init__(self) -> None:
        self.locked: list[Path] = []

    def lock(self, path: Path, *, names_owner: bool = True) -> Lock | None:
        self.locked.append(path)
        return super().lock(path, names_owner=names_owner)


def leave_a_signal(project: Path, lane: str) -> str:
    """Have a process publish one signal and end; return the name of its slot."""
    with Slot.open(project, [lane], SETTINGS) as slot:
        slot.log.append(slot.lane(lane), b"{}")
        return slot.name


def test_who_leaves_a_slot_alone_does_not_lock_it_and_so_keeps_nobody_out(tmp_path: Path) -> None:
    owned = leave_a_signal(tmp_path, "owner")
    files = WatchedFiles()
    with Slot.open(tmp_path, ["stranger"], SETTINGS, files=files) as slot:
        assert slot.name != owned
    assert not [path for path in files.locked if path.parent.name == owned]


def test_a_slot_that_holds_signals_is_taken_before_an_empty_one(tmp_path: Path) -> None:
    """Else the signals of its next owner are stored before those that are in it."""
    with Slot.open(tmp_path, ["stranger"], SETTINGS):
        held = leave_a_signal(tmp_path, "owner")
    with Slot.open(tmp_path, ["owner"], SETTINGS) as slot:
        assert (slot.name, slot.recovered.signals) == (held, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_while_a_thread_counts_can_publish(tmp_path: Path) -> None:
    """The lock that the thread holds stays locked in the child for ever."""
    signal = Signal(
        trader_id=ACCOUNT,
        symbol="ES",
        timeframe="1m",
        generated_at=datetime.now(UTC),
        action="enter_long",
        confidence=0.5,
        price=1.0,
    )
    credentials = {ACCOUNT: AccessToken("a token")}
    producer = Producer(NOBODY, "key", credentials, spool_dir=tmp_path)
    lock = producer._engine._ledger.lock
    counting, forked = threading.Event(), threading.Event()

    def count() -> None:
        with lock:
            counting.set()
            forked.wait()

    thread = threading.Thread(target=count)
    thread.start()
    counting.wait()
    child = os.fork()
    if child == 0:
        try:
            producer.publish(signal)
        finally:
            os._exit(0)
    forked.set()
    thread.join()
    try:
        assert ended(child, DEADLINE_SECONDS), "the child waits for a lock that nobody holds"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        producer.close(0)
