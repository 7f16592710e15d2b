"""One host of the tests: a service, a spool, traders and agents as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

import signal_persistence
from signal_persistence.agent.doorbell import Bell
from signal_persistence.spool import project_directory
from tests.client.agent.storing_service import (
    Memory,
    api_key_of,
    storing_service,
    token_of,
)

ACCOUNTS = (UUID(int=1), UUID(int=2))
_REPOSITORY = Path(__file__).parents[3]
_CLIENT = Path(signal_persistence.__file__).parents[1]
"""Where this process has the client from; a planted bug is in a copy."""


@dataclass
class Host:
    """What runs on one machine, with the service that it sends to."""

    url: str
    memory: Memory
    folder: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def project(self) -> Path:
        return project_directory(self.spool, self.url)

    def start_agent(self, *options: str) -> subprocess.Popen[bytes]:
        command = ["-m", "signal_persistence.agent", "--spool-dir", str(self.spool)]
        return self._start([*command, "--linger-ms", "5", *options])

    def start_trader(
        self, account: UUID, name: str, count: int, pause: float = 0.0
    ) -> subprocess.Popen[bytes]:
        place = (self.url, str(self.spool), str(account), name)
        rest = (str(count), str(self.folder / name), str(pause))
        return self._start(["-m", "tests.client.agent.trader", *place, *rest])

    def start_scene(self, scene: str, account: UUID) -> subprocess.Popen[bytes]:
        place = (self.url, str(self.spool), str(account))
        return self._start(["-m", "tests.client.agent.scenes", scene, *place])

    def agent_is_there(self) -> bool:
        bell = Bell(self.project / "agent" / "agent.sock")
        try:
            return bell.ring()
        finally:
            bell.close()

    def kill_agent(self) -> bool:
        """Kill whichever agent runs, and say whether one did."""
        if not self.agent_is_there():
            return False
        os.kill(int((self.project / "agent" / "agent.lock").read_text()), signal.SIGKILL)
        return True

    def accepted(self, name: str) -> list[int]:
        """Return the numbers that a trader noted once publish() had accepted them."""
        notes = self.folder / name
        return [int(line) for line in notes.read_text().split("\n")[:-1]] if notes.exists() else []

    def stored(self, account: UUID, name: str) -> list[int]:
        """Return the numbers that the service stores of a trader, in the order of their seqs."""
        return [
            int(signal["price"]) - 100
            for signal in self.memory.signals(token_of(account))
            if signal["symbol"] == name
        ]

    def log(self) -> str:
        """Return what agents that were started by traders have logged."""
        log = self.project / "agent" / "agent.log"
        return log.read_text() if log.exists() else ""

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, *arguments], env=self.environment)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End everything that was started."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.kill_agent()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    keys = tmp_path / "keys"
    keys.write_text("# one a line\n" + "\n".join(map(api_key_of, ACCOUNTS)) + "\n")
    keys.chmod(0o600)
    path = os.pathsep.join((str(_CLIENT), str(_REPOSITORY)))
    with storing_service(Memory()) as service:
        environment = {
            "PYTHONPATH": path,
            "PATH": os.environ["PATH"],
            "SIGNAL_API_KEYS_FILE": str(keys),
            "SUPABASE_URL": service.url,
            "SUPABASE_PUBLISHABLE_KEY": "key",
        }
        memory = service.otherwise.__self__  # type: ignore[attr-defined]
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        host = Host(service.url, memory, tmp_path, environment)
        try:
            yield host
        finally:
            host.stop()
        assert memory.problems == []
