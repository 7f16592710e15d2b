"""Whatever the network does between producer and stack, every signal is stored once, in order.

The faults are real: a proxy breaks, delays, repeats and falsifies what passes between the client
and the stack, and the rows that the database has in the end are counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signal_persistence import Delivery
from tests.client.faults.desk import Desk, MakeDesk
from tests.client.faults.fault_proxy import (
    FAULTS,
    Fault,
    FaultProxy,
    lose_answer,
    refuse,
    send_twice,
)
from tests.client.faults.oracle import assert_sound, deliver_all
from tests.client.faults.watch import watching
from tests.plugins.stack import RunningStack

EXAMPLES = int(os.environ.get("SIGNAL_TEST_EXAMPLES", "15"))
HARMLESS = {"answer_slowly", "throttle", "send_twice", "hint_early"}
"""What a client need not even notice."""
SETTINGS: dict[str, Any] = {
    "linger_ms": 1,
    "batch_max_messages": 10,
    "request_timeout_ms": 400,
    "retry_backoff_ms": 1,
    "retry_backoff_max_ms": 50,
}


@pytest.fixture
def proxy(stack: RunningStack) -> Iterator[FaultProxy]:
    with FaultProxy(stack.settings.api_port) as proxy:
        yield proxy


def behind(proxy: FaultProxy, desk: Desk) -> Desk:
    return replace(desk, url=proxy.url)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_delays_signals_and_neither_loses_nor_doubles_them(
    stack: RunningStack, make_desk: MakeDesk, proxy: FaultProxy, fault: Fault
) -> None:
    desk = behind(proxy, make_desk(**SETTINGS))
    proxy.play([fault, fault])
    stream = desk.stream("stream")
    deliveries: list[Delivery] = []
    with desk.producer() as producer, watching(producer, stream.journal):
        deliveries += stream.publish(producer, 30)
        assert producer.flush(30) == 0
        stats = producer.stats()
    proxy.finish_late_work()
    reports = [delivery.result(0) for delivery in deliveries]
    assert [report.status for report in reports] == ["accepted"] * 30
    assert [report.seq for report in reports] == list(range(1, 31))
    assert stats.duplicates == 0, "a repetition must carry the request_id of the first attempt"
    if fault is not refuse:
        assert reports[0].attempts == (1 if fault.__name__ in HARMLESS else 3)
    assert assert_sound(desk, stack.database_url)["accepted"] == 30


def test_an_answer_lost_again_and_again_leaves_exactly_the_rows_that_were_published(
    stack: RunningStack, make_desk: MakeDesk, proxy: FaultProxy
) -> None:
    desk = behind(proxy, make_desk(**SETTINGS | {"batch_max_messages": 100}))
    stream = desk.stream("stream")
    proxy.play([lose_answer, send_twice, lose_answer, lose_answer] * 3)
    with desk.producer() as producer, watching(producer, stream.journal):
        stream.publish(producer, 1000)
        assert producer.flush(60) == 0
        assert producer.stats().retries == 9
    assert assert_sound(desk, stack.database_url)["accepted"] == 1000


lives = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.lists(st.sampled_from(FAULTS), max_size=4),
        st.sampled_from([0.0, 0.05, 2.0]),
    ),
    min_size=1,
    max_size=4,
)
"""Producers after one another: signals published, faults of their requests, patience of close()."""


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    print_blob=True,
)
@given(lives=lives, transport=st.sampled_from(["edge", "rpc"]))
@pytest.mark.timeout(EXAMPLES * 10 + 60)
def test_any_faults_and_any_restarts_and_then_peace_store_every_signal_once_in_order(
    stack: RunningStack,
    make_desk: MakeDesk,
    proxy: FaultProxy,
    lives: list[tuple[int, list[Fault], float]],
    transport: str,
) -> None:
    desk = behind(proxy, make_desk(**SETTINGS, transport=transport))
    for life, (count, faults, patience) in enumerate(lives):
        stream = desk.stream(f"stream.{life}")
        producer = desk.producer()
        with watching(producer, stream.journal):
            proxy.play(faults)
            stream.publish(producer, count)
            producer.close(patience)
    proxy.forget()
    deliver_all(desk)
    proxy.finish_late_work()
    counts = assert_sound(desk, stack.database_url, lambda stream: "the only writer")
    assert counts["accepted"] == sum(count for count, _, _ in lives)
