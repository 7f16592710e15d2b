"""The pure machine does what the scenarios of live delivery say."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from signal_persistence.coverage import BEYOND_EVERY_SEQ, SeqQuery
from signal_persistence.reading import Broadcast, Page
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import StateReason, Subscription
from tests.client.live.scenarios import CORE
from tests.client.live.signals import START, signal


def signals(seqs: list[int]) -> tuple[StoredSignal, ...]:
    return tuple(map(signal, seqs))


class Machine:
    """A subscription that is told the steps of a scenario."""

    def __init__(self, options: dict[str, Any]) -> None:
        wanted = options.pop("wanted", None)
        self.subscription = Subscription(
            lambda signal: wanted is None or signal.seq in wanted, **options
        )
        self.now = 0.0
        self.asked: deque[SeqQuery] = deque()
        self.taken: list[int] = []

    def do(self, step: dict[str, Any]) -> None:
        what = step["do"]
        match what:
            case "joined" | "replication_ready" | "check_due" | "close":
                getattr(self.subscription, what)()
            case "fail":
                self.subscription.close(StateReason.FAILED)
            case "left":
                self.subscription.left(StateReason(step["reason"]))
            case "tick":
                self.now += step["seconds"]
                self.subscription.tick(self.now)
            case "ask":
                self._ask()
            case "page":
                self._page(step["signals"], step["last_seq"], more=step["more"])
            case "head":
                self.subscription.head(
                    step["last_seq"], step.get("broadcast_interval_ms", 0) / 1000
                )
            case "broadcast":
                carried = None if step["signals"] is None else signals(step["signals"])
                self.subscription.broadcast(
                    Broadcast(step["first_seq"], step["last_seq"], START, carried)
                )
            case "take":
                self._take(step["count"])
            case "go_live":
                self.subscription.joined()
                self.subscription.replication_ready()
                self._page([], step["last_seq"], more=False)
                self.subscription.head(step["last_seq"])
            case _:
                raise ValueError(f"unknown step {what!r}")

    def expect(self, expected: dict[str, Any]) -> None:
        found = {name: self._found(name) for name in expected}
        assert found == expected

    def _found(self, name: str) -> Any:
        match name:
            case "taken":
                self._take(self.subscription.buffered)
                taken, self.taken = self.taken, []
                return taken
            case "query":
                query = self.subscription.next_query()
                if query is None:
                    return None
                after_seq = None if query.after_seq == BEYOND_EVERY_SEQ else query.after_seq
                return {"after_seq": after_seq, "page_size": query.page_size}
            case "check":
                return self.subscription.check_wanted
            case "rejoin":
                return self.subscription.rejoin_wanted
            case _:
                return getattr(self.subscription, name)

    def _ask(self) -> None:
        query = self.subscription.next_query()
        assert query is not None, "no query is wanted"
        self.asked.append(query)

    def _page(self, seqs: list[int], last_seq: int, *, more: bool) -> None:
        if not self.asked:
            self._ask()
        page = Page(signals(seqs), "more" if more else None, last_seq)
        self.subscription.page(self.asked.popleft(), page)

    def _take(self, count: int) -> None:
        for _ in range(count):
            observation = self.subscription.take()
            assert observation is not None
            self.taken.append(observation.signal.seq)


@pytest.mark.parametrize("scenario", CORE, ids=lambda scenario: scenario["name"])
def test_a_scenario_of_the_machine(scenario: dict[str, Any]) -> None:
    machine = Machine(dict(scenario.get("options", {})))
    for number, step in enumerate(scenario["steps"], start=1):
        try:
            machine.do(step) if "do" in step else machine.expect(step["expect"])
        except AssertionError as error:
            raise AssertionError(f"step {number}, {step}: {error}") from error
