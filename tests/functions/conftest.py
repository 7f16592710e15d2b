"""Fixtures of the edge functions' scenarios."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.functions.worker import TIMEOUT_SECONDS, Worker
from tests.plugins.stack import Account, MakeAccount, RunningStack


@pytest.fixture(scope="session")
def http(stack: RunningStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.api_url, timeout=TIMEOUT_SECONDS) as client:
        yield client


@pytest.fixture
def worker(http: httpx.Client, stack: RunningStack, account: Account) -> Worker:
    """A worker of a new account of the free tier (100 signals a day)."""
    return Worker.start(http, stack, account)


@pytest.fixture
def elite_worker(http: httpx.Client, stack: RunningStack, make_account: MakeAccount) -> Worker:
    """A worker of a new account without quotas."""
    return Worker.start(http, stack, make_account("elite"))
