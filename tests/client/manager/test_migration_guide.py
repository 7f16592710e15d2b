"""The migration guide shows one program that runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.plugins.stack import Account, RunningStack

GUIDE = Path(__file__).parents[3] / "docs" / "migration_guide.md"


def test_the_snippets_are_one_program_that_moves_an_account_there_and_back(
    stack: RunningStack, account: Account
) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(snippets)],
        env=os.environ
        | {
            "SUPABASE_URL": stack.api_url,
            "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
            "SIGNALS_ACCESS_TOKEN": account.access_token,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.splitlines() == [
        "closed Counter({'closed': 1})",
        "dual_write 2 0",
        "True 2 {}",
        "persist ['NQ=F', 'ES=F']",
        "memory closed 1",
        "0 True",
    ]
