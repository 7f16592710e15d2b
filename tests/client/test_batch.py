"""Batches are cut from the front of a lane, within their limits, in order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from signal_persistence.batch import (
    ENVELOPE_BYTES,
    Batch,
    BatchPolicy,
    Lane,
    Record,
    time_ordered_id,
)
from signal_persistence.delivery import Delivery
from tests.client.scripted_service import make_signal

NOW = float("-inf")


def make_record(body: bytes = b'{"a":1}', accepted_at: float = 0.0) -> Record:
    return Record(body, accepted_at, 0, Delivery(make_signal(0)))


def take(lane: Lane, new_id: Callable[[], UUID], *, finish: bool = True) -> Batch:
    batch = lane.take(new_id)
    assert batch is not None
    if finish:
        lane.finish(len(batch.records))
    return batch


def counting_ids() -> Callable[[], UUID]:
    numbers = itertools.count(1)
    return lambda: UUID(int=next(numbers))


@given(
    st.lists(st.integers(2, 300), max_size=40),
    st.integers(1, 10),
    st.integers(ENVELOPE_BYTES, 600),
)
def test_batches_joined_are_the_published_signals_and_each_keeps_the_limits(
    sizes: list[int], max_messages: int, max_bytes: int
) -> None:
    lane = Lane(None, BatchPolicy(0.1, max_messages, max_bytes))
    records = [make_record(b'"%s"' % (b"x" * (size - 2))) for size in sizes]
    for record in records:
        lane.append(record)
    batches: list[Batch] = []
    new_id = counting_ids()
    while lane.due_at() is not None:
        batches.append(take(lane, new_id))
    assert [record for batch in batches for record in batch.records] == records
    assert lane.waiting_bytes == 0
    assert lane.batched == lane.published == len(records)
    for batch in batches:
        assert 1 <= len(batch.records) <= max_messages
        assert len(batch.body()) <= max_bytes or len(batch.records) == 1
        assert json.loads(batch.body())["request_id"] == str(batch.request_id)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=30))
def test_a_lane_asks_to_be_looked_at_when_it_gets_its_first_signal_and_when_it_is_full(
    sizes: list[int],
) -> None:
    lane = Lane(None, BatchPolicy(5.0, 10, ENVELOPE_BYTES + 200))
    for position, size in enumerate(sizes):
        before = lane.due_at()
        asked = lane.append(make_record(b"x" * size, accepted_at=float(position)))
        assert asked == (before != lane.due_at())


def test_a_batch_is_due_a_linger_after_its_first_signal_or_at_once_when_full_or_flushed() -> None:
    lane = Lane(None, BatchPolicy(0.1, 3, 1000))
    assert lane.due_at() is None
    lane.append(make_record(accepted_at=7.0))
    lane.append(make_record(accepted_at=7.05))
    assert lane.due_at() == 7.1
    lane.append(make_record(accepted_at=7.06))
    assert lane.due_at() == NOW
    take(lane, counting_ids())
    lane.append(make_record(accepted_at=8.0))
    assert lane.due_at() == 8.1
    assert lane.flush() == 4
    assert lane.due_at() == NOW
    take(lane, counting_ids())
    lane.append(make_record(accepted_at=9.0))
    assert lane.due_at() == 9.1


def test_the_body_of_a_batch_never_changes() -> None:
    batch = Batch(UUID(int=5), [make_record(), make_record(b'{"b":2}')])
    assert batch.body() == (
        b'{"request_id":"00000000-0000-0000-0000-000000000005","signals":[{"a":1},{"b":2}]}'
    )
    batch.attempts += 1
    batch.in_doubt = True
    assert batch.body() == batch.body()


@given(st.integers(2, 50))
def test_a_split_batch_goes_before_everything_else_in_order_under_new_ids(count: int) -> None:
    lane = Lane(None, BatchPolicy(0.0, count, 100_000))
    records = [make_record() for _ in range(count + 1)]
    for record in records:
        lane.append(record)
    new_id = counting_ids()
    batch = lane.take(new_id)
    assert batch is not None
    lane.finish(0, batch.split(new_id))
    parts = [take(lane, new_id) for _ in range(3)]
    joined = [id(record) for part in parts for record in part.records]
    assert joined == [id(record) for record in records]
    assert len({part.request_id for part in [batch, *parts]}) == 4


@given(st.integers(1, 20), st.integers(0, 20))
def test_what_is_left_of_a_batch_keeps_its_order_and_gets_a_new_id(count: int, gone: int) -> None:
    records = [make_record() for _ in range(count)]
    batch = Batch(UUID(int=99), records, in_doubt=True)
    rest = batch.after(gone, counting_ids())
    assert [record for part in rest for record in part.records] == records[gone:]
    assert all(part.in_doubt and part.request_id == UUID(int=1) for part in rest)
    assert len(rest) == (gone < count)


def test_draining_a_lane_takes_what_was_sent_first() -> None:
    lane = Lane(None, BatchPolicy(0.0, 2, 100_000))
    records = [make_record() for _ in range(5)]
    for record in records:
        lane.append(record)
    batch = lane.take(counting_ids())
    assert batch is not None
    lane.finish(0, batch.split(counting_ids()))
    lane.take(counting_ids())
    assert list(lane.in_memory()) == records
    drained = lane.drain(counting_ids())
    assert [record for part in drained for record in part.records] == records
    assert [len(part.records) for part in drained] == [1, 1, 3]
    assert lane.due_at() is None
    assert list(lane.in_memory()) == []


def test_a_batch_that_is_put_back_is_the_next_to_be_taken_under_its_id() -> None:
    lane = Lane(None, BatchPolicy(0.0, 2, 100_000))
    for _ in range(3):
        lane.append(make_record())
    batch = lane.take(counting_ids())
    lane.put_back()
    assert lane.under_way is None
    assert lane.take(counting_ids()) is batch


def test_the_oldest_unfinished_signal_is_known_wherever_it_is() -> None:
    lane = Lane(None, BatchPolicy(0.0, 2, 100_000))
    assert lane.first_unfinished() is None
    for fsn in (3, 5, 6):
        lane.append(Record(b"{}", 0.0, fsn))
    assert lane.first_unfinished() == 3
    batch = take(lane, counting_ids(), finish=False)
    assert lane.first_unfinished() == 3
    lane.finish(1, batch.after(1, counting_ids()))
    assert lane.first_unfinished() == 5
    take(lane, counting_ids())
    take(lane, counting_ids())
    assert lane.first_unfinished() is None
    assert lane.leave_on_disk(9)
    assert not lane.leave_on_disk(11)
    assert lane.first_unfinished() == 9
    assert lane.due_at() == NOW


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_request_ids_are_version_7_and_carry_the_time(milliseconds: int, bits: int) -> None:
    made = time_ordered_id((milliseconds + 0.5) / 1000, bits)
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == milliseconds
    assert (made.int >> 64 & 0xFFF) << 62 | made.int & (1 << 62) - 1 == bits
