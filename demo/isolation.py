"""Try to reach another account's signals in every way there is; each must come to nothing."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import httpx
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from demo.plan import DemoAccount, Endpoint
from signal_persistence import (
    AsyncProducer,
    AsyncSignalQuery,
    PasswordCredentials,
    RejectedError,
    Signal,
)

_JOIN_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class IntrusionReport:
    """What an intruder got, and, so that nothing proves nothing, what the owner gets.

    `signals` counts the rows and acceptances that the intruder should not have got.
    """

    signals: int
    query_refused: bool
    view_refused: bool
    channel_refused: bool
    write_refused: bool


def intrude(endpoint: Endpoint, intruder: DemoAccount, owner: DemoAccount) -> IntrusionReport:
    """Read, follow and write the signals of `owner` as `intruder`."""
    # The refusals are what is looked for: they are no news.
    logging.getLogger("signal_persistence").setLevel(logging.ERROR)
    return asyncio.run(_intrude(endpoint, intruder, owner))


async def _intrude(
    endpoint: Endpoint, intruder: DemoAccount, owner: DemoAccount
) -> IntrusionReport:
    thief, victim = _credentials(endpoint, intruder), _credentials(endpoint, owner)
    traders = list(owner.trader_ids.values())
    queried = await _count_queried(endpoint, thief, traders)
    viewed = await _count_viewed(endpoint, await thief.access_token(), traders)
    joined = await _can_join(endpoint, await thief.access_token(), owner.account_id)
    written = await _can_write(endpoint, thief, traders[0])
    owner_queried = await _count_queried(endpoint, victim, traders)
    owner_viewed = await _count_viewed(endpoint, await victim.access_token(), traders)
    owner_joined = await _can_join(endpoint, await victim.access_token(), owner.account_id)
    return IntrusionReport(
        signals=queried + viewed + joined + written,
        query_refused=queried == 0 < owner_queried,
        view_refused=viewed == 0 < owner_viewed,
        channel_refused=owner_joined and not joined,
        write_refused=not written,
    )


def _credentials(endpoint: Endpoint, account: DemoAccount) -> PasswordCredentials:
    return PasswordCredentials(
        endpoint.url, endpoint.publishable_key, account.email, account.password
    )


async def _count_queried(
    endpoint: Endpoint, credentials: PasswordCredentials, traders: list[UUID]
) -> int:
    found = 0
    for transport in ("edge", "rpc"):
        route = AsyncSignalQuery(
            endpoint.url, endpoint.publishable_key, credentials, transport=transport
        )
        async with route as query:
            found += len((await query.page(traders=traders)).signals)
    return found


async def _count_viewed(endpoint: Endpoint, token: str, traders: list[UUID]) -> int:
    ids = ",".join(map(str, traders))
    async with httpx.AsyncClient(base_url=endpoint.url, timeout=10) as http:
        answer = await http.get(
            "/rest/v1/signals",
            params={"select": "signal_id", "trader_id": f"in.({ids})", "limit": "10"},
            headers={"apikey": endpoint.publishable_key, "authorization": f"Bearer {token}"},
        )
    answer.raise_for_status()
    return len(answer.json())


async def _can_join(endpoint: Endpoint, token: str, account_id: UUID) -> bool:
    """Tell whether the channel lets the owner of `token` in."""
    client = AsyncRealtimeClient(
        f"{endpoint.url}/realtime/v1", token=endpoint.publishable_key, auto_reconnect=False
    )
    await client.set_auth(token)
    channel = client.channel(
        f"account:{account_id}:signals",
        {
            "config": {
                "broadcast": {"ack": False, "self": False},
                "presence": {"key": "", "enabled": False},
                "private": True,
            }
        },
    )
    outcome: asyncio.Future[RealtimeSubscribeStates] = asyncio.get_running_loop().create_future()

    def changed(state: RealtimeSubscribeStates, _: Exception | None) -> None:
        if not outcome.done():
            outcome.set_result(state)

    try:
        await channel.subscribe(changed)
        state = await asyncio.wait_for(outcome, _JOIN_SECONDS)
    finally:
        channel.rejoin_timer.reset()
        await client.close()
    return state is RealtimeSubscribeStates.SUBSCRIBED


async def _can_write(endpoint: Endpoint, credentials: PasswordCredentials, trader_id: UUID) -> bool:
    """Tell whether a signal of somebody else's trader is accepted."""
    signal = Signal(
        trader_id=trader_id,
        symbol="ES",
        timeframe="1m",
        generated_at=datetime.now(UTC),
        action="enter_long",
        confidence=1.0,
        price=1640.25,
    )
    producer = AsyncProducer(
        endpoint.url, endpoint.publishable_key, credentials, linger_ms=0, spool_dir=None
    )
    async with producer:
        delivery = await producer.publish(signal)
        try:
            await delivery
        except RejectedError as refused:
            return refused.code != "unknown_trader"
    return True
