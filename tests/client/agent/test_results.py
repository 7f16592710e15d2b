"""What the agent tells a worker: nothing of it is lost in runs and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from signal_persistence.agent.results import (
    Finished,
    Result,
    decode_result,
    encode_result,
    result_of,
)
from signal_persistence.batch import Batch
from signal_persistence.delivery import DeliveryStatus, Fate

REQUEST = UUID(int=7)
ranges = st.tuples(st.integers(1, 40), st.integers(0, 3)).map(lambda r: (r[0], r[0] + r[1]))


@dataclass(frozen=True)
class Word:
    """The last word about one fsn."""

    fsn: int
    status: DeliveryStatus
    seq: int | None
    code: str | None


@st.composite
def verdicts(draw: st.DrawFn) -> list[Word]:
    """Draw the words of one batch on one slot: fsns and seqs with gaps, some refused."""
    words, fsn, seq = [], 0, 100
    for _ in range(draw(st.integers(1, 30))):
        fsn += draw(st.sampled_from([1, 1, 1, 2, 9]))
        seq += draw(st.sampled_from([1, 1, 1, 5]))
        status: DeliveryStatus = draw(
            st.sampled_from(("accepted", "accepted", "duplicate", "rejected"))
        )
        accepted = status == "accepted"
        code = None if accepted else draw(st.sampled_from(("duplicate", "quota_exceeded")))
        words.append(Word(fsn, status, seq if accepted else None, code))
    return words


def result_from(words: list[Word]) -> Result:
    fates = [Fate(word.status, word.code, None, word.seq) for word in words]
    batch = Batch(REQUEST, [], attempts=2, round_trip=0.5)
    return result_of([word.fsn for word in words], fates, batch)


def told(result: Result) -> list[Word]:
    fates = {
        fsn: run.fate(fsn) for run in result.runs for fsn in range(run.first_fsn, run.last_fsn + 1)
    }
    return [Word(fsn, fate.status, fate.seq, fate.code) for fsn, fate in fates.items()]


@given(verdicts())
def test_a_result_says_of_each_signal_what_its_report_says(words: list[Word]) -> None:
    read = decode_result(encode_result(result_from(words)))
    assert told(read) == words
    assert (read.request_id, read.attempts, read.round_trip) == (REQUEST, 2, 0.5)


def test_a_batch_of_one_outcome_is_one_run() -> None:
    words = [Word(fsn, "accepted", 40 + fsn, None) for fsn in range(1, 501)]
    result = result_from(words)
    assert len(result.runs) == 1
    assert len(encode_result(result)) < 80


@given(st.lists(ranges, max_size=12))
def test_finished_ranges_hold_what_was_added(added: list[tuple[int, int]]) -> None:
    finished, model = Finished(), set[int]()
    for first, last in added:
        finished.add(first, last)
        model |= set(range(first, last + 1))
    prefix = 0
    while prefix + 1 in model:
        prefix += 1
    assert finished.through == prefix
    assert {fsn for fsn in range(1, 80) if fsn in finished} == model


@given(st.lists(ranges, max_size=12), st.integers(0, 20))
def test_finished_ranges_stay_apart_and_beyond_the_prefix(
    added: list[tuple[int, int]], through: int
) -> None:
    finished = Finished()
    for first, last in added:
        finished.add(first, last)
    finished.reach(through)
    assert finished.through >= through
    edges = [finished.through, *(e for pair in finished.ranges() for e in pair)]
    assert all(later > earlier for earlier, later in pairwise(edges[::2]))
    assert all(first > last + 1 for last, first in zip(edges[::2], edges[1::2], strict=False))
