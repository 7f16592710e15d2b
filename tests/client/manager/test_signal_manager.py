"""What a manager does in each mode, when the mode changes, and what it finds different."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest

from signal_persistence import ConfigurationError, Signal
from signal_persistence.contract import CONTRACT
from signal_persistence.errors import (
    ClosedError,
    InvalidChangeError,
    InvalidSignalError,
    InvalidTransitionError,
    ManagerFullError,
    TransportError,
    UnknownSignalError,
    UnwrittenError,
)
from signal_persistence.manager import Difference, Mode, SignalManager
from signal_persistence.manager.lifecycle import TRANSITIONS
from signal_persistence.signal import Outcome
from tests.client.manager.model_store import ACCOUNT, START, Clock, ModelStore
from tests.client.scripted_service import make_signal
from tests.client.waiting import wait_until

LIFECYCLE = Path(__file__).parents[3] / "docs" / "lifecycle.md"
OTHER = UUID("0190b5a6-0000-7000-8000-00000000000b")
MakeManager = Callable[..., SignalManager]


def signal(number: int, **changes: Any) -> Signal:
    return make_signal(number, **{"generated_at": START + timedelta(seconds=number)} | changes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> ModelStore:
    return ModelStore(clock)


@pytest.fixture
def make(clock: Clock, store: ModelStore) -> Any:
    """Return managers over the one store, which are stopped at the end."""
    managers: list[SignalManager] = []

    def make(mode: Any = "memory", **options: Any) -> SignalManager:
        defaults: dict[str, Any] = {
            "account_id": ACCOUNT,
            "clock": clock,
            "compare_interval": None,
            "timeout": 2.0,
        }
        manager = SignalManager({ACCOUNT: store}, mode=mode, **defaults | options)
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        try:
            manager.stop(0.1)
        except UnwrittenError:
            assert store.down


def test_the_states_are_those_of_the_picture_and_their_words_those_of_the_contract() -> None:
    drawn = re.findall(r"^  (\w+) --> (\w+)$", LIFECYCLE.read_text(), re.MULTILINE)
    ours = [(before, after) for before, afters in TRANSITIONS.items() for after in afters]
    assert sorted(ours) == sorted(drawn)
    assert {status for pair in ours for status in pair} == set(CONTRACT.statuses)


@pytest.mark.parametrize("mode", ["memory", "dual_write", "persist"])
def test_a_signal_goes_from_generated_to_closed_with_its_outcome(
    make: MakeManager, mode: Mode
) -> None:
    manager = make(mode)
    published = manager.publish(signal(1))
    assert (published.status, published.outcome) == ("generated", None)
    assert published.signal_id == signal(1).signal_id(ACCOUNT)
    assert manager.analyze(published).status == "analyzed"
    assert manager.execute(published.signal_id, entry_price=100.0).status == "executed"
    closed = manager.close(
        signal(1), exit_price=105.0, close_reason="take_profit", return_=0.05, fees=1.0, reason="up"
    )
    assert closed == manager.get(published.signal_id)
    assert closed.status == "closed"
    assert closed.outcome == Outcome(
        entry_price=100.0,
        exit_price=105.0,
        close_reason="take_profit",
        return_=0.05,
        fees=1.0,
        reason="up",
    )
    with pytest.raises(InvalidTransitionError):
        manager.cancel(published)
    assert manager.get(published) == closed


@pytest.mark.parametrize("mode", ["memory", "dual_write", "persist"])
def test_signals_are_found_by_status_and_trader_newest_first(make: MakeManager, mode: Mode) -> None:
    manager = make(mode)
    for number in range(4):
        manager.publish(signal(number, trader_id=OTHER) if number == 3 else signal(number))
    manager.reject(signal(1), reason="too risky")
    assert [seen.signal for seen in manager.by_trader(signal(0).trader_id)] == [
        signal(2),
        signal(1),
        signal(0),
    ]
    assert [seen.signal for seen in manager.by_status("generated")] == [
        signal(3, trader_id=OTHER),
        signal(2),
        signal(0),
    ]
    stats = manager.stats()
    assert (stats.mode, stats.signals, stats.refused) == (mode, 4, 0)
    assert stats.by_status == {"generated": 3, "rejected": 1}


@pytest.mark.parametrize("mode", ["memory", "dual_write", "persist"])
def test_a_change_is_refused_for_what_the_database_would_refuse(
    make: MakeManager, mode: Mode
) -> None:
    manager = make(mode)
    manager.publish(signal(1))
    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: manager.execute(signal(1), entry_price=1e16), "invalid_entry_price"),
        (lambda: manager.execute(signal(1), entry_price=float("nan")), "invalid_entry_price"),
        (lambda: manager.analyze(signal(1), reason=""), "invalid_reason"),
        (lambda: manager.analyze(signal(1), reason="x" * 201), "invalid_reason"),
        (lambda: manager.analyze(signal(1), reason="a\nb"), "invalid_reason"),
        (
            lambda: manager.close(signal(1), exit_price=1.0, close_reason="luck"),
            "invalid_close_reason",
        ),
        (
            lambda: manager.analyze(signal(1), occurred_at=START - timedelta(minutes=5)),
            "invalid_occurred_at",
        ),
    ]
    for refused, code in refusals:
        with pytest.raises(InvalidChangeError) as caught:
            refused()
        assert caught.value.code == code
    with pytest.raises(UnknownSignalError):
        manager.analyze(signal(2))
    with pytest.raises(InvalidSignalError):
        manager.publish(signal(3, confidence=2.0))
    [seen] = manager.list()
    assert seen.status == "generated"


@pytest.mark.parametrize("mode", ["memory", "dual_write", "persist"])
def test_a_change_that_is_repeated_is_no_change_and_the_first_of_two_signals_counts(
    make: MakeManager, mode: Mode
) -> None:
    manager = make(mode)
    manager.publish(signal(1))
    assert manager.publish(signal(1, price=5.0)).signal == signal(1)
    first = manager.execute(signal(1), entry_price=100.0)
    assert manager.execute(signal(1), entry_price=100.0) == first
    with pytest.raises(InvalidTransitionError) as caught:
        manager.execute(signal(1), entry_price=101.0)
    assert (caught.value.status, caught.value.wanted) == ("executed", "executed")


def test_a_signal_expires_by_itself_and_is_told_once(make: MakeManager, clock: Clock) -> None:
    manager = make()
    manager.publish(signal(1, valid_until=START + timedelta(seconds=60)))
    manager.publish(signal(2, valid_until=START + timedelta(seconds=60)))
    manager.execute(signal(2))
    clock.advance(59)
    assert manager.expire() == []
    clock.advance(1)
    assert [seen.signal for seen in manager.by_status("expired")] == [manager.list()[1].signal]
    assert [seen.status for seen in manager.expire()] == ["expired"]
    assert manager.expire() == []
    with pytest.raises(InvalidTransitionError):
        manager.execute(signal(1))


def test_in_memory_the_oldest_that_has_ended_makes_room_and_is_counted(make: MakeManager) -> None:
    manager = make(max_signals=2)
    manager.publish(signal(1))
    manager.publish(signal(2))
    with pytest.raises(ManagerFullError):
        manager.publish(signal(3))
    manager.cancel(signal(2))
    manager.publish(signal(3))
    assert [seen.signal for seen in manager.list()] == [signal(3), signal(1)]
    assert manager.stats().forgotten == 1


def test_while_writing_behind_only_what_the_database_has_makes_room(
    make: MakeManager, store: ModelStore
) -> None:
    store.slow = True
    manager = make("dual_write", max_signals=1)
    manager.publish(signal(1))
    manager.cancel(signal(1))
    with pytest.raises(ManagerFullError):
        manager.publish(signal(2))
    assert manager.flush(5) == 0
    manager.publish(signal(2))
    assert manager.flush(5) == 0
    assert len(store.rows) == 2


def test_memory_is_written_when_the_mode_changes_and_nothing_twice(
    make: MakeManager, store: ModelStore
) -> None:
    modes: dict[UUID, Mode] = {}
    manager = make(modes)
    for number in range(1200):
        manager.publish(signal(number))
    manager.execute(signal(7), entry_price=1.0)
    manager.close(signal(7), exit_price=2.0, close_reason="manual")
    assert store.rows == {}
    modes[ACCOUNT] = "dual_write"
    assert manager.mode_of() == "dual_write"
    assert manager.flush(5) == 0
    assert store.published == [signal(number).signal_id(ACCOUNT) for number in range(1200)]
    assert manager.compare().clean
    assert manager.differences().compared == 1200


def test_persist_begins_when_memory_is_written_and_until_then_memory_answers(
    make: MakeManager, store: ModelStore
) -> None:
    modes: dict[UUID, Mode] = {}
    manager = make(modes)
    manager.publish(signal(1))
    store.down = True
    modes[ACCOUNT] = "persist"
    assert manager.mode_of() == "dual_write"
    assert manager.execute(signal(1)).status == "executed"
    store.down = False
    assert manager.flush(5) == 0
    assert manager.mode_of() == "persist"
    [seen] = manager.list()
    assert seen.status == "executed"


def test_in_persist_a_read_waits_for_what_was_published_before(
    make: MakeManager, store: ModelStore
) -> None:
    store.slow = True
    manager = make("persist")
    manager.publish(signal(1))
    assert [seen.signal for seen in manager.list()] == [signal(1)]
    manager.publish(signal(2))
    assert status_of(manager, signal(2)) == "generated"
    manager.publish(signal(3))
    assert manager.execute(signal(3)).status == "executed"


def test_in_persist_the_database_decides_and_other_workers_are_seen(
    make: MakeManager, store: ModelStore
) -> None:
    manager = make("persist")
    manager.publish(signal(1))
    manager.publish(signal(2))
    assert manager.flush(5) == 0
    store.change_elsewhere(signal(1), "cancelled", reason="by hand")
    store.change_elsewhere(signal(2), "executed", entry_price=7.0)
    with pytest.raises(InvalidTransitionError) as caught:
        manager.execute(signal(1))
    assert caught.value.status == "cancelled"
    closed = manager.close(signal(2), exit_price=8.0, close_reason="manual")
    assert closed.outcome == Outcome(entry_price=7.0, exit_price=8.0, close_reason="manual")


def test_in_persist_what_the_database_cannot_be_asked_is_raised_and_can_be_repeated(
    make: MakeManager, store: ModelStore
) -> None:
    manager = make("persist")
    manager.publish(signal(1))
    assert manager.flush(5) == 0
    store.faults = ["lost"]
    with pytest.raises(TransportError) as caught:
        manager.execute(signal(1), entry_price=1.0)
    assert caught.value.in_doubt
    assert manager.execute(signal(1), entry_price=1.0).status == "executed"
    store.down = True
    with pytest.raises(TransportError):
        manager.list()


def test_the_way_back_works_while_the_database_is_down_and_catches_up_later(
    make: MakeManager, store: ModelStore
) -> None:
    modes: dict[UUID, Mode] = {ACCOUNT: "persist"}
    manager = make(modes)
    manager.publish(signal(1))
    manager.execute(signal(1), entry_price=1.0)
    store.change_elsewhere(signal(1), "closed", exit_price=2.0, close_reason="manual")
    store.down = True
    modes[ACCOUNT] = "memory"
    seen = manager.get(signal(1))
    assert seen is not None
    assert seen.status == "executed"
    manager.publish(signal(2))
    store.down = False
    wait_until(lambda: status_of(manager, signal(1)) == "closed")
    assert status_of(manager, signal(2)) == "generated"


def test_what_happened_in_memory_counts_when_the_database_is_loaded(
    make: MakeManager, store: ModelStore
) -> None:
    modes: dict[UUID, Mode] = {ACCOUNT: "persist"}
    manager = make(modes)
    manager.publish(signal(1))
    assert manager.flush(5) == 0
    modes[ACCOUNT] = "memory"
    manager.execute(signal(1), entry_price=1.0)
    modes[ACCOUNT] = "dual_write"
    assert manager.flush(5) == 0
    assert status_of(manager, signal(1)) == "executed"
    assert manager.compare().clean
    assert store.rows[signal(1).signal_id(ACCOUNT)].reported == "executed"


def test_a_manager_that_begins_with_dual_write_knows_what_the_database_had(
    make: MakeManager,
) -> None:
    first = make("dual_write")
    first.publish(signal(1))
    first.execute(signal(1), entry_price=1.0)
    assert first.flush(5) == 0
    second = make("dual_write")
    assert second.list() == first.list()
    assert second.execute(signal(1), entry_price=1.0).status == "executed"
    assert second.compare().clean


def test_writing_behind_begins_without_waiting_for_a_database_that_hangs(
    make: MakeManager, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: dict[UUID, Mode] = {}
    manager = make(modes, timeout=60.0)
    manager.publish(signal(1))
    answers = threading.Event()
    waited_for: list[bool] = []
    signals = store.signals

    def slow_signals(trader_id: UUID | None = None) -> Any:
        waited_for.append(not answers.wait(10))
        return signals(trader_id)

    monkeypatch.setattr(store, "signals", slow_signals)
    modes[ACCOUNT] = "dual_write"
    manager.publish(signal(2))
    assert manager.mode_of() == "dual_write"
    assert manager.execute(signal(1)).status == "executed"
    assert manager.stats().pending == 2
    answers.set()
    assert manager.flush(5) == 0
    assert waited_for == [False]
    assert manager.compare().clean


def test_an_account_follows_its_own_flag(clock: Clock) -> None:
    stores = {ACCOUNT: ModelStore(clock), OTHER: ModelStore(clock, OTHER)}
    modes: dict[UUID, Mode] = {OTHER: "dual_write"}
    with SignalManager(stores, mode=modes, clock=clock) as manager:
        for account_id in stores:
            manager.publish(signal(1), account_id=account_id)
        assert manager.flush(5, account_id=OTHER) == 0
    assert (len(stores[ACCOUNT].rows), len(stores[OTHER].rows)) == (0, 1)


def test_a_flag_that_fails_leaves_the_account_as_it_is_and_a_wrong_one_is_an_error(
    make: MakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = ["dual_write"]

    def flag(account_id: UUID) -> Any:
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    manager = make(flag)
    assert manager.mode_of() == "dual_write"
    answers[0] = OSError("no flags today")
    assert manager.mode_of() == "dual_write"
    assert "Cannot tell the mode" in caplog.text
    answers[0] = "both"
    with pytest.raises(ConfigurationError):
        manager.mode_of()


def test_an_account_without_a_store_stays_in_memory_or_says_so(clock: Clock) -> None:
    with SignalManager(account_id=ACCOUNT, clock=clock) as manager:
        manager.publish(signal(1))
    with (
        SignalManager(account_id=ACCOUNT, mode="persist", clock=clock) as manager,
        pytest.raises(ConfigurationError),
    ):
        manager.publish(signal(1))


def test_stop_says_what_is_not_written_and_a_stopped_manager_is_of_no_use(
    make: MakeManager, store: ModelStore
) -> None:
    manager = make("dual_write")
    manager.publish(signal(0))
    assert manager.flush(5) == 0
    store.down = True
    manager.publish(signal(1))
    manager.execute(signal(0))
    manager.execute(signal(1))
    with pytest.raises(UnwrittenError) as caught:
        manager.stop(0.2)
    assert caught.value.unwritten == 2, "the store was given signal 1, but neither change"
    manager.stop()
    with pytest.raises(ClosedError):
        manager.list()


def test_a_signal_that_failed_on_its_way_is_sent_again(
    make: MakeManager, store: ModelStore
) -> None:
    store.faults = ["failed", "failed after"]
    manager = make("dual_write")
    manager.publish(signal(1))
    manager.execute(signal(1))
    assert manager.flush(5) == 0
    assert store.published == [signal(1).signal_id(ACCOUNT)] * 2
    assert manager.compare().clean


def test_a_change_whose_answer_was_lost_is_written_once_and_is_no_difference(
    make: MakeManager, store: ModelStore
) -> None:
    manager = make("dual_write")
    manager.publish(signal(1))
    assert manager.flush(5) == 0
    store.faults = ["lost", "refused"]
    manager.execute(signal(1), entry_price=1.0)
    assert manager.flush(5) == 0
    assert [change.status for change in store.changes] == ["executed", "executed"]
    assert not manager.differences().found
    assert manager.compare().clean


def test_a_refused_signal_is_kept_reported_and_may_be_published_again(
    make: MakeManager, store: ModelStore
) -> None:
    told: list[Difference] = []
    manager = make("dual_write", on_difference=told.append)
    store.rejects = {"BTC/USD": "quota_exceeded"}
    manager.publish(signal(1))
    manager.execute(signal(1), entry_price=1.0)
    assert manager.flush(5) == 0
    [difference] = manager.compare().open
    assert told == [difference]
    assert (difference.aspect, difference.reason) == ("signal", "quota_exceeded")
    assert [seen.signal for seen in manager.refused()] == [signal(1)]
    store.rejects = {}
    manager.publish(signal(1))
    assert manager.flush(5) == 0
    report = manager.compare()
    assert report.clean
    assert (report.found["quota_exceeded"], report.resolved) == (1, 1)
    assert store.rows[difference.signal_id].reported == "executed"


def test_every_difference_that_is_planted_in_the_database_is_reported_by_its_reason(
    make: MakeManager, store: ModelStore
) -> None:
    manager = make("dual_write")
    for number in range(6):
        manager.publish(signal(number))
        manager.execute(signal(number), entry_price=1.0)
    assert manager.flush(5) == 0
    assert manager.compare().clean

    ids = [signal(number).signal_id(ACCOUNT) for number in range(6)]
    del store.rows[ids[0]]
    store.rows[ids[1]].signal = msgspec.structs.replace(signal(1), price=5.0)
    store.rows[ids[2]].reported = "analyzed"
    store.rows[ids[3]].outcome = Outcome(entry_price=2.0)
    store.change_elsewhere(signal(4), "closed", exit_price=3.0, close_reason="manual")
    foreign = signal(9)
    store.publish(foreign, lambda report: None)

    assert {parts_of(difference) for difference in manager.compare().open} == {
        (ids[0], "signal", None, "missing_in_database"),
        (ids[1], "signal", "price", "different"),
        (ids[2], "status", None, "different"),
        (ids[3], "outcome", "entry_price", "different"),
        (ids[4], "status", None, "different"),
        (ids[4], "outcome", "exit_price", "different"),
        (ids[4], "outcome", "close_reason", "different"),
        (foreign.signal_id(ACCOUNT), "signal", None, "missing_in_memory"),
    }
    again = manager.compare()
    assert again.found.total() == len(again.open) == 8, "what is known is not counted again"
    store.rows[ids[3]].outcome = Outcome(entry_price=1.0)
    del store.rows[foreign.signal_id(ACCOUNT)]
    assert manager.compare().resolved == 2


def test_a_change_that_the_database_refuses_is_a_difference_with_its_code(
    make: MakeManager, store: ModelStore, clock: Clock
) -> None:
    modes: dict[UUID, Mode] = {}
    manager = make(modes)
    manager.publish(signal(1, valid_until=START + timedelta(seconds=30)))
    manager.execute(signal(1), entry_price=1.0)
    clock.advance(60)
    modes[ACCOUNT] = "dual_write"
    assert manager.flush(5) == 0
    signal_id = signal(1).signal_id(ACCOUNT)
    report = manager.compare()
    assert {parts_of(difference) for difference in report.open} == {
        (signal_id, "status", None, "invalid_transition"),
        (signal_id, "outcome", "entry_price", "invalid_transition"),
    }
    [status] = [difference for difference in report.open if difference.aspect == "status"]
    assert (status.memory, status.database) == ("executed", "expired")
    assert "memory says 'executed', the database 'expired'" in str(status)


def test_what_is_on_its_way_or_about_to_expire_is_no_difference(
    make: MakeManager, store: ModelStore, clock: Clock
) -> None:
    manager = make("dual_write")
    manager.publish(signal(1, valid_until=START + timedelta(seconds=30)))
    assert manager.flush(5) == 0
    store.clock = replace(clock, now=clock.now + timedelta(seconds=31))
    clock.advance(29)
    assert manager.compare().clean
    store.clock = clock
    store.slow = True
    manager.publish(signal(2))
    assert manager.compare().clean


def test_differences_are_bounded_and_those_beyond_are_counted(
    make: MakeManager, store: ModelStore
) -> None:
    manager = make("dual_write", max_differences=2)
    for number in range(5):
        manager.publish(signal(number))
    assert manager.flush(5) == 0
    store.rows.clear()
    report = manager.compare()
    assert (len(report.open), report.overflowed, report.clean) == (2, 3, False)
    assert manager.compare().overflowed == 3


def test_memory_and_database_are_compared_by_themselves_while_writing_behind(
    make: MakeManager, store: ModelStore
) -> None:
    manager = make("dual_write", compare_interval=0.01)
    manager.publish(signal(1))
    assert manager.flush(5) == 0
    store.rows.clear()
    wait_until(lambda: len(manager.differences().open) == 1)


def test_threads_that_publish_while_the_mode_changes_lose_nothing(
    make: MakeManager, store: ModelStore
) -> None:
    modes: dict[UUID, Mode] = {}
    manager = make(modes)

    def work(first: int) -> None:
        for number in range(first, first + 100):
            ours = signal(0, generated_at=START + timedelta(microseconds=number))
            manager.publish(ours)
            manager.execute(ours, entry_price=float(number))

    threads = [threading.Thread(target=work, args=(1000 * part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for mode in get_args(Mode):
            modes[ACCOUNT] = mode
            manager.mode_of()
    modes[ACCOUNT] = "dual_write"
    assert len(manager.by_status("executed")) == 400
    assert manager.flush(5) == 0
    assert manager.compare().clean
    assert {row.reported for row in store.rows.values()} == {"executed"}
    assert len(store.rows) == 400


def test_who_waited_for_a_change_of_the_mode_goes_before_the_next_change(
    make: MakeManager, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes without a pause held an operation up for minutes."""
    modes: dict[UUID, Mode] = {ACCOUNT: "persist"}
    manager = make(modes, timeout=60.0)
    manager.publish(signal(1))
    assert manager.flush(5) == 0
    account = manager._accounts[ACCOUNT]
    signals = store.signals

    def held_up_meanwhile() -> Any:
        publishing.start()
        wait_until(lambda: account._held_up == 1)
        return signals()

    publishing = threading.Thread(target=account.publish, args=(signal(2),))
    monkeypatch.setattr(store, "signals", held_up_meanwhile)
    modes[ACCOUNT] = "memory"
    manager.mode_of()
    monkeypatch.undo()
    modes[ACCOUNT] = "dual_write"
    manager.mode_of()
    assert len(account.book) == 2
    publishing.join()


def test_the_mode_does_not_change_under_an_operation_that_asks_the_database(
    make: MakeManager, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: dict[UUID, Mode] = {ACCOUNT: "persist"}
    manager = make(modes)
    manager.publish(signal(1))
    assert manager.flush(5) == 0
    asked, answering = threading.Event(), threading.Event()
    advance = store.advance

    def slow_advance(changes: Any, request_id: UUID) -> Any:
        asked.set()
        assert answering.wait(10)
        return advance(changes, request_id)

    monkeypatch.setattr(store, "advance", slow_advance)
    change = threading.Thread(target=manager.execute, args=(signal(1),))
    change.start()
    assert asked.wait(10)
    modes[ACCOUNT] = "memory"
    seen: list[str | None] = []
    read = threading.Thread(target=lambda: seen.append(status_of(manager, signal(1))))
    read.start()
    read.join(0.1)
    answering.set()
    for thread in (change, read):
        thread.join(10)
    assert seen == ["executed"]


def test_a_change_keeps_the_time_at_which_it_was_made(
    make: MakeManager, store: ModelStore, clock: Clock
) -> None:
    modes: dict[UUID, Mode] = {}
    manager = make(modes)
    manager.publish(signal(1))
    clock.advance(5)
    manager.analyze(signal(1))
    clock.advance(3600)
    modes[ACCOUNT] = "dual_write"
    assert manager.flush(5) == 0
    assert [change.occurred_at for change in store.changes] == [START + timedelta(seconds=5)]


def status_of(manager: SignalManager, wanted: Signal) -> str | None:
    seen = manager.get(wanted)
    return seen.status if seen else None


def parts_of(difference: Difference) -> tuple[UUID, str, str | None, str]:
    return difference.signal_id, difference.aspect, difference.field, difference.reason
