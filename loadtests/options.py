"""The options of scripts/load beside locust's own, and the profile that they ask for.

`python -m loadtests.options` prints them: locust's --help does not know a locustfile's options.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

from loadtests.profiles import PROFILES, Profile, Thresholds, scaled


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose, scale and judge a load."""
    parser.add_argument(
        "--load-profile",
        choices=list(PROFILES),
        default=os.environ.get("SIGNAL_LOAD_PROFILE", "sustained"),
        help="sustained (100k signals/min, default), burst (1M/min) or smoke (a few)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=float(os.environ.get("SIGNAL_LOAD_SCALE", "1")),
        help="multiplies the profile's rates (default 1)",
    )
    parser.add_argument("--seconds", type=float, help="length of the measured part")
    parser.add_argument("--warm-up-seconds", type=float, help="length of the part before it")
    parser.add_argument("--ingesting-users", type=int, help="accounts that send signals")
    parser.add_argument("--querying-users", type=int, help="accounts that read signals")
    parser.add_argument(
        "--keep-accounts", action="store_true", help="do not delete the logins at the end"
    )
    for field in dataclasses.fields(Thresholds):
        name = field.name.replace("_", "-")
        parser.add_argument(f"--{name}", type=float, help=f"threshold: {field.name}")


def profile_of(options: argparse.Namespace) -> Profile:
    """Return the profile that the options ask for; raise ValueError if it cannot be."""
    chosen = scaled(PROFILES[options.load_profile], options.scale)
    limits = [field.name for field in dataclasses.fields(Thresholds)]
    thresholds = dataclasses.replace(chosen.thresholds, **_given(options, limits))
    names = ["seconds", "warm_up_seconds", "ingesting_users", "querying_users"]
    return dataclasses.replace(chosen, thresholds=thresholds, **_given(options, names))


def _given(options: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


if __name__ == "__main__":
    described = argparse.ArgumentParser(
        prog="scripts/load",
        description="Run a load test against the project that .env names, headless.",
        epilog="Every option of locust works as well, such as --processes 4.",
    )
    add_options(described)
    described.parse_args()
