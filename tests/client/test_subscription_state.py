"""The pure subscription: whatever the order of what arrives, each signal once and in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from signal_persistence.errors import SubscriptionError
from signal_persistence.reading import Broadcast, Page
from signal_persistence.signal import StoredSignal
from signal_persistence.subscription import SeqQuery, Subscription, SubscriptionState

START = datetime(2026, 1, 5, tzinfo=UTC)
TRADER = UUID(int=7)


def signal(seq: int) -> StoredSignal:
    return StoredSignal(
        signal_id=UUID(int=seq),
        seq=seq,
        trader_id=TRADER,
        symbol="ES" if seq % 3 else "BTC-USD",
        timeframe="1m",
        generated_at=START + timedelta(seconds=seq),
        action="enter_long",
        confidence=0.5,
        price=1640.25,
        status="generated",
    )


def everything(_: StoredSignal) -> bool:
    return True


def only_es(candidate: StoredSignal) -> bool:
    return candidate.symbol == "ES"


class Account:
    """What the service would do: keep signals, announce them, answer queries from a snapshot."""

    def __init__(self, matches: Callable[[StoredSignal], bool] = everything) -> None:
        self.last_seq = 0
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


def is_in(subscription: Subscription, state: SubscriptionState) -> bool:
    return subscription.state is state


def taken(subscription: Subscription, at_most: int = 1000) -> list[int]:
    observations = itertools.takewhile(bool, (subscription.take() for _ in range(at_most)))
    return [observation.signal.seq for observation in observations if observation]


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


def test_it_starts_at_the_present_when_no_cursor_is_given() -> None:
    account = Account()
    account.store(5)
    subscription = Subscription(everything)
    assert subscription.cursor is None
    assert catch_up(subscription, account) == []
    assert subscription.cursor == 5


def test_it_starts_after_a_saved_cursor() -> None:
    account = Account()
    account.store(5)
    assert catch_up(Subscription(everything, after_seq=2), account) == [3, 4, 5]


def test_a_cursor_ahead_of_the_account_is_refused() -> None:
    account = Account()
    account.store(5)
    with pytest.raises(SubscriptionError, match="only come to 5"):
        catch_up(Subscription(everything, after_seq=6), account)


def test_a_broadcast_that_comes_next_is_used_without_a_query() -> None:
    account = Account()
    subscription = live(Subscription(everything), account)
    subscription.broadcast(account.store(3))
    assert subscription.next_query() is None
    assert taken(subscription) == [1, 2, 3]


def test_a_broadcast_without_signals_asks_for_a_query() -> None:
    account = Account()
    subscription = live(Subscription(everything), account)
    subscription.broadcast(account.store(3, carried=False))
    assert is_in(subscription, SubscriptionState.CATCHING_UP)
    assert catch_up(subscription, account) == [1, 2, 3]
    assert is_in(subscription, SubscriptionState.LIVE)


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
    times = [observation.broadcast_at for _ in range(4) if (observation := subscription.take())]
    assert times == [None, START, START, START + timedelta(seconds=1)]


def test_a_broadcast_that_misses_one_of_its_signals_is_used_only_up_to_the_gap() -> None:
    account = Account()
    subscription = live(Subscription(everything), account)
    whole = account.store(4)
    assert whole.signals is not None
    broken = Broadcast(1, 4, START, (whole.signals[0], *whole.signals[2:]))
    subscription.broadcast(broken)
    assert taken(subscription) == [1]
    assert catch_up(subscription, account) == [2, 3, 4]


def test_signals_outside_the_filter_move_the_cursor_but_are_not_handed_out() -> None:
    account = Account(only_es)
    subscription = live(Subscription(only_es), account)
    subscription.broadcast(account.store(6))
    assert taken(subscription) == [1, 2, 4, 5]
    assert subscription.cursor == 6


def test_the_cursor_never_passes_a_signal_that_was_not_handed_out() -> None:
    account = Account()
    subscription = live(Subscription(everything), account)
    subscription.broadcast(account.store(3))
    assert subscription.cursor == 0
    subscription.take()
    assert subscription.cursor == 1


def test_a_full_buffer_falls_back_to_queries_and_loses_nothing() -> None:
    account = Account()
    subscription = live(Subscription(everything, buffer_signals=10), account)
    for _ in range(5):
        subscription.broadcast(account.store(4))
    assert subscription.buffered == 10
    assert subscription.next_query() is None
    assert catch_up(subscription, account) == list(range(1, 21))


def test_a_page_larger_than_asked_for_is_taken_only_as_far_as_there_is_room() -> None:
    account = Account()
    account.store(25)
    subscription = Subscription(everything, after_seq=0, buffer_signals=10)
    query = subscription.next_query()
    assert query is not None
    subscription.page(query, account.answer(SeqQuery(0, 1000, 0)))
    assert subscription.buffered == 10
    assert catch_up(subscription, account) == list(range(1, 26))


def test_it_is_live_only_when_joined_and_replicating_and_complete() -> None:
    account = Account()
    account.store(2)
    subscription = Subscription(everything, after_seq=0)
    assert is_in(subscription, SubscriptionState.CONNECTING)
    catch_up(subscription, account)
    assert is_in(subscription, SubscriptionState.CONNECTING)
    subscription.joined()
    catch_up(subscription, account)
    assert is_in(subscription, SubscriptionState.CATCHING_UP)
    subscription.replication_ready()
    assert is_in(subscription, SubscriptionState.CATCHING_UP)
    catch_up(subscription, account)
    assert is_in(subscription, SubscriptionState.LIVE)
    subscription.left()
    assert is_in(subscription, SubscriptionState.STALE)
    subscription.close()
    assert is_in(subscription, SubscriptionState.CLOSED)
    assert subscription.next_query() is None


def test_a_query_asked_before_the_join_does_not_make_it_live() -> None:
    account = Account()
    subscription = Subscription(everything)
    early = subscription.next_query()
    assert early is not None
    answer = account.answer(early)
    missed = account.store(1)
    subscription.joined()
    subscription.replication_ready()
    subscription.page(early, answer)
    assert missed.last_seq == 1
    assert is_in(subscription, SubscriptionState.CATCHING_UP)
    assert catch_up(subscription, account) == [1]


def test_a_check_finds_what_no_broadcast_told_of() -> None:
    account = Account()
    subscription = live(Subscription(everything), account)
    account.store(3)
    assert subscription.next_query() is None
    subscription.check_due()
    assert is_in(subscription, SubscriptionState.LIVE)
    assert catch_up(subscription, account) == [1, 2, 3]


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
            subscription.left()
        elif name == "check":
            subscription.check_due()
        assert subscription.buffered <= buffer_signals
        if subscription.cursor is not None and positioned_at is not None:
            expected = [
                seq
                for seq in range(positioned_at + 1, subscription.cursor + 1)
                if matches(signal(seq))
            ]
            assert seen == expected

    last_seq = account.last_seq
    subscription.check_due()
    seen += catch_up(subscription, account)
    if positioned_at is None:
        positioned_at = last_seq
    assert seen == [s for s in range(positioned_at + 1, last_seq + 1) if matches(signal(s))]
    assert subscription.cursor == last_seq
