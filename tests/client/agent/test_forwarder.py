"""The forwarder: slots merged per account, each begun batch sent again as it was, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from signal_persistence import AccessToken
from signal_persistence.agent import served_slot
from signal_persistence.agent.forwarder import Forwarder
from signal_persistence.agent.results import Finished, Result, Run, decode_result
from signal_persistence.errors import SpoolFullError
from signal_persistence.settings import ProducerSettings
from signal_persistence.spool import (
    DeadLetters,
    Journal,
    JournalBatch,
    LogReader,
    Part,
    SenderSlot,
    Slot,
    SpoolSettings,
)
from signal_persistence.transport import Response
from tests.client.scripted_service import ScriptedService, make_signal

SPOOL = SpoolSettings(segment_bytes=8192, fsync="never")


@dataclass
class GatedService(ScriptedService):
    """Does not answer the requests of some accounts."""

    held: set[str] = field(default_factory=set)

    async def post(
        self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        if token in self.held:
            await asyncio.Event().wait()
        return await super().post(path, body, token, headers)


def write(slot: Slot, *numbers: int, lane: int = 0) -> None:
    for number in numbers:
        slot.log.append(lane, make_signal(number).to_json())


def writer(project: Path, *lanes: str) -> Slot:
    return Slot.open(project, lanes, SPOOL, as_sender=False)


def forwarder(project: Path, service: ScriptedService, **settings: Any) -> Forwarder:
    return Forwarder(
        project,
        service,
        {identity: AccessToken(identity) for identity in ("A", "B")},
        ProducerSettings(linger_ms=0, **settings),
        journal=Journal.open(project / "agent" / "journal", SPOOL),
    )


def sender_slots(*slots: Slot) -> list[SenderSlot]:
    opened = [SenderSlot.open(slot.path) for slot in slots]
    return [slot for slot in opened if slot is not None]


async def run_until(sending: Forwarder, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            sending.read()
            await asyncio.sleep(0.001)


async def send_all(sending: Forwarder, service: ScriptedService, count: int) -> None:
    await run_until(sending, lambda: stored_count(service) == count and not sending.unfinished)


def stored_count(service: ScriptedService) -> int:
    return sum(map(len, service.stored.values()))


def numbers(keys: Sequence[str]) -> list[int]:
    """Return the numbers of signals by their natural keys."""
    by_key = {make_signal(n).to_json().split(b'generated_at":"')[1][:20]: n for n in range(200)}
    return [by_key[key.encode()[:20]] for key in keys]


def finished(slot: Slot) -> Finished:
    """Return what the results of a slot say."""
    known = Finished()
    for frame in LogReader(slot.path / "results", slot.uuid).read(0, 1000, 10**6):
        result = decode_result(frame.body)
        known.add_runs(result.runs)
        known.reach(result.finished_through)
    return known


async def test_the_signals_of_two_slots_go_in_one_request_each_in_its_order(
    tmp_path: Path,
) -> None:
    service = ScriptedService()
    one, two = writer(tmp_path, "A"), writer(tmp_path, "A")
    write(one, 1, 2, 3)
    write(two, 11, 12)
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(one, two))
    sending.read()
    sending.start()
    await send_all(sending, service, 5)
    assert [numbers(request.keys) for request in service.requests] == [[1, 2, 3, 11, 12]]
    assert (finished(one).through, finished(two).through) == (3, 2)
    await sending.close()


async def test_each_account_is_sent_with_its_own_token(tmp_path: Path) -> None:
    service = ScriptedService()
    slot = writer(tmp_path, "A", "B")
    write(slot, 1, 3, lane=0)
    write(slot, 2, 4, lane=1)
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(slot))
    sending.start()
    await send_all(sending, service, 4)
    assert {token: numbers(list(keys)) for token, keys in service.stored.items()} == {
        "A": [1, 3],
        "B": [2, 4],
    }
    assert finished(slot).through == 4
    await sending.close()


async def test_an_account_that_cannot_be_sent_does_not_hold_up_the_others(tmp_path: Path) -> None:
    service = GatedService(held={"A"})
    slot = writer(tmp_path, "A", "B")
    write(slot, *range(30), lane=0)
    write(slot, *range(50, 60), lane=1)
    sending = forwarder(tmp_path, service, buffer_max_messages=5, batch_max_messages=5)
    sending.adopt(sender_slots(slot))
    sending.start()
    await run_until(sending, lambda: stored_count(service) == 10)
    assert numbers(list(service.stored["B"])) == list(range(50, 60))
    assert finished(slot).through == 0
    assert sending.unfinished == 5, "more than its share of the memory was read"
    service.held.clear()
    await sending.close()
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(slot))
    sending.start()
    await send_all(sending, service, 40)
    assert numbers(list(service.stored["A"])) == list(range(30))
    assert finished(slot).through == 40
    await sending.close()


async def crash_after_lost_answer(
    project: Path, service: ScriptedService, *slots: Slot, more: Callable[[], None] = lambda: None
) -> None:
    """Send one batch of which the answer is lost, and end before it can be sent again."""
    service.script[:] = service.script or ["lost ack"]
    sending = forwarder(project, service, retry_backoff_ms=60_000, retry_backoff_max_ms=60_000)
    sending.adopt(sender_slots(*slots))
    sending.read()
    more()
    sending.read()
    sending.start()
    await run_until(sending, lambda: len(service.requests) == 1 and not service.script)
    await asyncio.sleep(0)
    await sending.close()


async def test_a_batch_that_was_begun_is_sent_again_as_it_was(tmp_path: Path) -> None:
    service = ScriptedService()
    one, two = writer(tmp_path, "A"), writer(tmp_path, "A")
    write(one, 1, 2)
    write(two, 11)
    await crash_after_lost_answer(tmp_path, service, one, two, more=lambda: write(one, 3))
    assert numbers(service.requests[0].keys) == [1, 2, 11, 3]
    write(one, 4)
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(one, two))
    sending.start()
    await send_all(sending, service, 5)
    first, again, rest = service.requests
    assert (again.request_id, again.keys) == (first.request_id, first.keys)
    assert numbers(rest.keys) == [4]
    assert (finished(one).through, finished(two).through) == (4, 1)
    await sending.close()


async def test_a_batch_of_which_one_slot_was_told_already_is_sent_again_as_it_was(
    tmp_path: Path,
) -> None:
    service = ScriptedService()
    one, two = writer(tmp_path, "A"), writer(tmp_path, "A")
    write(one, 1, 2)
    write(two, 11)
    await crash_after_lost_answer(tmp_path, service, one, two)
    told = served_slot.ServedSlot(sender_slots(one)[0], None, SPOOL, lambda: 10)
    told.settle(0, [1, 2], Result(0, runs=(Run(1, 2, "accepted", 1),)))
    told.close()
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(one, two))
    assert sending.unfinished == 1
    sending.start()
    await run_until(sending, lambda: finished(two).through == 1)
    first, again = service.requests
    assert (again.request_id, again.keys) == (first.request_id, first.keys)
    assert (finished(one).through, sending.unfinished) == (2, 0)
    await sending.close()


async def test_of_a_batch_of_two_slots_each_share_is_sent_by_who_has_the_slot(
    tmp_path: Path,
) -> None:
    service = ScriptedService()
    one, two = writer(tmp_path, "A"), writer(tmp_path, "A")
    write(one, 1, 2)
    write(two, 11, 12)
    service.script[:] = ["lost"]
    await crash_after_lost_answer(tmp_path, service, one, two)
    service.stored.clear()
    service.ledger.clear()
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(one))
    sending.start()
    await send_all(sending, service, 2)
    assert numbers(service.requests[-1].keys) == [1, 2]
    assert service.requests[-1].request_id != service.requests[0].request_id
    # Only the second slot is left: what was begun of it is not taken for finished.
    sending.adopt(sender_slots(two))
    await send_all(sending, service, 4)
    assert numbers(service.requests[-1].keys) == [11, 12]
    assert finished(two).through == 2
    await sending.close()


async def test_what_a_sender_of_one_slot_began_goes_first_under_its_id(tmp_path: Path) -> None:
    service = ScriptedService()
    with Slot.open(tmp_path, ["A"], SPOOL) as slot:
        write(slot, 1, 2, 3)
        begun = JournalBatch(uuid4(), "A", (Part(slot.uuid, ((1, 2),)),))
        slot.journal.begin(begun)
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(slot))
    sending.start()
    await send_all(sending, service, 3)
    assert service.requests[0].request_id == str(begun.request_id)
    assert [numbers(request.keys) for request in service.requests] == [[1, 2], [3]]
    await sending.close()
    with Slot.open(tmp_path, ["A"], SPOOL) as slot:
        assert slot.recovered.signals == 0, "a later sender of the slot would send it all again"


async def test_a_slot_that_changed_hands_is_sent_for_its_new_account(tmp_path: Path) -> None:
    service = ScriptedService()
    slot = writer(tmp_path, "A")
    write(slot, 1)
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(slot))
    sending.start()
    await send_all(sending, service, 1)
    slot.log.finish_through(1)
    slot.close()
    successor = writer(tmp_path, "B")
    assert (successor.path, successor.lanes) == (slot.path, ("B",))
    write(successor, 2)
    await send_all(sending, service, 2)
    assert {token: numbers(list(keys)) for token, keys in service.stored.items()} == {
        "A": [1],
        "B": [2],
    }
    await sending.close()


async def test_numbers_that_the_disk_lost_do_not_stop_the_count(tmp_path: Path) -> None:
    service = ScriptedService()
    slot = writer(tmp_path, "A")
    write(slot, 1)
    slot.log.skip_to(2**32)
    write(slot, 2)
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(slot))
    sending.start()
    await send_all(sending, service, 2)
    assert finished(slot).through == slot.log.published_fsn
    await sending.close()


async def test_the_disk_is_given_back_as_signals_finish(tmp_path: Path) -> None:
    service = ScriptedService()
    slot = writer(tmp_path, "A")
    write(slot, *range(150))
    segments = len(list((slot.path / "log").glob("*.seg")))
    assert segments > 2
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(slot))
    sending.start()
    await send_all(sending, service, 150)
    sending.trim()
    assert len(list((slot.path / "log").glob("*.seg"))) == segments, "its writer still needs it"
    slot.close()
    sending.trim()
    assert len(list((slot.path / "log").glob("*.seg"))) == 1
    await sending.close()


async def test_results_that_were_read_go_and_the_last_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_slot, "_RESULTS_SEGMENT_BYTES", 4096)
    service = ScriptedService()
    slot = writer(tmp_path, "A")
    sending = forwarder(tmp_path, service, batch_max_messages=1)
    write(slot, *range(150))
    sending.adopt(sender_slots(slot))
    sending.start()
    await send_all(sending, service, 150)
    segments = sorted((slot.path / "results").glob("*.seg"))
    sending.trim()
    assert all(segment.exists() for segment in segments), "nobody has read them"
    slot.log.finish_through(150)
    sending.trim()
    assert not segments[0].exists()
    assert segments[-1].exists()
    assert finished(slot).through == 150
    await sending.close()


async def test_what_a_full_disk_keeps_from_being_told_is_not_said_to_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker would take it for lost, although it is stored."""
    service = ScriptedService()
    slot = writer(tmp_path, "A")
    write(slot, 1, 2, 3)
    sending = forwarder(tmp_path, service, retry_backoff_ms=20)
    sending.adopt(sender_slots(slot))
    [served] = sending.served
    append, refusals = served._results.append, [SpoolFullError("no_space")] * 3

    def append_if_there_is_room(lane: int, body: bytes, kind: int) -> int:
        if decode_result(body).runs and refusals:
            raise refusals.pop()
        return append(lane, body, kind)

    monkeypatch.setattr(served._results, "append", append_if_there_is_room)
    sending.start()
    await run_until(sending, lambda: finished(slot).through == 3)
    assert (sending.unfinished, len(service.requests)) == (0, 4)
    told: set[int] = set()
    for frame in LogReader(slot.path / "results", slot.uuid).read(0, 1000, 10**6):
        result = decode_result(frame.body)
        told.update(fsn for run in result.runs for fsn in range(run.first_fsn, run.last_fsn + 1))
        assert set(range(1, result.finished_through + 1)) <= told
    await sending.close()


async def test_a_verdict_that_cannot_be_written_down_at_once_leaves_one_dead_letter_of_each_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = make_signal(2).to_json().split(b'generated_at":"')[1].split(b'"')[0].decode()
    service = ScriptedService(rejected={refused: "quota_exceeded"})
    slot = writer(tmp_path, "A")
    write(slot, 1, 2, 3)
    sending = forwarder(tmp_path, service, retry_backoff_ms=1)
    sending.adopt(sender_slots(slot))
    [served] = sending.served
    append, refusals = served._results.append, [SpoolFullError("no_space")] * 5

    def append_if_there_is_room(lane: int, body: bytes, kind: int) -> int:
        if refusals:
            raise refusals.pop()
        return append(lane, body, kind)

    monkeypatch.setattr(served._results, "append", append_if_there_is_room)
    sending.start()
    await run_until(sending, lambda: finished(slot).through == 3)
    assert len(service.requests) == 6
    assert [letter.fsn for letter in DeadLetters.read(tmp_path / "dead_letters")] == [2]
    await sending.close()


async def test_what_the_service_refuses_is_a_dead_letter_and_a_report(tmp_path: Path) -> None:
    refused = make_signal(2).to_json().split(b'generated_at":"')[1].split(b'"')[0].decode()
    service = ScriptedService(rejected={refused: "quota_exceeded"})
    slot = writer(tmp_path, "A")
    write(slot, 1, 2, 3)
    sending = forwarder(tmp_path, service)
    sending.adopt(sender_slots(slot))
    sending.start()
    await send_all(sending, service, 2)
    letter, *others = DeadLetters.read(tmp_path / "dead_letters")
    assert not others
    assert (letter.account, letter.slot, letter.fsn) == ("A", slot.name, 2)
    assert (letter.code, bytes(letter.signal)) == ("quota_exceeded", make_signal(2).to_json())
    frame = LogReader(slot.path / "results", slot.uuid).read(0, 10, 10**6)[-1]
    assert decode_result(frame.body).runs[1].fate(2).code == "quota_exceeded"
    await sending.close()
