"""A slot that cannot be sent is left as it is, and stops no other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from signal_persistence import AccessToken
from signal_persistence.agent.forwarder import Forwarder
from signal_persistence.agent.process import Agent, AgentPlan
from signal_persistence.agent.results import RESULT
from signal_persistence.errors import SpoolError
from signal_persistence.settings import ProducerSettings
from signal_persistence.spool import (
    Journal,
    JournalBatch,
    Log,
    LogReader,
    Part,
    SenderSlot,
    Slot,
    SpoolSettings,
)
from tests.client.agent.test_forwarder import run_until, send_all, stored_count, write
from tests.client.scripted_service import ScriptedService

SPOOL = SpoolSettings(segment_bytes=8192, fsync="never")


class Scene:
    """An agent that serves the accounts A and B, and the slots of two traders."""

    def __init__(self, project: Path) -> None:
        self.service = ScriptedService()
        self.good, self.bad = (Slot.open(project, ["A"], SPOOL, as_sender=False) for _ in range(2))
        write(self.good, 1, 2)
        write(self.bad, 11, 12)
        accounts = {identity: AccessToken(identity) for identity in ("A", "B")}
        settings = ProducerSettings(linger_ms=0, spool_dir=project)
        self.journal = Journal.open(project / "agent" / "journal", SPOOL)
        self.forwarder = Forwarder(project, self.service, accounts, settings, journal=self.journal)
        self.agent = Agent(AgentPlan(project, accounts, settings), self.service)

    def served(self) -> list[str]:
        return [served.slot.name for served in self.forwarder.served]

    def opened(self) -> list[SenderSlot]:
        slots = [SenderSlot.open(slot.path) for slot in (self.good, self.bad)]
        return [slot for slot in slots if slot is not None]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.good.close()
    scene.bad.close()


async def test_a_slot_that_cannot_be_read_stops_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene.forwarder.adopt(scene.opened())
    [_, bad] = scene.forwarder.served

    def fail(*_: object) -> None:
        raise OSError("no more descriptors")

    scene.forwarder.start()
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(bad.slot.log, "read", fail)
        broken.setattr(bad.slot, "remove_through", fail)
        await run_until(scene.forwarder, lambda: stored_count(scene.service) == 2)
        before = scene.forwarder.slot_failures
        scene.forwarder.read()
        scene.forwarder.trim()
        assert scene.forwarder.slot_failures == before + 2
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"Cannot read slot {bad.slot.path}",
        f"Cannot tidy slot {bad.slot.path}",
    ], "what goes on failing is said once"
    await send_all(scene.forwarder, scene.service, 4)
    await scene.forwarder.close()


async def test_a_slot_that_cannot_be_adopted_stops_no_other(scene: Scene) -> None:
    results = Log.open(scene.bad.path / "results", scene.bad.uuid, SPOOL)
    results.append(0, b"\xc1 of another release", RESULT)
    results.close()
    scene.agent._adopt(scene.forwarder)
    assert scene.served() == [scene.good.name]
    scene.forwarder.start()
    await send_all(scene.forwarder, scene.service, 2)
    assert [slot.name for slot in scene.opened()] == [scene.bad.name], "the agent has kept its lock"
    await scene.forwarder.close()


async def test_a_batch_of_which_one_slot_cannot_be_read_is_sent_for_the_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tuple(Part(slot.uuid, ((1, 2),)) for slot in (scene.good, scene.bad))
    scene.journal.begin(JournalBatch(uuid4(), "A", parts))
    fetch = LogReader.fetch

    def fail(reader: LogReader, fsns: object) -> object:
        if reader._directory.parent == scene.bad.path:
            raise SpoolError("Cannot read it.")
        return fetch(reader, fsns)  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(LogReader, "fetch", fail)
        scene.agent._adopt(scene.forwarder)
    assert scene.served() == [scene.good.name]
    scene.forwarder.start()
    await send_all(scene.forwarder, scene.service, 2)
    scene.agent._refused.clear()
    scene.agent._adopt(scene.forwarder)
    await send_all(scene.forwarder, scene.service, 4)
    await scene.forwarder.close()


async def test_a_slot_whose_lanes_cannot_be_read_is_not_kept_locked(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: SenderSlot) -> None:
        raise SpoolError("Cannot read it.")

    with monkeypatch.context() as broken:
        broken.setattr(SenderSlot, "lanes", fail)
        scene.agent._adopt(scene.forwarder)
    assert scene.served() == []
    assert len(scene.opened()) == 2
    await scene.forwarder.close()


async def test_a_slot_that_cannot_be_closed_cleanly_is_not_kept_locked(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.agent._adopt(scene.forwarder)

    def fail() -> None:
        raise SpoolError("Cannot close it.")

    for served in scene.forwarder.served:
        monkeypatch.setattr(served._results, "close", fail)
    with pytest.raises(SpoolError):
        await scene.forwarder.close()
    assert len(scene.opened()) == 2


async def test_a_batch_of_an_account_that_has_gone_does_not_keep_the_agent_from_starting(
    scene: Scene,
) -> None:
    """It was sent; the agent was killed before it wrote that down, and its key was removed."""
    gone = JournalBatch(uuid4(), "C", (Part(scene.bad.uuid, ((100, 120),)),))
    scene.journal.begin(gone)
    scene.agent._adopt(scene.forwarder)
    assert scene.served() == [scene.good.name, scene.bad.name]
    assert scene.journal.open_batches == ()
    scene.forwarder.start()
    await send_all(scene.forwarder, scene.service, 4)
    await scene.forwarder.close()
