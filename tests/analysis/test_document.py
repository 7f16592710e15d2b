"""docs/analysis.md shows code that runs, what it prints, and the pictures it makes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signal_persistence import PasswordCredentials, Signal, SignalChange, SignalClient
from tests.analysis import document
from tests.plugins.stack import Account, RunningStack

NOW = datetime.now(UTC)
MEASURE = """
from signal_persistence.analysis import pair_trades
for trade in pair_trades(table).closed:
    print(trade.side, trade.entry_price, trade.exit_price, trade.close_reason, trade.exited_at)
"""


def test_the_snippets_print_what_the_document_says_and_draw_its_pictures(
    stack: RunningStack, tmp_path: Path
) -> None:
    with document.query_of_demo(stack) as query:
        printed = document.run(tmp_path, query)
    assert printed == document.shown()
    assert {f"pictures/{path.name}" for path in (tmp_path / "pictures").iterdir()} == (
        document.pictures()
    )
    for picture in document.pictures():
        assert (document.DOCUMENT.parent / picture).stat().st_size < 60_000


@pytest.fixture
def closed_at(stack: RunningStack, account: Account) -> datetime:
    """Store a trade that ends with an exit signal, and one that was reported as closed."""
    credentials = PasswordCredentials(
        stack.api_url, stack.publishable_key, account.email, account.password
    )
    closed_at = NOW - timedelta(minutes=5)
    with SignalClient(stack.api_url, stack.publishable_key, credentials) as client:
        trader_id = client.create_trader("analysed").trader_id
        entry, exit_, other = (
            Signal(
                trader_id=trader_id,
                symbol=symbol,
                timeframe="1m",
                generated_at=NOW - timedelta(minutes=minutes),
                action=action,
                confidence=0.5,
                price=price,
            )
            for symbol, minutes, action, price in (
                ("ES", 30, "enter_long", 100.0),
                ("ES", 20, "exit_long", 101.0),
                ("NQ", 10, "enter_short", 200.0),
            )
        )
        with client.producer(spool_dir=None) as producer:
            for signal in (entry, exit_, other):
                producer.publish(signal)
            producer.flush(timeout=30)
        client.advance(
            [
                SignalChange.of(other, "executed", entry_price=199.0),
                SignalChange.of(
                    other,
                    "closed",
                    exit_price=190.0,
                    close_reason="take_profit",
                    occurred_at=closed_at,
                ),
            ]
        )
    return closed_at


def test_the_first_snippet_reads_an_account(
    stack: RunningStack, account: Account, closed_at: datetime
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", document.first_snippet() + MEASURE],
        env=os.environ
        | {
            "SUPABASE_URL": stack.api_url,
            "SUPABASE_ANON_KEY": stack.publishable_key,
            "SIGNALS_EMAIL": account.email,
            "SIGNALS_PASSWORD": account.password,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr
    assert done.stdout.splitlines() == [
        f"long 100.0 101.0 exit_signal {NOW - timedelta(minutes=20)}",
        f"short 199.0 190.0 take_profit {closed_at}",
    ]
