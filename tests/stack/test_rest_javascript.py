"""The stack as supabase-js sees it, unmodified, under Node."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.plugins.stack import RunningStack
from tests.stack.rest_table import rest_schema

SCRIPT = Path(__file__).parent / "js" / "official_client.mjs"
CHECKS = [
    "signs up, out and in",
    "verifies the token by the published keys",
    "refreshes the session and updates the user",
    "names the error of a wrong password",
    "administers users",
    "calls functions by POST and GET, as the signed-in user",
    "filters, orders and pages",
    "counts, and takes one row or none",
    "inserts, changes, upserts and deletes",
    "reaches an edge function with the caller's token",
]


@pytest.fixture(scope="module")
def outcomes(stack: RunningStack) -> dict[str, str]:
    """What each check of the script came to; the script runs once."""
    environment = {
        "PATH": os.environ["PATH"],
        "SUPABASE_URL": stack.api_url,
        "PUBLISHABLE_KEY": stack.publishable_key,
        "SECRET_KEY": stack.secret_key,
    }
    with rest_schema(stack.database_url):
        finished = subprocess.run(
            ["node", str(SCRIPT)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    result: dict[str, str] = json.loads(finished.stdout)
    return result


def test_every_check_of_the_script_is_reported(outcomes: dict[str, str]) -> None:
    assert list(outcomes) == CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_the_javascript_client(outcomes: dict[str, str], check: str) -> None:
    assert outcomes[check] == "ok"
