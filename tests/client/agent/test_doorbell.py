"""The doorbell: it is heard when somebody listens, and it says when nobody does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from signal_persistence.agent.doorbell import Bell, Doorbell


def deep(path: Path) -> Path:
    """Return a folder whose path is longer than a socket's address may be."""
    folder = path / ("d" * 60) / ("e" * 60)
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("long", [False, True])
async def test_a_ring_is_heard(tmp_path: Path, long: bool) -> None:
    path = (deep(tmp_path) if long else tmp_path) / "agent.sock"
    rung = asyncio.Event()
    doorbell, bell = Doorbell(path, rung.set), Bell(path)
    assert bell.ring()
    async with asyncio.timeout(5):
        await rung.wait()
    doorbell.close()
    bell.close()


async def test_a_ring_fails_when_nobody_listens_any_more(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    bell = Bell(path)
    assert not bell.ring()
    doorbell = Doorbell(path, lambda: None)
    assert bell.ring()
    # As after a SIGKILL: the file stays, the socket is gone.
    asyncio.get_running_loop().remove_reader(doorbell._socket)
    doorbell._socket.close()
    assert path.exists()
    assert not bell.ring()
    successor = Doorbell(path, lambda: None)
    assert bell.ring()
    successor.close()
    assert not bell.ring()
    bell.close()


async def test_a_listener_that_does_not_come_to_it_never_blocks_who_rings(tmp_path: Path) -> None:
    doorbell, bell = Doorbell(tmp_path / "agent.sock", lambda: None), Bell(tmp_path / "agent.sock")
    assert all(bell.ring() for _ in range(5000))
    doorbell.close()
    bell.close()


async def test_a_forked_child_can_forget_it_and_the_parent_goes_on(tmp_path: Path) -> None:
    rung = asyncio.Event()
    doorbell, bell = Doorbell(tmp_path / "agent.sock", rung.set), Bell(tmp_path / "agent.sock")
    child = os.fork()
    if child == 0:
        doorbell.forget()
        os._exit(0 if bell.ring() else 1)
    assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222
    async with asyncio.timeout(5):
        await rung.wait()
    rung.clear()
    assert bell.ring()
    async with asyncio.timeout(5):
        await rung.wait()
    doorbell.close()
    bell.close()
