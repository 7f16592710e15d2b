"""The agent of this host, through which many processes of a benchmark publish."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.project import Project
from benchmarks.publishing import Target
from local_stack.errors import StackError
from local_stack.settings import REPOSITORY

API_KEYS = "api-keys"
LOG = "agent.log"
READY = "The agent of "
READY_SECONDS = 15.0
END_SECONDS = 20.0


@contextmanager
def host_agent(
    project: Project, targets: Sequence[Target], *, linger_ms: float, batch_max_messages: int
) -> Iterator[Path]:
    """Have an agent send the signals of these accounts, and return the spool to publish into."""
    state = REPOSITORY / ".stack"
    state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="agent-", dir=state) as directory:
        spool = Path(directory)
        _write_api_keys(project, targets, spool / API_KEYS)
        options = ["--linger-ms", str(linger_ms), "--batch-max-messages", str(batch_max_messages)]
        with (spool / LOG).open("wb") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "signal_persistence.agent", "--spool-dir", spool, *options],
                env=os.environ
                | {
                    "SUPABASE_URL": project.url,
                    "SUPABASE_PUBLISHABLE_KEY": project.key,
                    "SIGNAL_API_KEYS_FILE": str(spool / API_KEYS),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_until_ready(agent, spool / LOG)
            yield spool
        finally:
            agent.terminate()
            try:
                agent.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()


def _write_api_keys(project: Project, targets: Sequence[Target], path: Path) -> None:
    lines = []
    for target in targets:
        answer = httpx.post(
            f"{project.url}/rest/v1/rpc/create_api_key",
            json={"name": "bench", "scopes": ["signals:write"]},
            headers={"apikey": project.key, "Authorization": f"Bearer {target.access_token}"},
        )
        answer.raise_for_status()
        lines.append(answer.json()["api_key"] + "\n")
    path.touch(mode=0o600)
    path.write_text("".join(lines))


def _wait_until_ready(agent: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while READY not in log.read_text():
        if agent.poll() is not None or time.monotonic() > deadline:
            raise StackError(f"Cannot start the agent of the benchmark:\n{log.read_text()}")
        time.sleep(0.05)
