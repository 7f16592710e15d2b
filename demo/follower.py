"""The subscriber process: follow all accounts live and note what arrives when."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from queue import Empty
from typing import Final

from demo.messages import Failed, FollowerResult, Message, Observed, Ready, Seen
from demo.plan import DemoAccount, Endpoint
from signal_persistence import AsyncSubscriber, PasswordCredentials

NAME: Final = "follower"
_LIVE_SECONDS: Final = 30.0
_FINISH_SECONDS: Final = 30.0
_LOOK_EVERY: Final = 0.25

Finish = Mapping[str, int]
"""The last seq of each account: what has to be seen before the follower may end."""


@dataclass(frozen=True, slots=True)
class FollowerJob:
    """Everything the subscriber process needs to know."""

    endpoint: Endpoint
    accounts: Sequence[DemoAccount]


def follow(job: FollowerJob, messages: Queue[Message], finish: Queue[Finish]) -> None:
    """The main function of the process: follow until told how far there is to go."""
    try:
        messages.put(asyncio.run(_follow(job, messages, finish)))
    except Exception:
        messages.put(Failed(NAME, traceback.format_exc()))


async def _follow(
    job: FollowerJob, messages: Queue[Message], finish: Queue[Finish]
) -> FollowerResult:
    seen = {account.tier: Seen() for account in job.accounts}
    subscribers = {account.tier: _subscriber(job.endpoint, account) for account in job.accounts}
    told: asyncio.Future[Finish] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        followers = [
            group.create_task(_note(subscriber, seen[tier], told, tier))
            for tier, subscriber in subscribers.items()
        ]
        for subscriber in subscribers.values():
            await subscriber.wait_until_live(_LIVE_SECONDS)
        messages.put(Ready(NAME))
        while not all(follower.done() for follower in followers):
            await asyncio.wait(followers, timeout=_LOOK_EVERY)
            with contextlib.suppress(Empty):
                told.set_result(finish.get_nowait())
            counts = {tier: len(noted.seqs) for tier, noted in seen.items()}
            states = {tier: str(subscriber.state) for tier, subscriber in subscribers.items()}
            messages.put(Observed(NAME, counts, states))
    return FollowerResult(NAME, seen)


def _subscriber(endpoint: Endpoint, account: DemoAccount) -> AsyncSubscriber:
    credentials = PasswordCredentials(
        endpoint.url, endpoint.publishable_key, account.email, account.password
    )
    return AsyncSubscriber(endpoint.url, endpoint.publishable_key, credentials, after_seq=0)


async def _note(
    subscriber: AsyncSubscriber, seen: Seen, told: asyncio.Future[Finish], tier: str
) -> None:
    """Note everything until the last seq of the account is reached, or time is up."""
    ends: float | None = None
    async with subscriber:
        while True:
            for observation in await subscriber.take(500, timeout=_LOOK_EVERY):
                seen.signal_ids.append(observation.signal.signal_id)
                seen.seqs.append(observation.signal.seq)
                if observation.broadcast_at is not None:
                    at = observation.broadcast_at.timestamp()
                    seen.live_ms.append((time.time() - at) * 1000)
            if told.done():
                ends = ends or time.monotonic() + _FINISH_SECONDS
                arrived = (subscriber.cursor or 0) >= told.result()[tier]
                if arrived or time.monotonic() >= ends:
                    return
