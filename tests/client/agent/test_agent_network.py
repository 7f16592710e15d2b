"""Whatever the network does between an agent and the service, nothing is lost or doubled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from tests.client.agent.conftest import ACCOUNTS, Host
from tests.client.agent.test_agent_processes import check
from tests.client.faults.fault_proxy import FAULTS, FaultProxy
from tests.client.waiting import wait_until

IMPATIENT = (
    *("--request-timeout-ms", "300", "--retry-backoff-ms", "5", "--retry-backoff-max-ms", "50"),
    *("--batch-max-messages", "50"),
)


@pytest.fixture
def proxy(host: Host) -> Iterator[FaultProxy]:
    port = urlsplit(host.url).port
    assert port is not None
    with FaultProxy(port) as proxy:
        yield proxy


@pytest.fixture
def behind(host: Host, proxy: FaultProxy) -> Iterator[Host]:
    """The host, which reaches the service by the proxy."""
    host.environment["SUPABASE_URL"] = proxy.url
    behind = replace(host, url=proxy.url)
    try:
        yield behind
    finally:
        behind.stop()


def test_an_agent_behind_a_bad_network_loses_and_doubles_nothing(
    behind: Host, proxy: FaultProxy, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    # Each fault once, in any order, over the batches of both accounts.
    faults = [*FAULTS]
    random.Random(seed).shuffle(faults)
    behind.start_agent(*IMPATIENT)
    wait_until(behind.agent_is_there)
    # The tokens are there before: it is batches that the faults are to hit.
    first = [behind.start_trader(one, f"F{at}", 1) for at, one in enumerate(ACCOUNTS)]
    assert [trader.wait(60) for trader in first] == [0, 0]
    proxy.play(faults)
    names = [(account, f"T{number}") for number, account in enumerate(ACCOUNTS * 2)]
    traders = [behind.start_trader(account, name, 300, 0.002) for account, name in names]
    assert [trader.wait(90) for trader in traders] == [0, 0, 0, 0], f"seed {seed}"
    for account, name in names:
        check(behind, account, name)
    assert proxy.requests > len(faults)
    # A batch goes out again under its id, as it was, whatever came of it.
    assert behind.memory.sent_twice == 0
    assert not (behind.project / "dead_letters").exists()
