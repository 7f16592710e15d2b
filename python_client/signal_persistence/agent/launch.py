"""Starting the agent of a spool from one of its workers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from signal_persistence.settings import ProducerSettings
from signal_persistence.spool.files import OS_FILES

SHARED_SETTINGS: Final[Mapping[str, type]] = {
    "transport": str,
    "linger_ms": float,
    "batch_max_messages": int,
    "batch_max_bytes": int,
    "max_in_flight_requests": int,
    "buffer_max_messages": int,
    "request_timeout_ms": float,
    "retry_backoff_ms": float,
    "retry_backoff_max_ms": float,
    "spool_fsync": str,
    "spool_fsync_interval_ms": float,
    "dead_letters_max_bytes": int,
}
"""The settings of a producer that are settings of its agent as well."""

_STARTS_WITHIN: Final = 15.0
"""Seconds that an agent may take from its start to being ready."""
_LOOK_EVERY: Final = 0.05
_IDLE_SECONDS: Final = 300
"""An agent that nobody started by hand ends when it was not needed for so long."""


@dataclass(slots=True)
class Launcher:
    """Starts `python -m signal_persistence.agent --detach` with the settings of the worker.

    The agent takes its credentials from the environment, which it inherits, never from here.
    """

    project: Path
    url: str
    key: str
    settings: ProducerSettings
    hopeless: bool = False
    """Whether the agent said that its environment lacks something: another try is no use."""

    async def start(self) -> int | None:
        """Start the agent, unless another worker is at it: None then. Return the exit code.

        Zero: an agent runs, this one or one that was there before.
        """
        folder = self.project / "agent"
        OS_FILES.make_directory(folder)
        lock = os.open(folder / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Of this process only: a flock would live on in every child forked meanwhile.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        else:
            return await self._run()
        finally:
            os.close(lock)

    async def _run(self) -> int:
        environment = {"SUPABASE_URL": self.url, "SUPABASE_PUBLISHABLE_KEY": self.key}
        process = subprocess.Popen(  # noqa: ASYNC220
            self._command(),
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            for _ in range(round(_STARTS_WITHIN / _LOOK_EVERY)):
                if process.poll() is not None:
                    break
                await asyncio.sleep(_LOOK_EVERY)
        finally:
            # Too slow, or this worker is being closed: what it forked goes on, if it got so far.
            process.kill()
            code = process.wait()
        self.hopeless = code == os.EX_CONFIG
        return code

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "signal_persistence.agent", "--detach"]
        command += ["--spool-dir", str(self.project.parent.absolute())]
        command += ["--exit-when-idle", str(_IDLE_SECONDS)]
        for name in SHARED_SETTINGS:
            command += [f"--{name.replace('_', '-')}", str(getattr(self.settings, name))]
        return command
