"""What the agent tells a worker about its signals, and what both of them know to be finished.

A slot's `results/` is a log of its own that the agent writes and the worker reads. Each frame is
one batch's verdict on signals of one lane of the slot, as runs of consecutive fsns.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import msgspec

from signal_persistence.batch import Batch
from signal_persistence.delivery import DeliveryStatus, Fate
from signal_persistence.spool import Ranges


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive fsns with one outcome; of accepted ones the seqs are consecutive as well."""

    first_fsn: int
    count: int
    status: DeliveryStatus
    first_seq: int | None = None
    code: str | None = None
    message: str | None = None

    @property
    def last_fsn(self) -> int:
        """The last fsn of the run."""
        return self.first_fsn + self.count - 1

    def fate(self, fsn: int) -> Fate:
        """Return what became of one of its signals."""
        seq = None if self.first_seq is None else self.first_seq + fsn - self.first_fsn
        return Fate(self.status, self.code, self.message, seq)


class Result(msgspec.Struct, frozen=True, array_like=True):
    """One batch's verdict on the signals of one slot.

    `finished_through` is how far the slot is finished with it, so that a reader may begin with any
    record. A result without runs says nothing but that.
    """

    finished_through: int
    request_id: UUID | None = None
    attempts: int = 0
    in_doubt: bool = False
    round_trip: float = 0.0
    runs: tuple[Run, ...] = ()


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Result).decode


RESULT: Final = 16
"""The kind of the frames in `results/`."""


def encode_result(result: Result) -> bytes:
    """Return the body of a record."""
    return _encode(result)


def decode_result(body: bytes) -> Result:
    """Read the body of a record. Raises msgspec.DecodeError."""
    return _decode(body)


def result_of(fsns: Sequence[int], fates: Sequence[Fate], batch: Batch) -> Result:
    """Put the fates of signals of one slot, which were in one batch, into a result; fsns ascend.

    How far the slot is finished with it is left to its slot.
    """
    return Result(
        finished_through=0,
        request_id=batch.request_id if batch.attempts else None,
        attempts=batch.attempts,
        in_doubt=batch.in_doubt,
        round_trip=batch.round_trip,
        runs=tuple(_runs(fsns, fates)),
    )


def _runs(fsns: Sequence[int], fates: Sequence[Fate]) -> Iterator[Run]:
    begin = 0
    for at in range(1, len(fsns) + 1):
        if at < len(fsns) and _continues(fsns, fates, begin, at):
            continue
        fate = fates[begin]
        yield Run(fsns[begin], at - begin, fate.status, fate.seq, fate.code, fate.message)
        begin = at


def _continues(fsns: Sequence[int], fates: Sequence[Fate], begin: int, at: int) -> bool:
    first, fate, distance = fates[begin], fates[at], at - begin
    return (
        fsns[at] == fsns[begin] + distance
        and fate.status == first.status
        and fate.seq == (None if first.seq is None else first.seq + distance)
        and fate.code == first.code
        and fate.message == first.message
    )


@dataclass(slots=True)
class Finished:
    """The finished fsns of a slot: everything up to `through`, and some ranges beyond it.

    Lanes finish at their own pace, so there are about as many ranges as lanes.
    """

    through: int = 0
    _firsts: list[int] = field(default_factory=list)
    _lasts: list[int] = field(default_factory=list)

    def __contains__(self, fsn: int) -> bool:
        if fsn <= self.through:
            return True
        at = bisect_right(self._firsts, fsn) - 1
        return at >= 0 and fsn <= self._lasts[at]

    def add(self, first: int, last: int) -> None:
        """Add the range `first` to `last`, whatever is in it already."""
        begin = bisect_left(self._lasts, first - 1)
        end = bisect_right(self._firsts, last + 1)
        if begin < end:
            first = min(first, self._firsts[begin])
            last = max(last, self._lasts[end - 1])
        self._firsts[begin:end] = [first]
        self._lasts[begin:end] = [last]
        self.reach(self.through)

    def with_ranges(self, ranges: Ranges) -> Finished:
        """Return a copy to which ranges are added."""
        copy = Finished(self.through, [*self._firsts], [*self._lasts])
        for first, last in ranges:
            copy.add(first, last)
        return copy

    def add_runs(self, runs: Iterable[Run]) -> None:
        """Add what a result says."""
        for run in runs:
            self.add(run.first_fsn, run.last_fsn)

    def ranges(self) -> list[tuple[int, int]]:
        """Return the ranges beyond `through`, in order and apart."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def reach(self, through: int) -> None:
        """Know everything up to `through` as finished."""
        self.through = max(self.through, through)
        while self._firsts and self._firsts[0] <= self.through + 1:
            self.through = max(self.through, self._lasts.pop(0))
            del self._firsts[0]
