"""The agent among real processes that are killed: nothing is lost, doubled or reordered."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from uuid import UUID

from tests.client.agent.conftest import ACCOUNTS, Host
from tests.client.waiting import wait_until


def check(host: Host, account: UUID, name: str, *, killed: bool = False) -> None:
    """Check that what a trader noted is stored, once and in order.

    A trader that was killed may have published one signal that it did not come to note.
    """
    accepted, stored = host.accepted(name), host.stored(account, name)
    assert accepted, "the trader accepted nothing"
    more = 1 if killed and len(stored) > len(accepted) else 0
    assert stored == list(range(len(accepted) + more))


def test_an_agent_killed_again_and_again_loses_and_doubles_nothing(
    host: Host, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    entropy = random.Random(seed)
    host.memory.lost_acks = 3
    names = [(account, f"T{number}") for number, account in enumerate(ACCOUNTS * 2)]
    traders = [host.start_trader(account, name, 3000, 0.002) for account, name in names]
    kills = stored = 0
    while any(trader.poll() is None for trader in traders):
        # Not before it did some work: traders whose agents all die early would send by themselves.
        if host.memory.count() > stored:
            time.sleep(entropy.uniform(0, 0.5))
            stored = host.memory.count()
            kills += host.kill_agent()
        time.sleep(0.01)
    assert [trader.wait(60) for trader in traders] == [0, 0, 0, 0], host.log()
    assert kills > 2
    for account, name in names:
        check(host, account, name)
    # The journal makes it exact: a batch that was begun goes out again under its id, as it was.
    assert host.memory.sent_twice == 0


def test_what_a_killed_trader_published_is_sent_by_the_agent(host: Host) -> None:
    agent = host.start_agent()
    host.memory.down = True
    trader = host.start_trader(ACCOUNTS[0], "T", 5000)
    wait_until(lambda: len(host.accepted("T")) > 500)
    trader.kill()
    trader.wait()
    assert not host.stored(ACCOUNTS[0], "T")
    host.memory.down = False
    wait_until(lambda: len(host.stored(ACCOUNTS[0], "T")) >= len(host.accepted("T")))
    check(host, ACCOUNTS[0], "T", killed=True)
    agent.terminate()
    assert agent.wait(15) == 0


def test_traders_killed_at_random_moments_lose_nothing(host: Host) -> None:
    entropy = random.Random(7)
    host.start_agent()
    for number in range(6):
        trader = host.start_trader(ACCOUNTS[number % 2], f"T{number}", 100_000)
        wait_until(lambda number=number: len(host.accepted(f"T{number}")) > 0)  # type: ignore[misc]
        time.sleep(entropy.uniform(0, 0.3))
        trader.kill()
        trader.wait()
    for number in range(6):
        account, name = ACCOUNTS[number % 2], f"T{number}"
        wait_until(lambda: len(host.stored(account, name)) >= len(host.accepted(name)))  # noqa: B023
        check(host, account, name, killed=True)


def test_of_agents_that_race_for_a_spool_one_sends(host: Host) -> None:
    agents = [host.start_agent() for _ in range(3)]
    wait_until(lambda: sum(agent.poll() is None for agent in agents) == 1)
    assert sorted(str(agent.poll()) for agent in agents) == ["0", "0", "None"]
    trader = host.start_trader(ACCOUNTS[0], "T", 50)
    assert trader.wait(30) == 0
    check(host, ACCOUNTS[0], "T")


def test_a_host_without_credentials_for_an_agent_sends_from_each_process(host: Host) -> None:
    del host.environment["SIGNAL_API_KEYS_FILE"]
    traders = [host.start_trader(ACCOUNTS[0], name, 200) for name in ("A", "B")]
    assert [trader.wait(60) for trader in traders] == [0, 0]
    assert "SIGNAL_API_KEY" in host.log()
    assert not host.agent_is_there()
    for name in ("A", "B"):
        check(host, ACCOUNTS[0], name)


def test_an_agent_without_the_key_of_an_account_leaves_its_slots_to_the_traders(host: Host) -> None:
    host.start_agent()
    assert host.start_trader(ACCOUNTS[0], "before", 50).wait(30) == 0
    # One of them takes the slot that the agent has sent so far.
    stranger = UUID(int=3)
    traders = [host.start_trader(stranger, "S", 50), host.start_trader(ACCOUNTS[0], "T", 50)]
    assert [trader.wait(60) for trader in traders] == [0, 0]
    check(host, stranger, "S")
    check(host, ACCOUNTS[0], "T")


def test_an_agent_that_is_asked_to_end_sends_what_lingers(host: Host) -> None:
    agent = host.start_agent("--linger-ms", "600000")
    wait_until(host.agent_is_there)
    trader = host.start_trader(ACCOUNTS[0], "T", 50)
    wait_until(lambda: len(host.accepted("T")) == 50)
    assert host.memory.count() == 0
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(15) == 0
    assert len(host.stored(ACCOUNTS[0], "T")) == 50
    assert trader.wait(15) == 0


def test_an_agent_that_is_asked_to_end_does_so_in_time_and_keeps_the_rest(host: Host) -> None:
    agent = host.start_agent("--drain-seconds", "0.5")
    trader = host.start_trader(ACCOUNTS[0], "T", 300)
    wait_until(lambda: len(host.stored(ACCOUNTS[0], "T")) == 300)
    assert trader.wait(30) == 0
    host.memory.down = True
    trader = host.start_trader(ACCOUNTS[0], "U", 300)
    wait_until(lambda: len(host.accepted("U")) == 300)
    asked = time.monotonic()
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(15) == 0
    assert time.monotonic() - asked < 5
    trader.kill()
    host.memory.down = False
    host.start_agent()
    wait_until(lambda: len(host.stored(ACCOUNTS[0], "U")) == 300)
    check(host, ACCOUNTS[0], "U")
    assert host.memory.sent_twice == 0


def test_an_agent_that_nobody_needs_ends(host: Host) -> None:
    agent = host.start_agent("--exit-when-idle", "0.5")
    assert host.start_trader(ACCOUNTS[0], "T", 20).wait(30) == 0
    assert agent.wait(20) == 0
    check(host, ACCOUNTS[0], "T")
