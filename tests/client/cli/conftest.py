"""Fixtures: the command line in the environment of an account, and producers in processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from signal_persistence import PasswordCredentials, SignalClient
from signal_persistence.cli.app import app
from tests.plugins.stack import Account, RunningStack

ROOT = Path(__file__).parents[3]
NOBODY_LISTENS = "http://127.0.0.1:1"
PRODUCER = """
import os, sys
from datetime import UTC, datetime, timedelta
from uuid import UUID
from signal_persistence import SignalClient, Signal
with SignalClient.from_env() as client:
    producer = client.producer(linger_ms=0, agent=sys.argv[4] == "True")
    now = datetime.now(UTC)
    for number in range(int(sys.argv[2])):
        producer.publish(Signal(
            trader_id=UUID(sys.argv[1]), symbol="ES=F", timeframe="1m", action="enter_long",
            generated_at=now - timedelta(minutes=number), confidence=0.5, price=5321.25,
        ))
    producer.flush(float(sys.argv[3]))
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)
"""
"""Publishes and then lives, without closing, until its stdin ends."""


@dataclass
class Answer:
    """What a command wrote and how it ended."""

    code: int
    out: str
    err: str


class Signals:
    """The command line, run in this process."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> Answer:
        result = CliRunner().invoke(app, list(arguments), input=stdin, prog_name="signals")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    def must(self, *arguments: str, stdin: str | None = None) -> str:
        """Run what must succeed, and return what it wrote."""
        answer = self(*arguments, stdin=stdin)
        assert answer.code == 0, answer
        return answer.out


@pytest.fixture
def signals(stack: RunningStack, account: Account, monkeypatch: pytest.MonkeyPatch) -> Signals:
    """The command line in the environment of the owner of a new account."""
    for name in ("SIGNAL_API_KEY", "SIGNALS_ACCESS_TOKEN", "SUPABASE_ANON_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUPABASE_URL", stack.api_url)
    monkeypatch.setenv("SUPABASE_PUBLISHABLE_KEY", stack.publishable_key)
    monkeypatch.setenv("SIGNALS_EMAIL", account.email)
    monkeypatch.setenv("SIGNALS_PASSWORD", account.password)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "python_client"))
    return Signals()


@pytest.fixture
def trader_id(stack: RunningStack, account: Account) -> UUID:
    """A trader of the account, called trend."""
    credentials = PasswordCredentials(
        stack.api_url, stack.publishable_key, account.email, account.password
    )
    with SignalClient(stack.api_url, stack.publishable_key, credentials) as client:
        return client.create_trader("trend").trader_id


class Producers:
    """Processes that publish and stay."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self,
        trader_id: UUID,
        count: int,
        *,
        url: str | None = None,
        flush_seconds: float = 20,
        agent: bool = False,
    ) -> subprocess.Popen[str]:
        """Return a process that has published `count` signals and is alive."""
        environment = os.environ | ({"SUPABASE_URL": url} if url else {})
        process = subprocess.Popen(
            [sys.executable, "-c", PRODUCER, *map(str, (trader_id, count, flush_seconds, agent))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def producers() -> Iterator[Producers]:
    """Producers in processes of their own, gone when the test ends."""
    started = Producers()
    yield started
    started.end()
