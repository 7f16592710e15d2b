"""`signals keys` on the real stack: a key is shown once, works, and ends."""

from __future__ import annotations

import json
import os

import pytest

from tests.client.cli.conftest import Signals


def test_a_key_is_shown_once_works_and_is_revoked(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = signals("keys", "create", "host 7", "--scope", "signals:read", "--expires-in-days", "3")
    assert made.code == 0
    key = made.out.strip()
    assert key.startswith("sgk_")
    assert key not in made.err

    table = signals.must("keys", "list")
    [listed] = map(json.loads, signals.must("keys", "list", "--json").splitlines())
    assert key not in table
    assert key not in json.dumps(listed)
    assert listed["key_id"] in table
    assert listed["key_id"] in made.err
    assert (listed["name"], listed["scopes"]) == ("host 7", ["signals:read"])

    with monkeypatch.context() as machine:
        machine.setenv("SIGNAL_API_KEY", key)
        assert signals.must("query", "--format", "jsonl") == ""
        refused = signals("keys", "list")
        assert refused.code == 1
        assert "keys:manage" in refused.err
        signals_of_key = signals("doctor", "--json")
        assert key not in signals_of_key.out

    assert "Revoked" in signals.must("keys", "revoke", listed["key_id"])
    assert signals.must("keys", "list", "--json") == ""
    assert "revoked" in signals.must("keys", "list", "--all")
    monkeypatch.setenv("SIGNAL_API_KEY", key)
    ended = signals("query")
    assert ended.code == 1
    assert key not in ended.err + ended.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "host"),
        ("create", "host", "--scope", "signals:everything"),
        ("revoke", "not-an-id"),
    ],
)
def test_wrong_use_is_refused(signals: Signals, arguments: tuple[str, ...]) -> None:
    assert signals("keys", *arguments).code == 2


def test_without_an_environment_it_says_what_to_set(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUPABASE_URL")
    answer = signals("keys", "list")
    assert answer.code == os.EX_CONFIG
    assert "SUPABASE_URL is not set" in answer.err
