"""`signals export` on the real stack."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import typer

from signal_persistence.cli.export import duration
from tests.client.cli.conftest import Signals
from tests.client.cli.test_publish_and_read import line


def publish(signals: Signals, trader_id: UUID, tmp_path: Path, count: int) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("".join(line(trader_id, 60 * number) for number in range(count)))
    signals.must("publish", str(file))


def test_a_file_gets_what_was_asked_for(signals: Signals, trader_id: UUID, tmp_path: Path) -> None:
    publish(signals, trader_id, tmp_path, 30)
    file = tmp_path / "day.csv"
    told = signals.must("export", str(file), "--last", "1d", "--trader", "trend")
    assert told == f"24 signals, {file.stat().st_size:,} bytes: {file}\n"
    assert file.read_bytes().startswith(b"signal_id,seq,trader_id,")
    assert signals.must("export", str(tmp_path / "all.ndjson")).startswith("30 signals")
    assert signals.must("export", str(tmp_path / "all.parquet")).startswith("30 signals")
    assert signals.must("export", str(tmp_path / "x"), "--symbol", "NQ=F").startswith("0 signals")
    narrow = ("--symbol-prefix", "ES", "--min-price", "1", "--status", "generated")
    assert signals.must("export", str(tmp_path / "y"), *narrow).startswith("30 signals")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--last", "soon"], "use a number and m, h, d or w, such as 7d"),
        (["--last", "1d", "--from", "2026-01-01T00:00:00Z"], "use --last or --from, not both"),
        (["--format", "xlsx"], "the format is csv, ndjson or parquet: name it with --format"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(
    signals: Signals, tmp_path: Path, options: list[str], sentence: str
) -> None:
    answer = signals("export", str(tmp_path / "x.csv"), *options)
    assert answer.code == 2
    assert sentence in " ".join(answer.err.replace("│", " ").split())


def test_spans_of_time_are_read() -> None:
    assert duration("90m") == timedelta(minutes=90)
    assert duration("2w") == timedelta(weeks=2)
    with pytest.raises(typer.BadParameter):
        duration("0d")
