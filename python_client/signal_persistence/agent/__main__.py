"""Run the agent: `python -m signal_persistence.agent`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from signal_persistence.agent.accounts import accounts_from
from signal_persistence.agent.launch import SHARED_SETTINGS
from signal_persistence.agent.process import Agent, AgentPlan
from signal_persistence.client import project_from
from signal_persistence.errors import ConfigurationError, SignalPersistenceError
from signal_persistence.settings import ProducerSettings
from signal_persistence.spool import default_spool_directory, project_directory
from signal_persistence.spool.files import OS_FILES
from signal_persistence.transport import HttpTransport

_log: Final = logging.getLogger("signal_persistence")
_LOG_BYTES: Final = 1024**2
_LOG_FILES: Final = 3


def main(arguments: Sequence[str], program: str = "python -m signal_persistence.agent") -> int:
    """Run until SIGTERM or SIGINT, and return the exit code.

    0 also when another agent runs already, EX_CONFIG (78) for what the environment or an option
    lacks, 1 for a spool that cannot be used.
    """
    options = _parser(program).parse_args(arguments)
    try:
        url, key = project_from(os.environ)
        project = project_directory(options.spool_dir or default_spool_directory(), url)
        _log_to(project / "agent" if options.detach else None)
        plan = AgentPlan(
            project=project,
            accounts=accounts_from(os.environ, url, key),
            settings=_settings(options),
            drain_seconds=options.drain_seconds,
            idle_seconds=options.exit_when_idle,
        )
        if options.detach:
            return _detach(lambda ready: _run(plan, url, key, ready))
        return _run(plan, url, key, lambda: None)
    except ConfigurationError as error:
        _log.error("%s", error)
        return os.EX_CONFIG
    except SignalPersistenceError as error:
        _log.error("%s", error)
        return 1


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Send what all producers of this host with agent=True publish. The project and "
        "the accounts come from the environment: see .env.example and docs/agent.md.",
    )
    parser.add_argument("--spool-dir", type=Path, help="default: SIGNAL_SPOOL_DIR, as producers")
    parser.add_argument(
        "--detach", action="store_true", help="return when it runs; it logs to agent/agent.log"
    )
    parser.add_argument("--drain-seconds", type=float, default=10.0, help="after SIGTERM")
    parser.add_argument(
        "--exit-when-idle",
        type=float,
        metavar="SECONDS",
        help="end when for so long there was no producer and nothing to send",
    )
    group = parser.add_argument_group("settings of a producer", "they are explained there")
    for name, kind in SHARED_SETTINGS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind)
    return parser


def _settings(options: argparse.Namespace) -> ProducerSettings:
    given: dict[str, Any] = {name: getattr(options, name) for name in SHARED_SETTINGS}
    return ProducerSettings(**{name: value for name, value in given.items() if value is not None})


def _log_to(folder: Path | None) -> None:
    """Log to a file of bounded size, or to stderr."""
    handler: logging.Handler = logging.StreamHandler()
    if folder is not None:
        OS_FILES.make_directory(folder)
        handler = RotatingFileHandler(
            folder / "agent.log", maxBytes=_LOG_BYTES, backupCount=_LOG_FILES
        )
    logging.basicConfig(
        level=logging.INFO,
        handlers=[handler],
        format="%(asctime)s %(process)d %(levelname)s %(message)s",
    )
    # It says every request of a token.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _run(plan: AgentPlan, url: str, key: str, ready: Callable[[], object]) -> int:
    return asyncio.run(_serve(plan, url, key, ready))


async def _serve(plan: AgentPlan, url: str, key: str, ready: Callable[[], object]) -> int:
    settings = plan.settings
    transport = HttpTransport(
        url,
        key,
        timeout=settings.request_timeout_ms / 1000,
        max_connections=settings.max_in_flight_requests,
    )
    agent = Agent(plan, transport)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.stop)
    try:
        if not await agent.run(ready):
            _log.info("Another agent sends what is in %s", plan.project)
    finally:
        await transport.aclose()
    return 0


def _detach(run: Callable[[Callable[[], object]], int]) -> int:
    """Run in a child; return 0 when it is ready, or how it ended if that comes first."""
    listening, telling = os.pipe()
    child = os.fork()
    if child:
        os.close(telling)
        ready = os.read(listening, 1)
        return 0 if ready else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(listening)
    os._exit(_run_as_child(run, telling))


def _run_as_child(run: Callable[[Callable[[], object]], int], telling: int) -> int:
    try:
        return run(lambda: _tell_ready(telling))
    except SignalPersistenceError as error:
        _log.error("%s", error)
    except BaseException:
        _log.exception("The agent failed")
    finally:
        logging.shutdown()
    return 1


def _tell_ready(telling: int) -> None:
    os.write(telling, b"1")
    os.close(telling)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
