"""The pure subscription: whatever the order of what arrives, each signal once and in order.

What it does step by step is told by tests/scenarios/live_delivery.json.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from signal_persistence import Observation, SignalEvent
from signal_persistence.advance import EventBroadcast, EventPage
from signal_persistence.coverage import SeqQuery
from signal_persistence.errors import SubscriptionError
from signal_persistence.reading import Broadcast, Page
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import StateReason, Subscription, SubscriptionState
from tests.client.live.signals import START, event, signal


def everything(_: StoredSignal) -> bool:
    return True


def only_es(candidate: StoredSignal) -> bool:
    return candidate.symbol == "ES"


class Account:
    """What the service would do: keep signals, announce them, answer queries from a snapshot."""

    def __init__(self, matches: Callable[[StoredSignal], bool] = everything) -> None:
        self.last_seq = 0
        self.events: list[SignalEvent] = []
        self.matches = matches

    def store(self, count: int, *, carried: bool = True) -> Broadcast:
        first = self.last_seq + 1
        self.last_seq += count
        signals = tuple(map(signal, range(first, self.last_seq + 1)))
        return Broadcast(first, self.last_seq, START, signals if carried else None)

    def answer(self, query: SeqQuery) -> Page:
        matching = [
            found
            for found in map(signal, range(query.after_seq + 1, self.last_seq + 1))
            if self.matches(found)
        ]
        more = len(matching) > query.page_size
        return Page(tuple(matching[: query.page_size]), "more" if more else None, self.last_seq)

    def advance(self, signal_seq: int, *, carried: bool = True) -> EventBroadcast:
        """What becomes of a signal, or of it and all before it that expire."""
        seq = len(self.events) + 1
        self.events.append(event(seq, [1, signal_seq] if seq % 5 == 0 else signal_seq))
        return EventBroadcast(seq, seq, START, tuple(self.events[-1:]) if carried else None)

    def events_after(self, query: SeqQuery) -> EventPage:
        found = self.events[query.after_seq : query.after_seq + query.page_size]
        return EventPage(tuple(found), len(self.events))


def taken(subscription: Subscription, at_most: int = 1000) -> list[int]:
    observations = itertools.takewhile(bool, (subscription.take() for _ in range(at_most)))
    return [one.signal.seq for one in observations if isinstance(one, Observation)]


def catch_up(subscription: Subscription, account: Account) -> list[int]:
    """Take and query until nothing is wanted any more."""
    seqs = taken(subscription)
    while (query := subscription.next_query()) is not None:
        subscription.page(query, account.answer(query))
        seqs += taken(subscription)
    return seqs


def live(subscription: Subscription, account: Account) -> Subscription:
    subscription.joined()
    subscription.replication_ready()
    catch_up(subscription, account)
    return subscription


def test_a_cursor_ahead_of_the_account_is_refused() -> None:
    account = Account()
    account.store(5)
    with pytest.raises(SubscriptionError, match="only come to 5"):
        catch_up(Subscription(everything, after_seq=6), account)


def test_a_signal_keeps_the_time_of_its_broadcast_although_a_query_fetched_it() -> None:
    account = Account()
    subscription = live(Subscription(everything), account)
    account.store(1)
    announced = account.store(2, carried=False)
    later = replace(account.store(1), broadcast_at=START + timedelta(seconds=1))
    subscription.broadcast(announced)
    subscription.broadcast(later)
    query = subscription.next_query()
    assert query is not None
    subscription.page(query, account.answer(query))
    found = [subscription.take() for _ in range(4)]
    times = [one.broadcast_at for one in found if isinstance(one, Observation)]
    assert times == [None, START, START, START + timedelta(seconds=1)]


def test_a_late_answer_about_the_present_does_not_skip_what_came_meanwhile() -> None:
    account = Account()
    subscription = Subscription(everything)
    first, second = subscription.next_query(), subscription.next_query()
    assert first is not None
    assert second is not None
    subscription.page(first, account.answer(first))
    account.store(3)
    subscription.page(second, account.answer(second))
    assert catch_up(subscription, account) == [1, 2, 3]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.integers(1, 9), st.booleans()),
        st.tuples(st.just("deliver"), st.integers(0, 10), st.just(True)),
        st.tuples(st.just("repeat"), st.integers(0, 10), st.just(True)),
        st.tuples(st.just("drop"), st.integers(0, 10), st.just(True)),
        st.tuples(st.just("ask"), st.just(0), st.just(True)),
        st.tuples(st.just("answer"), st.integers(0, 10), st.just(True)),
        st.tuples(st.just("snapshot"), st.integers(0, 10), st.just(True)),
        st.tuples(st.just("take"), st.integers(1, 8), st.just(True)),
        st.tuples(st.just("join"), st.just(0), st.just(True)),
        st.tuples(st.just("leave"), st.just(0), st.just(True)),
        st.tuples(st.just("check"), st.just(0), st.just(True)),
        st.tuples(st.just("wait"), st.integers(1, 5), st.just(True)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(
    steps=steps,
    before=st.integers(0, 12),
    after_seq=st.one_of(st.none(), st.integers(0, 12)),
    filtered=st.booleans(),
    buffer_signals=st.integers(2, 30),
    page_size=st.integers(1, 12),
)
def test_any_mix_of_events_hands_out_each_signal_once_in_order(
    steps: list[tuple[str, int, bool]],
    before: int,
    after_seq: int | None,
    filtered: bool,
    buffer_signals: int,
    page_size: int,
) -> None:
    matches = only_es if filtered else everything
    account = Account(matches)
    if before:
        account.store(before)
    start = None if after_seq is None else min(after_seq, before)
    subscription = Subscription(
        matches, after_seq=start, buffer_signals=buffer_signals, page_size=page_size
    )
    flying: list[Broadcast] = []
    asked: list[SeqQuery] = []
    answers: list[tuple[SeqQuery, Page]] = []
    seen: list[int] = []
    positioned_at = start
    now = 0.0

    for name, number, carried in steps:
        if name == "store":
            flying.append(account.store(number, carried=carried))
        elif name in {"deliver", "drop", "repeat"} and flying:
            index = number % len(flying)
            message = flying[index] if name == "repeat" else flying.pop(index)
            if name != "drop":
                subscription.broadcast(message)
        elif name == "ask" and (query := subscription.next_query()) is not None:
            asked.append(query)
        elif name == "snapshot" and asked:
            query = asked.pop(number % len(asked))
            answers.append((query, account.answer(query)))
        elif name == "answer" and answers:
            query, page = answers.pop(number % len(answers))
            if positioned_at is None:
                positioned_at = page.last_seq
            subscription.page(query, page)
        elif name == "take":
            seen += taken(subscription, number)
        elif name == "join":
            subscription.joined()
            subscription.replication_ready()
        elif name == "leave":
            subscription.left(StateReason.CONNECTION_LOST)
        elif name == "check":
            subscription.head(account.last_seq)
        elif name == "wait":
            now += number
            subscription.tick(now)
        assert subscription.buffered <= buffer_signals
        if subscription.cursor is not None and positioned_at is not None:
            expected = [
                seq
                for seq in range(positioned_at + 1, subscription.cursor + 1)
                if matches(signal(seq))
            ]
            assert seen == expected

    last_seq = account.last_seq
    subscription.head(last_seq)
    seen += catch_up(subscription, account)
    if positioned_at is None:
        positioned_at = last_seq
    assert seen == [s for s in range(positioned_at + 1, last_seq + 1) if matches(signal(s))]
    assert subscription.cursor == last_seq


happenings = st.lists(
    st.tuples(
        st.sampled_from(
            ["store", "advance", "deliver", "drop", "repeat", "ask", "take", "join", "check"]
        ),
        st.integers(0, 20),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=happenings, buffer_signals=st.integers(2, 30), page_size=st.integers(1, 12))
def test_any_mix_hands_out_each_event_once_in_order_and_after_its_signals(
    steps: list[tuple[str, int, bool]], buffer_signals: int, page_size: int
) -> None:
    account = Account()
    subscription = Subscription(
        everything,
        after_seq=0,
        buffer_signals=buffer_signals,
        page_size=page_size,
        matches_event=lambda _: True,
        after_event_seq=0,
    )
    flying: list[Broadcast | EventBroadcast] = []
    seen: list[int] = []
    seen_events: list[int] = []

    def take(at_most: int) -> None:
        for _ in range(at_most):
            one = subscription.take()
            if isinstance(one, Observation):
                seen.append(one.signal.seq)
            elif one is not None:
                assert len(seen) >= one.last_signal_seq
                seen_events.append(one.seq)
            assert subscription.cursor == len(seen)
            assert subscription.event_cursor == len(seen_events)

    def ask() -> None:
        if (query := subscription.next_query()) is not None:
            subscription.page(query, account.answer(query))
        if (query := subscription.next_event_query()) is not None:
            subscription.event_page(query, account.events_after(query))

    for name, number, carried in steps:
        if name == "store":
            flying.append(account.store(1 + number % 5, carried=carried))
        elif name == "advance" and account.last_seq:
            flying.append(account.advance(1 + number % account.last_seq, carried=carried))
        elif name in {"deliver", "drop", "repeat"} and flying:
            index = number % len(flying)
            message = flying[index] if name == "repeat" else flying.pop(index)
            if name != "drop" and isinstance(message, Broadcast):
                subscription.broadcast(message)
            elif name != "drop" and isinstance(message, EventBroadcast):
                subscription.event_broadcast(message)
        elif name == "ask":
            ask()
        elif name == "take":
            take(number)
        elif name == "join":
            subscription.joined()
            subscription.replication_ready()
        elif name == "check":
            subscription.head(account.last_seq, len(account.events))

    subscription.joined()
    subscription.replication_ready()
    subscription.head(account.last_seq, len(account.events))
    while len(seen) < account.last_seq or len(seen_events) < len(account.events):
        before = len(seen) + len(seen_events)
        ask()
        take(buffer_signals)
        assert len(seen) + len(seen_events) > before, "it stands still"
    ask()
    assert seen == list(range(1, account.last_seq + 1))
    assert seen_events == list(range(1, len(account.events) + 1))
    assert subscription.state is SubscriptionState.LIVE
