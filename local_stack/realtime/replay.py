"""Replay: the last broadcasts of a private topic, for a client that joins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from local_stack.realtime.authorization import Authorization, CheckFailure, Refusal
from local_stack.realtime.protocol import Broadcast

MAX_MESSAGES = 25

# Rows of one transaction share their time, so they come back reversed, as they do from hosted.
_LATEST = """
select id::text, event, payload::text, binary_payload
from realtime.messages
where topic = $1 and private and extension = 'broadcast' and event is not null
  and inserted_at >= $2 and inserted_at < timezone('utc', now()) + interval '1 minute'
order by inserted_at desc limit $3
"""


async def replayed_broadcasts(
    authorization: Authorization, name: str, params: object
) -> list[Broadcast]:
    """Read what `params` (`{"since": epoch ms, "limit": n}`) asks for, oldest first."""
    since, limit = _parse(params)
    try:
        async with authorization.connection() as connection:
            rows = await connection.fetch(_LATEST, name, since, limit)
    except CheckFailure as error:
        raise _refusal("Realtime was unable to replay messages") from error
    return [_broadcast(row) for row in reversed(rows)]


def replay_refused_on_public_channel() -> Refusal:
    """What a public channel answers to a join that asks for replay."""
    return _refusal("Replay is not allowed for public channels")


def _refusal(text: str) -> Refusal:
    return Refusal("UnableToReplayMessages", text)


def _parse(params: object) -> tuple[datetime, int]:
    invalid = _refusal("Replay params are not valid")
    if not isinstance(params, dict):
        raise invalid
    since, limit = params.get("since"), params.get("limit")
    if limit is None:
        limit = MAX_MESSAGES
    if not _is_integer(since) or not _is_integer(limit):
        raise invalid
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since)
    except OverflowError as error:
        raise invalid from error
    return moment.replace(tzinfo=None), min(max(limit, 1), MAX_MESSAGES)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _broadcast(row: Mapping[str, Any]) -> Broadcast:
    meta = {"replayed": True, "id": row["id"]}
    binary = row["binary_payload"]
    if binary is not None:
        return Broadcast(row["event"], binary, is_binary=True, meta=meta)
    payload = "null" if row["payload"] is None else row["payload"]
    return Broadcast(row["event"], payload.encode(), meta=meta, as_text=True)
