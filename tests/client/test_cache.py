"""What a cache answers from memory, when it asks the database, and what it never does."""

from __future__ import annotations

import asyncio
import gc
import random
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signal_persistence import AdvanceVerdict, DeliveryReport, Page, Signal, StoredSignal
from signal_persistence.cache import AsyncSignalCache, CachedSignals, CacheStats
from signal_persistence.cache import memory as memory_module
from signal_persistence.cache.memory import AnswerMemory
from signal_persistence.cache.question import Question, Questions
from signal_persistence.cache.weight import deep_size, weigh
from signal_persistence.credentials import AccessToken
from signal_persistence.errors import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    InvalidQueryError,
    SubscriptionError,
    UnavailableError,
)
from signal_persistence.subscription import SubscriptionState
from tests.client.model_account import (
    ACCOUNT,
    START,
    ModelAccount,
    ModelSource,
    clock,
    make_stored,
)
from tests.client.virtual_time import run

AT_REST = 0.5
"""So many seconds after anything was stored a cache that follows has it."""


class Scene:
    """A cache over a model account; the account's time is that of the loop."""

    def __init__(self, **options: Any) -> None:
        self.account = ModelAccount()
        self.source = ModelSource(self.account)
        self.cache = AsyncSignalCache(
            "",
            "",
            AccessToken(""),
            source=self.source,
            clock=clock,
            now=self.account.now,
            **options,
        )

    async def settle(self) -> None:
        await asyncio.sleep(AT_REST)

    def wrote(self, signal: StoredSignal, status: Any = "accepted", **changes: Any) -> None:
        fields = {
            name: value
            for name, value in msgspec.structs.asdict(signal).items()
            if name in Signal.__struct_fields__
        }
        seq = signal.seq if status == "accepted" else None
        report = DeliveryReport(Signal(**fields), ACCOUNT, status, seq=seq)
        self.cache.wrote(msgspec.structs.replace(report, **changes))


@asynccontextmanager
async def a_scene(**options: Any) -> AsyncIterator[Scene]:
    scene = Scene(**options)
    async with scene.cache:
        await scene.settle()
        yield scene


def in_a_scene(play: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        async with a_scene(**options) as scene:
            await play(scene)

    run(whole())


def seqs(answer: CachedSignals) -> list[int]:
    return [signal.seq for signal in answer.signals]


def test_new_signals_join_the_answers_that_they_match_without_a_query() -> None:
    async def play(scene: Scene) -> None:
        scene.account.store()
        assert seqs(await scene.cache.newest(2, symbols=["ES"])) == [1]
        scene.account.store(symbol="NQ")
        scene.account.store()
        late = scene.account.store(generated_at=START + timedelta(seconds=2))
        await scene.settle()
        answer = await scene.cache.newest(2, symbols=["ES"])
        assert (seqs(answer), answer.seq, answer.cached) == ([3, late.seq], 4, True)
        assert not answer.complete
        assert seqs(await scene.cache.newest(2, symbols=("ES",))) == [3, 4]
        latest = await scene.cache.latest(symbols=["NQ"])
        assert latest is not None
        assert latest.seq == 2
        assert scene.source.queries == 2

    in_a_scene(play)


def test_a_span_of_time_moves_on_without_a_query() -> None:
    async def play(scene: Scene) -> None:
        for _ in range(3):
            scene.account.store(generated_at=scene.account.now())
            await asyncio.sleep(1)
        window: dict[str, Any] = {"within": timedelta(seconds=2.5)}
        assert seqs(await scene.cache.newest(**window)) == [3, 2]
        await asyncio.sleep(1)
        answer = await scene.cache.newest(**window)
        assert (seqs(answer), answer.cached, answer.complete) == ([3], True, True)
        await asyncio.sleep(2)
        assert seqs(await scene.cache.newest(**window)) == []

    in_a_scene(play, ttl=60)


def test_what_was_read_longest_ago_makes_room() -> None:
    async def play(scene: Scene) -> None:
        for symbol in ("A", "B", "C"):
            scene.account.store(symbol=symbol)
            await scene.cache.latest(symbols=[symbol])
        await scene.cache.latest(symbols=["A"])
        scene.account.store(symbol="D")
        await scene.cache.latest(symbols=["D"])
        stats = scene.cache.stats()
        assert (stats.entries, stats.evicted) == (3, 1)
        assert stats.bytes <= 8_000
        queries = scene.source.queries
        await scene.cache.latest(symbols=["A"])
        assert scene.source.queries == queries
        await scene.cache.latest(symbols=["B"])
        assert scene.source.queries == queries + 1

    in_a_scene(play, max_bytes=8_000)


def test_an_answer_that_is_too_large_is_given_and_leaves_the_others_where_they_are() -> None:
    async def play(scene: Scene) -> None:
        for _ in range(20):
            scene.account.store()
        await scene.cache.newest(1)
        assert len((await scene.cache.newest(20)).signals) == 20
        stats = scene.cache.stats()
        assert (stats.entries, stats.evicted) == (1, 0)

    in_a_scene(play, max_bytes=8_000)


def test_an_answer_that_grows_makes_room_too() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest(1, symbols=["NQ"])
        await scene.cache.newest(50)
        for _ in range(8):
            scene.account.store()
        await scene.settle()
        stats = scene.cache.stats()
        assert stats.bytes <= 8_000
        assert stats.evicted

    in_a_scene(play, max_bytes=8_000)


def test_an_answer_that_nobody_reads_is_not_kept_in_step_for_ever() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest(1)
        for _ in range(1001):
            scene.account.store()
        await scene.settle()
        stats = scene.cache.stats()
        assert (stats.entries, stats.evicted, stats.bytes) == (0, 1, 0)
        assert await scene.cache.latest() == scene.account.signals[-1]

    in_a_scene(play)


METADATA = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20), max_size=4)


@settings(max_examples=4, deadline=None)
@given(st.lists(METADATA | st.none(), min_size=200, max_size=200))
def test_bytes_are_what_the_signals_take(metadata: list[dict[str, Any] | None]) -> None:
    encoded = msgspec.json.encode(
        Page(
            tuple(
                make_stored(number, metadata=each, valid_until=datetime.now(UTC), stop_loss=1.5)
                for number, each in enumerate(metadata, 1)
            ),
            None,
            200,
        )
    )
    memory = AnswerMemory(
        max_bytes=10**9, ttl=60, clock=time.monotonic, now=lambda: datetime.now(UTC)
    )
    entry = memory.begin(Questions().of(1000, {}))
    gc.collect()
    tracemalloc.start()
    try:
        answer = memory.finish(entry, msgspec.json.decode(encoded, type=Page))
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer is not None
    assert 0.85 * taken <= memory.stats().bytes <= 1.35 * taken


@settings(max_examples=50)
@given(st.builds(dict, metadata=METADATA | st.none(), stop_loss=st.none() | st.floats(0, 9)))
def test_every_part_of_a_signal_is_weighed(changes: dict[str, Any]) -> None:
    ids = dict.fromkeys(("signal_id", "trader_id"), UUID(int=2**127))
    signal = make_stored(2**31, **ids, **changes, valid_until=START)
    decoded = msgspec.json.decode(msgspec.json.encode(signal), type=StoredSignal)
    assert weigh(decoded) == deep_size(decoded)


def test_bytes_go_up_and_down_with_what_is_kept() -> None:
    async def play(scene: Scene) -> None:
        chance = random.Random(1)
        for _ in range(60):
            scene.account.store(metadata={"n": "x" * chance.randrange(50)})
            await scene.cache.newest(chance.randrange(1, 9))
            if chance.random() < 0.3:
                scene.account.advance(chance.randrange(scene.account.last_seq) + 1, "executed")
            await asyncio.sleep(chance.choice([0.0, 0.4, 1.2]))
        await scene.settle()
        kept = scene.cache.stats().bytes
        for entry in list(scene.cache._memory._entries.values()):
            entry.fill(entry._signals, entry.seq, cut=False)
        entries = scene.cache._memory._entries.values()
        assert kept == sum(entry.bytes for entry in entries) > 0

    in_a_scene(play, ttl=20)


def test_no_answer_is_kept_longer_than_the_ttl() -> None:
    async def play(scene: Scene) -> None:
        for read in range(7):
            await scene.cache.newest()
            assert scene.source.queries == 1 + read // 3
            await asyncio.sleep(4)

    in_a_scene(play, ttl=10, max_stale=60)


# Reads at the same time.


def test_readers_of_one_question_share_one_query() -> None:
    async def play(scene: Scene) -> None:
        scene.account.store()
        answers = await asyncio.gather(*(scene.cache.newest() for _ in range(50)))
        assert scene.source.queries == 1
        assert all(seqs(answer) == [1] for answer in answers)

    in_a_scene(play)


def test_a_reader_that_is_cancelled_leaves_the_others_waiting() -> None:
    async def play(scene: Scene) -> None:
        readers = [asyncio.create_task(scene.cache.newest()) for _ in range(3)]
        await asyncio.sleep(0.001)
        readers[0].cancel()
        answers = await asyncio.gather(*readers, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert all(isinstance(answer, CachedSignals) for answer in answers[1:])
        assert scene.source.queries == 1

    in_a_scene(play)


def test_a_query_that_nobody_waits_for_any_more_is_cancelled_and_begun_anew() -> None:
    async def play(scene: Scene) -> None:
        scene.source.back = 30.0
        readers = [asyncio.create_task(scene.cache.newest()) for _ in range(2)]
        await asyncio.sleep(0.01)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        scene.source.back = 0.002
        assert (await scene.cache.newest()).age < 1
        assert scene.source.queries == 2
        assert scene.cache.stats().failed_loads == 1

    in_a_scene(play)


def test_an_error_is_raised_to_all_that_wait_and_not_remembered() -> None:
    async def play(scene: Scene) -> None:
        scene.source.failures = 1
        answers = await asyncio.gather(
            *(scene.cache.newest() for _ in range(4)), return_exceptions=True
        )
        assert all(isinstance(answer, ConnectError) for answer in answers)
        assert (await scene.cache.newest()).signals == ()
        assert scene.source.queries == 2

    in_a_scene(play)


def test_closing_ends_every_wait() -> None:
    async def play(scene: Scene) -> None:
        scene.source.back = 30.0
        reader = asyncio.create_task(scene.cache.newest())
        await asyncio.sleep(0.01)
        await scene.cache.close()
        with pytest.raises(ClosedError):
            await reader
        with pytest.raises(ClosedError):
            await scene.cache.newest()
        assert scene.source.closed
        assert clock() < 5

    in_a_scene(play)


# What this process has written.


def test_an_own_write_is_seen_before_it_was_followed() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest(symbols=["ES"])
        await scene.cache.newest(symbols=["NQ"])
        scene.wrote(scene.account.store())
        assert seqs(await scene.cache.newest(symbols=["ES"])) == [1]
        assert (await scene.cache.newest(symbols=["NQ"])).cached
        assert scene.source.queries == 3

    in_a_scene(play)


def test_an_own_write_is_seen_while_nothing_is_followed() -> None:
    async def play(scene: Scene) -> None:
        assert seqs(await scene.cache.newest()) == []
        scene.wrote(scene.account.store(), account_id=uuid4())
        assert seqs(await scene.cache.newest()) == [1]

    run(play(Scene()))


def test_an_own_write_is_seen_by_who_joins_a_query_that_is_older() -> None:
    async def play(scene: Scene, status: str) -> None:
        scene.source.back = 0.01
        first = asyncio.create_task(scene.cache.newest())
        await asyncio.sleep(0.005)
        scene.wrote(scene.account.store(), status)
        assert seqs(await scene.cache.newest()) == [1]
        await first

    for status in ("accepted", "duplicate"):
        in_a_scene(lambda scene, status=status: play(scene, status))  # type: ignore[misc]


def test_a_duplicate_may_be_new_to_this_process() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        scene.wrote(scene.account.store(), "duplicate")
        assert seqs(await scene.cache.newest()) == [1]

    in_a_scene(play)


def test_what_was_not_stored_or_is_of_another_account_changes_nothing() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        scene.wrote(make_stored(7), "rejected", seq=None)
        scene.wrote(make_stored(7), account_id=uuid4())
        assert (await scene.cache.newest()).cached

    in_a_scene(play)


def test_a_write_of_another_process_is_seen_when_its_seq_is_known() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        scene.source.back = 0.01
        scene.account.store()
        older = asyncio.create_task(scene.cache.newest(at_least=1))
        await asyncio.sleep(0.005)
        scene.account.store()
        assert seqs(await scene.cache.newest(at_least=2)) == [2, 1]
        await older
        with pytest.raises(InvalidQueryError, match="only come to 2"):
            await scene.cache.newest(at_least=3)

    in_a_scene(play)


def test_own_changes_of_a_status_are_seen() -> None:
    async def play(scene: Scene) -> None:
        scene.account.store()
        await scene.settle()
        assert (await scene.cache.newest()).signals[0].status == "generated"
        assert scene.account.advance(1, "executed", entry_price=5.5)
        scene.cache.wrote(AdvanceVerdict(uuid4(), 1, 0, 0, 1, 1, ()))
        (signal,) = (await scene.cache.newest()).signals
        assert signal.status == "executed"
        assert signal.outcome is not None
        assert signal.outcome.entry_price == 5.5
        assert scene.source.queries == 1

    in_a_scene(play, max_stale=60)


# Statuses.


def test_statuses_are_asked_for_when_they_were_not_for_too_long() -> None:
    async def play(scene: Scene) -> None:
        for _ in range(8):
            scene.account.store()
        await scene.settle()
        await scene.cache.newest()
        for seq in range(1, 9):
            scene.account.advance(seq, "executed")
        await asyncio.sleep(1.1)
        answer = await scene.cache.newest()
        assert {signal.status for signal in answer.signals} == {"executed"}
        assert answer.cached
        events = scene.source.event_queries
        assert (await scene.cache.newest()).cached
        assert scene.source.event_queries == events
        assert scene.source.queries == 1

    in_a_scene(play)


def test_an_event_that_overtakes_its_signal_is_kept_for_it() -> None:
    async def play(scene: Scene) -> None:
        for follower in scene.account.followers:
            follower.lag = 0.3
        await scene.cache.newest()
        scene.account.store()
        scene.account.advance(1, "executed")
        scene.cache.wrote(AdvanceVerdict(uuid4(), 1, 0, 0, 1, 1, ()))
        await scene.cache.newest(max_stale=9)
        await scene.settle()
        answer = await scene.cache.newest(max_stale=9)
        assert [signal.status for signal in answer.signals] == ["executed"]
        assert scene.source.queries == 1

    in_a_scene(play)


def test_more_early_events_than_are_kept_begin_everything_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_module, "_MOST_EVENTS", 3)

    async def play(scene: Scene) -> None:
        (follower,) = scene.account.followers
        follower.lag = 0.3
        await scene.cache.newest()
        for seq in range(1, 6):
            scene.account.store()
            scene.account.advance(seq, "executed")
        scene.cache.wrote(AdvanceVerdict(uuid4(), 5, 0, 0, 1, 5, ()))
        answer = await scene.cache.newest(max_stale=9)
        assert {signal.status for signal in answer.signals} == {"executed"}
        await scene.settle()
        assert follower not in scene.account.followers

    in_a_scene(play)


def test_an_event_during_a_query_is_not_lost() -> None:
    async def play(scene: Scene) -> None:
        scene.account.store()
        scene.account.store(symbol="NQ")
        await scene.settle()
        await scene.cache.newest(symbols=["NQ"])
        scene.source.back = 0.2
        loading = asyncio.create_task(scene.cache.newest(symbols=["ES"]))
        await asyncio.sleep(0.01)
        scene.account.advance(1, "executed")
        scene.source.back = 0.002
        scene.cache.wrote(AdvanceVerdict(uuid4(), 1, 0, 0, 1, 1, ()))
        await scene.cache.newest(symbols=["NQ"])
        (signal,) = (await loading).signals
        assert signal.status == "executed"

    in_a_scene(play)


def test_a_signal_expires_by_the_clock() -> None:
    async def play(scene: Scene) -> None:
        ends = scene.account.now() + timedelta(seconds=2)
        scene.account.store(valid_until=ends)
        scene.account.store(valid_until=ends + timedelta(seconds=1))
        await scene.settle()
        assert {one.status for one in (await scene.cache.newest()).signals} == {"generated"}
        await asyncio.sleep(1.6)
        assert [one.status for one in (await scene.cache.newest()).signals] == [
            "generated",
            "expired",
        ]
        await asyncio.sleep(1)
        answer = await scene.cache.newest()
        assert {one.status for one in answer.signals} == {"expired"}
        assert scene.source.queries == 1

    in_a_scene(play)


# When following is not live.


def test_when_following_is_not_live_reads_go_to_the_database_or_say_how_old_they_are() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        scene.account.followers[0].cut()
        await asyncio.sleep(3)
        old = await scene.cache.newest(max_stale=9)
        assert old.cached
        assert 2.5 < old.age <= 3.5
        scene.account.store()
        assert seqs(await scene.cache.newest()) == [1]
        assert not (await scene.cache.newest(max_stale=0)).cached
        scene.account.followers[0].mend()
        await scene.settle()
        assert (await scene.cache.newest()).cached

    in_a_scene(play)


def test_a_subscriber_that_is_a_moment_behind_confirms_no_answer() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        scene.account.followers[0].behind = True
        await asyncio.sleep(3)
        assert scene.cache.state is SubscriptionState.LIVE
        assert not (await scene.cache.newest()).cached
        scene.account.followers[0].behind = False
        await scene.settle()
        assert (await scene.cache.newest()).cached

    in_a_scene(play)


def test_batches_of_as_many_signals_as_are_taken_at_once_confirm_an_answer_too() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        for _ in range(10):
            for _ in range(100):
                scene.account.store()
            await asyncio.sleep(0.1)
        answer = await scene.cache.newest(max_stale=0.3)
        assert (answer.cached, answer.seq) == (True, 1000)

    in_a_scene(play)


def test_a_loop_that_was_blocked_does_not_pass_for_live() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        asyncio.get_running_loop().now += 30  # type: ignore[attr-defined]
        assert not (await scene.cache.newest()).cached

    in_a_scene(play)


def test_a_subscriber_that_ends_is_replaced_and_what_was_kept_is_dropped() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        ended = scene.account.followers[0]
        ended.end()
        await asyncio.sleep(0)
        scene.account.store()
        assert seqs(await scene.cache.newest()) == [1]
        with pytest.raises(SubscriptionError, match="reads go to the database"):
            await scene.cache.wait_until_live(0.001)
        await scene.cache.wait_until_live(120)
        assert scene.account.followers[0] is not ended
        await scene.cache.newest()
        await scene.settle()
        assert (await scene.cache.newest()).cached

    in_a_scene(play)


def test_what_was_loaded_before_a_new_beginning_is_dropped() -> None:
    async def play(scene: Scene) -> None:
        scene.account.followers[0].end()
        await asyncio.sleep(0)
        assert seqs(await scene.cache.newest()) == []
        scene.account.store()
        await scene.cache.wait_until_live(120)
        assert seqs(await scene.cache.newest(max_stale=200)) == [1]

    in_a_scene(play)


def test_a_signal_that_does_not_follow_the_last_one_begins_everything_anew() -> None:
    async def play(scene: Scene) -> None:
        await scene.cache.newest()
        (follower,) = scene.account.followers
        scene.account.store()
        follower._known += 1
        scene.account.store()
        await scene.settle()
        assert follower not in scene.account.followers
        assert seqs(await scene.cache.newest()) == [2, 1]

    in_a_scene(play)


def test_an_answer_that_lags_behind_what_is_known_is_not_taken() -> None:
    async def play(scene: Scene) -> None:
        scene.account.store()
        scene.account.store()
        await scene.settle()
        scene.source.behind = 1
        reader = asyncio.create_task(scene.cache.newest())
        await asyncio.sleep(0.01)
        scene.source.behind = 0
        assert seqs(await reader) == [2, 1]
        scene.source.behind = 1
        with pytest.raises(UnavailableError, match="does not show yet"):
            await scene.cache.newest(5)

    in_a_scene(play)


def test_a_query_that_a_new_beginning_overtakes_is_answered_and_not_kept() -> None:
    async def play(scene: Scene) -> None:
        scene.source.back = 10.0
        loading = asyncio.create_task(scene.cache.newest())
        await asyncio.sleep(0.01)
        scene.account.store()
        await asyncio.sleep(0.1)
        scene.account.followers[0].end()
        assert seqs(await loading) == []
        assert scene.cache.stats().entries == 0

    in_a_scene(play)


# Questions.


@pytest.mark.parametrize(
    ("count", "options", "says"),
    [
        (0, {}, "from 1 to 1000"),
        (1001, {}, "from 1 to 1000"),
        (1, {"within": timedelta()}, "more than 0"),
        (1, {"within": timedelta(hours=1), "from_": START}, "without from_ and to"),
        (1, {"symbols": "ES"}, "pass a list"),
        (1, {"symbols": []}, "leave symbols out"),
        (1, {"from_": datetime(2026, 1, 1)}, "time zone"),
        (1, {"statuses": ["closed"]}, "'statuses' here"),
    ],
)
def test_a_question_that_cannot_work_is_refused(
    count: int, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidQueryError, match=says):
        Questions().of(count, options)  # type: ignore[arg-type]


def test_questions_that_ask_the_same_are_the_same() -> None:
    questions = Questions()
    trader = UUID(int=5)
    one = questions.of(5, {"symbols": ["ES", "NQ"], "traders": [trader]})
    other = questions.of(5, {"traders": iter([str(trader)]), "symbols": ("NQ", "ES", "NQ")})
    assert one == other
    assert hash(one) == hash(other)
    assert isinstance(one, Question)
    assert one != questions.of(6, {"symbols": ["ES", "NQ"], "traders": [trader]})


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"ttl": 0}, {"max_stale": -1}])
def test_a_setting_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AsyncSignalCache("http://127.0.0.1", "", AccessToken(""), **options)


def test_the_hit_ratio_is_of_all_reads() -> None:
    async def play(scene: Scene) -> None:
        assert scene.cache.stats().hit_ratio == 0
        for _ in range(4):
            await scene.cache.newest()
        stats: CacheStats = scene.cache.stats()
        assert (stats.hits, stats.loads, stats.hit_ratio) == (3, 1, 0.75)
        assert stats.age < 1

    in_a_scene(play)
