"""A producer whose agent sends: its reports, counts and limits are those of any producer."""

from __future__ import annotations

import asyncio
import threading
from uuid import uuid4

import pytest

from signal_persistence import (
    AccessToken,
    AsyncProducer,
    ConfigurationError,
    DeliveryReport,
    Producer,
    RejectedError,
)
from signal_persistence.spool import JournalBatch, Part, Slot, SpoolSettings, project_directory
from tests.client.agent import scenes
from tests.client.agent.conftest import ACCOUNTS, Host
from tests.client.agent.storing_service import token_of
from tests.client.scripted_service import make_signal
from tests.client.waiting import wait_until


def options(host: Host) -> dict[str, object]:
    return {"agent": True, "spool_dir": host.spool, "linger_ms": 5}


def producer(host: Host, **more: object) -> Producer:
    credentials = AccessToken(token_of(ACCOUNTS[0]))
    return Producer(host.url, "key", credentials, **options(host) | more)  # type: ignore[arg-type]


def test_the_report_comes_from_the_agent_and_says_what_the_service_said(host: Host) -> None:
    host.start_agent()
    host.memory.rejected["BAD"] = "quota_exceeded"
    reports: list[DeliveryReport] = []
    with producer(host, on_delivery=reports.append) as sending:
        deliveries = [
            sending.publish(make_signal(1)),
            sending.publish(make_signal(2, symbol="BAD")),
            sending.publish(make_signal(1)),
            sending.publish(make_signal(3)),
        ]
        assert [deliveries[at].result(20).seq for at in (0, 3)] == [1, 2]
        with pytest.raises(RejectedError) as refused:
            deliveries[1].result(20)
        assert refused.value.code == "quota_exceeded"
        assert sending.await_acked(deliveries[3].fsn, 20)
        stats = sending.stats()
    assert [report.status for report in reports] == [
        "accepted",
        "rejected",
        "duplicate",
        "accepted",
    ]
    assert [report.fsn for report in reports] == [1, 2, 3, 4]
    assert all(report.request_id and report.attempts == 1 for report in reports)
    assert all(report.latency >= report.round_trip > 0 for report in reports)
    assert (stats.accepted, stats.delivered, stats.dead_lettered, stats.pending) == (4, 3, 1, 0)
    assert stats.published_fsn == stats.acked_fsn == 4


def test_a_producer_starts_the_agent_that_is_not_there(host: Host) -> None:
    with producer(host) as sending:
        assert not host.agent_is_there()
        assert sending.publish(make_signal(1)).result(30).seq == 1
    assert host.agent_is_there(), host.log()


def test_what_a_former_process_left_counts_as_recovered_by_the_next_in_its_slot(
    host: Host,
) -> None:
    host.memory.down = True
    trader = host.start_trader(ACCOUNTS[0], "T", 400)
    wait_until(lambda: len(host.accepted("T")) == 400)
    trader.kill()
    trader.wait()
    with producer(host) as sending:
        assert sending.stats().recovered == sending.stats().pending == 400
        sending.publish(make_signal(1, symbol="U"))
        host.memory.down = False
        assert sending.flush(30) == 0
        stats = sending.stats()
    assert (stats.accepted, stats.delivered, stats.recovered) == (401, 401, 400)
    assert host.stored(ACCOUNTS[0], "T") == list(range(400))


def test_what_a_process_that_sent_by_itself_finished_is_not_reported_as_lost(host: Host) -> None:
    """Its journal says so; there are no results, since there was no agent."""
    account = str(ACCOUNTS[0])
    project = project_directory(host.spool, host.url)
    with Slot.open(project, [account], SpoolSettings(fsync="never")) as slot:
        for number in range(5):
            slot.log.append(0, make_signal(number).to_json())
        batches = [
            JournalBatch(uuid4(), account, (Part(slot.uuid, (at,)),)) for at in ((1, 3), (4, 4))
        ]
        for batch in batches:
            slot.journal.begin(batch)
        slot.journal.finish(batches[0].request_id)
    host.start_agent()
    reports: list[DeliveryReport] = []
    with producer(host, on_delivery=reports.append) as sending:
        assert sending.stats().recovered == 2
        wait_until(lambda: sending.acked_fsn == 5)
        stats = sending.stats()
    assert (stats.accepted, stats.delivered, stats.dead_lettered) == (2, 2, 0)
    assert [(report.fsn, report.status) for report in reports] == [(4, "accepted"), (5, "accepted")]


def test_more_than_fits_into_memory_stays_on_disk_and_is_reported_all_the_same(
    host: Host,
) -> None:
    host.start_agent()
    host.memory.down = True
    done = threading.Semaphore(0)
    with producer(host, buffer_max_messages=50) as sending:
        deliveries = [sending.publish(make_signal(number)) for number in range(500)]
        assert sending.stats().on_disk == 450
        deliveries[-1]._when_done(done.release)
        host.memory.down = False
        assert done.acquire(timeout=30)
        assert [delivery.result(1).seq for delivery in deliveries] == list(range(1, 501))


async def test_the_asyncio_face_is_the_same(host: Host) -> None:
    await asyncio.to_thread(host.start_agent)
    accounts = {account: AccessToken(token_of(account)) for account in ACCOUNTS}
    async with AsyncProducer(host.url, "key", accounts, **options(host)) as sending:  # type: ignore[arg-type]
        deliveries = [
            await sending.publish(make_signal(number), account_id=ACCOUNTS[number % 2])
            for number in range(10)
        ]
        reports = [await delivery for delivery in deliveries]
        assert [report.seq for report in reports] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        assert await sending.flush(5) == 0


def test_an_agent_cannot_send_what_is_in_memory_only(host: Host) -> None:
    with pytest.raises(ConfigurationError, match="spool_dir"):
        producer(host, spool_dir=None)


@pytest.mark.parametrize("scene", ["preload", "exits_at_once", "spawned"])
def test_children_publish_for_themselves_and_the_parent_goes_on(host: Host, scene: str) -> None:
    process = host.start_scene(scene, ACCOUNTS[0])
    assert process.wait(60) == 0, host.log()
    if scene == "exits_at_once":
        # There was no time to start one; the next trader of the host would.
        host.start_agent()
    names = ["parent", *(f"C{number}" for number in range(scenes.CHILDREN))]
    wait_until(lambda: host.memory.count() == len(names) * scenes.COUNT)
    for name in names:
        assert host.stored(ACCOUNTS[0], name) == list(range(scenes.COUNT))
    assert host.memory.sent_twice == 0
