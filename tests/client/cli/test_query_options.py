"""Options of `signals query` that say nothing together."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from signal_persistence.cli.app import app


@pytest.mark.parametrize(
    "options", [("--limit", "100"), ("--limit", "0"), ("--sort", "seq"), ("--format", "table")]
)
def test_what_shapes_a_list_is_refused_with_a_count(options: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["query", "--count", *options])
    assert result.exit_code == 2
    assert "use --count without" in result.output
