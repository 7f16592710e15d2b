"""Processes of traders that fork, spawn and end in every way.

python -m tests.client.agent.scenes SCENE URL SPOOL ACCOUNT
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from signal_persistence import AccessToken, Producer
from tests.client.agent.storing_service import token_of
from tests.client.scripted_service import make_signal

COUNT = 40
CHILDREN = 3


def new_producer(url: str, spool: Path, account: UUID) -> Producer:
    credentials = AccessToken(token_of(account))
    return Producer(url, "key", credentials, agent=True, spool_dir=spool, linger_ms=5)


def publish(producer: Producer, name: str, first: int = 0) -> None:
    for number in range(first, COUNT):
        producer.publish(make_signal(number, symbol=name))


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a forked child that ends by os._exit, and return the child's pid."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def preload(producer: Producer, url: str, spool: Path, account: UUID) -> None:
    """As gunicorn does with preload_app: made once, used in every child, and in the parent."""
    publish(producer, "parent")

    def work(name: str) -> None:
        publish(producer, name)
        stats = producer.stats()
        assert stats.accepted == COUNT, stats
        assert producer.flush(60) == 0

    children = [forked(lambda name=f"C{n}": work(name)) for n in range(CHILDREN)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * CHILDREN
    assert producer.flush(60) == 0
    assert producer.stats().accepted == COUNT
    producer.close()


def exits_at_once(producer: Producer, url: str, spool: Path, account: UUID) -> None:
    """Children that end by os._exit with everything unsent."""
    publish(producer, "parent")
    children = [forked(lambda name=f"C{n}": publish(producer, name)) for n in range(CHILDREN)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * CHILDREN
    os._exit(0)


def in_child(url: str, spool: Path, account: UUID, name: str) -> None:
    with new_producer(url, spool, account) as producer:
        publish(producer, name)
        assert producer.flush(60) == 0


def spawned(producer: Producer, url: str, spool: Path, account: UUID) -> None:
    """Children of multiprocessing's spawn, each with a producer of its own."""
    publish(producer, "parent")
    context = multiprocessing.get_context("spawn")
    places = [(url, spool, account, f"C{number}") for number in range(CHILDREN)]
    children = [context.Process(target=in_child, args=place) for place in places]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * CHILDREN
    producer.close()


if __name__ == "__main__":
    scene, url, spool, account = sys.argv[1:]
    place = (url, Path(spool), UUID(account))
    {"preload": preload, "exits_at_once": exits_at_once, "spawned": spawned}[scene](
        new_producer(*place), *place
    )
