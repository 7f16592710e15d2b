"""The engine over a real spool, in virtual time: crashes, backlogs, dead letters, full disks."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signal_persistence import ClosedError, DeliveryReport, ProducerStats
from signal_persistence.engine import Engine
from signal_persistence.errors import SpoolError, SpoolFullError
from signal_persistence.outbox import DEAD_LETTERS
from signal_persistence.spool import DeadLetters
from signal_persistence.transport import Response
from tests.client.scripted_service import ScriptedService, close, make_engine, make_signal, publish
from tests.client.virtual_time import run

STEPS = [
    *("ok", "refused", "timeout", "lost", "lost ack", "late", "garbage"),
    *(200, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504, "insufficient_scope"),
]
"""What may pass: 200 is a truncated body."""
REFUSALS = ["invalid_request", "request_id_reused", "batch_too_large"]
"""What will not, for a batch of one signal."""
scripts = st.lists(st.sampled_from(STEPS), max_size=12)


MEMORY = Path("/dev/shm")
"""A file system in memory, where there is one: hundreds of examples would wait for the disk."""


@contextmanager
def new_project() -> Iterator[Path]:
    """A fixture would be shared by all examples of a property."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder) / "project"


def numbers_of(reports: list[DeliveryReport]) -> list[float]:
    return [report.signal.price - 100.0 for report in reports]


def assert_accounted(engine: Engine) -> None:
    stats = engine.stats()
    assert stats.accepted == stats.delivered + stats.dead_lettered + stats.pending
    assert stats.acked_fsn <= stats.published_fsn
    if stats.pending == 0:
        assert stats.acked_fsn == stats.published_fsn


def assert_one_payload_per_request_id(service: ScriptedService) -> None:
    keys_of_id: dict[str, tuple[str, ...]] = {}
    for request in service.requests:
        assert keys_of_id.setdefault(request.request_id, request.keys) == request.keys


def assert_one_request_id_per_signal(service: ScriptedService) -> None:
    id_of_signal: dict[tuple[str, str], str] = {}
    for request in service.requests:
        for key in request.keys:
            first_id = id_of_signal.setdefault((request.token, key), request.request_id)
            assert first_id == request.request_id


async def crash(engine: Engine) -> None:
    """Stop everything as a SIGKILL would: nothing is finished, and the locks are free again."""
    await engine._end_senders()
    engine._dispatcher.end()
    engine._outbox._slot._abandon()  # type: ignore[attr-defined]


@settings(max_examples=50, deadline=None)
@given(
    scripts,
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(1, 8),
)
def test_any_faults_crashes_and_restarts_store_every_signal_once_in_order(
    script: list[Any],
    lives: list[tuple[int, bool]],
    batch_max_messages: int,
    buffer_max_messages: int,
) -> None:
    """Each life publishes some signals and ends by a crash or by close(); the last one drains."""

    async def scenario(project: Path) -> None:
        service = ScriptedService(script=list(script))
        reports: list[DeliveryReport] = []
        count = 0

        def start() -> Engine:
            return make_engine(
                service,
                project=project,
                on_delivery=reports.append,
                batch_max_messages=batch_max_messages,
                buffer_max_messages=buffer_max_messages,
                spool_fsync="never",
                seed=count,
            )

        for signals, crashes in lives:
            engine = start()
            for _ in range(signals):
                publish(engine, make_signal(count))
                count += 1
                assert_accounted(engine)
                await asyncio.sleep(0.03)
            await (crash(engine) if crashes else close(engine, 0.2))
        engine = start()
        assert await engine.flush(None) == 0
        assert_accounted(engine)
        assert engine.stats().published_fsn >= count
        await close(engine, 5)
        assert list(service.stored["None"].values() if count else []) == list(range(1, count + 1))
        assert all(report.stored for report in reports)
        assert_one_payload_per_request_id(service)
        assert_one_request_id_per_signal(service)
        # A crash takes reports with it, and then a signal may be reported by two lives.
        if not any(crashes for _, crashes in lives):
            assert numbers_of(reports) == list(range(count))

    with new_project() as project:
        run(scenario(project))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([*STEPS, *REFUSALS]), max_size=20),
    st.integers(1, 25),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_any_script_reports_every_signal_once_in_order_and_keeps_what_was_refused(
    script: list[Any], signals: int, batch_max_messages: int, accounts: int
) -> None:
    async def scenario(project: Path) -> None:
        service = ScriptedService(script=list(script), retry_after="2")
        reports: list[DeliveryReport] = []
        ids = [UUID(int=number + 1) for number in range(accounts)]
        engine = make_engine(
            service,
            project=project,
            accounts=ids,
            on_delivery=reports.append,
            batch_max_messages=batch_max_messages,
            buffer_max_messages=3 * accounts,
            spool_fsync="never",
        )
        for number in range(signals):
            for account in ids:
                publish(engine, make_signal(number), account)
            assert_accounted(engine)
        assert await engine.flush(None) == 0
        await close(engine, 5)
        assert_accounted(engine)
        assert_one_payload_per_request_id(service)
        letters = list(DeadLetters.read(project / DEAD_LETTERS))
        for account in ids:
            own = [report for report in reports if report.account_id == account]
            assert numbers_of(own) == list(range(signals))
            stored = service.stored.get(str(account), {})
            assert list(stored.values()) == list(range(1, len(stored) + 1))
            assert sum(report.stored for report in own) <= len(stored)
            refused = [report.fsn for report in own if not report.stored]
            assert [letter.fsn for letter in letters if letter.account == str(account)] == refused
        if not set(script) & {*REFUSALS}:
            assert all(report.stored for report in reports)

    with new_project() as project:
        run(scenario(project))


def test_what_is_left_stays_in_the_spool_and_the_next_producer_sends_it_under_the_same_id(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["lost ack"] * 100)
        engine = make_engine(service, project=tmp_path, batch_max_messages=2)
        deliveries = [publish(engine, make_signal(number)) for number in range(5)]
        assert [delivery.fsn for delivery in deliveries] == [1, 2, 3, 4, 5]
        await asyncio.sleep(1)
        assert await close(engine, 0.5) == []
        stats = engine.stats()
        assert (stats.accepted, stats.pending, stats.dead_lettered) == (5, 5, 0)
        with pytest.raises(ClosedError, match="stays in the spool"):
            await deliveries[0]
        service.script = []
        reports: list[DeliveryReport] = []
        engine = make_engine(service, project=tmp_path, on_delivery=reports.append)
        assert engine.stats().recovered == engine.stats().accepted == 5
        assert await engine.await_acked(5, 10)
        await close(engine, 5)
        assert numbers_of(reports) == [0, 1, 2, 3, 4]
        assert [report.fsn for report in reports] == [1, 2, 3, 4, 5]
        first = service.requests[0].request_id
        assert str(reports[0].request_id) == str(reports[1].request_id) == first
        # The first batch was stored before, and the service gave its first verdict again.
        assert [report.seq for report in reports] == [1, 2, 3, 4, 5]

    run(scenario())


def test_numbers_go_on_after_a_restart_and_acked_follows_the_slowest_account(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        class OneFails(ScriptedService):
            async def post(self, path: str, body: bytes, token: str, headers: Any = None) -> Any:
                self.script = [503] if token == str(accounts[0]) and failing else []
                return await super().post(path, body, token, headers)

        accounts, failing = [UUID(int=1), UUID(int=2)], True
        service = OneFails()
        engine = make_engine(service, project=tmp_path, accounts=accounts, linger_ms=0)
        for account in (accounts[1], accounts[0], accounts[1]):
            publish(engine, make_signal(engine.published_fsn), account)
        assert not await engine.await_acked(2, 3)
        assert (engine.published_fsn, engine.acked_fsn) == (3, 1)
        publish(engine, make_signal(4), accounts[1])
        assert engine.acked_fsn == 1
        failing = False
        assert await engine.await_acked(4, 60)
        await close(engine, 1)
        engine = make_engine(service, project=tmp_path, accounts=accounts)
        assert publish(engine, make_signal(9), accounts[0]).fsn == 5
        await close(engine, 5)

    run(scenario())


def test_what_does_not_fit_into_memory_waits_on_disk_and_its_handles_still_answer(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["refused"] * 3)
        own: list[DeliveryReport] = []
        engine = make_engine(service, project=tmp_path, buffer_max_messages=10)
        held = []
        for number in range(200):
            delivery = publish(
                engine, make_signal(number), on_delivery=own.append if number == 150 else None
            )
            if number % 50 == 49:
                held.append(delivery)
        del delivery
        stats = engine.stats()
        assert stats.on_disk == 190
        assert len(engine._ledger._deliveries) == len(held)
        assert await engine.flush(None) == 0
        await asyncio.sleep(0)
        assert [delivery.report.seq for delivery in held] == [50, 100, 150, 200]
        assert numbers_of(own) == [150]
        assert engine.stats().on_disk == 0
        assert not engine._ledger._deliveries
        assert not engine._ledger._callbacks
        await close(engine, 1)

    run(scenario())


def test_a_backlog_is_read_back_in_pieces(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["refused"] * 1000)
        options: dict[str, Any] = {"batch_max_messages": 20, "spool_fsync": "never"}
        engine = make_engine(service, project=tmp_path, buffer_max_messages=50, **options)
        for number in range(3000):
            publish(engine, make_signal(number))
        await close(engine, 0)
        del engine
        gc.collect()
        service.script, service.delay = [], 0.05
        engine = make_engine(service, project=tmp_path, buffer_max_messages=50, **options)
        most = 0
        while engine.stats().pending:
            await asyncio.sleep(0.01)
            most = max(
                most, sum(1 for lane in engine._ledger.lanes.values() for _ in lane.in_memory())
            )
        assert most <= 4 * 20
        assert engine.stats().delivered == 3000
        assert list(service.stored["None"].values()) == list(range(1, 3001))
        await close(engine, 1)

    run(scenario())


def test_refused_signals_become_dead_letters_with_the_reason_and_can_be_read(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        bad = [make_signal(n).generated_at.isoformat().replace("+00:00", "Z") for n in (1, 2)]
        service = ScriptedService(
            rejected={bad[0]: "quota_exceeded", bad[1]: "unknown_trader"},
        )
        engine = make_engine(service, project=tmp_path)
        deliveries = [publish(engine, make_signal(number)) for number in range(4)]
        await engine.flush(None)
        assert engine.acked_fsn == 4
        letters = list(DeadLetters.read(tmp_path / DEAD_LETTERS))
        assert [(letter.fsn, letter.code, letter.message) for letter in letters] == [
            (2, "quota_exceeded", "No."),
            (3, "unknown_trader", "No."),
        ]
        assert [bytes(letter.signal) for letter in letters] == [
            make_signal(number).to_json() for number in (1, 2)
        ]
        assert {letter.request_id for letter in letters} == {str(deliveries[1].report.request_id)}
        assert engine.stats().dead_lettered == 2
        await close(engine, 1)

    run(scenario())


def test_a_verdict_that_cannot_be_written_down_at_once_leaves_one_dead_letter_of_each_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of the same would drive out old ones that nobody has read."""

    async def scenario() -> None:
        rejected = {_wire_time(number): "unknown_trader" for number in (1, 3)}
        service = ScriptedService(rejected=rejected)
        engine = make_engine(service, project=tmp_path)
        journal = engine._outbox._journal  # type: ignore[attr-defined]
        finish, refusals = journal.finish, [SpoolFullError("no_space")] * 20

        def finish_if_there_is_room(request_id: UUID) -> None:
            if refusals:
                raise refusals.pop()
            finish(request_id)

        monkeypatch.setattr(journal, "finish", finish_if_there_is_room)
        for number in range(5):
            publish(engine, make_signal(number))
        assert await engine.flush(None) == 0
        assert len(service.requests) == 21
        assert [letter.fsn for letter in DeadLetters.read(tmp_path / DEAD_LETTERS)] == [2, 4]
        await close(engine, 1)

    run(scenario())


def test_signals_beyond_the_allowance_of_a_minute_are_sent_again_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        late = [make_signal(n).generated_at.isoformat().replace("+00:00", "Z") for n in range(3, 6)]
        rejected = dict.fromkeys(late, "rate_limited")
        service = ScriptedService(rejected=rejected)
        reports: list[DeliveryReport] = []
        engine = make_engine(service, project=tmp_path, on_delivery=reports.append)
        for number in range(6):
            publish(engine, make_signal(number))
        await asyncio.sleep(5)
        assert numbers_of(reports) == [0, 1, 2]
        assert engine.acked_fsn == 3
        await crash(engine)
        rejected.clear()
        engine = make_engine(service, project=tmp_path, on_delivery=reports.append)
        assert engine.stats().recovered == 3
        assert await engine.flush(None) == 0
        await close(engine, 1)
        assert numbers_of(reports) == list(range(6))
        assert [report.seq for report in reports] == [1, 2, 3, 4, 5, 6]
        assert_one_payload_per_request_id(service)

    run(scenario())


def test_a_refused_token_keeps_everything_for_as_long_as_it_takes(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=[401] * 10_000)
        engine = make_engine(service, project=tmp_path)
        publish(engine, make_signal(0))
        await asyncio.sleep(36_000)
        assert engine.stats().pending == 1
        assert engine.stats().breaker == "closed"
        service.script = []
        assert await engine.flush(60) == 0
        await close(engine, 1)

    run(scenario())


def test_a_full_spool_pushes_back_and_takes_signals_again_when_some_are_stored(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["refused"] * 5)
        engine = make_engine(
            service, project=tmp_path, spool_max_bytes=8 * 1024**2, spool_fsync="never"
        )
        note = {"text": "x" * 2000}
        count = 0
        while True:
            sender, record = engine.prepare(make_signal(count, metadata=note), None, None)
            if not engine.offer(sender, record):
                break
            count += 1
        with pytest.raises(SpoolFullError) as caught:
            await engine.wait_for_room(sender, record, 0.0)
        assert caught.value.reason == "limit"
        assert_accounted(engine)
        await engine.wait_for_room(sender, record, 3_600)
        assert await engine.flush(None) == 0
        assert engine.offer(sender, record)
        await close(engine, 60)
        assert engine.stats().delivered == count + 1
        assert list(service.stored["None"].values()) == list(range(1, count + 2))

    run(scenario())


def test_a_batch_that_cannot_be_written_down_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        service = ScriptedService()
        engine = make_engine(service, project=tmp_path, batch_max_messages=1)
        failures = 3
        journal = engine._outbox._journal  # type: ignore[attr-defined]
        begin = journal.begin

        def fail(batch: Any) -> None:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                assert not service.requests
                raise SpoolError("Cannot write: the disk failed.")
            begin(batch)

        monkeypatch.setattr(journal, "begin", fail)
        for number in range(3):
            publish(engine, make_signal(number))
        assert await engine.flush(60) == 0
        assert list(service.stored["None"].values()) == [1, 2, 3]
        await close(engine, 1)

    run(scenario())


@pytest.mark.parametrize(
    "state",
    [
        "idle",
        "lingering",
        "in flight",
        "backing off",
        "Retry-After",
        "open",
        "401",
        "slow callback",
    ],
)
def test_close_is_bounded_in_every_state_and_leaves_the_rest_in_the_spool(
    state: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        service = ScriptedService(retry_after="3600")
        never = asyncio.Event()

        async def slow(report: DeliveryReport) -> None:
            await never.wait()

        engine = make_engine(
            service,
            project=tmp_path,
            linger_ms=1_000_000 if state == "lingering" else 10,
            on_delivery=slow if state == "slow callback" else None,
        )
        if state == "in flight":
            service.gate = never
        faults = {"backing off": "lost", "Retry-After": 503, "open": "refused", "401": 401}
        if state in faults:
            service.script = [faults[state]] * 10_000
        if state != "idle":
            publish(engine, make_signal(0))
        await asyncio.sleep(20 if state == "open" else 1)
        assert state != "open" or engine.stats().breaker == "open"
        before = asyncio.get_running_loop().time()
        assert await close(engine, 2.0) == []
        assert asyncio.get_running_loop().time() - before <= 2.1
        left = int(state in ("in flight", *faults))
        assert engine.stats().pending == left
        assert_accounted(engine)
        service.gate, service.script = None, []
        engine = make_engine(service, project=tmp_path)
        assert engine.stats().recovered == left
        assert await engine.flush(60) == 0
        await close(engine, 1)
        assert len(service.stored.get("None", {})) == (state != "idle")

    run(scenario())


def test_callbacks_that_never_return_bound_the_memory_and_not_the_publishing(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        service = ScriptedService()
        may_end = asyncio.Event()
        seen: list[DeliveryReport] = []

        async def slow(report: DeliveryReport) -> None:
            await may_end.wait()
            seen.append(report)

        engine = make_engine(
            service, project=tmp_path, on_delivery=slow, buffer_max_messages=5, batch_max_messages=2
        )
        for number in range(100):
            publish(engine, make_signal(number))
        assert await engine.flush(30) > 0
        assert engine.stats().callbacks_waiting <= 5 + 2 * 2 + 5
        may_end.set()
        assert await engine.flush(30) == 0
        await close(engine, 1)
        assert numbers_of(seen) == list(range(100))

    run(scenario())


def test_what_one_account_cannot_send_does_not_take_the_memory_of_the_others(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        class OneIsRefused(ScriptedService):
            async def post(self, path: str, body: bytes, token: str, headers: Any = None) -> Any:
                if token == str(UUID(int=1)):
                    return Response(401, {}, b"")
                return await super().post(path, body, token, headers)

        service = OneIsRefused()
        accounts = [UUID(int=1), UUID(int=2)]
        engine = make_engine(
            service, project=tmp_path, accounts=accounts, buffer_max_messages=10, linger_ms=0
        )
        for number in range(300):
            for account in accounts:
                publish(engine, make_signal(number), account)
            await asyncio.sleep(0.001)
        await asyncio.sleep(10)
        assert list(service.stored[str(accounts[1])].values()) == list(range(1, 301))
        assert engine.stats().pending == 300
        await close(engine, 0)

    run(scenario())


def test_each_of_several_accounts_gets_its_own_signals_back_after_a_restart(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["refused"] * 1000)
        accounts = [UUID(int=number) for number in (1, 2, 3)]
        options: dict[str, Any] = {"buffer_max_messages": 9, "batch_max_messages": 4}
        engine = make_engine(service, project=tmp_path, accounts=accounts, **options)
        for number in range(30):
            for account in accounts[: 1 + number % 3]:
                publish(engine, make_signal(number), account)
        await asyncio.sleep(2)
        waiting = asyncio.create_task(engine.await_acked(1, None))
        await close(engine, 0)
        assert not await waiting
        assert await engine.flush(None) == engine.stats().pending == 60
        service.script = []
        engine = make_engine(service, project=tmp_path, accounts=accounts, **options)
        assert engine.stats().recovered == 60
        assert await engine.flush(None) == 0
        await close(engine, 1)
        for index, account in enumerate(accounts):
            expected = [number for number in range(30) if number % 3 >= index]
            sent = list(service.stored[str(account)])
            assert sent == [_wire_time(number) for number in expected]
        assert_one_request_id_per_signal(service)

    run(scenario())


def _wire_time(number: int) -> str:
    return make_signal(number).generated_at.isoformat().replace("+00:00", "Z")


class Measured:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.stats: Callable[[], ProducerStats] | None = None
        self.accepted_after: list[float] = []
        self.fsynced_after: list[float] = []
        self.reports: list[DeliveryReport] = []

    def attached(self, stats: Callable[[], ProducerStats]) -> None:
        self.stats = stats

    def accepted(self, seconds: float) -> None:
        self.accepted_after.append(seconds)

    def fsynced(self, seconds: Sequence[float]) -> None:
        self.fsynced_after += seconds

    def settled(self, reports: Sequence[DeliveryReport]) -> None:
        self.reports += reports


def test_an_observer_hears_of_every_signal_that_is_taken_synced_and_settled(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        observer = Measured()
        bad = make_signal(1).generated_at.isoformat().replace("+00:00", "Z")
        service = ScriptedService(rejected={bad: "quota_exceeded"}, delay=0.5)
        engine = make_engine(service, project=tmp_path, observer=observer)
        for number in range(3):
            publish(engine, make_signal(number))
        engine._outbox._log.sync()  # type: ignore[attr-defined]
        assert await engine.flush(None) == 0
        await close(engine, 1)
        assert observer.stats is not None
        assert observer.stats().delivered == 2
        assert observer.accepted_after == [0.0] * 3
        assert observer.fsynced_after == [pytest.approx(0.05)] * 3
        assert [report.status for report in observer.reports] == [
            "accepted",
            "rejected",
            "accepted",
        ]

    run(scenario())
