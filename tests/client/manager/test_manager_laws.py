"""The laws of the manager: the mode and failures change nothing that an application sees or has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from signal_persistence import Signal
from signal_persistence.errors import ChangeError, TransportError
from signal_persistence.manager import Difference, ManagedSignal, Mode, SignalManager
from tests.client.manager.model_store import ACCOUNT, START, Clock, ModelStore
from tests.client.scripted_service import make_signal

CHANGES: dict[str, list[dict[str, Any]]] = {
    "analyze": [{}, {"reason": "looked at"}],
    "execute": [{"entry_price": 100.5}, {}],
    "close": [
        {"exit_price": 101.0, "close_reason": "take_profit", "return_": 0.01, "fees": 0.5},
        {"exit_price": 99.0, "close_reason": "stop_loss"},
    ],
    "cancel": [{"reason": "changed my mind"}],
    "reject": [{}],
}
NUMBERS = st.integers(0, 3)
OPERATIONS = st.one_of(
    st.tuples(st.just("publish"), NUMBERS),
    st.tuples(st.just("publish"), NUMBERS),
    st.sampled_from(sorted(CHANGES)).flatmap(
        lambda name: st.tuples(st.just(name), NUMBERS, st.sampled_from(CHANGES[name]))
    ),
    st.tuples(st.just("get"), NUMBERS),
    st.tuples(st.just("list")),
    st.tuples(st.just("mode"), st.sampled_from(get_args(Mode))),
    st.tuples(st.just("mode"), st.sampled_from(get_args(Mode))),
    st.tuples(st.just("flush")),
    st.tuples(st.just("down"), st.booleans()),
    st.tuples(st.just("slow"), st.booleans()),
    st.tuples(st.just("fault"), st.sampled_from(["refused", "lost", "failed", "failed after"])),
    st.tuples(st.just("wait"), st.integers(1, 30)),
    st.tuples(st.just("flush")),
)


def signal(number: int) -> Signal:
    """Return one of a few signals; every second one expires after 40 seconds."""
    generated_at = START + timedelta(seconds=number)
    valid_until = generated_at + timedelta(seconds=40) if number % 2 else None
    return make_signal(number, generated_at=generated_at, valid_until=valid_until)


@dataclass
class Twins:
    """The same operations on a manager that is always in memory and on one that is not."""

    clock: Clock = field(default_factory=Clock)
    mode: Mode = "memory"
    differing: set[UUID] = field(default_factory=set)
    unexpected: list[Difference] = field(default_factory=list)
    published: set[UUID] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.store = ModelStore(self.clock)
        self.reference = SignalManager(account_id=ACCOUNT, clock=self.clock)
        self.subject = SignalManager(
            {ACCOUNT: self.store},
            mode=lambda account_id: self.mode,
            account_id=ACCOUNT,
            timeout=0.05,
            compare_interval=None,
            on_difference=self._differs,
            clock=self.clock,
        )

    def play(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case ("mode", mode):
                self.mode = mode
            case ("down", down):
                self.store.down = down
            case ("slow", slow):
                self.store.slow = slow
            case ("fault", fault):
                self.store.faults.append(fault)
            case ("wait", seconds):
                self.clock.advance(seconds)
            case ("flush",):
                self.subject.flush(0.05)
            case ("publish", number):
                self.published.add(signal(number).signal_id(ACCOUNT))
                self.both(lambda manager: manager.publish(signal(number)), number)
            case ("get", number):
                self.both(lambda manager: manager.get(signal(number)), number)
            case ("list",):
                assert self.visible(self.reference) == self.visible(self.subject)
            case (name, number, outcome):
                self.both(lambda manager: getattr(manager, name)(signal(number), **outcome), number)

    def both(self, operate: Callable[[SignalManager], Any], number: int) -> None:
        expected, seen = self.result(self.reference, operate), self.result(self.subject, operate)
        if signal(number).signal_id(ACCOUNT) not in self.differing:
            assert seen == expected

    def result(self, manager: SignalManager, operate: Callable[[SignalManager], Any]) -> Any:
        """Do as a careful application does: when the database cannot be asked, ask again later."""
        for _ in range(len(self.store.faults) + 20):
            try:
                return operate(manager)
            except ChangeError as error:
                return type(error)
            except TransportError:
                assert self.subject.mode_of() == "persist"
                self.recover()
        raise AssertionError("the database can be asked, and the manager does not")

    def visible(self, manager: SignalManager) -> list[ManagedSignal]:
        found = self.result(manager, SignalManager.list)
        return [seen for seen in found if seen.signal_id not in self.differing]

    def recover(self) -> None:
        self.store.down = False
        self.store.hurry()

    def end(self) -> None:
        """Bring everything into the database and compare all three."""
        self.recover()
        for mode in ("memory", "dual_write", "persist", "memory", "dual_write"):
            self.mode = mode
            self.result(self.subject, SignalManager.list)
            if mode != "memory":
                self.write_everything()
            assert self.visible(self.subject) == self.visible(self.reference), mode
        assert set(self.store.rows) == self.published
        self.store.faults.clear()
        assert {known.signal_id for known in self.subject.compare().open} <= self.differing
        assert not self.unexpected
        self.subject.stop()
        self.reference.stop()

    def write_everything(self) -> None:
        """Flush as often as there may be faults left that spoil it."""
        for _ in range(len(self.store.faults) + 2):
            self.recover()
            if self.subject.flush(10.0) == 0:
                return
        raise AssertionError("something is never written")

    def _differs(self, difference: Difference) -> None:
        # Only a change that comes after valid_until may be refused: docs/lifecycle.md.
        if difference.reason == "invalid_transition":
            self.differing.add(difference.signal_id)
        else:
            self.unexpected.append(difference)


# Not shrunk: each example that fails waits for its deadlines, and threads make it another one.
@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(OPERATIONS, min_size=10, max_size=40))
def test_modes_and_failures_change_nothing_that_is_seen_and_lose_nothing(
    operations: list[tuple[Any, ...]],
) -> None:
    twins = Twins()
    for operation in operations:
        twins.play(operation)
    twins.end()
