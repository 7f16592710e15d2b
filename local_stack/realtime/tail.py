"""Follow `realtime.messages` through PostgreSQL's write-ahead log, in commit order.

A temporary logical slot lives as long as its connection, as on hosted: what commits while there is
none is never broadcast live. Everything runs in the event loop; psycopg2's asynchronous mode
reports which way to wait on its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from local_stack.realtime import pgoutput
from local_stack.realtime.protocol import Broadcast

PUBLICATION = "supabase_realtime_messages_publication"
SLOT = "supabase_realtime_messages_replication_slot"
MESSAGES_PER_TURN = 64
"""How many are read before the sockets get their turn to write."""
ACKNOWLEDGE_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0

_slots = itertools.count()
_log = logging.getLogger(__name__)

Publish = Callable[[bool, str, Broadcast], None]


class Tail:
    """Calls `publish(is_private, topic, broadcast)` for every committed message."""

    def __init__(
        self,
        dsn: str,
        publish: Publish,
        prepare: Callable[[], Awaitable[None]],
        max_payload: Callable[[], int],
    ) -> None:
        self._dsn = dsn
        self._publish = publish
        self._prepare = prepare
        self._max_payload = max_payload
        self._streaming = asyncio.Event()
        self._stalled_until: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect, and connect again after every failure, until `stop`. Twice is once."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="realtime tail")

    async def stop(self) -> None:
        """Disconnect; the slot goes with the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait_until_streaming(self) -> None:
        """Return once whatever commits from now on will be published."""
        await self._streaming.wait()

    def stall(self, until: asyncio.Event) -> None:
        """Publish nothing until then, and go on from there: nothing is lost."""
        self._stalled_until = until

    def lose_slot(self, until: asyncio.Event) -> None:
        """Disconnect until then: what commits meanwhile is never published."""
        lost = self._task
        if lost is not None:
            lost.cancel()
        self._streaming.clear()
        self._task = asyncio.create_task(self._follow_again(lost, until), name="realtime tail")

    async def _follow_again(self, lost: asyncio.Task[None] | None, until: asyncio.Event) -> None:
        if lost is not None:
            await asyncio.wait({lost})
        await until.wait()
        await self._follow()

    async def _follow(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                await self._prepare()
                await self._stream()
            except (psycopg2.Error, OSError, DatabaseNotReady) as error:
                text = str(error).strip()
                _log.warning("Cannot follow realtime.messages: %s; trying again", text)
            except Exception:
                _log.exception("Cannot follow realtime.messages; trying again")
            if self._streaming.is_set():
                self._streaming.clear()
                delay = FIRST_RETRY_SECONDS
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, LAST_RETRY_SECONDS)

    async def _stream(self) -> None:
        connection = psycopg2.connect(
            self._dsn,
            connection_factory=psycopg2.extras.LogicalReplicationConnection,
            async_=True,
            client_encoding="UTF8",
            application_name="realtime",
        )
        try:
            await _completed(connection)
            cursor = connection.cursor()
            slot = f"{SLOT}_{os.getpid()}_{next(_slots)}"
            cursor.execute(
                f"CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')"
            )
            await _completed(connection)
            cursor.start_replication_expert(
                f"START_REPLICATION SLOT {slot} LOGICAL 0/0 "
                f"(proto_version '1', publication_names '{PUBLICATION}')",
                decode=False,
            )
            await _completed(connection)
            self._streaming.set()
            await self._read(connection, cursor)
        finally:
            connection.close()

    async def _read(
        self,
        connection: psycopg2.extensions.connection,
        cursor: psycopg2.extras.ReplicationCursor,
    ) -> None:
        decoder = pgoutput.Decoder()
        acknowledged_at = 0.0
        while True:
            stalled_until = self._still_stalled_until()
            is_drained = stalled_until is None and self._broadcast_some(cursor, decoder)
            now = time.monotonic()
            if now - acknowledged_at >= ACKNOWLEDGE_SECONDS:
                # Keepalives move `wal_end` too: the WAL of other tables is not kept for us.
                cursor.send_feedback(flush_lsn=cursor.wal_end, force=True)
                acknowledged_at = now
            if stalled_until is not None:
                await _set_within(stalled_until, ACKNOWLEDGE_SECONDS)
            elif is_drained:
                await _readable(connection.fileno())
            else:
                await asyncio.sleep(0)

    def _still_stalled_until(self) -> asyncio.Event | None:
        until = self._stalled_until
        if until is not None and until.is_set():
            until = self._stalled_until = None
        return until

    def _broadcast_some(
        self, cursor: psycopg2.extras.ReplicationCursor, decoder: pgoutput.Decoder
    ) -> bool:
        """Publish what has arrived, but not more than one turn's worth; whether that was all."""
        for _ in range(MESSAGES_PER_TURN):
            message = cursor.read_message()
            if message is None:
                return True
            row = decoder.decode(message.payload)
            if row is not None:
                self._broadcast(row)
        return False

    def _broadcast(self, row: pgoutput.Row) -> None:
        """Publish one row, or say in the log why it cannot be, as hosted does."""
        topic, event, private = row["topic"], row["event"], row["private"]
        payload, binary = row["payload"], row.get("binary_payload")
        has_payload = payload is not None or binary is not None
        if topic is None or event is None or private is None or not has_payload:
            _log.warning("Cannot broadcast message %s: event or payload is missing", row["id"])
            return
        if binary is not None:
            content = bytes.fromhex(binary.removeprefix("\\x"))
        else:
            content = (payload or "").encode()
        limit = self._max_payload()
        if len(content) > limit:
            _log.warning(
                "Cannot broadcast message %s: its payload is larger than %d bytes", row["id"], limit
            )
            return
        broadcast = Broadcast(event, content, is_binary=binary is not None, meta={"id": row["id"]})
        self._publish(private == "t", topic, broadcast)


class DatabaseNotReady(Exception):  # noqa: N818
    """Cannot prepare the database for replication yet."""


async def _completed(connection: psycopg2.extensions.connection) -> None:
    """Wait until the asynchronous operation that is under way has ended."""
    while True:
        match connection.poll():
            case psycopg2.extensions.POLL_OK:
                return
            case psycopg2.extensions.POLL_READ:
                await _readable(connection.fileno())
            case psycopg2.extensions.POLL_WRITE:
                await _writable(connection.fileno())


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
