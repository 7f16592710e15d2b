"""`signals spool` beside living and dead producers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.client.cli.conftest import NOBODY_LISTENS, Producers, Signals
from tests.client.waiting import wait_until
from tests.plugins.stack import Account, RunningStack

UNSENT = "127.0.0.1_1"
PATIENCE = 30.0
FREE_SIGNALS = 100
"""How many a free account may store in a day."""


@pytest.fixture
def spool() -> Path:
    return Path(os.environ["SIGNAL_SPOOL_DIR"])


def rows(signals: Signals) -> list[dict[str, object]]:
    return [json.loads(line) for line in signals.must("spool", "ls", "--json").splitlines()]


def state_of(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.rglob("*")
        if path.is_file()
    }


def in_open_batches(signals: Signals) -> int:
    shown = json.loads(signals.must("spool", "show", "0001", "--project", UNSENT))
    return sum(batch["signals"] for batch in shown["open_batches"])


def test_an_empty_spool_is_said_to_be(signals: Signals, spool: Path) -> None:
    assert signals.must("spool", "ls") == f"There is nothing in {spool}.\n"
    assert signals("spool", "show", "0001").code == os.EX_CONFIG


def test_pending_signals_are_seen_beside_their_living_producer(
    signals: Signals, trader_id: UUID, producers: Producers, spool: Path
) -> None:
    process = producers.start(trader_id, 3, url=NOBODY_LISTENS, flush_seconds=0)
    wait_until(lambda: in_open_batches(signals) > 0)
    # What changes from here on, the command line changed.
    process.send_signal(signal.SIGSTOP)
    before = state_of(spool)
    [row] = rows(signals)
    assert (row["project"], row["slot"], row["pending"]) == (UNSENT, "0001", 3)
    assert row["writer"] == row["sender"] == f"pid {process.pid}"
    assert 1 <= in_open_batches(signals) <= 3
    shown = json.loads(signals.must("spool", "show", "0001", "--project", UNSENT))
    assert list(shown["pending_by_account"].values()) == [3]
    exported = signals.must("spool", "export", "0001", "--project", UNSENT)
    assert exported.count("\n") == 3
    assert state_of(spool) == before

    producers.end()
    [row] = rows(signals)
    assert (row["writer"], row["sender"], row["pending"]) == ("nobody", "nobody", 3)
    assert signals.must("publish", "-", stdin=exported).startswith("3 accepted (seq 3)")


def test_delivered_signals_are_not_pending_while_the_log_still_has_them(
    signals: Signals, trader_id: UUID, producers: Producers
) -> None:
    producers.start(trader_id, 3)
    [row] = rows(signals)
    assert row["pending"] == 0
    assert row["log_bytes"] != 0
    assert signals.must("spool", "export", "0001") == ""


def test_a_look_at_damage_shows_what_is_left_and_leaves_it_as_it_is(
    signals: Signals, trader_id: UUID, producers: Producers, spool: Path
) -> None:
    producers.start(trader_id, 3, url=NOBODY_LISTENS, flush_seconds=0.3)
    producers.end()
    [segment] = (spool / UNSENT / "slots" / "0001" / "log").glob("*.seg")
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"ES=F", b"ES_F", 1))
    before = state_of(spool)
    assert signals.must("spool", "export", "--project", UNSENT).count("\n") == 2
    assert [row["pending"] for row in rows(signals)] == [2]
    assert state_of(spool) == before


def test_what_the_agent_sent_is_not_pending(
    signals: Signals, trader_id: UUID, producers: Producers
) -> None:
    agent = subprocess.Popen(
        [sys.executable, "-m", "signal_persistence.cli", "agent"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert agent.stderr is not None
        assert "sends 0 slots" in agent.stderr.readline()
        process = producers.start(trader_id, 3, agent=True)
        [row] = rows(signals)
        assert (row["writer"], row["sender"]) == (f"pid {process.pid}", f"pid {agent.pid}")
        assert (row["pending"], row["log_bytes"] != 0) == (0, True)
        # First of all: a producer without an agent would start one that stays.
        producers.end()
        agent.terminate()
        agent.communicate(timeout=30)
        assert agent.returncode == 0
    finally:
        producers.end()
        agent.kill()
        agent.communicate()


def set_tier(stack: RunningStack, account: Account, tier: str) -> None:
    httpx.post(
        f"{stack.api_url}/rest/v1/rpc/set_account_tier",
        headers={
            "apikey": stack.service_role_key,
            "authorization": f"Bearer {stack.service_role_key}",
        },
        json={"account_id": str(account.account_id), "tier": tier},
    ).raise_for_status()


def test_dead_letters_are_exported_replayed_and_then_removed(
    signals: Signals,
    stack: RunningStack,
    account: Account,
    trader_id: UUID,
    producers: Producers,
    spool: Path,
) -> None:
    process = producers.start(trader_id, FREE_SIGNALS + 2)
    letters = [
        json.loads(line) for line in signals.must("spool", "export", "--dead-letters").splitlines()
    ]
    assert [letter["code"] for letter in letters] == ["quota_exceeded"] * 2
    assert [row["dead_letters"] for row in rows(signals)] == [2]
    shown = json.loads(signals.must("spool", "show", "0001"))
    assert shown["dead_letters_by_code"] == {"quota_exceeded": 2}

    again = signals("spool", "replay")
    assert again.code == 1
    assert again.out.startswith("0 stored, 2 refused again, 0 not sent, 0 of other accounts, 0 ")
    assert "2 refused again: quota_exceeded" in again.err

    set_tier(stack, account, "pro")
    told = "2 stored, 0 refused again, 0 not sent, 0 of other accounts,"
    assert signals.must("spool", "replay", "--code", "stale").startswith("0 stored, 0 refused")
    assert signals.must("spool", "replay").startswith(f"{told} 0 files removed")
    assert list(spool.rglob("*.jsonl"))

    process.communicate("")
    assert signals.must("spool", "replay").startswith(f"{told} 1 files removed")
    assert not list(spool.rglob("*.jsonl"))
    assert signals.must("spool", "replay").startswith("0 stored")
    stored = signals.must("query", "--limit", "0", "--format", "jsonl")
    assert stored.count("\n") == FREE_SIGNALS + 2


def test_letters_of_others_and_unreadable_lines_are_kept(
    signals: Signals, trader_id: UUID, producers: Producers, spool: Path
) -> None:
    producers.start(UUID(int=1), 1).communicate("")
    [file] = spool.rglob("*.jsonl")
    letter = json.loads(file.read_text())
    repaired = letter["signal"] | {"trader_id": str(trader_id)}
    mine = json.dumps(letter | {"signal": repaired})
    other = json.dumps(letter | {"account": "user-somebody"})

    file.write_text(f"{mine}\n{other}\n")
    assert signals.must("spool", "replay") == (
        "1 stored, 0 refused again, 0 not sent, 1 of other accounts, 0 files removed\n"
    )
    file.write_text(f"{mine}\ntorn\n")
    assert signals.must("spool", "replay").endswith("0 files removed\n")
    assert "1 lines are no dead letters" in signals("spool", "export", "--dead-letters").err
    assert file.exists()


def test_letters_are_kept_when_the_service_is_away(
    signals: Signals,
    trader_id: UUID,
    producers: Producers,
    spool: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producers.start(UUID(int=1), 1).communicate("")
    [project] = [path.name for path in spool.iterdir()]
    monkeypatch.setenv("SUPABASE_URL", NOBODY_LISTENS)
    answer = signals("spool", "replay", "--project", project)
    assert answer.code == 1
    assert "Cannot connect" in answer.err
    assert list(spool.rglob("*.jsonl"))
