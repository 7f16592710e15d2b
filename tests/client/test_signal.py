"""A signal is checked in the contract's order, encoded as the service expects, and named alike."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_persistence import InvalidSignalError, Outcome, Signal, StoredSignal
from signal_persistence.contract import CONTRACT
from signal_persistence.jsonb import NotJsonbError, jsonb_size
from signal_persistence.signal import problem_of
from tests.client.scripted_service import TRADER, make_signal

NAN = float("nan")
INFINITY = float("inf")
WRONG: list[tuple[str, Any]] = [
    ("trader_id", "7d444840-9dc0-11d1-b245-5ffdce74fad2"),
    ("trader_id", None),
    ("symbol", ""),
    ("symbol", "BTC\n"),
    ("symbol", "A" * 33),
    ("symbol", "Ä"),
    ("symbol", 7),
    ("timeframe", "7m"),
    ("timeframe", ["1m"]),
    ("generated_at", "2026-01-01T00:00:00Z"),
    ("generated_at", datetime(2026, 1, 1)),
    ("generated_at", datetime(999, 12, 31, tzinfo=UTC)),
    ("generated_at", datetime(3000, 1, 1, tzinfo=UTC)),
    ("generated_at", datetime(2999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2)))),
    ("generated_at", datetime(1000, 1, 1, tzinfo=timezone(timedelta(hours=2)))),
    ("action", "buy"),
    ("action", None),
    ("confidence", -0.1),
    ("confidence", 1.1),
    ("confidence", NAN),
    ("confidence", True),
    ("confidence", "0.5"),
    ("price", NAN),
    ("price", INFINITY),
    ("price", 1.1e15),
    ("price", -(10**15) - 1),
    ("price", False),
    ("price", None),
    ("stop_loss", NAN),
    ("stop_loss", "1"),
    ("take_profit", -INFINITY),
    ("valid_until", datetime(2026, 1, 1, tzinfo=UTC)),
    ("valid_until", datetime(2027, 1, 1)),
    ("valid_until", datetime(2999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2)))),
    ("metadata", []),
    ("metadata", {"a": NAN}),
    ("metadata", {"a": "\x00"}),
    ("metadata", {"\x00": 1}),
    ("metadata", {"a": "\ud800"}),
    ("metadata", {1: 2}),
    ("metadata", {"a": object()}),
    ("metadata", {"a": datetime(2026, 1, 1, tzinfo=UTC)}),
    ("metadata", {"a": "x" * 2040}),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_field_is_refused_with_its_code(field: str, value: Any) -> None:
    with pytest.raises(InvalidSignalError) as caught:
        make_signal(0, **{field: value}).validate()
    assert caught.value.code == f"invalid_{field}"


@given(st.sets(st.sampled_from(CONTRACT.fields), min_size=1))
def test_the_first_wrong_field_in_the_contracts_order_names_the_code(wrong: set[str]) -> None:
    values = dict(reversed(WRONG))
    first = next(field for field in CONTRACT.fields if field in wrong)
    with pytest.raises(InvalidSignalError) as caught:
        make_signal(0, **{field: values[field] for field in wrong}).validate()
    assert caught.value.field == first


def test_values_other_than_objects_and_unknown_fields_are_refused_before_the_fields() -> None:
    assert problem_of([]) == "invalid_signal"
    assert problem_of(None) == "invalid_signal"
    assert problem_of({"a": 1}) == "unknown_field"
    assert problem_of({}) == "invalid_trader_id"
    assert problem_of(json.loads(make_signal(0).to_json())) is None


def test_a_signal_is_sent_in_utc_without_what_it_does_not_have() -> None:
    tokyo = datetime(2026, 1, 1, 9, 0, 0, 5, tzinfo=ZoneInfo("Asia/Tokyo"))
    signal = make_signal(0, generated_at=tokyo, valid_until=tokyo + timedelta(hours=1))
    signal.validate()
    assert json.loads(signal.to_json()) == {
        "trader_id": str(TRADER),
        "symbol": "BTC/USD",
        "timeframe": "1m",
        "generated_at": "2026-01-01T00:00:00.000005Z",
        "action": "enter_long",
        "confidence": 0.5,
        "price": 100.0,
        "valid_until": "2026-01-01T01:00:00.000005Z",
    }


def test_an_offset_with_seconds_is_sent_as_the_same_instant() -> None:
    odd = timezone(timedelta(hours=1, minutes=2, seconds=3))
    sent = json.loads(make_signal(0, generated_at=datetime(2026, 1, 1, tzinfo=odd)).to_json())
    assert sent["generated_at"] == "2025-12-31T22:57:57Z"


def test_times_are_compared_as_instants_when_clocks_are_put_back() -> None:
    zone = ZoneInfo("America/New_York")
    summer = datetime(2026, 11, 1, 1, 30, tzinfo=zone)
    winter = datetime(2026, 11, 1, 1, 15, fold=1, tzinfo=zone)
    make_signal(0, generated_at=summer, valid_until=winter).validate()
    with pytest.raises(InvalidSignalError, match="valid_until"):
        make_signal(0, generated_at=winter, valid_until=summer).validate()


def test_subclasses_of_numbers_strings_and_times_are_sent_as_plain_json() -> None:
    class Price(float):
        pass

    class Action(StrEnum):
        ENTER = "enter_long"

    class Moment(datetime):
        pass

    class Name(str):
        __slots__ = ()

    signal = make_signal(
        0,
        price=Price(1.5),
        stop_loss=Fraction(1, 4),
        action=Action.ENTER,
        generated_at=Moment(2026, 1, 1, tzinfo=UTC),
        metadata={"name": Name("x"), "number": Fraction(1, 2)},
    )
    signal.validate()
    sent = json.loads(signal.to_json())
    assert (sent["price"], sent["stop_loss"], sent["action"]) == (1.5, 0.25, "enter_long")
    assert sent["generated_at"] == "2026-01-01T00:00:00Z"
    assert sent["metadata"] == {"name": "x", "number": 0.5}
    assert jsonb_size(signal.metadata) == len('{"name": "x", "number": 0.5}')


times = st.datetimes(
    datetime(1000, 1, 2),
    datetime(2999, 12, 30),
    timezones=st.timezones(),
)


@given(times, st.floats(-1e15, 1e15), st.floats(0, 1))
def test_what_is_sent_is_valid_and_reads_back_as_the_same_signal(
    moment: datetime, price: float, confidence: float
) -> None:
    signal = make_signal(0, generated_at=moment, price=price, confidence=confidence)
    signal.validate()
    text = signal.to_json()
    assert problem_of(json.loads(text)) is None
    stored = StoredSignal.from_json(
        text[:-1] + b',"seq":7,"status":"generated","signal_id":"%s"}' % str(TRADER).encode()
    )
    assert stored.generated_at == moment.astimezone(UTC)
    assert (stored.price, stored.confidence) == (price, confidence)
    assert (stored.seq, stored.status, stored.outcome) == (7, "generated", None)


def stored_text(**more: Any) -> str:
    """A signal object of a page, as the database writes it."""
    signal = json.loads(make_signal(0).to_json())
    return json.dumps({**signal, "seq": 7, "signal_id": str(TRADER), **more})


def test_the_status_and_the_outcome_of_a_stored_signal_are_read() -> None:
    outcome = {
        "entry_price": 100,
        "exit_price": 110.5,
        "close_reason": "take_profit",
        "return": 0.105,
        "fees": -0.25,
        "reason": "target reached",
    }
    stored = StoredSignal.from_json(stored_text(status="closed", outcome=outcome))
    assert stored.status == "closed"
    assert stored.outcome == Outcome(
        entry_price=100.0,
        exit_price=110.5,
        close_reason="take_profit",
        return_=0.105,
        fees=-0.25,
        reason="target reached",
    )


def test_an_outcome_has_what_was_reported_and_none_for_the_rest() -> None:
    stored = StoredSignal.from_json(stored_text(status="executed", outcome={"entry_price": 0}))
    assert stored.outcome == Outcome(entry_price=0.0)


def test_a_signal_without_a_status_is_not_taken_for_a_generated_one() -> None:
    with pytest.raises(msgspec.ValidationError, match="status"):
        StoredSignal.from_json(stored_text())


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (1e16, "10000000000000000"),
        (1.5e300, "15" + "0" * 299),
        (1e-7, "0.0000001"),
        (1.25e-7, "0.000000125"),
        (0.00001, "0.00001"),
        (-0.0, "0.0"),
        (0.1, "0.1"),
        (-5.0, "-5.0"),
        (10**20, "1" + "0" * 20),
    ],
)
def test_numbers_are_measured_without_an_exponent(number: float, printed: str) -> None:
    assert jsonb_size(number) == len(printed)


def test_metadata_may_be_as_large_as_the_limit_and_not_a_byte_larger() -> None:
    fits = {"a": "é" * ((2048 - len('{"a": ""}')) // 2), "b": None}
    fits["a"] = "x" * (2048 - len('{"a": "", "b": null}'))
    make_signal(0, metadata=fits).validate()
    with pytest.raises(InvalidSignalError):
        make_signal(0, metadata={**fits, "a": f"{fits['a']}x"}).validate()


def test_metadata_nested_beyond_what_can_be_encoded_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(1000):
        nested = [nested]
    with pytest.raises(NotJsonbError):
        jsonb_size(nested)
    with pytest.raises(InvalidSignalError):
        make_signal(0, metadata={"a": nested}).validate()


def test_the_signal_id_is_a_version_8_uuid_of_the_natural_key() -> None:
    account = UUID("11111111-2222-3333-4444-555555555555")
    signal = make_signal(0)
    assert signal.signal_id(account).version == 8
    assert signal.signal_id(account) == UUID("23114c41-2c1d-859a-8da3-471d959acf2b")
    same = make_signal(0, action="exit_short", price=1.0, generated_at=signal.generated_at)
    assert same.signal_id(account) == signal.signal_id(account)
    for change in ({"symbol": "A"}, {"timeframe": "5m"}, {"trader_id": account}):
        assert make_signal(0, **change).signal_id(account) != signal.signal_id(account)


@given(times)
def test_the_signal_id_does_not_depend_on_the_time_zone(moment: datetime) -> None:
    account = UUID(int=1)
    here = make_signal(0, generated_at=moment).signal_id(account)
    assert make_signal(0, generated_at=moment.astimezone(UTC)).signal_id(account) == here


def test_a_signal_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        make_signal(0).price = 2.0  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Outcome().return_ = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Signal(TRADER)  # type: ignore[call-arg]
