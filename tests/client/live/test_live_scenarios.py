"""The subscriber does what the scenarios of live delivery say, on the real stack and its faults."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, Final
from uuid import UUID

from signal_persistence import AsyncSubscriber, SubscriptionState
from tests.checkers.histories import AccountHistory, Reader
from tests.client.live.faults import LiveFaults
from tests.client.live.judging import as_stored, events_of, judge, stored_of
from tests.client.live.recorder import Recorder
from tests.client.live.scenarios import LIVE
from tests.client.publisher import Publisher
from tests.plugins.stack import MakeAccount, RunningStack

PATIENCE: Final = float(os.environ.get("SIGNAL_TEST_PATIENCE", "3"))
"""How many times longer than a scenario says a machine that runs everything at once may take."""
_LOOK_EVERY: Final = 0.02

LIVE_STATE: Final = SubscriptionState.LIVE

Scenario = dict[str, Any]
Told = tuple[str, AccountHistory]


class LiveRun:
    """One scenario with an account of its own."""

    def __init__(self, stack: RunningStack, make_account: MakeAccount, scenario: Scenario) -> None:
        self._scenario = scenario
        self._options = dict(scenario.get("subscribe", {}))
        own_channel = self._options.get("own_channel", False)
        self._publisher = Publisher(stack, make_account("elite"), own_channel=own_channel)
        self._other = self._publisher.another_trader() if own_channel else None
        topic = f"account:{self._publisher.account.account_id}:signals"
        if own_channel:
            self._options["traders"] = [self._publisher.trader_id]
            topic = f"trader:{self._publisher.trader_id}:signals"
        self._faults = LiveFaults(stack, None if scenario.get("alone") else topic)
        self._make = partial(
            AsyncSubscriber, stack.api_url, stack.publishable_key, self._publisher.credentials
        )
        self._stack = stack
        self._unwanted: set[UUID] = set()
        self._states_before = 0

    async def run(self) -> list[Told]:
        """Do the steps; return what was stored and what was seen, of signals and of events."""
        async with self._faults, Recorder(self._make, **self._options) as recorder:
            for number, step in enumerate(self._scenario["steps"], start=1):
                try:
                    await self._do(step, recorder)
                except AssertionError as error:
                    states = ", ".join(f"{state}/{reason}" for state, reason in recorder.states)
                    told = f"{self._scenario['name']}, step {number}, {step}: {error}"
                    raise AssertionError(f"{told}; its states were {states}") from error
        name = self._scenario["name"]
        reader = Reader(name, recorder.observed, wanted=self._wanted)
        stored = await stored_of(self._stack, self._publisher)
        histories = [(name, AccountHistory(stored, readers=(reader,)))]
        if self._options.get("events"):
            histories.append((f"events: {name}", await self._told_of_events(name, recorder)))
        return histories

    async def _told_of_events(self, name: str, recorder: Recorder) -> AccountHistory:
        assert recorder.early_events == [], "an event came before its signal"
        events = await events_of(self._stack, self._publisher)
        wanted = {
            as_stored(event.seq).signal_id for event in events if event.signal_id in self._wanted
        }
        observed = [as_stored(event.seq) for event in recorder.events]
        reader = Reader(name, observed, wanted=wanted)
        return AccountHistory([as_stored(event.seq) for event in events], readers=(reader,))

    @property
    def _wanted(self) -> set[UUID]:
        return set(self._publisher.ids) - self._unwanted

    async def _all_is_observed(self, recorder: Recorder, seconds: float) -> None:
        wanted, events = self._wanted, 0
        if self._options.get("events"):
            stored = await events_of(self._stack, self._publisher)
            events = sum(event.signal_id in wanted for event in stored)

        def is_observed() -> bool:
            return len(recorder.observed) >= len(wanted) and len(recorder.events) >= events

        await _until(is_observed, seconds)
        assert (len(recorder.observed), len(recorder.events)) == (len(wanted), events)

    async def _do(self, step: dict[str, Any], recorder: Recorder) -> None:
        match step:
            case {"ingest": count}:
                await self._publisher.publish(count, **_rest(step, "ingest"))
            case {"ingest_unwanted": count}:
                published = await self._publisher.publish(count, **_rest(step, "ingest_unwanted"))
                self._unwanted |= set(published)
            case {"advance": count}:
                await self._publisher.advance(count, batch=step.get("batch", 50))
            case {"ingest_other": count}:
                self._unwanted |= set(await self._publisher.publish(count, trader_id=self._other))
            case {"fault": fault}:
                self._states_before = len(recorder.states)
                await self._faults.inject(fault)
            case {"heal": True}:
                self._states_before = len(recorder.states)
                await self._faults.heal()
            case {"expect_state": state, "within": seconds}:
                await self._expect_state(recorder, state, step.get("reason"), seconds)
            case {"expect_observed": "all", "within": seconds}:
                await self._all_is_observed(recorder, seconds)
            case {"slow_consumer": seconds}:
                recorder.be_slow(seconds)
            case {"restart": True}:
                count = step.get("advance_meanwhile", 0)
                await recorder.restart(partial(self._publisher.advance, count))
            case {"not_state": state}:
                assert state not in [seen for seen, _ in recorder.states]
            case _:
                raise ValueError(f"unknown step {step}")

    async def _expect_state(
        self, recorder: Recorder, state: str, reason: str | None, seconds: float
    ) -> None:
        """Wait for a state; a bad one may also have come and gone since the last fault."""

        def is_there() -> bool:
            now = (recorder.subscriber.state, recorder.subscriber.state_reason)
            before = recorder.states[self._states_before :] if state != LIVE_STATE else []
            return any(seen == state and reason in {None, why} for seen, why in [now, *before])

        await _until(is_there, seconds)


def _rest(step: dict[str, Any], verb: str) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name != verb}


async def _until(reached: Callable[[], bool], seconds: float) -> None:
    began = time.monotonic()
    while not reached():
        assert time.monotonic() <= began + seconds * PATIENCE, "it did not happen in time"
        await asyncio.sleep(_LOOK_EVERY)


async def test_scenarios_of_one_topic_each_side_by_side(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    runs = [LiveRun(stack, make_account, one) for one in LIVE if not one.get("alone")]
    told = await asyncio.gather(*(run.run() for run in runs))
    judge(chain.from_iterable(told))


async def test_scenarios_of_the_whole_server_one_after_the_other(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    for scenario in LIVE:
        if scenario.get("alone"):
            judge(await LiveRun(stack, make_account, scenario).run())
