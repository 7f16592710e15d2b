"""Each checker finds its own anomaly, names it, and is silent about a clean history."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tests.checkers.histories import AccountHistory, History, Reader, Stored, anomalies

A, B, C, D = (UUID(int=number) for number in range(1, 5))
OTHER = UUID(int=99)


def stored(*ids: UUID) -> list[Stored]:
    return [Stored(signal_id, seq) for seq, signal_id in enumerate(ids, start=1)]


CLEAN = AccountHistory(
    stored=stored(A, B, C),
    offered={"worker": [A, B, D, C]},
    acknowledged={"worker": [A, B, C]},
    readers=(Reader("all", stored(A, B, C)),),
)
NEIGHBOUR = AccountHistory(stored=stored(OTHER), offered={"worker": [OTHER]})


def found(told: AccountHistory) -> dict[str, int]:
    history: History = {"alice": told, "bob": NEIGHBOUR}
    return {name: len(list_) for name, list_ in anomalies(history).items() if list_}


def seen(*observed: Stored, after_seq: int = 0) -> AccountHistory:
    return replace(CLEAN, readers=(Reader("all", observed, after_seq),))


def test_a_clean_history_has_no_anomaly_and_names_every_checker() -> None:
    assert found(CLEAN) == {}
    assert len(anomalies({"alice": CLEAN})) == 9


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (replace(CLEAN, acknowledged={"worker": [A, B, C, D]}), {"lost": 1}),
        (replace(CLEAN, acknowledged={"one": [A, B], "two": [B, C]}), {"duplicated": 1}),
        (
            replace(CLEAN, stored=[*stored(A, B, C), Stored(C, 4)]),
            {"duplicated": 1},
        ),
        (replace(CLEAN, offered={"worker": [A, B]}), {"phantom": 1}),
        (replace(CLEAN, offered={"worker": [B, A, C]}), {"reordered": 1}),
        (
            replace(
                CLEAN,
                stored=[Stored(A, 1), Stored(B, 2), Stored(C, 4)],
                readers=(),
            ),
            {"gap": 1},
        ),
        (replace(CLEAN, stored=[Stored(A, 1), Stored(B, 2), Stored(C, 2)]), {"gap": 1}),
        (seen(Stored(A, 1), Stored(B, 2)), {"unobserved": 1}),
        (seen(), {"unobserved": 3}),
        (seen(Stored(A, 1), Stored(C, 3)), {"skipped": 1}),
        (
            seen(Stored(A, 1), Stored(B, 2), Stored(B, 2), Stored(C, 3)),
            {"non_monotonic": 1},
        ),
        (
            seen(Stored(B, 2), Stored(A, 1), Stored(C, 3)),
            {"non_monotonic": 1},
        ),
        (seen(*stored(A, B, C), Stored(OTHER, 4)), {"leaked": 1}),
        (seen(*stored(A, B, C), Stored(D, 4)), {"leaked": 1}),
        (
            replace(CLEAN, readers=(Reader("some", stored(A, B), wanted={A}),)),
            {"leaked": 1},
        ),
    ],
)
def test_each_anomaly_is_found_and_named(told: AccountHistory, expected: dict[str, int]) -> None:
    assert found(told) == expected


def test_a_reader_is_only_answerable_for_its_filter_and_what_came_after_it_began() -> None:
    later = Reader("later", [Stored(C, 3)], after_seq=2)
    some = Reader("some", [Stored(B, 2)], wanted={B})
    assert found(replace(CLEAN, readers=(later, some))) == {}
