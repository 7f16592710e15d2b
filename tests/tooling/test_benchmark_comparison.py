"""The judge of the end-to-end benchmark sees each way in which storage can go wrong."""

from __future__ import annotations

from uuid import UUID

from benchmarks.end_to_end import _requests, _shared
from benchmarks.publishing import Published, Target
from benchmarks.stored import SYMBOLS, Comparison, Journal, difference, joined, total

Row = tuple[str, int, float, int]


def _journal(count: int) -> Journal:
    journal = Journal("account")
    for number in range(count):
        journal.note(1_000_000 + number, number % len(SYMBOLS), 100.0 + number)
    return journal


def _rows(count: int) -> list[Row]:
    return [
        (SYMBOLS[number % len(SYMBOLS)], 1_000_000 + number, 100.0 + number, number + 1)
        for number in range(count)
    ]


def _renumbered(rows: list[Row]) -> list[Row]:
    return [(*row[:3], seq) for seq, row in enumerate(rows, 1)]


def test_storage_that_agrees_with_the_journal_has_nothing_wrong() -> None:
    assert difference(_journal(20), _rows(20)) == Comparison(published=20)


def test_a_signal_that_is_not_stored_is_lost() -> None:
    rows = _renumbered(_rows(20)[:7] + _rows(20)[8:])
    assert difference(_journal(20), rows) == Comparison(published=20, lost=1)


def test_a_signal_stored_twice_is_duplicated() -> None:
    rows = _renumbered([*_rows(20), _rows(20)[3]])
    assert difference(_journal(20), rows) == Comparison(published=20, duplicated=1)


def test_a_signal_that_nobody_published_is_a_phantom() -> None:
    rows = [*_rows(20), ("ES", 5, 1.0, 21)]
    assert difference(_journal(20), rows) == Comparison(published=20, phantoms=1)


def test_a_signal_stored_with_another_price_is_lost_and_a_phantom() -> None:
    rows = _rows(20)
    rows[4] = (rows[4][0], rows[4][1], 9.0, rows[4][3])
    assert difference(_journal(20), rows) == Comparison(published=20, lost=1, phantoms=1)


def test_a_missing_seq_is_a_gap() -> None:
    rows = [*_rows(20)[:-1], (*_rows(20)[-1][:3], 22)]
    assert difference(_journal(20), rows) == Comparison(published=20, gaps=1)


def test_accounts_are_added_up() -> None:
    parts = [Comparison(published=3, lost=1), Comparison(published=4, gaps=2)]
    assert total(parts) == Comparison(published=7, lost=1, gaps=2)


def test_what_several_processes_published_for_one_account_is_judged_together() -> None:
    first, second, other = Journal("account"), Journal("account"), Journal("other")
    for journal, microseconds in ((first, 1), (second, 2), (other, 3)):
        journal.note(microseconds, 0, 100.0)
    together = {journal.account_id: journal.signals() for journal in joined([first, second, other])}
    assert {account: signals.total() for account, signals in together.items()} == {
        "account": 2,
        "other": 1,
    }


def test_a_request_that_carried_signals_of_several_processes_counts_once() -> None:
    request, other = UUID(int=1), UUID(int=2)
    results = [
        Published([], requests={request: [5.0, 3]}),
        Published([], requests={request: [6.0, 4], other: [1.0, 1]}),
    ]
    assert sorted(_requests(results)) == [[1.0, 1], [6.0, 7]]


def test_processes_have_accounts_of_their_own_or_share_one() -> None:
    targets = [Target(name, "", "") for name in "abcd"]
    assert [[target.account_id for target in share] for share in _shared(targets, 2)] == [
        ["a", "c"],
        ["b", "d"],
    ]
    assert [share[0].account_id for share in _shared(targets[:2], 4)] == ["a", "b", "a", "b"]
