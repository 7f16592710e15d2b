"""Dead letters: readable lines that survive crashes, within their limit."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from signal_persistence.errors import SpoolFullError
from signal_persistence.spool import DeadLetter, DeadLetters
from tests.client.spool.simulated_files import SimulatedFiles

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def letter(fsn: int, at: datetime = NOON, signal: bytes = b'{"symbol":"ES"}') -> DeadLetter:
    return DeadLetter(
        account="a",
        code="quota_exceeded",
        message="The account's quota is used up.",
        request_id="00000000-0000-7000-8000-000000000001",
        at=at,
        slot="0001",
        fsn=fsn,
        signal=msgspec.Raw(signal),
    )


def test_a_letter_is_a_line_that_tools_and_people_read(tmp_path: Path) -> None:
    DeadLetters(tmp_path, "0001", 10**6).add([letter(1), letter(2)])
    lines = (tmp_path / "2026-11-22-0001.jsonl").read_text().splitlines()
    assert [json.loads(line)["fsn"] for line in lines] == [1, 2]
    assert json.loads(lines[0])["signal"] == {"symbol": "ES"}
    assert [each.fsn for each in DeadLetters.read(tmp_path)] == [1, 2]
    assert next(DeadLetters.read(tmp_path)).signal == msgspec.Raw(b'{"symbol":"ES"}')


def test_nothing_is_there_before_the_first_letter(tmp_path: Path) -> None:
    DeadLetters(tmp_path / "none", "0001", 10**6).add([])
    assert list(DeadLetters.read(tmp_path / "none")) == []
    assert list(tmp_path.iterdir()) == []


def test_a_torn_line_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    letters = DeadLetters(tmp_path, "0001", 10**6)
    letters.add([letter(1), letter(2)])
    path = tmp_path / "2026-11-22-0001.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    letters.add([letter(3)])
    assert [each.fsn for each in DeadLetters.read(tmp_path)] == [1, 3]
    assert "line 2 is no dead letter" in caplog.text


def test_a_clock_that_jumps_back_loses_nothing(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, "0001", 10**6)
    for fsn, days in enumerate((0, 3, -400, 0)):
        letters.add([letter(fsn, NOON + timedelta(days=days))])
    assert {each.fsn for each in DeadLetters.read(tmp_path)} == {0, 1, 2, 3}


def test_the_oldest_go_when_all_are_too_large(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    letters = DeadLetters(tmp_path, "0001", 20_000)
    for fsn in range(500):
        letters.add([letter(fsn, signal=b'"%s"' % (b"x" * 100))])
    kept = [each.fsn for each in DeadLetters.read(tmp_path)]
    assert kept == list(range(letters.dropped, 500))
    assert 10_000 < sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    with caplog.at_level(logging.ERROR):
        assert "dead letters to make room" in caplog.text


def test_a_full_disk_is_an_error_and_leaves_no_half_line() -> None:
    files = SimulatedFiles()
    letters = DeadLetters(Path("/dead"), "0001", 10**6, files=files)
    letters.add([letter(1)])
    files.full = True
    with pytest.raises(SpoolFullError):
        letters.add([letter(2)])
    files.full = False
    assert [each.fsn for each in DeadLetters.read(Path("/dead"), files=files)] == [1]
