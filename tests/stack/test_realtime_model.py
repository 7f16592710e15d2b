"""What Realtime decides without a socket: faults, presence, and the quotas of a plan."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_stack.realtime.faults import Fault, FaultError, Faults, Kind, garbled, parse
from local_stack.realtime.presence import Presences
from local_stack.realtime.protocol import Frame
from local_stack.realtime.quotas import PLANS, CallWindow, Plan, RateMeter, Usage

TOPIC = "account:1:signals"
OTHER = "account:2:signals"


class Clock:
    """A time that moves when a test says so, and runs what is due."""

    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._due.append((self.now + seconds, len(self._due), action))

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        due = sorted(entry for entry in self._due if entry[0] <= self.now)
        self._due = [entry for entry in self._due if entry[0] > self.now]
        for _, _, action in due:
            action()


class Broadcasts:
    """Passes numbered broadcasts on and keeps what is delivered; a garbled one is negative."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.delivered: list[int] = []

    def send(self, *numbers: int, topic: str = TOPIC) -> None:
        for number in numbers:

            def deliver(is_garbled: bool, number: int = number) -> None:
                self.delivered.append(-number if is_garbled else number)

            self._faults.pass_on(topic, deliver)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def faults(clock: Clock) -> Faults:
    return Faults(clock.later)


@pytest.fixture
def broadcasts(faults: Faults) -> Broadcasts:
    return Broadcasts(faults)


@pytest.mark.parametrize(
    ("fault", "delivered"),
    [
        (Fault(Kind.DROP, count=1), [2, 3]),
        (Fault(Kind.DROP), []),
        (Fault(Kind.DUPLICATE, count=2), [1, 1, 2, 2, 3]),
        (Fault(Kind.REORDER, count=1), [2, 1, 3]),
        (Fault(Kind.GARBLE, count=1), [-1, 2, 3]),
        (Fault(Kind.DROP, topic=OTHER), [1, 2, 3]),
        (Fault(Kind.FREEZE), [1, 2, 3]),
    ],
    ids=str,
)
def test_a_broadcast_meets_the_fault_of_its_topic(
    faults: Faults, broadcasts: Broadcasts, fault: Fault, delivered: list[int]
) -> None:
    faults.inject(fault)
    broadcasts.send(1, 2, 3)
    assert broadcasts.delivered == delivered


def test_a_delayed_broadcast_is_overtaken_by_what_is_not_delayed(
    clock: Clock, faults: Faults, broadcasts: Broadcasts
) -> None:
    faults.inject(Fault(Kind.DELAY, count=2, ms=500))
    broadcasts.send(1, 2, 3)
    clock.pass_by(0.4)
    assert broadcasts.delivered == [3]
    clock.pass_by(0.1)
    assert broadcasts.delivered == [3, 1, 2]


def test_topics_are_reordered_apart(faults: Faults, broadcasts: Broadcasts) -> None:
    faults.inject(Fault(Kind.REORDER))
    broadcasts.send(1)
    broadcasts.send(10, topic=OTHER)
    broadcasts.send(2)
    assert broadcasts.delivered == [2, 1]


def test_healing_lets_go_what_was_held_and_strikes_no_more(
    faults: Faults, broadcasts: Broadcasts
) -> None:
    active = faults.inject(Fault(Kind.REORDER))
    broadcasts.send(1)
    assert (broadcasts.delivered, active.ended.is_set()) == ([], False)
    faults.heal()
    broadcasts.send(2, 3)
    assert (broadcasts.delivered, active.ended.is_set()) == ([1, 2, 3], True)


def test_a_fault_ends_after_its_seconds(
    clock: Clock, faults: Faults, broadcasts: Broadcasts
) -> None:
    active = faults.inject(Fault(Kind.DROP, seconds=2))
    broadcasts.send(1)
    clock.pass_by(2)
    broadcasts.send(2)
    assert broadcasts.delivered == [2]
    assert active.describe() == {
        "id": "1",
        "kind": "drop",
        "seconds": 2.0,
        "struck": 1,
        "healed": True,
    }


def test_what_was_injected_is_remembered_until_it_is_forgotten(faults: Faults) -> None:
    faults.inject(Fault(Kind.DROP))
    faults.heal()
    assert len(faults.injected()) == 1
    assert len(faults.forget()) == 1
    assert faults.injected() == []


@given(st.lists(st.sampled_from(["drop", "duplicate", "reorder", "garble", "delay", "heal"])))
def test_whatever_struck_a_healed_server_delivers_all_in_order(kinds: list[str]) -> None:
    clock = Clock()
    faults = Faults(clock.later)
    broadcasts = Broadcasts(faults)
    for number, kind in enumerate(kinds):
        if kind == "heal":
            faults.heal()
        else:
            faults.inject(Fault(Kind(kind), count=1))
        broadcasts.send(number)
    faults.heal()
    clock.pass_by(10)
    broadcasts.delivered.clear()
    broadcasts.send(1, 2, 3)
    assert broadcasts.delivered == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"kind": "flood"}, "Invalid enum value 'flood'"),
        ({"kind": "drop", "code": 1011}, "drop has no code; it has count, kind, seconds, topic"),
        ({"kind": "close_sockets", "seconds": 3}, "close_sockets has no seconds"),
        ({"kind": "lose_slot", "topic": "t"}, "lose_slot has no topic; it has kind, seconds"),
        ({"kind": "drop", "count": 0}, "Expected `int` >= 1"),
        ({"kind": "drop", "colour": 1}, "unknown field `colour`"),
        ([], "Expected `object`, got `array`"),
    ],
    ids=str,
)
def test_a_fault_that_makes_no_sense_is_explained(body: object, problem: str) -> None:
    with pytest.raises(FaultError, match=r"^Cannot inject the fault: ") as caught:
        parse(json.dumps(body).encode())
    assert problem in str(caught.value)


@given(st.text(), st.booleans())
def test_a_garbled_frame_is_shorter_and_text_stays_text(text: str, is_text: bool) -> None:
    frame = garbled(Frame(text.encode(errors="replace"), is_text))
    assert frame.is_text is is_text
    assert len(frame.data) <= len(text.encode(errors="replace")) / 2
    if is_text:
        frame.data.decode()


def test_presence_tells_who_came_who_changed_and_who_went() -> None:
    presences: Presences[str] = Presences()
    came = presences.track(TOPIC, "socket 1", "ann", {"mood": "calm"})
    assert came is not None
    first = came.joins["ann"]["metas"][0]
    assert (first["mood"], came.leaves) == ("calm", {})
    assert presences.track(TOPIC, "socket 1", "ann", {"mood": "calm"}) is None
    presences.track(TOPIC, "socket 2", "ann", {"mood": "busy"})
    assert [m["mood"] for m in presences.state(TOPIC)["ann"]["metas"]] == ["calm", "busy"]

    changed = presences.track(TOPIC, "socket 1", "ann", {"mood": "glad"})
    assert changed is not None
    assert changed.leaves == {"ann": {"metas": [first]}}
    assert changed.joins["ann"]["metas"][0]["phx_ref_prev"] == first["phx_ref"]

    went = presences.untrack(TOPIC, "socket 1")
    assert went is not None
    assert went.payload() == {"joins": {}, "leaves": changed.joins}
    assert presences.untrack(TOPIC, "socket 1") is None
    assert (list(presences.state(TOPIC)), presences.state(OTHER)) == (["ann"], {})


def test_a_rate_is_the_average_of_the_buckets_of_a_minute(clock: Clock) -> None:
    meter = RateMeter(clock)
    meter.add(100)
    assert meter.per_second() == 0, "what is under way does not count yet"
    clock.pass_by(5)
    assert meter.per_second() == 100 / 5 / 2, "beside the empty bucket that a counter starts with"
    clock.pass_by(5)
    assert meter.per_second() == 100 / 5 / 3
    clock.pass_by(600)
    assert meter.per_second() == 0


def test_without_a_plan_nothing_is_limited_and_a_plan_limits_from_then_on(clock: Clock) -> None:
    usage = Usage(clock, bucket_seconds=5)
    usage.count_messages(1_000_000)
    usage.connections = 1_000_000
    clock.pass_by(60)
    assert usage.may_join()
    assert usage.has_room_for_connection()
    assert not usage.has_too_many_messages()
    usage.choose(PLANS["free"])
    assert not usage.has_room_for_connection()
    assert not usage.has_too_many_messages(), "a plan starts with counters at zero"
    usage.count_messages(100 * 5 * 2)
    clock.pass_by(5)
    assert usage.has_too_many_messages()
    clock.pass_by(5)
    assert not usage.has_too_many_messages(), "and below the limit it goes on"
    assert (usage.payload_bytes(1), usage.would_be_too_many(200)) == (256_500, True)


def test_joins_and_presence_have_rates_of_their_own(clock: Clock) -> None:
    plan = Plan(1, joins_per_second=1, messages_per_second=1, presence_per_second=1, payload_kb=1)
    usage = Usage(clock, bucket_seconds=1)
    usage.choose(plan)
    assert [usage.may_join() for _ in range(5)] == [True] * 5
    assert [usage.may_tell_presence() for _ in range(5)] == [True] * 5
    clock.pass_by(1)
    assert (usage.may_join(), usage.has_too_many_joins()) == (False, True)
    assert not usage.may_tell_presence()


def test_a_client_calls_presence_five_times_in_half_a_minute() -> None:
    window = CallWindow()
    plan = PLANS["team"]
    assert [window.admits(1000, plan) for _ in range(6)] == [True] * 5 + [False]
    assert window.admits(1031, plan)
