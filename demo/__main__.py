"""`scripts/demo`: real strategies on real prices, stored exactly once and followed live."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from demo.checks import report
from demo.display import open_display, say
from demo.plan import DemoAccount, Endpoint, plan_workers
from demo.setting import (
    STACK_NAME,
    DemoError,
    only_one_at_a_time,
    open_accounts,
    start_stack,
    stop_stack,
)
from demo.stage import perform


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Publish the signals of real strategies on real prices for three accounts, "
        "follow them live, read everything back and check it. The last line is a JSON report.",
    )
    parser.add_argument("--seconds", type=_positive, default=20, help="how long to publish (20)")
    parser.add_argument(
        "--rate",
        type=_positive,
        default=30_000,
        help="signals a minute, of all accounts together (30000)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--keep", action="store_true", help="leave the stack running afterwards")
    arguments = parser.parse_args(words)
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"Cannot write {arguments.json}: its folder does not exist")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    try:
        with only_one_at_a_time():
            result = hold(arguments)
    except DemoError as error:
        say(f"scripts/demo: {error}")
        return 1
    except KeyboardInterrupt:
        say("scripts/demo: interrupted")
        return 130
    line = json.dumps(result)
    if arguments.json:
        arguments.json.write_text(line + "\n")
    print(line)
    return 0 if result["ok"] else 1


def hold(arguments: argparse.Namespace) -> dict[str, object]:
    """Set the stage, perform, judge, and clear up."""
    endpoint = start_stack()
    try:
        accounts = open_accounts(endpoint)
        plans = plan_workers(arguments.rate, arguments.seconds)
        say(
            f"{len(plans)} trader processes publish for {arguments.seconds:g} s at "
            f"{arguments.rate:,.0f} signals a minute; one process follows all accounts live"
        )
        with open_display() as display:
            evidence = perform(endpoint, accounts, plans, arguments.seconds, display)
        result = report(evidence)
        for name, holds in result["checks"].items():
            say(f"{'ok    ' if holds else 'FAILED'}  {name.replace('_', ' ')}")
        if arguments.keep:
            _say_how_to_look(endpoint, accounts)
        return result
    finally:
        if not arguments.keep:
            stop_stack()


def _say_how_to_look(endpoint: Endpoint, accounts: dict[str, DemoAccount]) -> None:
    say(f"The stack runs on at {endpoint.url}; scripts/stack down --name {STACK_NAME} ends it")
    for account in accounts.values():
        say(f"  {account.tier}: {account.email} / {account.password}")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
