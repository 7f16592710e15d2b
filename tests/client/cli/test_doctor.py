"""`signals doctor` against a healthy stack, and against everything that can be wrong."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from tests.client.cli.conftest import NOBODY_LISTENS, Producers, Signals
from tests.plugins.stack import RunningStack


def findings(signals: Signals, code: int, *arguments: str) -> dict[str, dict[str, str]]:
    answer = signals("doctor", "--json", *arguments)
    told = json.loads(answer.out)
    assert answer.code == code, told
    assert told["healthy"] is (code == 0)
    for secret in ("SIGNALS_PASSWORD", "SIGNAL_API_KEY", "SUPABASE_PUBLISHABLE_KEY"):
        assert (os.environ.get(secret) or "nothing") not in answer.out + answer.err
    return {finding["check"]: finding for finding in told["findings"]}


def failed(found: dict[str, dict[str, str]]) -> set[str]:
    wrong = {check for check, finding in found.items() if finding["verdict"] == "fail"}
    assert all(found[check]["advice"] for check in wrong)
    return wrong


def test_a_healthy_host_has_no_complaints(signals: Signals) -> None:
    found = findings(signals, 0)
    assert {finding["verdict"] for finding in found.values()} == {"ok"}
    assert {"versions", "url", "key", "clock", "sign-in", "read", "write", "disk"} <= set(found)
    lines = signals.must("doctor").splitlines()
    assert len(lines) == len(found)
    assert all(line.startswith("ok ") for line in lines)
    assert signals.must("query", "--format", "jsonl") == ""


@pytest.mark.parametrize(
    ("variable", "value", "check"),
    [
        ("SUPABASE_URL", NOBODY_LISTENS, "url"),
        ("SUPABASE_URL", "example.com", "url"),
        ("SUPABASE_URL", "", "settings"),
        ("SUPABASE_PUBLISHABLE_KEY", "sb_publishable_of_another_project", "key"),
        ("SIGNALS_PASSWORD", "not the password", "sign-in"),
        ("SIGNALS_PASSWORD", "", "sign-in"),
        ("SIGNAL_API_KEY", "sgk_torn", "sign-in"),
        ("SIGNAL_API_KEY", f"sgk_{uuid4().hex}_{uuid4().hex}{uuid4().hex}", "sign-in"),
        ("SIGNALS_ACCESS_TOKEN", "no.token.atall", "sign-in"),
    ],
)
def test_a_wrong_setting_is_what_fails(
    signals: Signals, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, check: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert failed(findings(signals, 1)) == {check}
    assert f"fail  {check}" in signals("doctor").out


def test_a_secret_key_in_place_of_the_publishable_one_fails(
    signals: Signals, stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (stack.secret_key, stack.service_role_key):
        monkeypatch.setenv("SUPABASE_PUBLISHABLE_KEY", key)
        assert failed(findings(signals, 1)) == {"key"}
    monkeypatch.setenv("SUPABASE_PUBLISHABLE_KEY", stack.anon_key)
    assert findings(signals, 0)["key"]["verdict"] == "ok"


class _WithDate(BaseHTTPRequestHandler):
    """Forwards to the stack; its Date is `ahead` seconds later."""

    target = ""
    ahead = 0.0

    def do_GET(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(int(time.time() + self.ahead))

    def log_message(self, *_: object) -> None: ...

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        names = ("apikey", "authorization", "content-type")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        answer = httpx.request(self.command, self.target + self.path, content=body, headers=headers)
        self.send_response(answer.status_code)
        self.send_header("content-length", str(len(answer.content)))
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(answer.content)


@pytest.fixture
def other_clock(
    signals: Signals, stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[_WithDate]]:
    """The stack behind a proxy whose clock can be set."""
    handler = type("Handler", (_WithDate,), {"target": stack.api_url})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setenv("SUPABASE_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("ahead", "verdict", "direction"),
    [
        (-12, "warn", "ahead of"),
        (12, "warn", "behind"),
        (-3600, "fail", "ahead of"),
        (3600, "fail", "behind"),
    ],
)
def test_a_skewed_clock_is_told(
    signals: Signals, other_clock: type[_WithDate], ahead: float, verdict: str, direction: str
) -> None:
    other_clock.ahead = ahead
    found = findings(signals, int(verdict == "fail"))
    told = re.fullmatch(r"this clock is ([\d,]+) s (.*) the service's", found["clock"]["found"])
    assert told is not None
    # Dates have whole seconds.
    assert abs(int(told[1].replace(",", "")) - abs(ahead)) <= 1
    assert (found["clock"]["verdict"], told[2]) == (verdict, direction)
    assert found["read"]["verdict"] == found["write"]["verdict"] == "ok"


def test_a_missing_spool_is_made_by_the_first_producer(signals: Signals, tmp_path: Path) -> None:
    place = tmp_path / "not" / "yet"
    found = findings(signals, 0, "--spool-dir", str(place))
    assert "is made by the first producer" in found["spool"]["found"]
    assert not (tmp_path / "not").exists()


def test_a_spool_that_cannot_be_made_fails(signals: Signals, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file / "below", Path("/proc/signals")):
        assert failed(findings(signals, 1, "--spool-dir", str(place))) == {"spool"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_spool_that_is_read_only_fails(signals: Signals, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert failed(findings(signals, 1, "--spool-dir", str(tmp_path))) == {"spool"}
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_fails_and_one_that_fills_warns(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = os.statvfs("/")
    for free, code, verdict in ((1 << 20, 1, "fail"), (1 << 29, 0, "warn")):
        values = list(disk)[:10]
        values[1], values[4] = 1, free
        full = os.statvfs_result(values)
        monkeypatch.setattr(os, "statvfs", lambda _, full=full: full)
        assert findings(signals, code)["disk"]["verdict"] == verdict


def test_what_waits_and_what_was_refused_is_told(
    signals: Signals, trader_id: UUID, producers: Producers
) -> None:
    producers.start(trader_id, 2, url=NOBODY_LISTENS, flush_seconds=0.3)
    assert "2 signals wait" in findings(signals, 0)["spooled"]["found"]
    producers.end()
    orphaned = findings(signals, 0)["spooled"]
    assert orphaned["verdict"] == "warn"
    assert "2 of them of producers that have ended" in orphaned["found"]
    producers.start(UUID(int=1), 1).communicate("")
    assert findings(signals, 0)["dead letters"]["verdict"] == "warn"


def test_a_key_that_may_only_write_is_warned_about(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = signals.must("keys", "create", "writer", "--scope", "signals:write").strip()
    monkeypatch.setenv("SIGNAL_API_KEY", key)
    found = findings(signals, 0)
    assert found["read"]["verdict"] == "warn"
    assert "signals:read" in found["read"]["found"]
    assert found["write"]["verdict"] == "ok"
