"""The reading of TAP finds each way in which a file can fail."""

from __future__ import annotations

import pytest

from tests.database.tap import problems

SOURCE = "begin;\nselect plan(2);\nselect * from finish();\nrollback;\n"
GOOD = "1..2\nok 1 - one\nok 2 - two\n"


def test_a_file_whose_assertions_all_hold_has_no_problem() -> None:
    assert problems(GOOD, SOURCE) == []


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("1..2\nok 1 - one\nnot ok 2 - two\n# have: 1\n", "not ok 2 - two"),
        ("1..2\nok 1 - one\nnot ok 2 - two\n# have: 1\n", "# have: 1"),
        ("1..2\nok 1 - one\n", "2 planned, these ran: [1]"),
        ("1..2\nok 1 - one\nok 2 - two # SKIP\n", "SKIP"),
        ("1..0\n", "0 planned"),
        ("", "0 plans"),
        ("ok 1 - one\nok 2 - two\n", "0 plans"),
    ],
    ids=["not ok", "diagnostics", "too few", "skipped", "empty plan", "nothing", "no plan"],
)
def test_an_output_that_proves_nothing_is_a_problem(output: str, said: str) -> None:
    assert said in "\n".join(problems(output, SOURCE))


@pytest.mark.parametrize("line", ["begin;", "select * from finish();", "rollback;"])
def test_a_file_without_its_frame_is_a_problem(line: str) -> None:
    assert problems(GOOD, SOURCE.replace(line, ""))
