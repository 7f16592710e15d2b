"""The pure machine does what the scenarios of live delivery say."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from signal_persistence import Observation, SignalEvent
from signal_persistence.advance import EventBroadcast, EventPage
from signal_persistence.coverage import BEYOND_EVERY_SEQ, SeqQuery
from signal_persistence.reading import Broadcast, Page
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import StateReason, Subscription
from tests.client.live.scenarios import CORE
from tests.client.live.signals import START, event, signal


def signals(seqs: list[int]) -> tuple[StoredSignal, ...]:
    return tuple(map(signal, seqs))


class Machine:
    """A subscription that is told the steps of a scenario."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.wanted = options.pop("wanted", None)
        self.unclear = options.pop("unclear_events", [])
        self.gone = options.pop("gone_events", [])
        follows_events = options.pop("events", False)
        self.subscription = Subscription(
            lambda signal: self._wants(signal.seq),
            matches_event=self._matches if follows_events else None,
            **{"check_interval": 2.0, **options},
        )
        self.now = 0.0
        self.asked: deque[SeqQuery] = deque()
        self.taken: list[int | str] = []

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
                asked_at = self.now - step.get("asked_ago", 0)
                self._page(step["signals"], step["last_seq"], more=step["more"], asked_at=asked_at)
            case "head":
                self._head(**{name: value for name, value in step.items() if name != "do"})
            case "broadcast":
                carried = None if step["signals"] is None else signals(step["signals"])
                self.subscription.broadcast(
                    Broadcast(step["first_seq"], step["last_seq"], self._sent_at(step), carried)
                )
            case "events_broadcast":
                told = None if step["events"] is None else self._events(step["events"])
                self.subscription.event_broadcast(
                    EventBroadcast(step["first_seq"], step["last_seq"], self._sent_at(step), told)
                )
            case "events_page":
                self._events_page(step["events"], step["last_seq"])
            case "take":
                self._take(step["count"])
            case "go_live":
                self.subscription.joined()
                self.subscription.replication_ready()
                self._page([], step["last_seq"], more=False)
                if self.subscription.next_event_query() is not None:
                    self._events_page([], step.get("last_event_seq", 0))
                self._head(step["last_seq"], step.get("last_event_seq", 0))
            case _:
                raise ValueError(f"unknown step {what!r}")

    def expect(self, expected: dict[str, Any]) -> None:
        found = {name: self._found(name) for name in expected}
        assert found == expected

    def _found(self, name: str) -> Any:
        match name:
            case "taken":
                while self.subscription.has_next:
                    self._take(1)
                taken, self.taken = self.taken, []
                return taken
            case "query":
                return _shown(self.subscription.next_query())
            case "events_query":
                return _shown(self.subscription.next_event_query())
            case "up_to_date":
                return self.subscription.is_up_to_date
            case "check":
                return self.subscription.check_wanted
            case "rejoin":
                return self.subscription.rejoin_wanted
            case _:
                return getattr(self.subscription, name)

    def _wants(self, seq: int) -> bool:
        return self.wanted is None or seq in self.wanted

    def _matches(self, one: SignalEvent) -> bool | None:
        if one.seq in self.unclear and one.signal is None:
            return None
        return one.expired_seqs is not None or self._wants(one.signal_seq)

    def _events(self, events: list[list[Any]]) -> tuple[SignalEvent, ...]:
        return tuple(event(seq, of) for seq, of in events)

    def _events_page(self, events: list[list[Any]], last_seq: int) -> None:
        query = self.subscription.next_event_query()
        assert query is not None, "no query of events is wanted"
        brought = set(self.unclear) - set(self.gone)
        found = tuple(
            replace(one, signal=signal(one.signal_seq)) if one.seq in brought else one
            for one in self._events(events)
        )
        self.subscription.event_page(query, EventPage(found, last_seq), asked_at=self.now)

    def _sent_at(self, step: dict[str, Any]) -> datetime:
        return START + timedelta(seconds=self.now - step.get("late", 0))

    def _head(
        self,
        last_seq: int,
        last_event_seq: int = 0,
        broadcast_interval_ms: float = 0,
        check_interval_ms: float | None = None,
        asked_ago: float = 0,
    ) -> None:
        self.subscription.head(
            last_seq,
            last_event_seq,
            broadcast_interval=broadcast_interval_ms / 1000,
            check_interval=None if check_interval_ms is None else check_interval_ms / 1000,
            database_time=START + timedelta(seconds=self.now),
            asked_at=self.now - asked_ago,
        )

    def _ask(self) -> None:
        query = self.subscription.next_query()
        assert query is not None, "no query is wanted"
        self.asked.append(query)

    def _page(
        self, seqs: list[int], last_seq: int, *, more: bool, asked_at: float | None = None
    ) -> None:
        if not self.asked:
            self._ask()
        page = Page(signals(seqs), "more" if more else None, last_seq)
        asked_at = self.now if asked_at is None else asked_at
        self.subscription.page(self.asked.popleft(), page, asked_at=asked_at)

    def _take(self, count: int) -> None:
        for _ in range(count):
            one = self.subscription.take()
            assert one is not None
            self.taken.append(one.signal.seq if isinstance(one, Observation) else f"e{one.seq}")


def _shown(query: SeqQuery | None) -> dict[str, int | None] | None:
    if query is None:
        return None
    after_seq = None if query.after_seq == BEYOND_EVERY_SEQ else query.after_seq
    return {"after_seq": after_seq, "page_size": query.page_size}


@pytest.mark.parametrize("scenario", CORE, ids=lambda scenario: scenario["name"])
def test_a_scenario_of_the_machine(scenario: dict[str, Any]) -> None:
    machine = Machine(dict(scenario.get("options", {})))
    for number, step in enumerate(scenario["steps"], start=1):
        try:
            machine.do(step) if "do" in step else machine.expect(step["expect"])
        except AssertionError as error:
            raise AssertionError(f"step {number}, {step}: {error}") from error
