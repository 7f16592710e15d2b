"""An adoption that fails half-way leaves the slot as it was, for the next attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from signal_persistence import AccessToken
from signal_persistence.agent.forwarder import Forwarder
from signal_persistence.errors import ConnectionLostError, SpoolError
from signal_persistence.settings import ProducerSettings
from signal_persistence.spool import (
    Frame,
    Journal,
    JournalBatch,
    LogReader,
    Part,
    SenderSlot,
    Slot,
    SpoolSettings,
)
from signal_persistence.spool.ranges import Ranges
from signal_persistence.transport import Response

SETTINGS = SpoolSettings(fsync="never", segment_bytes=4096, max_bytes=1 << 20)
SIGNALS = 200


class Unreachable:
    """A transport without a network; it counts what it was to send."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.asked = asyncio.Event()

    async def post(
        self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        self.bodies.append(body)
        self.asked.set()
        raise ConnectionLostError

    async def aclose(self) -> None: ...


def left_by_a_dead_producer(project: Path) -> Path:
    slot = Slot.open(project, ["account"], SETTINGS)
    for number in range(SIGNALS):
        slot.log.append(0, b'{"n":%d,"pad":"%s"}' % (number, b"x" * 60))
    part = Part(slot.uuid, ((1, SIGNALS),))
    slot.journal.begin(JournalBatch(uuid4(), "account", (part,)))
    slot.close()
    return slot.path


def opened(path: Path) -> SenderSlot:
    slot = SenderSlot.open(path)
    assert slot is not None
    return slot


async def test_a_slot_whose_open_batch_cannot_be_read_is_not_taken_for_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left_by_a_dead_producer(tmp_path)
    segments = sorted((path / "log").glob("*.seg"))
    transport = Unreachable()
    forwarder = Forwarder(
        tmp_path,
        transport,
        {"account": AccessToken("token")},
        ProducerSettings(spool_dir=tmp_path),
        journal=Journal.open(tmp_path / "agent" / "journal", SETTINGS),
    )

    def fail(reader: LogReader, fsns: Ranges) -> Sequence[Frame]:
        raise SpoolError("Cannot use the spool: too many open files.")

    with monkeypatch.context() as broken:
        broken.setattr(LogReader, "fetch", fail)
        with pytest.raises(SpoolError, match="too many open files"):
            forwarder.adopt([opened(path)])
    assert not forwarder.served
    forwarder.trim()
    assert sorted((path / "log").glob("*.seg")) == segments

    forwarder.adopt([opened(path)])
    forwarder.start()
    async with asyncio.timeout(10):
        await transport.asked.wait()
    await forwarder.close()
    assert transport.bodies[0].count(b'"pad"') == SIGNALS
