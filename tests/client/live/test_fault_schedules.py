"""Whatever fails and when: each signal once, in order; stale in time, and live again after it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signal_persistence.subscription import SubscriptionState
from tests.client.live.simulation import KINDS, NOTICED_WITHIN, Fault, Simulation, flow

LIVE_AGAIN_WITHIN = 10.0
BEGINS = 3.0

seconds = st.integers(0, 120).map(lambda tenths: tenths / 10)
faults = st.lists(
    st.builds(Fault, st.sampled_from(KINDS), seconds.map(lambda at: BEGINS + at), seconds),
    max_size=3,
)
batches = st.one_of(
    st.lists(st.tuples(seconds, st.integers(1, 30)), max_size=25),
    st.tuples(st.sampled_from([0.1, 0.7, 2.5]), st.integers(1, 25)).map(
        lambda drawn: list(flow(25.0, *drawn))
    ),
)


@settings(max_examples=60, deadline=None)
@given(faults=faults, batches=batches, seed=st.integers(0, 2**32), carried=st.booleans())
def test_any_schedule_of_faults_is_noticed_in_time_and_heals(
    faults: list[Fault], batches: list[tuple[float, int]], seed: int, carried: bool
) -> None:
    simulation = Simulation(faults, batches, seed, carried)
    healed_at = max([BEGINS, *(fault.at + fault.seconds for fault in faults)])
    simulation.run_until(healed_at + LIVE_AGAIN_WITHIN)
    assert simulation.subscription.state is SubscriptionState.LIVE
    simulation.run_until(max(healed_at, 25.0) + LIVE_AGAIN_WITHIN)
    assert simulation.subscription.state is SubscriptionState.LIVE
    assert simulation.seen == list(range(1, simulation.last_seq + 1))
    assert simulation.unnoticed == []


def test_a_quiet_time_without_faults_is_live_from_the_beginning_to_the_end() -> None:
    simulation = Simulation([], [(10.0, 3), (11.0, 100)], 1, carried=True)
    simulation.run_until(BEGINS)
    while simulation.now < 60:
        assert simulation.subscription.state is SubscriptionState.LIVE
        simulation.run_until(simulation.now + 0.1)


def test_the_simulation_notes_what_goes_unnoticed() -> None:
    fault = Fault("lose_slot", 5.0, 60.0)
    simulation = Simulation([fault], [(10.0, 1)], 1, carried=True, check_interval=3600)
    simulation.run_until(10.0 + NOTICED_WITHIN + 1)
    assert simulation.unnoticed == [pytest.approx(10.0)]
