"""The manager over the real database: the same in every mode, as is the model store of its laws."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args
from uuid import UUID, uuid4

import psycopg2
import pytest

from signal_persistence import Producer, Signal, SignalChange, SignalClient
from signal_persistence.errors import InvalidTransitionError
from signal_persistence.manager import (
    ManagedSignal,
    Mode,
    SignalManager,
    SignalStore,
    SupabaseStore,
)
from signal_persistence.signal import Outcome
from tests.client.manager.model_store import Clock, ModelStore
from tests.plugins.stack import MakeAccount, RunningStack


class Trading:
    """An account with a trader and a store, which several managers may use."""

    def __init__(self, stack: RunningStack, make_account: MakeAccount) -> None:
        account = make_account("elite")
        self.account_id = account.account_id
        self.client = SignalClient.from_env(
            {
                "SUPABASE_URL": stack.api_url,
                "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
                "SIGNALS_ACCESS_TOKEN": account.access_token,
            }
        )
        self.producer: Producer = self.client.producer(spool_dir=None)
        self.store = SupabaseStore(self.client, self.producer)
        self.trader_id = self.client.create_trader("trend").trader_id
        self.start = datetime.now(UTC) - timedelta(hours=1)
        self._database_url = stack.database_url

    def signal(self, number: int, **changes: Any) -> Signal:
        fields: dict[str, Any] = {
            "trader_id": self.trader_id,
            "symbol": "ES=F",
            "timeframe": "1m",
            "generated_at": self.start + timedelta(seconds=number),
            "action": "enter_long",
            "confidence": 0.75,
            "price": 5000.25 + number,
        }
        return Signal(**fields | changes)

    def manager(self, mode: Any, **options: Any) -> SignalManager:
        defaults: dict[str, Any] = {"account_id": self.account_id, "compare_interval": None}
        return SignalManager({self.account_id: self.store}, mode=mode, **defaults | options)

    def execute_sql(self, statement: str, *parameters: object) -> int:
        with psycopg2.connect(self._database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            count: int = cursor.rowcount
        connection.close()
        return count

    def close(self) -> None:
        self.store.close()
        self.producer.close()
        self.client.close()


@pytest.fixture
def trading(stack: RunningStack, make_account: MakeAccount) -> Iterator[Trading]:
    trading = Trading(stack, make_account)
    yield trading
    trading.close()


def live(manager: SignalManager, trading: Trading) -> list[ManagedSignal]:
    """Publish signals of every kind, have them reach every status, and return what is seen."""
    tokyo = timezone(timedelta(hours=9))
    kinds: list[dict[str, Any]] = [
        {},
        {"stop_loss": 4990.0, "take_profit": 5040.5, "confidence": 1},
        {"metadata": {"fast": 12, "ratio": 0.1, "tags": ["a", "ö"], "none": None, "no": {}}},
        {"metadata": {}},
        {"generated_at": (trading.start + timedelta(seconds=4)).astimezone(tokyo)},
        {"valid_until": trading.start + timedelta(minutes=1)},
        {"valid_until": trading.start + timedelta(days=1), "price": 0.1 + 0.2},
    ]
    for number, changes in enumerate(kinds):
        manager.publish(trading.signal(number, **changes))
    manager.analyze(trading.signal(0), reason="looked at")
    manager.execute(trading.signal(0), entry_price=5001.5)
    manager.close(
        trading.signal(0), exit_price=5010.0, close_reason="take_profit", return_=0.0017, fees=-1.5
    )
    manager.execute(trading.signal(1), reason="filled by hand")
    manager.cancel(trading.signal(2), reason="changed")
    manager.reject(trading.signal(3))
    manager.analyze(trading.signal(6))
    with pytest.raises(InvalidTransitionError):
        manager.execute(trading.signal(5))
    with pytest.raises(InvalidTransitionError):
        manager.execute(trading.signal(2))
    return manager.list()


@pytest.mark.parametrize("first", get_args(Mode))
def test_every_kind_of_signal_and_status_is_the_same_in_all_modes(
    trading: Trading, first: Mode
) -> None:
    modes: dict[UUID, Mode] = {trading.account_id: first}
    with trading.manager(modes) as manager:
        seen = live(manager, trading)
        assert len(seen) == 7
        assert {found.status for found in seen} == {
            "closed", "executed", "cancelled", "rejected", "generated", "expired", "analyzed"
        }  # fmt: skip
        by_id = {found.signal_id: found for found in seen}
        closed = by_id[trading.signal(0).signal_id(trading.account_id)]
        assert closed.outcome == Outcome(
            entry_price=5001.5,
            exit_price=5010.0,
            close_reason="take_profit",
            return_=0.0017,
            fees=-1.5,
        )
        for mode in ("dual_write", "persist", "memory", "persist", "dual_write"):
            modes[trading.account_id] = mode
            assert manager.flush(20) == 0
            assert manager.mode_of() == mode
            assert manager.list() == seen
            assert [manager.get(found.signal) for found in seen] == seen
        report = manager.compare()
        assert report.clean, report.open
        assert report.compared == 7
    with trading.manager("persist") as another:
        assert another.list() == seen


def test_what_is_planted_in_the_database_is_reported(trading: Trading) -> None:
    with trading.manager("dual_write") as manager:
        for number in range(5):
            manager.publish(trading.signal(number))
            manager.execute(trading.signal(number), entry_price=1.0)
        assert manager.flush(20) == 0
        assert manager.compare().clean
        elsewhere = SignalChange.of(
            trading.signal(1), "closed", exit_price=2.0, close_reason="manual"
        )
        assert trading.client.advance([elsewhere]).accepted == 1
        trading.producer.publish(trading.signal(9)).result(10)
        assert trading.execute_sql(
            "delete from private.signals where generated_at = %s", trading.signal(2).generated_at
        )
        assert trading.execute_sql(
            "update private.signals set price = 7 where generated_at = %s",
            trading.signal(3).generated_at,
        )
        found = {
            (difference.signal_id, difference.aspect, difference.field, difference.reason)
            for difference in manager.compare().open
        }
    ids = [trading.signal(number).signal_id(trading.account_id) for number in range(10)]
    assert found == {
        (ids[1], "status", None, "different"),
        (ids[1], "outcome", "exit_price", "different"),
        (ids[1], "outcome", "close_reason", "different"),
        (ids[2], "signal", None, "missing_in_database"),
        (ids[3], "signal", "price", "different"),
        (ids[9], "signal", None, "missing_in_memory"),
    }


def test_signals_that_the_service_refuses_are_reported_with_its_code(trading: Trading) -> None:
    modes: dict[UUID, Mode] = {}
    old = trading.signal(0, generated_at=datetime.now(UTC) - timedelta(days=8))
    foreign = trading.signal(1, trader_id=uuid4())
    with trading.manager(modes) as manager:
        for signal in (old, foreign, trading.signal(2)):
            manager.publish(signal)
        modes[trading.account_id] = "dual_write"
        assert manager.flush(20) == 0
        reasons = [difference.reason for difference in manager.compare().open]
        assert sorted(reasons) == ["stale", "unknown_trader"]
        assert len(manager.refused()) == 2
        assert len(manager.list()) == 3


@pytest.mark.parametrize("seed", range(3))
def test_the_model_of_the_laws_gives_the_verdicts_of_the_database(
    trading: Trading, seed: int
) -> None:
    chance = random.Random(seed)
    model = ModelStore(Clock(datetime.now(UTC)), trading.account_id)
    signals = [
        trading.signal(number, valid_until=trading.start + timedelta(minutes=number * 40 + 1))
        for number in range(4)
    ]
    for signal in signals:
        assert published(model, signal) == published(trading.store, signal) == "accepted"
    assert published(model, signals[0]) == published(trading.store, signals[0]) == "duplicate"
    choices: list[Callable[[Signal], SignalChange]] = [
        lambda signal: SignalChange.of(signal, "analyzed"),
        lambda signal: SignalChange.of(signal, "analyzed", reason="b"),
        lambda signal: SignalChange.of(signal, "executed", entry_price=1.5),
        lambda signal: SignalChange.of(signal, "executed"),
        lambda signal: SignalChange.of(
            signal, "closed", exit_price=2.5, close_reason="manual", fees=0.0
        ),
        lambda signal: SignalChange.of(signal, "cancelled", reason="c"),
        lambda signal: SignalChange.of(signal, "rejected"),
    ]
    changes = [chance.choice(choices)(chance.choice(signals)) for _ in range(40)]
    changes.append(SignalChange.of(trading.signal(99), "analyzed"))
    request_id = uuid4()
    codes = [
        {item.index: item.code for item in store.advance(changes, request_id).items}
        for store in (model, trading.store)
    ]
    assert codes[0] == codes[1]
    seen = [list(map(ManagedSignal.of, store.signals())) for store in (model, trading.store)]
    assert seen[0] == seen[1]
    for signal in (signals[0], trading.signal(99)):
        found = [store.find(signal) for store in (model, trading.store)]
        assert [bool(one) for one in found] == [signal is signals[0]] * 2


def published(store: SignalStore, signal: Signal) -> str:
    reports: list[str] = []
    store.publish(signal, lambda report: reports.append(report.status))
    while not reports:
        store.hurry()
    return reports[0]
