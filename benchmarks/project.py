"""A durable stack that only the benchmark uses, and accounts in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.publishing import Target
from loadtests.project import Call, Keys, ProjectError, create_account
from local_stack import control, ports
from local_stack.errors import StackError
from local_stack.settings import PUBLISHABLE_KEY, SECRET_KEY, StackSettings


@dataclass(frozen=True, slots=True)
class Project:
    """Where the benchmark sends to, and the direct connection it checks with."""

    url: str
    key: str
    database_url: str

    def new_targets(self, count: int) -> tuple[Target, ...]:
        """Create elite accounts, so that every run starts with nothing stored."""
        keys = Keys(anon=PUBLISHABLE_KEY, service_role=SECRET_KEY)
        with httpx.Client(base_url=self.url, timeout=30) as http:
            accounts = [create_account(_caller(http), keys) for _ in range(count)]
        return tuple(
            Target(account.account_id, account.trader_id, account.access_token)
            for account in accounts
        )


@contextmanager
def bench_project(name: str = "bench") -> Iterator[Project]:
    """Start an empty, durable stack; remove it at the end."""
    fresh = StackSettings(name=name)
    if control.is_running(fresh):
        raise StackError(
            f"Cannot run the benchmark: stack {name} is running, perhaps for another benchmark; "
            f"wait for that, or end it with scripts/stack down --name {name}"
        )
    control.remove(fresh)
    api, database = ports.choose(2, avoid=control.ports_of_other_stacks(fresh))
    settings = StackSettings(name=name, api_port=api, database_port=database, durable=True)
    attached = None
    try:
        attached = control.up(settings, say, attached=True)
        yield Project(settings.api_url, PUBLISHABLE_KEY, settings.database_url)
    finally:
        if attached is not None:
            attached.close()
        control.remove(settings)


def say(line: str) -> None:
    """Report progress beside the result, which goes to standard output."""
    print(line, file=sys.stderr, flush=True)


def _caller(http: httpx.Client) -> Call:
    def call(
        method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> Any:
        answer = http.request(method, path, json=body, headers=dict(headers))
        if not answer.is_success:
            raise ProjectError(f"Cannot prepare the benchmark: {path}: {answer.text}")
        return answer.json() if answer.content else None

    return call
