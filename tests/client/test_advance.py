"""How the life of a signal is recorded and read: what is sent, and what the service does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest

from signal_persistence import (
    AccessToken,
    AdvanceVerdict,
    ApiError,
    AsyncSignalLifecycle,
    PasswordCredentials,
    Signal,
    SignalChange,
    SignalClient,
    SignalEvent,
)
from signal_persistence.verdict import VerdictItem
from tests.client.loopback_service import CLOSE, LoopbackService, Step, json_answer
from tests.plugins.stack import Account, MakeAccount, RunningStack

TRADER = UUID("0190b5a6-0000-7000-8000-000000000001")
NOW = datetime(2026, 1, 5, 10, 15, 0, 123456, tzinfo=UTC)
CLOSED = SignalChange(
    trader_id=TRADER,
    symbol="BTC-USD",
    timeframe="15m",
    generated_at=NOW,
    status="closed",
    occurred_at=NOW.astimezone(timezone(timedelta(hours=2))) + timedelta(hours=1),
    exit_price=45_000,
    close_reason="take_profit",
    return_=0.0333,
    fees=-1.5,
    reason="target",
)
VERDICT: dict[str, Any] = {
    "request_id": "0190b5a6-0000-8000-8000-000000000002",
    "accepted": 1,
    "duplicate": 0,
    "rejected": 1,
    "first_seq": 7,
    "last_seq": 7,
    "items": [{"index": 1, "code": "invalid_transition", "message": "No."}],
}


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    with LoopbackService() as service:
        yield service


def lifecycle_of(service: LoopbackService) -> AsyncSignalLifecycle:
    return AsyncSignalLifecycle(service.url, "key", AccessToken("token"))


def event_page(*seqs: int, last_seq: int) -> Step:
    moment = NOW.isoformat()
    events = [
        {
            "seq": seq,
            "status": "expired",
            "signal_seq": 1,
            "occurred_at": moment,
            "received_at": moment,
            "return": None,
            "expired_seqs": [[1, 4], [9, 9]],
        }
        for seq in seqs
    ]
    return json_answer({"events": events, "last_seq": last_seq})


async def test_a_change_is_sent_with_the_names_of_the_contract_and_no_empty_field(
    service: LoopbackService,
) -> None:
    service.script = [json_answer(VERDICT)]
    async with lifecycle_of(service) as lifecycle:
        verdict = await lifecycle.advance([CLOSED], request_id=UUID(VERDICT["request_id"]))
    [request] = service.received
    assert request.target == "/rest/v1/rpc/advance_signals"
    assert request.json() == {
        "request_id": VERDICT["request_id"],
        "changes": [
            {
                "trader_id": str(TRADER),
                "symbol": "BTC-USD",
                "timeframe": "15m",
                "generated_at": "2026-01-05T10:15:00.123456Z",
                "status": "closed",
                "occurred_at": "2026-01-05T13:15:00.123456+02:00",
                "exit_price": 45_000,
                "close_reason": "take_profit",
                "return": 0.0333,
                "fees": -1.5,
                "reason": "target",
            }
        ],
    }
    assert verdict == AdvanceVerdict(
        request_id=UUID(VERDICT["request_id"]),
        accepted=1,
        duplicate=0,
        rejected=1,
        first_seq=7,
        last_seq=7,
        items=(VerdictItem(index=1, code="invalid_transition", message="No."),),
    )


async def test_a_lost_answer_is_asked_for_again_with_the_same_request_id(
    service: LoopbackService,
) -> None:
    service.script = [CLOSE, json_answer(VERDICT)]
    async with lifecycle_of(service) as lifecycle:
        await lifecycle.advance([CLOSED])
    first, second = service.received
    assert first.body == second.body
    assert UUID(json.loads(first.body)["request_id"])


async def test_each_call_has_a_request_id_of_its_own(service: LoopbackService) -> None:
    service.script = [json_answer(VERDICT), json_answer(VERDICT)]
    async with lifecycle_of(service) as lifecycle:
        await lifecycle.advance([CLOSED])
        await lifecycle.advance([CLOSED])
    assert len({request.json()["request_id"] for request in service.received}) == 2


async def test_events_are_read_page_after_page_up_to_the_newest(service: LoopbackService) -> None:
    service.script = [event_page(4, 5, last_seq=6), event_page(6, last_seq=6)]
    async with lifecycle_of(service) as lifecycle:
        events = [event async for event in lifecycle.events(after_seq=3)]
    assert [event.seq for event in events] == [4, 5, 6]
    assert events[0].expired_seqs == ((1, 4), (9, 9))
    asked = [request.json() for request in service.received]
    assert asked == [
        {"after_seq": 3, "page_size": 1000},
        {"after_seq": 5, "page_size": 1000},
    ]


def test_a_client_without_an_event_loop_reads_the_same_pages(service: LoopbackService) -> None:
    service.script = [event_page(1, last_seq=3), event_page(2, 3, last_seq=3)]
    with SignalClient(service.url, "key", AccessToken("token")) as client:
        assert [event.seq for event in client.events()] == [1, 2, 3]


async def test_no_events_are_an_end(service: LoopbackService) -> None:
    service.script = [event_page(last_seq=3)]
    async with lifecycle_of(service) as lifecycle:
        assert [event async for event in lifecycle.events(after_seq=3)] == []


def client_of(stack: RunningStack, account: Account) -> SignalClient:
    credentials = PasswordCredentials(
        stack.api_url, stack.publishable_key, account.email, account.password
    )
    return SignalClient(stack.api_url, stack.publishable_key, credentials)


def publish(client: SignalClient, **fields: Any) -> Signal:
    signal = Signal(
        trader_id=client.create_trader("trend").trader_id,
        symbol="BTC-USD",
        timeframe="15m",
        generated_at=datetime.now(UTC) - timedelta(minutes=1),
        action="enter_long",
        confidence=0.75,
        price=43_548.77,
        **fields,
    )
    with client.producer(linger_ms=0) as producer:
        assert producer.publish(signal).result(10).status == "accepted"
    return signal


def test_a_signal_is_advanced_from_generated_to_closed_and_its_life_is_read_back(
    stack: RunningStack, account: Account
) -> None:
    with client_of(stack, account) as client:
        signal = publish(client)
        verdict = client.advance(
            [
                SignalChange.of(signal, "executed", entry_price=43_550.5),
                SignalChange.of(
                    signal,
                    "closed",
                    exit_price=45_000.0,
                    close_reason="take_profit",
                    return_=0.0333,
                    fees=12.5,
                ),
                SignalChange.of(signal, "cancelled"),
            ]
        )
        assert (verdict.accepted, verdict.first_seq, verdict.last_seq) == (2, 1, 2)
        assert [(item.index, item.code) for item in verdict.items] == [(2, "invalid_transition")]
        executed, closed = client.events()
    assert (executed.seq, executed.status, executed.entry_price) == (1, "executed", 43_550.5)
    assert executed.signal_id == signal.signal_id(account.account_id)
    assert executed.generated_at == signal.generated_at
    assert (closed.exit_price, closed.close_reason) == (45_000.0, "take_profit")
    assert (closed.return_, closed.fees, closed.expired_seqs) == (0.0333, 12.5, None)


async def test_a_request_that_is_repeated_gets_the_same_verdict(
    stack: RunningStack, account: Account
) -> None:
    with client_of(stack, account) as client:
        changes = [SignalChange.of(publish(client), "analyzed")]
        async with client.async_lifecycle() as lifecycle:
            request_id = uuid4()
            first = await lifecycle.advance(changes, request_id=request_id)
            assert await lifecycle.advance(changes, request_id=request_id) == first
            again = await lifecycle.advance(changes)
            assert (first.accepted, again.accepted, again.duplicate) == (1, 0, 1)
            with pytest.raises(ApiError) as caught:
                await lifecycle.advance([], request_id=request_id)
            assert (caught.value.status, caught.value.code) == (409, "request_id_reused")
            events = [event async for event in lifecycle.events()]
            assert [type(event) for event in events] == [SignalEvent]


def test_the_signals_of_another_account_are_unknown(
    stack: RunningStack, account: Account, make_account: MakeAccount
) -> None:
    with client_of(stack, account) as client, client_of(stack, make_account()) as other:
        change = SignalChange.of(publish(client), "analyzed")
        [item] = other.advance([change]).items
        assert item.code == "unknown_signal"
        assert list(other.events()) == []
