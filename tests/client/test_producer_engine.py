"""The engine against a scripted service, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_persistence import (
    AbandonedError,
    AuthenticationError,
    BufferFullError,
    ClosedError,
    ConfigurationError,
    DeliveryReport,
    DeliveryTimeoutError,
    InvalidSignalError,
    RejectedError,
)
from signal_persistence.engine import Engine
from signal_persistence.transport import Response
from tests.client.scripted_service import (
    ScriptedService,
    close,
    make_engine,
    make_signal,
    publish,
)
from tests.client.virtual_time import run

FAULTS = ["refused", "timeout", "lost", "lost ack", "late", "garbage"]
STATUSES = [
    302,
    400,
    401,
    402,
    403,
    404,
    405,
    408,
    409,
    415,
    429,
    500,
    501,
    502,
    503,
    504,
    520,
    522,
    544,
]
scripts = st.lists(st.sampled_from([*FAULTS, *STATUSES]), max_size=12)


def assert_accounted(engine: Engine) -> None:
    stats = engine.stats()
    assert stats.accepted == stats.delivered + stats.dead_lettered + stats.pending
    assert stats.dead_lettered == stats.rejected + stats.failed


def numbers_of(reports: Sequence[DeliveryReport]) -> list[float]:
    return [report.signal.price - 100.0 for report in reports]


@given(scripts, st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 9))
def test_any_faults_and_then_success_store_and_report_every_signal_once_in_order(
    script: list[Any], bursts: list[int], batch_max_messages: int
) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=list(script))
        reports: list[DeliveryReport] = []
        engine = make_engine(
            service, on_delivery=reports.append, batch_max_messages=batch_max_messages
        )
        count = 0
        for burst in bursts:
            for _ in range(burst):
                publish(engine, make_signal(count))
                count += 1
                assert_accounted(engine)
            await asyncio.sleep(0.07)
            assert_accounted(engine)
        assert await engine.flush(None) == 0
        assert await close(engine, 10) == []
        assert numbers_of(reports) == list(range(count))
        assert all(report.stored for report in reports)
        assert list(service.stored["None"].values()) == list(range(1, count + 1))
        assert engine.stats().delivered == count
        assert_accounted(engine)
        keys_of_id: dict[str, tuple[str, ...]] = {}
        for request in service.requests:
            assert keys_of_id.setdefault(request.request_id, request.keys) == request.keys
        sent_first = [key for keys in keys_of_id.values() for key in keys]
        assert len(sent_first) == len(set(sent_first)), "a signal was sent under two request_ids"
        milliseconds = [request_id[:13] for request_id in keys_of_id]
        assert milliseconds == sorted(milliseconds), "request_ids do not sort by time"

    run(scenario())


@given(scripts, st.integers(1, 20), st.integers(0, 3), st.integers(0, 2**32))
def test_accounts_are_sent_side_by_side_and_each_in_order(
    script: list[Any], signals: int, extra_accounts: int, seed: int
) -> None:
    async def scenario() -> None:
        accounts = [UUID(int=number) for number in range(1 + extra_accounts)]
        service = ScriptedService(script=list(script), delay=0.05)
        reports: list[DeliveryReport] = []
        engine = make_engine(
            service,
            accounts=accounts,
            on_delivery=reports.append,
            batch_max_messages=3,
            max_in_flight_requests=2,
            seed=seed,
        )
        for number in range(signals):
            for account in accounts:
                publish(engine, make_signal(number), account)
        assert await engine.flush(None) == 0
        await close(engine, 1)
        for account in accounts:
            own = [report for report in reports if report.account_id == account]
            assert numbers_of(own) == list(range(signals))
            assert list(service.stored[str(account)].values()) == list(range(1, signals + 1))
        assert service.most_in_flight <= 2
        assert service.most_of_one_token == 1

    run(scenario())


def test_two_accounts_are_under_way_at_once_and_one_account_never_twice() -> None:
    async def scenario() -> None:
        service = ScriptedService(delay=1.0)
        accounts = [UUID(int=1), UUID(int=2)]
        engine = make_engine(service, accounts=accounts, batch_max_messages=1, linger_ms=0)
        for number in range(3):
            for account in accounts:
                publish(engine, make_signal(number), account)
        await close(engine, 60)
        assert service.most_in_flight == 2
        assert service.most_of_one_token == 1

    run(scenario())


def test_an_account_that_fails_does_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        class OneFails(ScriptedService):
            async def post(self, path: str, body: bytes, token: str, headers: Any = None) -> Any:
                self.script = [503] if token == str(UUID(int=1)) else []
                return await super().post(path, body, token, headers)

        service = OneFails()
        accounts = [UUID(int=1), UUID(int=2)]
        engine = make_engine(service, accounts=accounts, max_in_flight_requests=1)
        publish(engine, make_signal(0), accounts[0])
        await asyncio.sleep(5)
        delivery = publish(engine, make_signal(0), accounts[1])
        await asyncio.sleep(0.2)
        assert delivery.done()
        await close(engine, 0)

    run(scenario())


@pytest.mark.parametrize("gap", [0.001, 0.03, 0.09, 0.11, 1.0])
def test_the_first_signal_of_a_batch_waits_for_the_linger_and_no_longer(gap: float) -> None:
    async def scenario() -> None:
        service = ScriptedService()
        engine = make_engine(service, linger_ms=100)
        published = []
        for number in range(30):
            published.append(asyncio.get_running_loop().time())
            publish(engine, make_signal(number))
            await asyncio.sleep(gap)
        await asyncio.sleep(1)
        assert sum(len(request.keys) for request in service.requests) == 30
        index = 0
        for request in service.requests:
            assert request.at - published[index] == pytest.approx(0.1, abs=1e-6)
            index += len(request.keys)
        await close(engine, 1)

    run(scenario())


def test_a_full_batch_does_not_linger() -> None:
    async def scenario() -> None:
        service = ScriptedService()
        engine = make_engine(service, linger_ms=60_000, batch_max_messages=10)
        for number in range(25):
            publish(engine, make_signal(number))
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert [len(request.keys) for request in service.requests] == [10, 10]
        await close(engine, 1)
        assert len(service.requests) == 3

    run(scenario())


def test_retry_after_is_the_least_pause() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=[429, 503], retry_after="7")
        engine = make_engine(service, linger_ms=0)
        publish(engine, make_signal(0))
        await engine.flush(None)
        first, second, third = [request.at for request in service.requests]
        assert second - first >= 7
        assert third - second >= 7
        await close(engine, 1)

    run(scenario())


def test_a_refused_token_is_renewed_once_and_then_waits_without_losing_the_batch() -> None:
    async def scenario() -> None:
        asked: list[bool] = []

        class Renewing:
            async def access_token(self, *, refresh: bool = False) -> str:
                asked.append(refresh)
                if len(asked) == 3:
                    raise AuthenticationError(status=401)
                return f"token {len(asked)}"

        service = ScriptedService(script=[401, 401])
        engine = make_engine(service, linger_ms=0)
        engine._senders[None]._credentials = Renewing()
        delivery = publish(engine, make_signal(0))
        assert (await delivery).status == "accepted"
        assert asked == [False, True, True, True]
        assert [request.token for request in service.requests] == ["token 1", "token 2", "token 4"]
        assert service.requests[1].at == service.requests[0].at
        assert len({request.request_id for request in service.requests}) == 1
        await close(engine, 1)

    run(scenario())


def test_a_batch_that_is_too_large_is_halved_in_order_under_new_ids() -> None:
    async def scenario() -> None:
        service = ScriptedService(largest_batch=3)
        reports: list[DeliveryReport] = []
        engine = make_engine(service, on_delivery=reports.append)
        for number in range(10):
            publish(engine, make_signal(number))
        await close(engine, 10)
        assert numbers_of(reports) == list(range(10))
        assert list(service.stored["None"].values()) == list(range(1, 11))
        ids = [request.request_id for request in service.requests]
        assert len(set(ids)) == len(ids)

    run(scenario())


def test_one_signal_that_is_too_large_by_itself_is_reported() -> None:
    async def scenario() -> None:
        service = ScriptedService(largest_batch=0)
        engine = make_engine(service)
        delivery = publish(engine, make_signal(0))
        await close(engine, 5)
        assert delivery.report.status == "failed"
        assert delivery.report.code == "batch_too_large"
        assert not delivery.report.in_doubt
        assert_accounted(engine)

    run(scenario())


@pytest.mark.parametrize(
    "step", ["invalid_request", "not_found", "request_id_reused", "unsupported_media_type"]
)
def test_a_definite_refusal_is_reported_and_the_next_batch_goes_on(step: str) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=[step])
        engine = make_engine(service, batch_max_messages=1)
        first, second = (publish(engine, make_signal(number)) for number in range(2))
        assert await engine.flush(None) == 0
        assert first.report.status == "failed"
        assert not first.report.in_doubt
        assert second.report.status == "accepted"
        stats = engine.stats()
        assert (stats.delivered, stats.failed, stats.pending) == (1, 1, 0)
        await close(engine, 1)

    run(scenario())


@pytest.mark.parametrize("status", [400, 402, 403, 404, 405, 409, 413, 415, 422, 501])
@pytest.mark.parametrize("body", [b"<html>No.</html>", b'{"code":"NO","message":"No."}', b""])
def test_a_refusal_that_the_service_did_not_write_does_not_give_up_the_batch(
    status: int, body: bytes
) -> None:
    """Of a proxy, a firewall, the gateway of the platform: somebody may repair it."""

    async def scenario() -> None:
        service = ScriptedService(script=[Response(status, {}, body)] * 8)
        engine = make_engine(service)
        delivery = publish(engine, make_signal(0))
        await asyncio.sleep(0.2)
        stats = engine.stats()
        assert (stats.pending, stats.dead_lettered) == (1, 0)
        assert stats.outage_started_at is not None
        assert (await delivery).status == "accepted"
        assert engine.stats().outage_started_at is None
        assert len({request.request_id for request in service.requests}) == 1
        await close(engine, 1)

    run(scenario())


def test_a_page_that_says_too_large_halves_the_batch_and_loses_none_of_it() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=[413, 413, 413])
        engine = make_engine(service)
        reports = [publish(engine, make_signal(number)) for number in range(8)]
        assert await engine.flush(None) == 0
        assert [delivery.report.seq for delivery in reports] == list(range(1, 9))
        assert [len(request.keys) for request in service.requests[:4]] == [8, 4, 2, 1]
        await close(engine, 1)

    run(scenario())


def test_a_batch_that_is_refused_for_ever_holds_up_no_other_account_and_is_seen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It waits until its delivery timeout, if there is one, and says so all the time."""

    async def scenario() -> None:
        one, two = UUID(int=1), UUID(int=2)

        class OneIsRefused(ScriptedService):
            async def post(self, path: str, body: bytes, token: str, headers: Any = None) -> Any:
                self.script = [400] if token == str(one) else []
                return await super().post(path, body, token, headers)

        engine = make_engine(
            OneIsRefused(), accounts=[one, two], linger_ms=0, delivery_timeout_ms=600_000
        )
        poison = publish(engine, make_signal(0), one)
        for number in range(60):
            assert (await publish(engine, make_signal(number), two)).status == "accepted"
            assert engine.stats().outage_started_at is not None
            await asyncio.sleep(5)
        assert not poison.done()
        await asyncio.sleep(400)
        assert (poison.report.code, poison.report.in_doubt) == ("delivery_timeout", True)
        assert_accounted(engine)
        await close(engine, 1)

    run(scenario())
    [line] = [record.getMessage() for record in caplog.records if "fails" in record.getMessage()]
    assert "(ApiError 400, batch" in line


def test_who_lacks_a_scope_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["insufficient_scope"] * 20)
        engine = make_engine(service, project=tmp_path)
        assert (await publish(engine, make_signal(0))).status == "accepted"
        await close(engine, 1)

    run(scenario())


def test_a_bad_signal_is_rejected_by_name_and_the_others_get_consecutive_seqs() -> None:
    async def scenario() -> None:
        bad = make_signal(1).generated_at.isoformat().replace("+00:00", "Z")
        service = ScriptedService(rejected={bad: "quota_exceeded"})
        engine = make_engine(service)
        deliveries = [publish(engine, make_signal(number)) for number in (0, 1, 2, 0)]
        await engine.flush(None)
        reports = [delivery.report for delivery in deliveries]
        assert [report.status for report in reports] == [
            "accepted",
            "rejected",
            "accepted",
            "duplicate",
        ]
        assert [report.seq for report in reports] == [1, None, 2, None]
        with pytest.raises(RejectedError) as caught:
            await deliveries[1]
        assert caught.value.code == "quota_exceeded"
        assert await deliveries[3] is reports[3]
        stats = engine.stats()
        assert (stats.delivered, stats.duplicates, stats.rejected) == (3, 1, 1)
        await close(engine, 1)

    run(scenario())


def test_each_signal_has_its_whole_delivery_timeout_and_is_then_given_up() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["lost"] * 1000)
        reports: list[tuple[float, DeliveryReport]] = []
        now = asyncio.get_running_loop().time

        def note(report: DeliveryReport) -> None:
            reports.append((now(), report))

        engine = make_engine(
            service,
            on_delivery=note,
            delivery_timeout_ms=20_000,
            linger_ms=1_000,
        )
        first = publish(engine, make_signal(0))
        await asyncio.sleep(0.5)
        publish(engine, make_signal(1))
        await asyncio.sleep(30)
        assert [report.code for _, report in reports] == ["delivery_timeout"] * 2
        assert [at for at, _ in reports] == pytest.approx([20.0, 20.5], abs=0.01)
        assert all(report.in_doubt for _, report in reports)
        with pytest.raises(DeliveryTimeoutError):
            await first
        assert engine.stats().failed == 2
        await close(engine, 1)

    run(scenario())


def test_a_signal_that_was_never_sent_is_given_up_without_doubt() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["refused"] * 1000)
        engine = make_engine(service, delivery_timeout_ms=5_000)
        delivery = publish(engine, make_signal(0))
        await asyncio.sleep(10)
        assert delivery.report.code == "delivery_timeout"
        assert not delivery.report.in_doubt
        await close(engine, 1)

    run(scenario())


def test_the_buffer_is_bounded_by_messages_and_says_why_it_is_full() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=[503] * 3)
        engine = make_engine(service, buffer_max_messages=5)
        for number in range(5):
            publish(engine, make_signal(number))
        sender, record = engine.prepare(make_signal(5), None, None)
        assert not engine.offer(sender, record)
        with pytest.raises(BufferFullError) as caught:
            await engine.wait_for_room(sender, record, 0.01)
        assert caught.value.reason == "backpressure"
        await asyncio.sleep(0.1)
        with pytest.raises(BufferFullError) as caught:
            await engine.wait_for_room(sender, record, 0.0)
        assert caught.value.reason == "disconnected"
        assert caught.value.outage_started_at is not None
        await engine.wait_for_room(sender, record, 60)
        assert engine.offer(sender, record)
        await close(engine, 10)
        assert engine.stats().delivered == 6

    run(scenario())


def test_the_buffer_is_bounded_by_bytes() -> None:
    async def scenario() -> None:
        service = ScriptedService()
        size = len(make_signal(0).to_json())
        engine = make_engine(service, buffer_max_bytes=3 * size)
        for number in range(3):
            publish(engine, make_signal(number))
        sender, record = engine.prepare(make_signal(3), None, None)
        assert not engine.offer(sender, record)
        assert engine.stats().pending_bytes == 3 * size
        await close(engine, 1)
        assert engine.stats().pending_bytes == 0

    run(scenario())


def test_waiting_for_room_ends_when_the_producer_is_closed() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["refused"] * 100)
        engine = make_engine(service, buffer_max_messages=1)
        publish(engine, make_signal(0))
        sender, record = engine.prepare(make_signal(1), None, None)
        waiting = asyncio.create_task(engine.wait_for_room(sender, record, 1_000))
        await asyncio.sleep(1)
        closing = asyncio.create_task(close(engine, 5))
        await waiting
        with pytest.raises(ClosedError):
            engine.offer(sender, record)
        assert len(await closing) == 1

    run(scenario())


def test_flush_does_not_wait_for_what_is_published_after_it() -> None:
    async def scenario() -> None:
        service = ScriptedService(delay=1.0)
        engine = make_engine(service, linger_ms=50_000, batch_max_messages=1)
        publish(engine, make_signal(0))
        flushing = asyncio.create_task(engine.flush(None))
        await asyncio.sleep(0.5)
        for number in range(1, 5):
            publish(engine, make_signal(number))
        assert await flushing == 0
        assert engine.stats().pending == 4
        await close(engine, 60)

    run(scenario())


def test_flush_returns_how_many_are_left_when_its_time_is_over() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["refused"] * 20)
        engine = make_engine(service)
        for number in range(7):
            publish(engine, make_signal(number))
        before = asyncio.get_running_loop().time()
        assert await engine.flush(3.0) == 7
        assert asyncio.get_running_loop().time() - before == pytest.approx(3.0, abs=1e-6)
        await close(engine, 1_000)
        assert engine.stats().delivered == 7

    run(scenario())


@pytest.mark.parametrize(
    "state", ["idle", "lingering", "in flight", "backing off", "Retry-After", "slow callback"]
)
def test_close_is_bounded_in_every_state_and_names_what_it_gave_up(state: str) -> None:
    async def scenario() -> None:
        service = ScriptedService(retry_after="3600")
        never = asyncio.Event()

        async def slow(report: DeliveryReport) -> None:
            await never.wait()

        engine = make_engine(
            service,
            linger_ms=1_000_000 if state == "lingering" else 10,
            on_delivery=slow if state == "slow callback" else None,
        )
        if state == "in flight":
            service.gate = never
        if state in ("backing off", "Retry-After"):
            service.script = [503 if state == "Retry-After" else "lost"] * 1000
        if state != "idle":
            publish(engine, make_signal(0))
        await asyncio.sleep(1)
        before = asyncio.get_running_loop().time()
        abandoned = await close(engine, 2.0)
        assert asyncio.get_running_loop().time() - before <= 2.1
        assert service.closed
        lost = state in ("in flight", "backing off", "Retry-After")
        assert [report.code for report in abandoned] == ["abandoned"] * lost
        assert all(report.in_doubt for report in abandoned)
        stats = engine.stats()
        assert stats.pending == 0
        assert stats.failed == len(abandoned)
        assert_accounted(engine)

    run(scenario())


def test_close_tries_once_more_without_waiting_for_the_pause_to_end() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=[503], retry_after="3600")
        engine = make_engine(service)
        delivery = publish(engine, make_signal(0))
        await asyncio.sleep(10)
        assert not delivery.done()
        assert await close(engine, 1.0) == []
        assert delivery.report.status == "accepted"

    run(scenario())


def test_what_close_gave_up_is_reported_in_order_with_its_doubt() -> None:
    async def scenario() -> None:
        service = ScriptedService(script=["lost"] * 1000)
        engine = make_engine(service, batch_max_messages=2)
        deliveries = [publish(engine, make_signal(number)) for number in range(5)]
        await asyncio.sleep(1)
        abandoned = await close(engine, 0.5)
        assert numbers_of(abandoned) == list(range(5))
        assert [report.in_doubt for report in abandoned] == [True, True, False, False, False]
        with pytest.raises(AbandonedError):
            await deliveries[4]

    run(scenario())


def test_closing_twice_and_publishing_after_it_are_harmless() -> None:
    async def scenario() -> None:
        engine = make_engine(ScriptedService())
        publish(engine, make_signal(0))
        first, second = await asyncio.gather(close(engine, 1), close(engine, 1))
        assert (first, second) == ([], [])
        assert await close(engine, 1) == []
        with pytest.raises(ClosedError):
            publish(engine, make_signal(1))

    run(scenario())


def test_callbacks_that_raise_or_hang_do_not_stop_the_sending() -> None:
    async def scenario() -> None:
        service = ScriptedService()
        seen: list[float] = []
        never = asyncio.Event()

        async def hostile(report: DeliveryReport) -> None:
            seen.append(report.signal.price)
            if len(seen) == 1:
                raise ValueError("no")
            if len(seen) == 2:
                raise SystemExit(1)
            if len(seen) == 3:
                raise asyncio.CancelledError
            await never.wait()

        engine = make_engine(service, on_delivery=hostile, batch_max_messages=1)
        for number in range(6):
            publish(engine, make_signal(number))
        assert await engine.flush(5.0) == 0
        stats = engine.stats()
        assert stats.delivered == 6
        assert stats.callback_errors == 3
        assert stats.callbacks_waiting == 3
        await close(engine, 1)

    run(scenario())


def test_slow_callbacks_push_back_on_publish_instead_of_losing_reports() -> None:
    async def scenario() -> None:
        may_end = asyncio.Event()
        seen: list[DeliveryReport] = []

        async def slow(report: DeliveryReport) -> None:
            await may_end.wait()
            seen.append(report)

        engine = make_engine(ScriptedService(), on_delivery=slow, buffer_max_messages=4)
        for number in range(4):
            publish(engine, make_signal(number))
        assert await engine.flush(None) == 0
        sender, record = engine.prepare(make_signal(4), None, None)
        with pytest.raises(BufferFullError) as caught:
            await engine.wait_for_room(sender, record, 1.0)
        assert caught.value.reason == "callbacks"
        may_end.set()
        await engine.wait_for_room(sender, record, 1.0)
        assert engine.offer(sender, record)
        await close(engine, 1)
        assert numbers_of(seen) == list(range(5))

    run(scenario())


def test_a_callback_may_publish_flush_and_close() -> None:
    async def scenario() -> None:
        service = ScriptedService()
        seen: list[float] = []

        async def busy(report: DeliveryReport) -> None:
            seen.append(report.signal.price)
            if len(seen) == 1:
                publish(engine, make_signal(1))
                assert await engine.flush(1.0) == 0
            else:
                assert await close(engine, 1.0) == []

        engine = make_engine(service, on_delivery=busy)
        publish(engine, make_signal(0))
        await asyncio.sleep(10)
        assert seen == [100.0, 101.0]
        assert engine.closed
        assert await close(engine, 0) == []

    run(scenario())


def test_an_unforeseen_error_is_retried_and_never_ends_a_lane() -> None:
    async def scenario() -> None:
        class Buggy(ScriptedService):
            async def post(self, path: str, body: bytes, token: str, headers: Any = None) -> Any:
                if len(self.requests) < 2:
                    self.requests.append(None)  # type: ignore[arg-type]
                    raise ZeroDivisionError
                return await super().post(path, body, token, headers)

        engine = make_engine(Buggy())
        delivery = publish(engine, make_signal(0))
        assert (await delivery).attempts == 3
        await close(engine, 1)

    run(scenario())


def test_an_invalid_signal_and_an_unknown_account_are_refused_at_once() -> None:
    async def scenario() -> None:
        engine = make_engine(ScriptedService(), accounts=[UUID(int=1), UUID(int=2)])
        with pytest.raises(InvalidSignalError, match="symbol must be"):
            publish(engine, make_signal(0, symbol=""), UUID(int=1))
        for account in (None, UUID(int=3)):
            with pytest.raises(ConfigurationError, match="no credentials"):
                publish(engine, make_signal(0), account)
        assert engine.stats().accepted == 0
        await close(engine, 1)

    run(scenario())
