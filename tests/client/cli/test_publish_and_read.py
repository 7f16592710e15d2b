"""`signals publish`, `tail` and `query` on the real stack."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from tests.client.cli.conftest import NOBODY_LISTENS, Signals

ONE = (
    "--symbol", "ES=F", "--timeframe", "1m", "--action", "enter_long",
    "--confidence", "0.7", "--price", "5321.25",
)  # fmt: skip


def line(trader_id: UUID, number: int, **changes: object) -> str:
    moment = datetime.now(UTC) - timedelta(minutes=number)
    fields = {
        "trader_id": str(trader_id),
        "symbol": "ES=F",
        "timeframe": "1m",
        "generated_at": moment.isoformat(),
        "action": "enter_long",
        "confidence": 0.5,
        "price": 5321.25,
    }
    return json.dumps(fields | changes) + "\n"


def test_one_signal_from_options_is_stored(signals: Signals) -> None:
    told = signals.must(
        *("publish", "--trader", "trend", "--create-trader", *ONE),
        *("--stop-loss", "5300", "--metadata", '{"why": "test"}'),
    )
    assert told.startswith("1 accepted (seq 1), 0 duplicate, 0 rejected, 0 invalid, 0 left")
    [stored] = signals.must("query", "--format", "jsonl").splitlines()
    assert json.loads(stored)["metadata"] == {"why": "test"}
    assert json.loads(stored)["stop_loss"] == 5300


def test_lines_are_stored_and_bad_ones_named(signals: Signals, trader_id: UUID) -> None:
    text = (
        line(trader_id, 3)
        + "\n"
        + line(trader_id, 2, confidence=2)
        + "no json\n"
        + line(trader_id, 1)
        + line(trader_id, 1, extra=1)
        + line(UUID(int=7), 0)
    )
    answer = signals("publish", "-", stdin=text)
    assert answer.code == 1
    assert answer.out.startswith("2 accepted (seq 2), 0 duplicate, 1 rejected, 3 invalid, 0 left")
    named = {told.split(": ")[0]: told.split(": ")[1] for told in answer.err.splitlines()}
    assert named == {
        "line 3": "invalid_confidence",
        "line 4": "invalid_signal",
        "line 6": "unknown_field",
        "line 7": "unknown_trader",
    }


def test_a_file_published_twice_is_stored_once(
    signals: Signals, trader_id: UUID, tmp_path: Path
) -> None:
    file = tmp_path / "signals.jsonl"
    file.write_text("".join(line(trader_id, number) for number in range(3)))
    assert signals.must("publish", str(file)).startswith("3 accepted (seq 3)")
    assert signals.must("publish", str(file)).startswith("0 accepted, 3 duplicate")


def test_what_cannot_be_delivered_stays_in_the_spool(
    signals: Signals, trader_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", NOBODY_LISTENS)
    answer = signals("publish", "--timeout", "0.2", "--trader", str(trader_id), *ONE)
    assert answer.code == os.EX_TEMPFAIL
    assert "1 left in the spool" in answer.out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("publish", "--trader", "trend"), 2, "--symbol"),
        (("publish", "-", "--symbol", "ES=F"), 2, "not both"),
        (("publish", "--trader", "nobody", *ONE), os.EX_CONFIG, "'nobody'"),
        (("publish", "--trader", "x", *ONE, "--metadata", "[]"), os.EX_CONFIG, "--metadata"),
        (("publish", "--trader", "x", *ONE, "--valid-until", "2026-01-01"), 2, "time zone"),
        (("query", "--timeframe", "9z"), 1, "9z"),
        (("query", "--sort", "price"), 1, "-confidence"),
        (("query", "--exact"), 2, "--count"),
        (("tail", "--trader", "nobody"), os.EX_CONFIG, "'nobody'"),
    ],
)
def test_wrong_use_is_a_sentence(
    signals: Signals, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    answer = signals(*arguments, stdin="")
    assert (answer.code, answer.out) == (code, "")
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def test_a_query_is_filtered_limited_and_written_in_each_format(
    signals: Signals, trader_id: UUID
) -> None:
    text = "".join(
        line(trader_id, number, symbol=symbol, metadata={"n": number})
        for number, symbol in enumerate(("ES=F", "NQ=F", "ES=F"))
    )
    signals.must("publish", "-", stdin=text)
    only = ("query", "--trader", "trend", "--symbol", "ES=F")
    rows = list(csv.DictReader(io.StringIO(signals.must(*only, "--format", "csv"))))
    assert [row["seq"] for row in rows] == ["1", "3"]
    assert [json.loads(row["metadata"]) for row in rows] == [{"n": 0}, {"n": 2}]
    lines = signals.must("query", "--after-seq", "1", "--format", "jsonl").splitlines()
    assert [json.loads(each)["seq"] for each in lines] == [2, 3]
    newest = signals("query", "--limit", "2")
    assert newest.out.count("=F") == 2
    assert "more than 2" in newest.err
    assert "more" not in signals("query", "--limit", "3").err
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert signals.must("query", "--from", soon, "--format", "jsonl") == ""
    assert signals.must("query", "--to", soon, "--limit", "0", "--format", "jsonl").count("\n") == 3


def test_every_filter_reaches_the_database_and_is_counted_with(
    signals: Signals, trader_id: UUID
) -> None:
    text = "".join(
        line(trader_id, number, symbol=symbol, price=number, metadata={"tags": [f"t{number}"]})
        for number, symbol in enumerate(("ES=F", "NQ=F", "ESX"))
    )
    signals.must("publish", "-", stdin=text)
    for options, seqs in (
        (("--symbol-prefix", "ES", "--sort", "oldest"), [3, 1]),
        (("--tag", "t0", "--tag", "t1", "--sort", "-seq"), [2, 1]),
        (("--min-price", "1", "--max-price", "1"), [2]),
        (("--max-confidence", "0.4"), []),
        (("--status", "generated", "--after-seq", "1", "--until-seq", "2"), [2]),
    ):
        lines = signals.must("query", *options, "--format", "jsonl").splitlines()
        assert [json.loads(each)["seq"] for each in lines] == seqs
        if "--sort" not in options:
            assert signals.must("query", *options, "--count", "--exact") == f"{len(seqs)}\n"


def test_an_estimate_is_told_as_one(signals: Signals, trader_id: UUID) -> None:
    signals.must("publish", "-", stdin=line(trader_id, 1))
    answer = signals("query", "--count")
    assert int(answer.out) >= 0
    assert ("estimate" in answer.err) == (answer.err != "")


def test_tail_follows_from_a_seq_with_filters(signals: Signals, trader_id: UUID) -> None:
    text = "".join(line(trader_id, number, confidence=number / 4) for number in range(4))
    signals.must("publish", "-", stdin=text)
    command = ("tail", "--after-seq", "1", "--min-confidence", "0.5", "--count", "2")
    answer = signals(*command, "--format", "jsonl")
    assert [json.loads(each)["seq"] for each in answer.out.splitlines()] == [3, 4]
    assert answer.err.splitlines()[-1] == "Go on with --after-seq 4."
    assert signals.must(*command).startswith("3 20")


def test_tail_sees_what_is_stored_later_and_ends_at_ctrl_c(
    signals: Signals, trader_id: UUID
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "signal_persistence.cli", "tail", "--symbol", "ES=F"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == "Following behind seq 0.\n"
        for _ in range(2):
            signals.must("publish", "--trader", str(trader_id), *ONE)
            shown = process.stdout.readline()
            assert shown.endswith(f"ES=F 1m enter_long 0.7 5321.25 {trader_id}\n")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    # It may be interrupted before it has noted the second, which then comes again.
    assert told in ("Go on with --after-seq 1.\n", "Go on with --after-seq 2.\n")
    assert process.returncode == 130
