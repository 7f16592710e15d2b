"""A database, a Realtime and a subscriber in virtual time, with faults by schedule.

The machine is the real one; what is around it does what the shell, the server and the network do,
in steps of a tenth of a second. It notes what must hold: how long a signal that was not pushed may
go unnoticed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from signal_persistence import Observation
from signal_persistence.coverage import SeqQuery
from signal_persistence.reading import Broadcast, Page
from signal_persistence.subscription import (
    CHECK_SECONDS,
    StateReason,
    Subscription,
    SubscriptionState,
)
from tests.client.live.signals import START, signal

STEP: Final = 0.1
_ANSWER: Final = 0.1
"""Seconds of a query, a check, a join."""
_SILENCE: Final = 4.5
"""Seconds after which the shell takes a frozen connection for lost."""
NOTICED_WITHIN: Final = 5.0


@dataclass(frozen=True)
class Fault:
    """`kind` from the second `at` for `seconds`."""

    kind: str
    at: float
    seconds: float

    def lasts(self, now: float) -> bool:
        return self.at <= now < self.at + self.seconds


KINDS: Final = ("lose_slot", "drop", "delay", "freeze", "refuse_join", "cut", "unreachable")


class Simulation:
    """One account that stores `batches` (second, how many) and one subscriber."""

    def __init__(
        self,
        faults: list[Fault],
        batches: list[tuple[float, int]],
        seed: int,
        carried: bool,
        check_interval: float | None = None,
    ) -> None:
        self.subscription = Subscription(lambda _: True, after_seq=0, check_interval=check_interval)
        self.seen: list[int] = []
        self.last_seq = 0
        self.unnoticed: list[float] = []
        self._faults = faults
        self._batches = sorted(batches)
        self._random = random.Random(seed)
        self._carried = carried
        self._steps = 0
        self._flying: list[tuple[float, int, Broadcast]] = []
        self._connection = 0
        self._query: tuple[float, SeqQuery] | None = None
        self._check: float | None = None
        self._join_at: float | None = 0.0
        self._ready_at: float | None = None
        self._frozen_since: float | None = None
        self._not_pushed_since: float | None = None

    @property
    def now(self) -> float:
        return self._steps * STEP

    def run_until(self, second: float) -> None:
        while self.now < second:
            self._steps += 1
            self.subscription.tick(self.now)
            self._store()
            self._deliver()
            self._answer()
            self._connect()
            self._ask()
            self._take()
            self._look()

    def _has(self, *kinds: str) -> bool:
        return any(fault.lasts(self.now) for fault in self._faults if fault.kind in kinds)

    def _store(self) -> None:
        while self._batches and self._batches[0][0] <= self.now:
            _, count = self._batches.pop(0)
            first, self.last_seq = self.last_seq + 1, self.last_seq + count
            signals = tuple(map(signal, range(first, self.last_seq + 1)))
            carried = signals if self._carried else None
            message = Broadcast(first, self.last_seq, self._database_time, carried)
            if self._is_followed and not self._has("lose_slot", "drop"):
                late = 3.0 if self._has("delay") else self._random.random() * 0.2
                self._flying.append((self.now + late, self._connection, message))
            elif self._not_pushed_since is None and self._is_joined:
                self._not_pushed_since = self.now

    @property
    def _database_time(self) -> datetime:
        return START + timedelta(seconds=self.now)

    @property
    def _is_joined(self) -> bool:
        return self._join_at is None

    @property
    def _is_followed(self) -> bool:
        return self._is_joined and self._ready_at is None

    def _deliver(self) -> None:
        if self._frozen_since is not None:
            return
        due = [flying for flying in self._flying if flying[0] <= self.now]
        self._flying = [flying for flying in self._flying if flying[0] > self.now]
        for _, connection, message in due:
            if connection == self._connection and self._is_joined:
                self.subscription.broadcast(message)
                self._not_pushed_since = None  # A later one shows the gap before it.

    def _answer(self) -> None:
        if self._query is not None and self._query[0] <= self.now and not self._has("unreachable"):
            query = self._query[1]
            self._query = None
            self.subscription.page(query, self._page(query))
        if self._check is not None and self._check <= self.now:
            self._check = None
            if not self._has("unreachable"):
                self.subscription.head(self.last_seq, database_time=self._database_time)

    def _page(self, query: SeqQuery) -> Page:
        found = tuple(map(signal, range(query.after_seq + 1, self.last_seq + 1)))
        more = "more" if len(found) > query.page_size else None
        return Page(found[: query.page_size], more, self.last_seq)

    def _connect(self) -> None:
        if self._is_joined and self._lost is not None:
            self.subscription.left(self._lost)
            self._frozen_since = None
            self._not_pushed_since = None
            self._join_at = self.now + 0.3 + self._random.random()
        elif self._join_at is not None and self._join_at <= self.now:
            if self._has("refuse_join", "cut", "freeze"):
                self.subscription.left(StateReason.CONNECTION_LOST)
                self._join_at = self.now + 0.3 + 3 * self._random.random()
            else:
                self._connection += 1
                self._join_at, self._ready_at = None, self.now + 0.2
                self.subscription.joined()
        elif self._ready_at is not None and self._ready_at <= self.now:
            self._ready_at = None
            self.subscription.replication_ready()

    @property
    def _lost(self) -> StateReason | None:
        """Why the connection there is has to be given up now."""
        if self._has("freeze"):
            self._frozen_since = self._frozen_since or self.now
        if self._frozen_since is not None and self.now - self._frozen_since >= _SILENCE:
            return StateReason.SILENT
        if self._has("cut"):
            return StateReason.CONNECTION_LOST
        return StateReason.BROADCASTS_MISSING if self.subscription.rejoin_wanted else None

    def _ask(self) -> None:
        query = self.subscription.next_query()
        if query is not None and self._query is None:
            self._query = self.now + _ANSWER, query
        if self.subscription.check_wanted and self._check is None:
            slow = CHECK_SECONDS if self._has("unreachable") else _ANSWER
            self._check = self.now + slow

    def _take(self) -> None:
        while (one := self.subscription.take()) is not None:
            assert isinstance(one, Observation)
            self.seen.append(one.signal.seq)

    def _look(self) -> None:
        """Note when a signal that was not pushed went unnoticed for too long."""
        if self.subscription.state is not SubscriptionState.LIVE:
            self._not_pushed_since = None
        elif (
            self._not_pushed_since is not None
            and self.now - self._not_pushed_since > NOTICED_WITHIN + STEP / 2
        ):
            self.unnoticed.append(self._not_pushed_since)
            self._not_pushed_since = None


def flow(seconds: float, every: float, count: int) -> Iterator[tuple[float, int]]:
    """Batches of `count` signals `every` so many seconds."""
    at = every
    while at < seconds:
        yield at, count
        at += every
