"""`scripts/stack`: a small Supabase on loopback."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import sys
import time
from pathlib import Path

from local_stack import control, ports
from local_stack.errors import StackError
from local_stack.settings import StackSettings

FOLLOW_POLL_S = 0.2


def say(line: str) -> None:
    print(line, flush=True)


def load_settings(arguments: argparse.Namespace) -> StackSettings:
    """Return the stack's settings: the saved ones, then what the command line says."""
    control.check_name(arguments.name)
    fresh = StackSettings(name=arguments.name)
    if (fresh.directory / "stack.json").exists():
        settings = StackSettings.load(fresh.directory)
    elif arguments.name == "default":
        settings = fresh
    else:
        api, database = ports.choose(2, avoid=control.ports_of_other_stacks(fresh))
        settings = dataclasses.replace(fresh, api_port=api, database_port=database)
    given = {
        name: value
        for name in ("api_port", "database_port")
        if (value := getattr(arguments, name, None)) is not None
    }
    if getattr(arguments, "fast", False):
        given["durable"] = False
    return dataclasses.replace(settings, **given)


def up(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    control.up(settings, say)
    show(control.status(settings))
    return 0


def down(arguments: argparse.Namespace) -> int:
    stopped = control.down(load_settings(arguments))
    say(f"Stack {arguments.name} {'is stopped' if stopped else 'was not running'}")
    return 0


def status(arguments: argparse.Namespace) -> int:
    known = control.status(load_settings(arguments))
    if arguments.json:
        say(json.dumps(known, indent=2))
    else:
        show(known)
    return 0 if known["state"] != "stopped" else 1


def reset(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    control.reset(settings, say)
    show(control.status(settings))
    return 0


def logs(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    known = control.services_with_logs(settings)
    if arguments.service and arguments.service not in known:
        raise StackError(
            f"Cannot show the log of {arguments.service}: stack {settings.name} has"
            f" {', '.join(known) or 'no logs yet'}"
        )
    services = [arguments.service] if arguments.service else known
    for service in services:
        prefix = "" if arguments.service else f"{service:<{max(map(len, services))}} | "
        for line in control.tail(settings, service, arguments.lines):
            say(prefix + line)
    if arguments.follow:
        follow([settings.log_directory / f"{service}.log" for service in services])
    return 0


def follow(paths: list[Path]) -> None:
    """Print what is appended to the logs until interrupted; survive their rotation."""
    files = {path: path.open("rb") for path in paths}
    for file in files.values():
        file.seek(0, os.SEEK_END)
    width = max(len(path.stem) for path in paths)
    while True:
        for path, file in files.items():
            for line in file:
                prefix = f"{path.stem:<{width}} | " if len(paths) > 1 else ""
                say(prefix + line.decode(errors="replace").rstrip("\n"))
            if path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                file.close()
                files[path] = path.open("rb")
        time.sleep(FOLLOW_POLL_S)


def show(known: dict[str, object]) -> None:
    """Print a status for people."""
    if known["state"] == "stopped":
        say(f"Stack {known['name']} is not running; scripts/stack up starts it")
        return
    for label in ("api_url", "database_url", "publishable_key", "secret_key", "logs"):
        say(f"{label.replace('_', ' '):>16}: {known[label]}")
    services = known["services"]
    assert isinstance(services, dict)  # noqa: S101
    for name, service in services.items():
        restarts = f", restarted {service['restarts']} times" if service["restarts"] else ""
        say(f"{name:>16}: {service['state']} on port {service['port']}{restarts}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/stack", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for action, help_text in (
        (up, "start it, or take in what changed; apply the migrations"),
        (down, "stop it; the data stays"),
        (status, "show its URLs, keys, ports and services"),
        (reset, "start again with an empty database"),
        (logs, "show what the services wrote"),
    ):
        command = commands.add_parser(action.__name__, help=help_text)
        command.set_defaults(action=action)
        command.add_argument("--name", default="default", help="which stack (default: default)")
        if action is up:
            command.add_argument("--api-port", type=int, help="default: 54321, or a free one")
            command.add_argument("--database-port", type=int, help="default: 54322, or a free one")
            command.add_argument("--fast", action="store_true", help="no fsync: for tests only")
        elif action is status:
            command.add_argument("--json", action="store_true")
        elif action is logs:
            command.add_argument("service", nargs="?")
            command.add_argument("--follow", action="store_true")
            command.add_argument("--lines", type=int, default=100)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    try:
        code: int = arguments.action(arguments)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"Cannot write {error.filename or 'a file of the stack'}: the disk is full; free some"
            " space and run the command again",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
