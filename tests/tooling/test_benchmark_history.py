"""The data and the questions of the benchmarks are what their descriptions say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from uuid import UUID

import pytest

from benchmarks.decided import HOURS, KINDS, Copy
from benchmarks.history import BATCH, HistoryPlan
from benchmarks.peers import page_query
from benchmarks.publishing import Target
from benchmarks.questions import Question, Reader
from benchmarks.storage import billion_parts_gb
from signal_persistence import Signal

NOW = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)
PLAN = HistoryPlan(NOW, accounts=1000, hot=1000, warm=2000, cold=3000)
STARTS = datetime(2026, 2, 27, tzinfo=UTC)
TRADERS = tuple(UUID(int=number) for number in range(10))
READER = Reader(Target("a", "t", "token"), 7, [(3, "t")], ["ES"], {"hot": (1, 50)})


def test_the_ages_follow_each_other_without_a_gap() -> None:
    cold, warm, hot = (PLAN.window(tier) for tier in ("cold", "warm", "hot"))
    assert cold[1] == warm[0]
    assert warm[1] == hot[0]
    assert hot[0] == datetime(2026, 3, 1, tzinfo=UTC)
    assert hot[1] < NOW
    assert NOW - cold[0] < timedelta(days=365)
    assert PLAN.batches("cold") * BATCH == 3000


@pytest.mark.parametrize("count", [1, 2, 16, 1000])
def test_the_accounts_that_ask_are_of_every_size(count: int) -> None:
    ranks = PLAN.ranks(count)
    assert ranks == sorted(set(ranks))
    assert ranks[0] == 1
    assert len(ranks) == count
    assert ranks[-1] == (1 if count == 1 else 1000)


def test_a_peer_is_asked_with_only_the_conditions_of_the_question() -> None:
    statement, arguments = page_query(Question(reader=READER, symbol="ES"))
    assert "where account_no = $1 and symbol = $2 order by generated_at desc" in statement
    assert arguments == [7, "ES"]


def test_a_peer_continues_after_the_last_signal_of_the_page_before() -> None:
    question = Question(reader=READER, before=(NOW, 12, "cursor"))
    statement, arguments = page_query(question)
    assert "generated_at <= $2 and (generated_at, seq) < ($3, $4)" in statement
    assert arguments == [7, NOW, NOW, 12]
    assert question.parameters() == {"cursor": "cursor", "page_size": 100}


def _key(signal: Signal) -> tuple[UUID, str, str, datetime]:
    return signal.trader_id, signal.symbol, signal.timeframe, signal.generated_at


@pytest.mark.parametrize("kind", KINDS)
def test_signals_are_valid_distinct_and_in_the_order_of_time(kind: str) -> None:
    signals = list(islice(Copy(0, STARTS, TRADERS).signals(kind), 20_000))
    assert len(signals) == 20_000
    assert len({_key(signal) for signal in signals}) == len(signals)
    times = [signal.generated_at for signal in signals]
    # Two decisions of one strategy on one bar are a microsecond apart.
    assert all(later - earlier > timedelta(milliseconds=-1) for earlier, later in pairwise(times))
    assert times[0] >= STARTS
    assert times[-1] < STARTS + timedelta(hours=HOURS)
    assert {signal.metadata is not None for signal in signals} == {kind == "with_metadata"}
    for signal in signals[::997]:
        signal.validate()


def test_copies_differ_in_their_prices() -> None:
    first, second = (list(islice(Copy(n, STARTS, TRADERS).signals(KINDS[0]), 50)) for n in (0, 1))
    assert all(one.price != other.price for one, other in zip(first, second, strict=True))
    assert [one.action for one in first] == [other.action for other in second]


def test_a_billion_is_a_day_and_a_half_of_rows_and_the_rest_in_segments() -> None:
    bytes_of = {"hot": 200.0, "warm": 40.0, "broadcast": 10.0, "ledger": 1.0, "audit": 2.0}
    figures = {
        f"{name}_bytes": size for name, size in {**bytes_of, "rollup": 3, "other": 4}.items()
    }
    parts = billion_parts_gb(figures)
    assert parts["hot"] == 43.2
    assert parts["warm"] == 31.4
    assert parts["broadcast"] == 4.3
    assert [parts[name] for name in ("ledger", "audit", "rollup", "other")] == [1, 2, 3, 4]
