"""Whatever happens in whatever order, an answer is what the database answered at its seq."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from signal_persistence import DeliveryReport, Signal, StoredSignal
from signal_persistence.cache import AsyncSignalCache, CachedSignals
from signal_persistence.cache.question import Question, Questions
from signal_persistence.credentials import AccessToken
from signal_persistence.errors import TransportError
from tests.client.model_account import ACCOUNT, START, TRADERS, ModelAccount, ModelSource, clock
from tests.client.virtual_time import run

QUESTIONS: list[tuple[int, dict[str, Any]]] = [
    (1, {"symbols": ["ES"]}),
    (3, {"symbols": ["ES", "NQ"], "timeframes": ["1m"]}),
    (2, {"traders": [TRADERS[0]]}),
    (3, {"min_confidence": 0.5, "actions": ["enter_long"]}),
    (4, {}),
    (1000, {"from_": START + timedelta(seconds=3)}),
    (3, {"to": START + timedelta(seconds=4), "symbols": ["NQ"]}),
    (3, {"within": timedelta(seconds=4)}),
    (1000, {"within": timedelta(seconds=2), "traders": TRADERS}),
    (3, {"symbol_prefix": "N", "max_confidence": 0.5}),
    (3, {"tags": ["trend"], "symbols": ["ES"], "min_price": 2, "max_price": 2}),
]

signals = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["ES", "NQ"]),
        "trader_id": st.sampled_from(TRADERS),
        "timeframe": st.sampled_from(["1m", "5m"]),
        "action": st.sampled_from(["enter_long", "exit_long"]),
        "confidence": st.sampled_from([0.25, 0.5, 0.75]),
        "price": st.sampled_from([1.0, 2.0]),
    },
    optional={
        "metadata": st.sampled_from([{"tags": ["trend", "x"]}, {"tags": "trend"}]),
        "valid_until": st.integers(1, 12).map(lambda seconds: START + timedelta(seconds=seconds)),
    },
)
ages = st.integers(-20, 0).map(lambda tenths: timedelta(seconds=tenths / 10))
seconds = st.sampled_from([0.001, 0.003, 0.01, 0.021, 0.1, 0.3, 0.9, 1.5, 4.0])
storing = st.tuples(st.sampled_from(["store", "store", "write"]), signals, ages)
advancing = st.tuples(
    st.just("advance"),
    st.integers(0, 9),
    st.sampled_from(["analyzed", "executed", "executed", "closed", "cancelled"]),
)
reading = st.tuples(
    st.sampled_from(["read", "read", "read meanwhile"]),
    st.integers(0, 5),
    st.sampled_from([None, None, None, 0.0, 0.5, 9.0]),
)
waiting = st.tuples(st.just("wait"), seconds)
asked = st.lists(st.sampled_from(range(len(QUESTIONS))), min_size=1, max_size=3)
trouble = st.one_of(
    st.tuples(st.sampled_from(["read own", "cut", "mend", "mend", "end", "fail", "lag"])),
    st.tuples(st.just("slow"), st.sampled_from([0.0, 0.002, 0.05]), st.sampled_from([0.002, 0.3])),
)
steps = st.one_of(storing, storing, advancing, reading, reading, reading, waiting, trouble)
scripts = st.lists(steps, min_size=25, max_size=80)


@dataclass
class Worker:
    """A process that puts the questions `asked` to a cache while the account goes on."""

    asked: list[int]
    account: ModelAccount = field(default_factory=ModelAccount)
    reads: list[asyncio.Task[None]] = field(default_factory=list)
    written: list[Signal] = field(default_factory=list)
    written_seqs: list[int] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)
    """Number of a question → the highest seq that it was answered with."""
    answers: int = 0

    def __post_init__(self) -> None:
        self.source = ModelSource(self.account)
        self.cache = AsyncSignalCache(
            "",
            "",
            AccessToken(""),
            source=self.source,
            clock=clock,
            now=self.account.now,
            max_bytes=40_000,
            ttl=5.0,
        )
        self.questions = Questions()

    async def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("store" | "write" as kind, fields, age):
                signal = self.account.store(generated_at=self.account.now() + age, **fields)
                if kind == "write":
                    self.wrote(Signal(**_immutable(signal)), signal.seq)
            case ("advance", number, status):
                if self.account.signals:
                    seq = self.account.last_seq - number % self.account.last_seq
                    self.account.advance(seq, status)
            case ("read" | "read meanwhile" as kind, number, max_stale):
                self.reads.append(asyncio.create_task(self.read(number, max_stale)))
                await (self.reads[-1] if kind == "read" else asyncio.sleep(0))
            case ("wait", seconds):
                await asyncio.sleep(seconds)
            case ("slow", there, back):
                self.source.there, self.source.back = there, back
            case ("read own",):
                self.reads.append(asyncio.create_task(self.read_own()))
                await asyncio.sleep(0)
            case (name,):
                self.meddle(name)

    def wrote(self, signal: Signal, seq: int) -> None:
        self.written.append(signal)
        self.written_seqs.append(seq)
        status: Any = "duplicate" if seq % 3 == 0 else "accepted"
        known = None if status == "duplicate" else seq
        self.cache.wrote(DeliveryReport(signal, ACCOUNT, status, seq=known))

    def meddle(self, name: str) -> None:
        match name:
            case "fail":
                self.source.failures = 2
            case "lag":
                self.source.lag = 0.2
            case _:
                for follower in self.account.followers:
                    getattr(follower, name)()

    async def read(self, number: int, max_stale: float | None) -> None:
        number = self.asked[number % len(self.asked)]
        count, options = QUESTIONS[number]
        question = self.questions.of(count, options)  # type: ignore[arg-type]
        least = self.seen.get(number, 0)
        for signal, seq in zip(self.written, self.written_seqs, strict=True):
            least = max(least, seq if question.matches(signal) else 0)
        try:
            answer = await self.cache.newest(count, max_stale=max_stale, **options)
        except TransportError:
            return
        assert answer.seq >= least, "a read went back, or did not see an own write"
        self.seen[number] = max(self.seen.get(number, 0), answer.seq)
        self.check(question, answer, 1.0 if max_stale is None else max_stale)

    async def read_own(self) -> None:
        least = max(self.written_seqs, default=0)
        try:
            answer = await self.cache.newest(1, at_least=least)
        except TransportError:
            return
        assert answer.seq >= least

    def check(self, question: Question, answer: CachedSignals, max_stale: float) -> None:
        self.answers += 1
        found = self.account.matching(question, answer.seq)
        expected = found[: question.count]
        assert list(map(_immutable, answer.signals)) == list(map(_immutable, expected))
        if question.within is None:
            assert answer.complete == (len(found) <= question.count)
        assert not answer.complete or len(found) <= question.count
        assert not answer.cached or answer.age <= max_stale
        known_at = clock() - answer.age
        assert answer.seq >= self.account.seq_at(known_at - self.source.lag)
        first, last = self.account.events_at(known_at), len(self.account.events)
        for shown, stored in zip(answer.signals, expected, strict=True):
            now = self.account.now()
            states = [self.account.state_of(stored, n, now) for n in range(first, last + 1)]
            assert shown in states


async def live(worker: Worker, script: list[tuple[Any, ...]]) -> None:
    async with worker.cache:
        await asyncio.sleep(0.1)
        for step in script:
            await worker.do(step)
            assert worker.cache.stats().bytes <= 40_000
        await asyncio.gather(*worker.reads)
        stats = worker.cache.stats()
        assert stats.hits + sum(stats.misses.values()) == len(worker.reads)


# To shrink a script of 80 steps takes minutes: add Phase.shrink to look at one that failed.
@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(asked, scripts)
def test_an_answer_is_what_the_database_answers_at_its_seq(
    asked: list[int], script: list[tuple[Any, ...]]
) -> None:
    run(live(Worker(asked), script))


def _immutable(signal: StoredSignal) -> dict[str, Any]:
    fields = msgspec.structs.asdict(signal)
    for name in ("status", "outcome", "seq", "signal_id"):
        fields.pop(name)
    return fields
