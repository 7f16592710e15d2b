"""How much is sent at once: growth while the service keeps up, halving when it does not."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from signal_persistence.pacing import Pacing, RequestSlots
from tests.client.virtual_time import run

events = st.lists(
    st.one_of(
        st.just("overloaded"),
        st.tuples(st.integers(1, 5000), st.floats(0, 20)),
    ),
    max_size=60,
)


def make_pacing(first: int = 500, most: int = 5000, requests: int = 5) -> Pacing:
    return Pacing(first_messages=first, most_messages=most, most_requests=requests, slow=2.5)


@given(events, st.integers(1, 5000), st.integers(1, 20))
def test_both_sizes_stay_between_their_bounds(
    happened: list[str | tuple[int, float]], first: int, requests: int
) -> None:
    pacing = make_pacing(first, 5000, requests)
    for event in happened:
        if isinstance(event, tuple):
            pacing.answered(*event)
        else:
            pacing.overloaded()
        assert min(10, first) <= pacing.messages <= 5000
        assert 1 <= pacing.requests <= requests


def test_full_batches_that_take_no_longer_by_the_signal_grow_up_to_the_most() -> None:
    pacing = make_pacing()
    for _ in range(200):
        pacing.answered(pacing.messages, 0.005 + 0.00001 * pacing.messages)
    assert pacing.messages == 5000


def test_batches_that_are_not_full_say_nothing_about_larger_ones() -> None:
    pacing = make_pacing()
    for _ in range(200):
        pacing.answered(499, 0.001)
    assert pacing.messages == 500


def test_growth_stops_where_larger_batches_take_longer_by_the_signal() -> None:
    pacing = make_pacing()
    for _ in range(500):
        # Beyond 1,000 signals the service slows down with the square of their number.
        over = max(0, pacing.messages - 1000)
        pacing.answered(pacing.messages, 0.00002 * pacing.messages + 0.000001 * over**2)
    assert 1000 <= pacing.messages < 1500


@given(st.lists(st.floats(1, 10), max_size=200))
def test_answers_that_waver_make_no_batch_smaller_than_the_first(slower: list[float]) -> None:
    pacing = make_pacing()
    for factor in slower:
        pacing.answered(pacing.messages, 0.02 * factor)
        assert pacing.messages >= 500


def test_overload_halves_and_successes_bring_it_back_slowly() -> None:
    pacing = make_pacing(requests=8)
    pacing.overloaded()
    assert (pacing.messages, pacing.requests) == (250, 4)
    pacing.overloaded()
    assert (pacing.messages, pacing.requests) == (125, 2)
    successes = 0
    while pacing.requests < 8:
        pacing.answered(pacing.messages, 0.01)
        successes += 1
    assert successes > 20
    assert pacing.messages > 500


def test_an_answer_that_takes_too_long_is_overload() -> None:
    pacing = make_pacing()
    pacing.answered(500, 2.6)
    assert pacing.messages == 250


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10), st.booleans()), max_size=30))
def test_there_are_never_more_requests_than_the_pace_allows_and_none_waits_for_ever(
    calls: list[tuple[int, int, bool]],
) -> None:
    async def scenario() -> None:
        pacing = make_pacing(requests=3)
        slots = RequestSlots(pacing)
        done: list[int] = []

        async def call(number: int, start: int, length: int, overloads: bool) -> None:
            await asyncio.sleep(start)
            async with slots:
                assert slots.taken <= 3
                await asyncio.sleep(length)
                if overloads:
                    pacing.overloaded()
                else:
                    pacing.answered(1, 0.01)
            done.append(number)

        await asyncio.gather(*(call(number, *what) for number, what in enumerate(calls)))
        assert sorted(done) == list(range(len(calls)))
        assert slots.taken == 0

    run(scenario())


def test_slots_are_given_in_turn_and_a_caller_who_leaves_gives_his_on() -> None:
    async def scenario() -> None:
        slots = RequestSlots(make_pacing(requests=1))
        order: list[int] = []

        async def call(number: int) -> None:
            async with slots:
                order.append(number)
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(call(number)) for number in range(5)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.sleep(0.5)
        # The second has just been given its slot, and leaves in the same moment.
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number in order if number != 2] == [0, 3, 4]
        assert slots.taken == 0

    run(scenario())
