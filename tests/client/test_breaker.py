"""The circuit breaker: one probe, whatever happens and however many callers there are."""

from __future__ import annotations

import threading
from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signal_persistence.breaker import Breaker

CALLERS: Final = 50
FAILURES: Final = 5
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 8.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_breaker(clock: Clock, callers: int = 1) -> Breaker:
    return Breaker(
        clock,
        failures_to_open=FAILURES,
        first_wait=FIRST_WAIT,
        longest_wait=LONGEST_WAIT,
        callers=callers,
    )


def opened(clock: Clock) -> Breaker:
    breaker = make_breaker(clock)
    for _ in range(FAILURES):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.failed(ticket)
        breaker.release(ticket)
    assert breaker.state == "open"
    return breaker


class BreakerMachine(RuleBasedStateMachine):
    """50 callers that come, succeed, fail and give up in any order, against a plain model.

    The model knows each ticket by the period of the breaker it was given in: what is said of a call
    of an earlier period must change nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = make_breaker(self.clock)
        self.calls: dict[int, tuple[int, int]] = {}
        """Caller → (ticket, period)."""
        self.period = 0
        self.state = "closed"
        self.failures = 0
        self.wait = FIRST_WAIT
        self.probe_at = 0.0
        self.prober: int | None = None

    @rule(caller=st.integers(0, CALLERS - 1))
    def come(self, caller: int) -> None:
        if caller in self.calls:
            return
        may = self.state == "closed" or (self.state == "open" and self.clock.now >= self.probe_at)
        assert self.breaker.would_admit() == may
        ticket = self.breaker.admit()
        assert (ticket is not None) == may
        if ticket is None:
            return
        if self.state == "open":
            self._enter("half_open")
            self.prober = caller
        self.calls[caller] = (ticket, self.period)

    @rule()
    def everybody_comes_at_once(self) -> None:
        was_closed = self.state == "closed"
        before = len(self.calls)
        for caller in range(CALLERS):
            self.come(caller)
        assert was_closed or len(self.calls) - before <= 1, "more than one probe"

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), end=st.sampled_from(["succeeded", "failed", "silent"]))
    def a_call_ends(self, data: st.DataObject, end: str) -> None:
        caller = data.draw(st.sampled_from(sorted(self.calls)))
        ticket, period = self.calls.pop(caller)
        if end == "succeeded":
            self.breaker.succeeded(ticket)
        elif end == "failed":
            self.breaker.failed(ticket)
        self.breaker.release(ticket)
        if period != self.period:
            return
        if self.state == "half_open":
            assert caller == self.prober
            if end == "succeeded":
                self._enter("closed")
                self.wait = FIRST_WAIT
            else:
                if end == "failed":
                    self.wait = min(2 * self.wait, LONGEST_WAIT)
                self.probe_at = self.clock.now + (self.wait if end == "failed" else 0.0)
                self._enter("open")
        elif end == "succeeded":
            self.failures = 0
        elif end == "failed":
            self.failures += 1
            if self.failures == FAILURES:
                self.probe_at = self.clock.now + self.wait
                self._enter("open")

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def somebody_is_in_a_hurry(self) -> None:
        self.breaker.hurry()
        self.probe_at = self.clock.now

    @invariant()
    def says_what_the_model_says(self) -> None:
        assert self.breaker.state == self.state
        seconds = self.breaker.seconds_to_probe()
        if self.state == "half_open":
            assert seconds is None
        else:
            waits = self.state == "open"
            assert seconds == (max(0.0, self.probe_at - self.clock.now) if waits else 0.0)

    def _enter(self, state: str) -> None:
        self.state = state
        self.period += 1
        self.failures = 0


TestBreaker = BreakerMachine.TestCase


def test_of_fifty_threads_exactly_one_gets_the_probe() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_WAIT
    together = threading.Barrier(CALLERS)
    tickets: list[int | None] = []

    def call() -> None:
        together.wait()
        tickets.append(breaker.admit())

    threads = [threading.Thread(target=call) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ticket is not None for ticket in tickets) == 1


def test_a_slow_call_from_before_does_not_close_the_breaker() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    slow = breaker.admit()
    assert slow is not None
    for _ in range(FAILURES):
        breaker.failed(slow)
    breaker.succeeded(slow)
    assert breaker.state == "open"


def test_a_probe_that_says_nothing_leaves_its_place_to_the_next_at_once() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_WAIT
    probe = breaker.admit()
    assert probe is not None
    assert breaker.admit() is None
    breaker.release(probe)
    assert breaker.admit() is not None


def test_waits_double_up_to_the_longest_and_start_small_again_after_a_success() -> None:
    clock = Clock()
    breaker = opened(clock)
    waits = []
    for _ in range(5):
        waits.append(breaker.seconds_to_probe())
        clock.now += LONGEST_WAIT
        probe = breaker.admit()
        assert probe is not None
        breaker.failed(probe)
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]
    breaker.hurry()
    probe = breaker.admit()
    assert probe is not None
    breaker.succeeded(probe)
    for _ in range(FAILURES):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.failed(ticket)
    assert breaker.seconds_to_probe() == FIRST_WAIT


def test_retry_after_is_the_least_wait() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    ticket = breaker.admit()
    assert ticket is not None
    for _ in range(FAILURES):
        breaker.failed(ticket, at_least=60.0)
    assert breaker.seconds_to_probe() == 60.0


@pytest.mark.parametrize(("failing", "state"), [(1, "closed"), (2, "open")])
def test_one_of_several_callers_cannot_open_it_alone(failing: int, state: str) -> None:
    breaker = make_breaker(Clock(), callers=3)
    ticket = breaker.admit()
    assert ticket is not None
    for number in range(10 * FAILURES):
        breaker.failed(ticket, caller=number % failing)
    assert breaker.state == state
