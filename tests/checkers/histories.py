"""Find what went wrong between writers, the store and readers, by name.

A history is what each party saw, in the order in which it saw it. The writers tell what was
offered and what was acknowledged as stored; `stored` is read back at the end; each reader tells
what it observed. A checker is a pure function from a history to the anomalies in it:

    writes   lost, duplicated, phantom, reordered, gap
    reads    unobserved, skipped, non_monotonic, leaked
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Stored:
    """A signal as it is read back from an account."""

    signal_id: UUID
    seq: int


@dataclass(frozen=True, slots=True)
class Reader:
    """What one subscriber of an account saw, in its order, beginning after `after_seq`.

    `wanted` tells which stored signals belong to its filter; None means all of them.
    """

    name: str
    observed: Sequence[Stored]
    after_seq: int = 0
    wanted: Collection[UUID] | None = None


@dataclass(frozen=True, slots=True)
class AccountHistory:
    """One account: what its writers did, what it stores, what its readers saw.

    `offered` and `acknowledged` are per writer, in the order of its calls; `acknowledged` are the
    ids that the service said it stored.
    """

    stored: Sequence[Stored]
    offered: Mapping[str, Sequence[UUID]] = field(default_factory=dict)
    acknowledged: Mapping[str, Sequence[UUID]] = field(default_factory=dict)
    readers: Sequence[Reader] = ()


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that must not happen: its name, the account, and what shows it."""

    name: str
    account: str
    evidence: str


History = Mapping[str, AccountHistory]
Checker = Callable[[History], Iterator[Anomaly]]


def lost(history: History) -> Iterator[Anomaly]:
    """A signal was acknowledged and is not stored."""
    for account, told in history.items():
        stored = {signal.signal_id for signal in told.stored}
        for writer, ids in told.acknowledged.items():
            for signal_id in ids:
                if signal_id not in stored:
                    yield Anomaly("lost", account, f"{writer}: {signal_id}")


def duplicated(history: History) -> Iterator[Anomaly]:
    """A signal is stored twice, or was acknowledged as newly stored twice."""
    for account, told in history.items():
        for signal_id, count in Counter(signal.signal_id for signal in told.stored).items():
            if count > 1:
                yield Anomaly("duplicated", account, f"{signal_id} is stored {count} times")
        acknowledged = Counter(signal_id for ids in told.acknowledged.values() for signal_id in ids)
        for signal_id, count in acknowledged.items():
            if count > 1:
                yield Anomaly("duplicated", account, f"{signal_id} was accepted {count} times")


def phantom(history: History) -> Iterator[Anomaly]:
    """A signal is stored that nobody offered to this account."""
    for account, told in history.items():
        offered = {signal_id for ids in told.offered.values() for signal_id in ids}
        for signal in told.stored:
            if signal.signal_id not in offered:
                yield Anomaly("phantom", account, f"{signal.signal_id} at seq {signal.seq}")


def reordered(history: History) -> Iterator[Anomaly]:
    """One writer's signals are stored in another order than it offered them."""
    for account, told in history.items():
        seq_of = {signal.signal_id: signal.seq for signal in told.stored}
        for writer, ids in told.offered.items():
            kept = [signal_id for signal_id in ids if signal_id in seq_of]
            for earlier, later in pairwise(kept):
                if seq_of[earlier] > seq_of[later]:
                    evidence = f"{writer}: {earlier} at seq {seq_of[earlier]}, then {later} before"
                    yield Anomaly("reordered", account, evidence)


def gap(history: History) -> Iterator[Anomaly]:
    """The seq of an account is not 1, 2, 3, … without holes and repetitions."""
    for account, told in history.items():
        seqs = sorted(signal.seq for signal in told.stored)
        for expected, seq in zip(range(1, len(seqs) + 1), seqs, strict=True):
            if seq != expected:
                yield Anomaly("gap", account, f"seq {seq} where {expected} belongs")
                break


def unobserved(history: History) -> Iterator[Anomaly]:
    """A stored signal never reached a reader, who stopped before it."""
    yield from _missing(history, "unobserved", passed=False)


def skipped(history: History) -> Iterator[Anomaly]:
    """A reader went past a stored signal without seeing it."""
    yield from _missing(history, "skipped", passed=True)


def non_monotonic(history: History) -> Iterator[Anomaly]:
    """A reader saw a seq that is not greater than the one before, a repetition for example."""
    for account, reader in _readers(history):
        for before, after in pairwise(reader.observed):
            if after.seq <= before.seq:
                evidence = f"{reader.name}: seq {before.seq}, then {after.seq}"
                yield Anomaly("non_monotonic", account, evidence)


def leaked(history: History) -> Iterator[Anomaly]:
    """A reader saw a signal that its account does not store, or that it did not ask for."""
    owners: dict[UUID, set[str]] = defaultdict(set)
    for account, told in history.items():
        for signal in told.stored:
            owners[signal.signal_id].add(account)
    for account, reader in _readers(history):
        for signal in reader.observed:
            if account not in owners[signal.signal_id]:
                owner = ", ".join(sorted(owners[signal.signal_id])) or "nobody"
                evidence = f"{reader.name}: {signal.signal_id} belongs to {owner}"
                yield Anomaly("leaked", account, evidence)
            elif reader.wanted is not None and signal.signal_id not in reader.wanted:
                evidence = f"{reader.name}: {signal.signal_id} is outside its filter"
                yield Anomaly("leaked", account, evidence)


CHECKERS: Final[tuple[Checker, ...]] = (
    lost,
    duplicated,
    phantom,
    reordered,
    gap,
    unobserved,
    skipped,
    non_monotonic,
    leaked,
)


def anomalies(history: History, checkers: Iterable[Checker] = CHECKERS) -> dict[str, list[Anomaly]]:
    """Run the checkers; the answer has the name of each, with an empty list when it is clean."""
    return {checker.__name__: list(checker(history)) for checker in checkers}


def _readers(history: History) -> Iterator[tuple[str, Reader]]:
    for account, told in history.items():
        for reader in told.readers:
            yield account, reader


def _missing(history: History, name: str, *, passed: bool) -> Iterator[Anomaly]:
    for account, reader in _readers(history):
        seen = {signal.signal_id for signal in reader.observed}
        furthest = max((signal.seq for signal in reader.observed), default=reader.after_seq)
        for signal in history[account].stored:
            wanted = reader.wanted is None or signal.signal_id in reader.wanted
            if (
                wanted
                and signal.seq > reader.after_seq
                and signal.signal_id not in seen
                and (signal.seq <= furthest) is passed
            ):
                yield Anomaly(name, account, f"{reader.name}: {signal.signal_id} {signal.seq}")
