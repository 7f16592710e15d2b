"""The TypeScript subscriber does what the scenarios of live delivery say, against the stack.

The same scenarios, faults and judges as for the Python client: tests/client/live.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final
from uuid import UUID

from tests.checkers.histories import AccountHistory
from tests.checkers.histories import Reader as ReaderHistory
from tests.client.live.faults import LiveFaults
from tests.client.live.judging import as_stored, events_of, judge, stored_of
from tests.client.live.scenarios import LIVE
from tests.client.publisher import Publisher
from tests.plugins.stack import MakeAccount, RunningStack
from tests.web.readers import Reader, Readers, readers_process
from tests.web.tokens import token_of

SLACK: Final = 3.0
"""A machine that runs everything at once may take so many times longer than a scenario says."""
SHORT_SECONDS: Final = 8
"""A token's life: long enough to join, and for the heartbeat that brings the next one."""

Scenario = Mapping[str, Any]

OF_TYPESCRIPT: Final[Sequence[Scenario]] = [
    {
        "name": "a callback that throws gets every signal",
        "subscribe": {"callback_throws": True},
        "steps": [
            {"expect_state": "live", "within": 20},
            {"ingest": 10, "batch": 5},
            {"expect_observed": "all", "within": 10},
        ],
    },
    {
        "name": "a token that is renewed before it ends keeps the channel",
        "tokens": ["short"],
        "steps": [
            {"expect_state": "live", "within": 20},
            {"renew": ["lasting"]},
            {"outlive": "short"},
            {"ingest": 2},
            {"expect_observed": "all", "within": 10},
            {"not_state": "stale"},
        ],
    },
    {
        "name": "a token that ends unnoticed is renewed, and the channel joined again",
        "tokens": ["short", "lasting"],
        "steps": [
            {"expect_state": "live", "within": 20},
            {"outlive": "short"},
            {"expect_state": "live", "within": 10},
            {"ingest": 2},
            {"expect_observed": "all", "within": 10},
        ],
    },
]
"""What the shared scenarios leave to each language."""


class Run:
    """One scenario with an account of its own."""

    def __init__(
        self,
        scenario: Scenario,
        stack: RunningStack,
        make_account: MakeAccount,
        readers: Readers,
    ) -> None:
        self._scenario = scenario
        self._stack = stack
        self._readers = readers
        self._options: dict[str, Any] = dict(scenario.get("subscribe", {}))
        own_channel = self._options.get("own_channel", False)
        self._publisher = Publisher(stack, make_account("elite"), own_channel=own_channel)
        self._other = self._publisher.another_trader() if own_channel else None
        topic = f"account:{self._publisher.account.account_id}:signals"
        if own_channel:
            self._options["traders"] = [str(self._publisher.trader_id)]
            topic = f"trader:{self._publisher.trader_id}:signals"
        self._faults = LiveFaults(stack, None if scenario.get("alone") else topic)
        self._tokens = {
            "lasting": self._publisher.account.access_token,
            "short": token_of(stack, self._publisher.account, SHORT_SECONDS),
        }
        self._short_ends_at = time.monotonic() + SHORT_SECONDS
        self._read: list[Reader] = []
        self._wanted: set[UUID] = set()
        self._states_before = 0

    @property
    def _reader(self) -> Reader:
        return self._read[-1]

    async def run(self) -> list[tuple[str, AccountHistory]]:
        """Do the steps; return what was stored and what was seen, of signals and of events."""
        name = self._scenario["name"]
        async with self._faults:
            await self._open(after_seq=0, after_event_seq=0)
            for number, step in enumerate(self._scenario["steps"], start=1):
                try:
                    await self._do(step)
                except AssertionError as error:
                    told = f"{name}, step {number}, {step}: {error}; {self._reader}"
                    raise AssertionError(told) from error
            await self._readers.close(self._reader)
        observed = [signal for reader in self._read for signal in reader.observed]
        reader = ReaderHistory(name, observed, wanted=self._wanted)
        stored = await stored_of(self._stack, self._publisher)
        histories = [(name, AccountHistory(stored, readers=[reader]))]
        if self._options.get("events"):
            histories.append((f"events: {name}", await self._told_of_events(name)))
        return histories

    async def _told_of_events(self, name: str) -> AccountHistory:
        early = [seq for reader in self._read for seq in reader.early_events]
        assert early == [], "events came before their signals"
        events = await events_of(self._stack, self._publisher)
        wanted = {
            as_stored(event.seq).signal_id for event in events if event.signal_id in self._wanted
        }
        observed = [as_stored(seq) for reader in self._read for seq in reader.events]
        reader = ReaderHistory(name, observed, wanted=wanted)
        return AccountHistory([as_stored(event.seq) for event in events], readers=[reader])

    async def _all_is_observed(self, seconds: float) -> None:
        events: set[int] = set()
        if self._options.get("events"):
            stored = await events_of(self._stack, self._publisher)
            events = {event.seq for event in stored if event.signal_id in self._wanted}

        def is_observed() -> bool:
            seen = {seq for reader in self._read for seq in reader.events}
            return self._wanted <= self._observed() and events <= seen

        await self._until(is_observed, seconds)

    async def _open(self, *, after_seq: int | None, after_event_seq: int | None) -> None:
        name = f"{self._scenario['name']} {len(self._read)}"
        tokens = [self._tokens[each] for each in self._scenario.get("tokens", ["lasting"])]
        self._read.append(
            await self._readers.open(
                name,
                *tokens,
                **self._options,
                after_seq=after_seq,
                after_event_seq=after_event_seq,
            )
        )
        self._reader.known = self._observed()
        self._states_before = 0

    async def _do(self, step: Mapping[str, Any]) -> None:
        match step:
            case {"ingest": count}:
                self._wanted |= set(await self._publisher.publish(count, **_rest(step, "ingest")))
            case {"ingest_unwanted": count}:
                await self._publisher.publish(count, **_rest(step, "ingest_unwanted"))
            case {"advance": count}:
                await self._publisher.advance(count, batch=step.get("batch", 50))
            case {"ingest_other": count}:
                await self._publisher.publish(count, trader_id=self._other)
            case {"fault": fault}:
                self._states_before = len(self._reader.states)
                await self._faults.inject(fault)
            case {"heal": True}:
                self._states_before = len(self._reader.states)
                await self._faults.heal()
            case {"expect_state": state, "within": seconds}:
                await self._expect_state(state, step.get("reason"), seconds)
            case {"expect_observed": "all", "within": seconds}:
                await self._all_is_observed(seconds)
            case {"slow_consumer": seconds}:
                # Where storing takes longer, it has to be slow for longer, too.
                await self._readers.pause(self._reader, seconds * SLACK)
            case {"renew": names}:
                await self._readers.renew(self._reader, *(self._tokens[name] for name in names))
            case {"outlive": "short"}:
                await asyncio.sleep(self._short_ends_at + 0.5 - time.monotonic())
            case {"restart": True}:
                await self._readers.close(self._reader)
                await self._publisher.advance(step.get("advance_meanwhile", 0))
                await self._open(
                    after_seq=self._reader.cursor, after_event_seq=self._reader.event_cursor
                )
            case {"not_state": state}:
                assert state not in {seen for seen, _ in self._reader.states}
            case _:
                raise ValueError(f"unknown step {step}")

    async def _expect_state(self, state: str, reason: str | None, seconds: float) -> None:
        """Wait for a state; a bad one may also have come and gone since the last fault."""

        def is_there() -> bool:
            before = self._reader.states[self._states_before :] if state != "live" else []
            seen = [self._reader.state, *before]
            return any(one == state and reason in {None, why} for one, why in seen)

        await self._until(is_there, seconds)

    async def _until(self, reached: Callable[[], bool], seconds: float) -> None:
        assert await self._readers.until(reached, seconds * SLACK), "it did not happen in time"

    def _observed(self) -> set[UUID]:
        return {signal.signal_id for reader in self._read for signal in reader.observed}


def _rest(step: Mapping[str, Any], verb: str) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name != verb}


async def test_scenarios_of_one_topic_each_side_by_side(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    of_one_topic = [scenario for scenario in LIVE if not scenario.get("alone")]
    async with readers_process(stack) as readers:
        # Those with a short token last, so that its life does not pass before they begin.
        scenarios = [*of_one_topic, *OF_TYPESCRIPT]
        runs = [Run(scenario, stack, make_account, readers) for scenario in scenarios]
        told = await asyncio.gather(*(run.run() for run in runs))
        judge(chain.from_iterable(told))


async def test_scenarios_of_the_whole_server_one_after_the_other(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    async with readers_process(stack) as readers:
        for scenario in LIVE:
            if scenario.get("alone"):
                judge(await Run(scenario, stack, make_account, readers).run())
