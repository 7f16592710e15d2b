"""Subscribers on the real stack: every signal of the filter once, in order, whatever breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

import pytest

from local_stack.keys import Keys
from signal_persistence import (
    AccessToken,
    AsyncSubscriber,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    PasswordCredentials,
    SignalEvent,
    StateReason,
    StoredSignal,
    Subscriber,
    SubscriptionError,
    SubscriptionState,
)
from tests.client.cuttable_proxy import CuttableProxy
from tests.client.publisher import Publisher
from tests.plugins.stack import Account, MakeAccount, RunningStack

LIVE_SECONDS = 20.0
PATIENCE = 20.0


@pytest.fixture
def publisher(stack: RunningStack, make_account: MakeAccount) -> Publisher:
    return Publisher(stack, make_account("elite"))


@pytest.fixture
def make_subscriber(stack: RunningStack, publisher: Publisher) -> Callable[..., AsyncSubscriber]:
    def make(**options: Any) -> AsyncSubscriber:
        url = options.pop("url", stack.api_url)
        credentials = options.pop("credentials", publisher.credentials)
        return AsyncSubscriber(url, stack.publishable_key, credentials, **options)

    return make


MakeSubscriber = Callable[..., AsyncSubscriber]


async def read(subscriber: AsyncSubscriber, count: int) -> list[StoredSignal]:
    """Read `count` signals, each of which has to come before patience ends."""
    signals: list[StoredSignal] = []
    for _ in range(count):
        signal = await subscriber.get(PATIENCE)
        assert signal is not None, f"only {len(signals)} of {count} came; {subscriber.state}"
        signals.append(signal)
    return signals


async def until(reached: Callable[[], bool], seconds: float = PATIENCE) -> None:
    ends = time.monotonic() + seconds
    for _ in iter(reached, True):
        assert time.monotonic() < ends, "what was waited for did not happen"
        await asyncio.sleep(0.01)


def ids_of(signals: Iterable[StoredSignal]) -> list[UUID]:
    return [signal.signal_id for signal in signals]


async def test_what_is_stored_after_entering_is_yielded_once_and_in_order(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    await publisher.publish(3)
    async with make_subscriber() as subscriber:
        assert subscriber.cursor == 3
        ids = await publisher.publish(120)
        signals = await read(subscriber, 120)
        assert ids_of(signals) == ids
        assert [signal.seq for signal in signals] == list(range(4, 124))
        assert subscriber.cursor == 123
        assert await subscriber.get(0.05) is None


async def test_a_live_subscriber_is_told_by_broadcasts(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    async with make_subscriber(check_interval=3600) as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        before = datetime.now(UTC)
        ids = await publisher.publish(10)
        observations = []
        async for observation in subscriber.observations():
            observations.append(observation)
            if len(observations) == len(ids):
                break
    assert [observation.signal.signal_id for observation in observations] == ids
    for observation in observations:
        assert observation.broadcast_at is not None
        assert before <= observation.broadcast_at <= datetime.now(UTC)


async def test_a_batch_too_large_to_be_carried_is_fetched(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    async with make_subscriber(check_interval=3600) as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        ids = await publisher.publish(1500, batch=500)
        assert ids_of(await read(subscriber, 1500)) == ids


async def test_it_continues_after_a_saved_cursor(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    ids = await publisher.publish(10)
    async with make_subscriber(after_seq=0) as subscriber:
        assert ids_of(await read(subscriber, 4)) == ids[:4]
        saved = subscriber.cursor
    assert saved == 4
    async with make_subscriber(after_seq=saved) as subscriber:
        assert ids_of(await read(subscriber, 6)) == ids[4:]


async def test_a_cursor_that_the_account_has_not_reached_is_refused(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    await publisher.publish(1)
    with pytest.raises(SubscriptionError, match="only come to 1"):
        async with make_subscriber(after_seq=2):
            pass


async def test_only_signals_of_the_filter_are_yielded_and_the_cursor_passes_the_rest(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    await publisher.publish(5, symbol="BTC-USD")
    old = await publisher.publish(5, confidence=0.9)
    async with make_subscriber(
        after_seq=0, symbols=["ES"], min_confidence=0.8, traders=[publisher.trader_id]
    ) as subscriber:
        assert ids_of(await read(subscriber, 5)) == old
        await subscriber.wait_until_live(LIVE_SECONDS)
        await publisher.publish(5)
        new = await publisher.publish(3, confidence=0.8)
        await publisher.publish(5, symbol="BTC-USD", confidence=1.0)
        assert ids_of(await read(subscriber, 3)) == new
        await until(lambda: subscriber.cursor == 23)
        assert await subscriber.get(0.05) is None


async def test_signals_of_another_account_never_arrive(
    stack: RunningStack,
    publisher: Publisher,
    make_account: MakeAccount,
    make_subscriber: MakeSubscriber,
) -> None:
    neighbour = Publisher(stack, make_account("elite"))
    async with make_subscriber() as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        await neighbour.publish(20)
        ids = await publisher.publish(1)
        assert ids_of(await read(subscriber, 1)) == ids
        assert await subscriber.get(0.05) is None


async def test_a_slow_reader_with_a_small_buffer_loses_nothing(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    async with make_subscriber(buffer_signals=20) as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        ids = await publisher.publish(300)
        async with asyncio.timeout(PATIENCE):
            assert ids_of(await read(subscriber, 300)) == ids


@pytest.fixture
async def proxy(stack: RunningStack) -> AsyncIterator[CuttableProxy]:
    async with CuttableProxy(stack.settings.api_port) as running:
        yield running


async def test_what_is_stored_while_the_connection_is_cut_arrives_after_it(
    publisher: Publisher, make_subscriber: MakeSubscriber, proxy: CuttableProxy
) -> None:
    states: list[SubscriptionState] = []

    def note(state: SubscriptionState, _: StateReason | None) -> None:
        states.append(state)

    async with make_subscriber(url=proxy.url, on_state=note) as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        before = await publisher.publish(5)
        assert ids_of(await read(subscriber, 5)) == before
        proxy.block()
        await until(lambda: subscriber.state is SubscriptionState.STALE)
        missed = await publisher.publish(250)
        proxy.unblock()
        assert ids_of(await read(subscriber, 250)) == missed
        await subscriber.wait_until_live(LIVE_SECONDS)
        after = await publisher.publish(5)
        assert ids_of(await read(subscriber, 5)) == after
    assert states[0] is SubscriptionState.CATCHING_UP
    assert states[-1] is SubscriptionState.CLOSED
    assert states.index(SubscriptionState.LIVE) < states.index(SubscriptionState.STALE)


async def test_many_cuts_while_signals_are_stored_lose_and_repeat_nothing(
    publisher: Publisher, make_subscriber: MakeSubscriber, proxy: CuttableProxy
) -> None:
    async def cut_between_batches(ids: list[UUID]) -> None:
        for _ in range(8):
            connections = proxy.connections
            proxy.cut()
            ids += await publisher.publish(50, batch=20)
            async with asyncio.timeout(PATIENCE):
                await proxy.connection_after(connections)

    async with make_subscriber(url=proxy.url) as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        ids: list[UUID] = []
        cutting = asyncio.create_task(cut_between_batches(ids))
        observed = ids_of(await read(subscriber, 400))
        await cutting
        assert observed == ids


async def test_an_exception_in_on_state_does_not_stop_anything(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    def explode(_: SubscriptionState, __: StateReason | None) -> None:
        raise RuntimeError("a bug of the application")

    async with make_subscriber(on_state=explode) as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        ids = await publisher.publish(3)
        assert ids_of(await read(subscriber, 3)) == ids


async def test_on_signal_may_raise_and_block_and_gets_every_signal_once_in_order(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    seen: list[UUID] = []
    go_on = threading.Event()

    def blocking_and_raising(signal: StoredSignal) -> None:
        go_on.wait(PATIENCE)
        seen.append(signal.signal_id)
        raise RuntimeError("a bug of the application")

    async with make_subscriber(
        after_seq=0, on_signal=blocking_and_raising, buffer_signals=20
    ) as subscriber:
        ids = await publisher.publish(100)
        await until(lambda: subscriber.state_reason is StateReason.SLOW_CONSUMER)
        assert subscriber.cursor == 0
        with pytest.raises(ConfigurationError, match="on_signal"):
            await subscriber.get(0)
        go_on.set()
        await until(lambda: subscriber.cursor == 100)
        await subscriber.wait_until_live(LIVE_SECONDS)
        assert subscriber.callback_errors == 100
    assert seen == ids


async def test_a_coroutine_as_on_signal_is_awaited_on_the_loop(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    seen: list[UUID] = []
    loop = asyncio.get_running_loop()

    async def note(signal: StoredSignal) -> None:
        assert asyncio.get_running_loop() is loop
        seen.append(signal.signal_id)

    async with make_subscriber(after_seq=0, on_signal=note) as subscriber:
        ids = await publisher.publish(30)
        await until(lambda: len(seen) == 30)
        assert subscriber.callback_errors == 0
    assert seen == ids


@pytest.mark.parametrize("on_loop", [False, True], ids=["on a thread", "on the loop"])
def test_a_callback_may_close_its_own_subscriber_and_the_rest_stays_behind_the_cursor(
    stack: RunningStack, publisher: Publisher, on_loop: bool
) -> None:
    asyncio.run(publisher.publish(10))
    seen: list[int] = []

    def close_at_6(signal: StoredSignal) -> None:
        seen.append(signal.seq)
        if signal.seq == 6:
            subscriber.close()

    async def close_at_6_on_the_loop(signal: StoredSignal) -> None:
        close_at_6(signal)

    subscriber = Subscriber(
        stack.api_url,
        stack.publishable_key,
        publisher.credentials,
        after_seq=0,
        on_signal=close_at_6_on_the_loop if on_loop else close_at_6,
    )
    with subscriber:
        subscriber.wait()
    assert seen == [1, 2, 3, 4, 5, 6]
    assert subscriber.cursor in {5, 6}
    assert subscriber.state_reason is StateReason.CLOSED_BY_USER


async def test_the_own_channel_of_a_trader_is_followed_when_it_has_one(
    stack: RunningStack, make_account: MakeAccount, publisher: Publisher
) -> None:
    alone = Publisher(stack, make_account("elite"), own_channel=True)
    other = alone.another_trader()
    make = partial(AsyncSubscriber, stack.api_url, stack.publishable_key)
    async with make(alone.credentials, traders=[alone.trader_id], check_interval=3600) as own:
        await own.wait_until_live(LIVE_SECONDS)
        await alone.publish(3, trader_id=other)
        ids = await alone.publish(3)
        assert ids_of(await read(own, 3)) == ids
    with pytest.raises(SubscriptionError, match="it has none"):
        async with make(publisher.credentials, traders=[publisher.trader_id], own_channel=True):
            pass


async def test_closing_ends_the_iteration_and_leaves_the_rest_behind_the_cursor(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    await publisher.publish(10)
    async with make_subscriber(after_seq=0) as subscriber:
        seen = []
        async for signal in subscriber:
            seen.append(signal.seq)
            if len(seen) == 6:
                await subscriber.close()
    assert seen == [1, 2, 3, 4, 5, 6]
    assert subscriber.cursor == 6
    assert subscriber.state.value == "closed"
    with pytest.raises(ClosedError):
        await subscriber.get()


async def test_a_refused_password_is_raised_on_entering(
    stack: RunningStack, publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    wrong = PasswordCredentials(
        stack.api_url, stack.publishable_key, publisher.account.email, "not the password"
    )
    with pytest.raises(AuthenticationError):
        async with make_subscriber(credentials=wrong):
            pass


async def test_a_project_key_is_no_token_of_a_user(
    stack: RunningStack, make_subscriber: MakeSubscriber
) -> None:
    with pytest.raises(AuthenticationError, match="signed-in user"):
        async with make_subscriber(credentials=AccessToken(stack.publishable_key)):
            pass


def token_for(stack: RunningStack, account: Account, seconds: float) -> str:
    now = int(time.time())
    claims = {
        "sub": str(account.account_id),
        "role": "authenticated",
        "aud": "authenticated",
        "iat": now,
        "exp": now + int(seconds),
    }
    return Keys.load(stack.settings).sign(claims)


async def test_a_subscriber_outlives_its_tokens(
    stack: RunningStack, publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    class Renewing:
        token, renew_at = "", 0.0

        async def access_token(self, *, refresh: bool = False) -> str:
            if refresh or time.monotonic() >= self.renew_at:
                self.token = token_for(stack, publisher.account, 8)
                self.renew_at = time.monotonic() + 2
            return self.token

    states: list[SubscriptionState] = []

    async def note(state: SubscriptionState, _: StateReason | None) -> None:
        states.append(state)

    async with make_subscriber(credentials=Renewing(), on_state=note) as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        first_ends = time.monotonic() + 9
        await until(lambda: time.monotonic() > first_ends)
        ids = await publisher.publish(3)
        assert ids_of(await read(subscriber, 3)) == ids
        assert SubscriptionState.STALE not in states


async def test_a_channel_that_the_server_closes_is_joined_again_with_another_token(
    stack: RunningStack, publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    class Reluctant:
        """Gives a new token only to who says that the old one was refused."""

        token = token_for(stack, publisher.account, 3)

        async def access_token(self, *, refresh: bool = False) -> str:
            if refresh:
                self.token = token_for(stack, publisher.account, 600)
            return self.token

    states: list[tuple[SubscriptionState, StateReason | None]] = []

    def note(state: SubscriptionState, reason: StateReason | None) -> None:
        states.append((state, reason))

    async with make_subscriber(
        credentials=Reluctant(), check_interval=3600, on_state=note
    ) as subscriber:
        await subscriber.wait_until_live(LIVE_SECONDS)
        await until(lambda: (SubscriptionState.STALE, StateReason.ACCESS_REFUSED) in states)
        await subscriber.wait_until_live(LIVE_SECONDS)
        ids = await publisher.publish(3)
        assert ids_of(await read(subscriber, 3)) == ids


async def test_a_token_that_nobody_renews_ends_the_iteration_with_an_error(
    stack: RunningStack, publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    token = AccessToken(token_for(stack, publisher.account, 3))
    async with make_subscriber(credentials=token, check_interval=0.5) as subscriber:
        ids = await publisher.publish(2)
        assert ids_of(await read(subscriber, 2)) == ids
        with pytest.raises(AuthenticationError):
            await subscriber.get(PATIENCE)
        assert subscriber.cursor == 2


async def test_credentials_that_are_revoked_end_it_after_what_it_has(
    stack: RunningStack, publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    class Revocable:
        revoked = False

        async def access_token(self, *, refresh: bool = False) -> str:
            if self.revoked:
                raise AuthenticationError("revoked", code="unauthorized", status=401)
            return token_for(stack, publisher.account, 600)

    seen: list[int] = []
    go_on = threading.Event()

    def note(signal: StoredSignal) -> None:
        go_on.wait(PATIENCE)
        seen.append(signal.seq)

    credentials = Revocable()
    await publisher.publish(3)
    async with make_subscriber(
        credentials=credentials, after_seq=0, check_interval=0.2, on_signal=note
    ) as subscriber:
        credentials.revoked = True
        with pytest.raises(AuthenticationError, match="revoked"):
            async with asyncio.timeout(PATIENCE):
                await subscriber.wait()
        assert subscriber.state_reason is StateReason.FAILED
        go_on.set()
        await until(lambda: seen == [1, 2, 3])


def test_the_blocking_face_yields_the_same_and_can_be_closed_by_another_thread(
    stack: RunningStack, publisher: Publisher
) -> None:
    seen: list[UUID] = []
    with Subscriber(stack.api_url, stack.publishable_key, publisher.credentials) as subscriber:
        subscriber.wait_until_live(LIVE_SECONDS)

        def iterate() -> None:
            seen.extend(signal.signal_id for signal in subscriber)

        reader = threading.Thread(target=iterate)
        reader.start()
        ids = asyncio.run(publisher.publish(700, batch=250))
        ends = time.monotonic() + PATIENCE
        while len(seen) < len(ids) and time.monotonic() < ends:
            time.sleep(0.01)
        assert subscriber.cursor == 700
        subscriber.close()
        reader.join(PATIENCE)
        assert not reader.is_alive()
    assert seen == ids


def test_the_blocking_face_waits_no_longer_than_it_is_told(
    stack: RunningStack, publisher: Publisher
) -> None:
    with Subscriber(
        stack.api_url, stack.publishable_key, publisher.credentials, after_seq=0
    ) as subscriber:
        assert subscriber.get(0.05) is None
        ids = asyncio.run(publisher.publish(2))
        signal = subscriber.get(PATIENCE)
        assert signal is not None
        assert signal.signal_id == ids[0]
        assert subscriber.cursor == 1
    with pytest.raises(ClosedError):
        subscriber.get()


async def test_callbacks_get_signals_and_their_events_in_one_order(
    publisher: Publisher, make_subscriber: MakeSubscriber
) -> None:
    seen: list[str] = []

    async def on_event(event: SignalEvent) -> None:
        seen.append(f"event of {event.signal_seq}")
        raise RuntimeError("a bug of the application")

    async with make_subscriber(
        after_seq=0,
        after_event_seq=0,
        on_signal=lambda signal: seen.append(f"signal {signal.seq}"),
        on_event=on_event,
    ) as subscriber:
        await publisher.publish(2)
        await publisher.advance(2)
        await until(lambda: (subscriber.cursor, subscriber.event_cursor) == (2, 2))
        assert subscriber.callback_errors == 2
    assert [one for one in seen if one.startswith("signal")] == ["signal 1", "signal 2"]
    assert [one for one in seen if one.startswith("event")] == ["event of 1", "event of 2"]
    for seq in (1, 2):
        assert seen.index(f"signal {seq}") < seen.index(f"event of {seq}")


def test_the_blocking_face_yields_signals_and_events_and_its_cursors_continue_both(
    stack: RunningStack, publisher: Publisher
) -> None:
    make = partial(Subscriber, stack.api_url, stack.publishable_key, publisher.credentials)
    asyncio.run(publisher.publish(3))
    asyncio.run(publisher.advance(3))
    with make(after_seq=0, after_event_seq=0, events=True) as subscriber:
        news = list(islice(subscriber.news(), 4))
        cursors = subscriber.cursor, subscriber.event_cursor
        with pytest.raises(ConfigurationError, match="news"):
            subscriber.get(0)
    assert sum(isinstance(one, StoredSignal) for one in news) == cursors[0]
    assert sum(isinstance(one, SignalEvent) for one in news) == cursors[1]
    with make(after_seq=cursors[0], after_event_seq=cursors[1], events=True) as rest:
        news += list(islice(rest.news(), 2))
    assert [one.seq for one in news if isinstance(one, StoredSignal)] == [1, 2, 3]
    events = [one for one in news if isinstance(one, SignalEvent)]
    assert [(event.seq, event.status, event.signal) for event in events] == [
        (seq, "analyzed", None) for seq in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"after_event_seq": 0},
        {"events": True, "on_signal": print},
        {"events": True, "own_channel": True, "traders": [UUID(int=1)]},
        {"buffer_signals": 0},
        {"check_interval": -1},
        {"timeout": 0},
        {"after_seq": -1},
        {"own_channel": True},
    ],
)
def test_a_setting_that_cannot_work_is_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        AsyncSubscriber("http://project.test", "key", AccessToken("t"), **options)
