"""The two faces of the producer over HTTP, and what threads, forks and exits do to them."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from signal_persistence import (
    AccessToken,
    AsyncProducer,
    BufferFullError,
    ClosedError,
    ConfigurationError,
    Delivery,
    DeliveryReport,
    InvalidSignalError,
    PasswordCredentials,
    Producer,
    UndeliveredError,
)
from tests.client.loopback_service import LoopbackService, accept_all, answer, json_answer
from tests.client.scripted_service import make_signal

EDGE = "/functions/v1/ingest-signals"
RPC = "/rest/v1/rpc/ingest_signals"


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    """Accept every batch at either address."""
    with LoopbackService(accept_all) as service:
        yield service


@pytest.fixture
def dead_service() -> Iterator[LoopbackService]:
    with LoopbackService(refusing=True) as service:
        yield service


def make_producer(service: LoopbackService, **settings: Any) -> Producer:
    """Return a producer that keeps signals in memory only, unless `spool_dir` is given."""
    return Producer(service.url, "key", AccessToken("token"), **{"spool_dir": None} | settings)


@pytest.mark.parametrize(("transport", "address"), [("edge", EDGE), ("rpc", RPC)])
def test_a_published_signal_is_posted_to_the_transports_address(
    service: LoopbackService, transport: Any, address: str
) -> None:
    with make_producer(service, transport=transport, linger_ms=0) as producer:
        report = producer.publish(make_signal(0)).result(5)
    [request] = service.received
    assert (request.method, request.target) == ("POST", address)
    assert request.json() == {
        "request_id": str(report.request_id),
        "signals": [json.loads(make_signal(0).to_json())],
    }
    assert request.headers["authorization"] == "Bearer token"
    assert (report.status, report.seq, report.attempts) == ("accepted", 1, 1)
    assert report.latency > 0


def test_many_threads_publish_and_every_signal_is_reported_once(service: LoopbackService) -> None:
    reports: list[DeliveryReport] = []
    with make_producer(service, on_delivery=reports.append, linger_ms=1) as producer:

        def work(first: int) -> None:
            for number in range(first, first + 500):
                producer.publish(make_signal(number))

        threads = [threading.Thread(target=work, args=(1000 * index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert producer.flush(30) == 0
        assert producer.stats().delivered == 2000
    prices = [report.signal.price for report in reports]
    assert len(set(prices)) == len(prices) == 2000
    for index in range(4):
        own = [price for price in prices if 100 + 1000 * index <= price < 1100 + 1000 * index]
        assert own == sorted(own)


def test_flush_sends_what_lingers(service: LoopbackService) -> None:
    with make_producer(service, linger_ms=1_000_000) as producer:
        delivery = producer.publish(make_signal(0))
        assert producer.flush(5) == 0
        assert delivery.done()


def test_a_batch_goes_out_after_the_linger_without_anybody_doing_anything(
    service: LoopbackService,
) -> None:
    with make_producer(service, linger_ms=20) as producer:
        assert producer.publish(make_signal(0)).result(5).status == "accepted"


def test_a_full_buffer_blocks_for_a_while_and_then_refuses(dead_service: LoopbackService) -> None:
    producer = make_producer(
        dead_service,
        buffer_max_messages=2,
        max_block_ms=50,
        linger_ms=0,
        # close() must not cut off an attempt: whether that one is in doubt is not asked here.
        retry_backoff_ms=100_000,
        retry_backoff_max_ms=100_000,
    )
    for number in range(2):
        producer.publish(make_signal(number))
    deadline = time.monotonic() + 10
    while producer.stats().outage_started_at is None:
        assert time.monotonic() < deadline, "the first attempt did not end"
        time.sleep(0.001)
    before = time.monotonic()
    with pytest.raises(BufferFullError):
        producer.publish(make_signal(2))
    assert time.monotonic() - before >= 0.05
    with pytest.raises(UndeliveredError) as caught:
        producer.close(0)
    assert [report.signal for report in caught.value.reports] == [make_signal(0), make_signal(1)]
    assert not caught.value.in_doubt
    stats = producer.stats()
    assert (stats.accepted, stats.failed, stats.pending) == (2, 2, 0)


def test_a_publish_that_waits_goes_on_when_there_is_room(service: LoopbackService) -> None:
    with make_producer(
        service, buffer_max_messages=3, max_block_ms=10_000, linger_ms=0
    ) as producer:
        for number in range(50):
            producer.publish(make_signal(number))
        assert producer.flush(5) == 0
        assert producer.stats().delivered == 50


def test_a_closed_producer_refuses_signals_and_may_be_closed_again(
    service: LoopbackService,
) -> None:
    producer = make_producer(service)
    producer.close()
    producer.close()
    assert producer.flush(1) == 0
    with pytest.raises(ClosedError):
        producer.publish(make_signal(0))


def test_an_invalid_signal_is_refused_by_publish(service: LoopbackService) -> None:
    with make_producer(service) as producer:
        with pytest.raises(InvalidSignalError):
            producer.publish(make_signal(0, price=float("nan")))
        assert producer.stats().accepted == 0


def test_the_error_of_the_block_is_not_hidden_by_what_close_could_not_send(
    dead_service: LoopbackService,
) -> None:
    def fail() -> None:
        with make_producer(dead_service, close_timeout_ms=100) as producer:
            producer.publish(make_signal(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_callbacks_may_raise_block_publish_flush_and_close(service: LoopbackService) -> None:
    release = threading.Event()
    closed = threading.Event()
    seen: list[float] = []

    def hostile(report: DeliveryReport) -> None:
        seen.append(report.signal.price)
        match len(seen):
            case 1:
                raise SystemExit
            case 2:
                release.wait(10)
            case 3:
                producer.publish(make_signal(3))
                assert producer.flush(5) == 0
            case 4:
                producer.close(1)
                closed.set()

    producer = make_producer(service, on_delivery=hostile, linger_ms=0)
    for number in range(3):
        producer.publish(make_signal(number)).result(5)
    assert producer.flush(5) == 0, "a blocked callback holds up the sending"
    release.set()
    assert closed.wait(5)
    assert seen == [100.0, 101.0, 102.0, 103.0]
    assert producer.stats().callback_errors == 1


def test_close_does_not_wait_for_a_callback_beyond_its_time(service: LoopbackService) -> None:
    release = threading.Event()
    producer = make_producer(service, on_delivery=lambda report: release.wait(10), linger_ms=0)
    producer.publish(make_signal(0)).result(5)
    before = time.monotonic()
    producer.close(0.2)
    assert time.monotonic() - before < 2
    release.set()


def test_one_producer_serves_several_accounts(service: LoopbackService) -> None:
    accounts = [uuid4(), uuid4()]
    credentials = {account: AccessToken(f"token of {account}") for account in accounts}
    with Producer(service.url, "key", credentials, linger_ms=0) as producer:
        for account in accounts:
            report = producer.publish(make_signal(0), account_id=account).result(5)
            assert report.account_id == account
            sent = service.received[-1].headers["authorization"]
            assert sent == f"Bearer token of {account}"
        with pytest.raises(ConfigurationError):
            producer.publish(make_signal(0))


@pytest.mark.parametrize("status", [400, 403, 422])
def test_signals_wait_while_auth_refuses_to_sign_in(service: LoopbackService, status: int) -> None:
    session = {"access_token": "token", "refresh_token": "r", "expires_in": 3600}
    service.script = [answer(status)] * 4 + [json_answer(session)]
    credentials = PasswordCredentials(service.url, "key", "a@example.com", "secret")
    with Producer(service.url, "key", credentials, linger_ms=0, retry_backoff_max_ms=1) as producer:
        assert producer.publish(make_signal(0)).result(10).status == "accepted"
    assert not service.script


def test_an_unclosed_producer_warns_and_still_sends(service: LoopbackService) -> None:
    producer = make_producer(service, linger_ms=1_000_000)
    delivery = producer.publish(make_signal(0))
    with pytest.warns(ResourceWarning, match="Unclosed Producer with 1 signals pending"):
        del producer
    assert delivery.result(5).status == "accepted"


def test_a_producer_says_at_exit_that_it_was_not_closed_and_what_was_lost() -> None:
    code = """if True:
        from tests.client.scripted_service import make_signal
        from signal_persistence import AccessToken, Producer
        producer = Producer(
            "http://127.0.0.1:9",
            "key",
            AccessToken("token"),
            spool_dir=None,
            close_timeout_ms=100,
        )
        producer.publish(make_signal(0))
    """
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "Unclosed Producer with 1 signals pending" in done.stderr
    assert "Cannot deliver 1 signals" in done.stderr


@pytest.mark.parametrize("spooled", [False, True])
def test_what_an_unclosed_producer_has_at_exit_is_sent_whatever_that_needs_a_thread_for(
    service: LoopbackService, tmp_path: Path, spooled: bool
) -> None:
    """The host's name is looked up, a token is fetched, the disk is waited for."""
    code = """if True:
        import sys
        from tests.client.scripted_service import make_signal
        from signal_persistence import ApiKeyCredentials, Producer
        url, spool = sys.argv[1].replace("127.0.0.1", "localhost"), sys.argv[2]
        producer = Producer(
            url,
            "key",
            ApiKeyCredentials(url, "key", f"sgk_{'0' * 32}_{'0' * 64}"),
            linger_ms=1_000_000,
            spool_dir=spool or None,
            spool_fsync="always",
        )
        producer.publish(make_signal(0))
    """
    service.script = [json_answer({"access_token": "a", "expires_in": 900})]
    done = subprocess.run(
        [sys.executable, "-c", code, service.url, str(tmp_path) if spooled else ""],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert len(service.received) == 2, done.stderr
    assert service.received[1].json()["signals"][0]["price"] == 100.0
    assert done.stderr == ""
    left = [path for path in tmp_path.rglob("*.seg") if path.parent.name == "log"]
    assert not left, "what became of it was not written down"


def _in_child(producer: Producer, of_parent: Delivery, answers: Any) -> None:
    """Use the parent's producer: everything about it must be new here."""
    report = producer.publish(make_signal(1)).result(10)
    try:
        of_parent.result(0)
    except (ClosedError, TimeoutError) as error:
        answers.put((report.status, type(error).__name__, producer.stats().accepted))
    answers.put(producer.close())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("spooled", [False, True])
def test_a_forked_child_starts_afresh_and_leaves_the_parents_signals_to_the_parent(
    service: LoopbackService, tmp_path: Path, spooled: bool
) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    spool = tmp_path if spooled else None
    credentials = {UUID(int=1): AccessToken("token")}
    with Producer(service.url, "key", credentials, spool_dir=spool, linger_ms=500) as producer:
        account = UUID(int=1)
        before = producer.publish(make_signal(0), account_id=account)
        child = context.Process(target=_in_child, args=(producer, before, answers))
        child.start()
        assert answers.get(timeout=20) == ("accepted", "ClosedError", 1)
        assert answers.get(timeout=20) == 0
        child.join(20)
        assert child.exitcode == 0
        assert before.result(10).status == "accepted"
        assert producer.publish(make_signal(2)).result(10).status == "accepted"
        assert producer.stats().accepted == 2
    sent = [signal["price"] for request in service.received for signal in request.json()["signals"]]
    assert sorted(sent) == [100.0, 101.0, 102.0]
    if spooled:
        slots = [path.name for path in tmp_path.glob("*/slots/*")]
        assert sorted(slots) == ["0001", "0002"]
    answers.close()
    answers.join_thread()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("spooled", [False, True])
def test_a_callback_may_fork_and_both_sides_go_on_publishing(
    service: LoopbackService, tmp_path: Path, spooled: bool
) -> None:
    account = UUID(int=1)
    codes: list[int] = []

    def hostile(report: DeliveryReport) -> None:
        if codes:
            return
        child = os.fork()
        if not child:
            try:
                sent = producer.publish(make_signal(1), on_delivery=lambda report: None)
                os._exit(not (sent.result(10).stored and producer.close() == 0))
            finally:
                os._exit(2)
        codes.append(os.waitpid(child, 0)[1])

    with Producer(
        service.url,
        "key",
        {account: AccessToken("token")},
        spool_dir=tmp_path if spooled else None,
        on_delivery=hostile,
        linger_ms=0,
    ) as producer:
        producer.publish(make_signal(0), account_id=account).result(5)
        assert producer.publish(make_signal(2)).result(10).stored
        assert producer.flush(5) == 0
    assert codes == [0]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_async_producer_made_before_a_fork_works_in_parent_and_child(
    service: LoopbackService, tmp_path: Path
) -> None:
    producer = AsyncProducer(
        service.url, "key", {UUID(int=1): AccessToken("token")}, spool_dir=tmp_path, linger_ms=0
    )

    async def use(number: int) -> int:
        async with producer:
            delivery = await producer.publish(make_signal(number), account_id=UUID(int=1))
            await delivery
        return producer.stats().delivered

    child = os.fork()
    if not child:
        try:
            os._exit(asyncio.run(use(1)) != 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert asyncio.run(use(0)) == 1


def test_credentials_that_do_not_say_whose_they_are_cannot_have_a_spool(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pass \{account_id: credentials\}"):
        Producer("http://service.test", "key", AccessToken(lambda: "token"), spool_dir=tmp_path)


def test_a_producer_without_a_word_about_it_keeps_its_signals_in_the_spool(
    dead_service: LoopbackService, service: LoopbackService
) -> None:
    credentials = {UUID(int=1): AccessToken("token")}
    with Producer(dead_service.url, "key", credentials, close_timeout_ms=0) as producer:
        fsn = producer.publish(make_signal(0)).fsn
        assert not producer.await_acked(fsn, 0.1)
    assert producer.stats().pending == 1
    with Producer(dead_service.url, "key", credentials, close_timeout_ms=0) as producer:
        assert producer.stats().recovered == 1
        assert (producer.published_fsn, producer.acked_fsn) == (fsn, fsn - 1)
        assert producer.close(0) == 1


@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
def test_every_fsync_policy_delivers(service: LoopbackService, tmp_path: Path, fsync: Any) -> None:
    credentials = {UUID(int=1): AccessToken("token")}
    with Producer(
        service.url, "key", credentials, spool_dir=tmp_path, spool_fsync=fsync, linger_ms=1
    ) as producer:
        deliveries = [producer.publish(make_signal(number)) for number in range(30)]
        assert [delivery.result(10).fsn for delivery in deliveries] == list(range(1, 31))
        assert producer.await_acked(30, 5)
        assert producer.acked_fsn == 30


@pytest.mark.parametrize(
    "settings",
    [
        {"transport": "smtp"},
        {"linger_ms": -1},
        {"batch_max_messages": 0},
        {"batch_max_messages": 5001},
        {"batch_max_bytes": 10},
        {"batch_max_bytes": 2 * 1024 * 1024},
        {"max_in_flight_requests": 0},
        {"buffer_max_messages": 0},
        {"delivery_timeout_ms": 0},
        {"request_timeout_ms": -1},
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        Producer("http://service.test", "key", AccessToken("token"), spool_dir=None, **settings)


def test_a_producer_of_no_account_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="without the credentials"):
        Producer("http://service.test", "key", {})


async def test_the_async_face_publishes_awaits_and_closes(service: LoopbackService) -> None:
    seen: list[DeliveryReport] = []

    async def note(report: DeliveryReport) -> None:
        seen.append(report)

    async with AsyncProducer(
        service.url, "key", AccessToken("token"), spool_dir=None, linger_ms=1
    ) as producer:
        deliveries = [await producer.publish(make_signal(n), on_delivery=note) for n in range(20)]
        reports = await asyncio.gather(*deliveries)
        assert await producer.flush(5) == 0
    assert reports == seen
    assert producer.stats().delivered == 20


async def test_the_async_face_waits_for_room_and_then_refuses(
    dead_service: LoopbackService,
) -> None:
    producer = AsyncProducer(
        dead_service.url,
        "key",
        AccessToken("token"),
        spool_dir=None,
        buffer_max_messages=1,
        max_block_ms=30,
    )
    await producer.publish(make_signal(0))
    with pytest.raises(BufferFullError):
        await producer.publish(make_signal(1))
    with pytest.raises(UndeliveredError):
        await producer.close(0)


async def test_an_unclosed_async_producer_warns(service: LoopbackService) -> None:
    producer = AsyncProducer(service.url, "key", {UUID(int=1): AccessToken("token")})
    with pytest.warns(ResourceWarning, match="Unclosed AsyncProducer with 0 signals pending"):
        del producer


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while leftovers := [t for t in threading.enumerate() if t.name.startswith("signal-")]:
        assert time.monotonic() < deadline, f"still running: {leftovers}"
        leftovers[0].join(0.1)
