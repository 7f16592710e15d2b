"""What a connection of the live channel does without a stack; the rest is in tests/client/live."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from realtime import AsyncRealtimeClient
from realtime.message import ServerMessageAdapter

from signal_persistence.channel import INGESTED, Loss, _Connection
from signal_persistence.subscription import StateReason
from tests.client.virtual_time import VirtualTimeLoop, run

TOPIC = "realtime:topic"
BROADCAST = {
    "event": "broadcast",
    "topic": TOPIC,
    "ref": None,
    "payload": {"type": "broadcast", "event": INGESTED, "payload": {}},
}
READY = {
    "event": "system",
    "topic": TOPIC,
    "ref": None,
    "payload": {
        "channel": "topic",
        "extension": "system",
        "message": "Replication connection established",
        "status": "ok",
    },
}


class Told:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_joined(self) -> None:
        self.events.append("joined")

    def on_replication_ready(self) -> None:
        self.events.append("replication ready")

    def on_broadcast(self, event: str, payload: Mapping[str, Any]) -> None:
        self.events.append("broadcast")

    def on_lost(self, loss: Loss) -> None:
        self.events.append("lost")


async def test_a_lost_connection_tells_nothing_more() -> None:
    told = Told()
    client = AsyncRealtimeClient("ws://localhost", token="a key", auto_reconnect=False)
    connection = _Connection(client, "topic", told)

    def receive() -> None:
        for frame in (READY, BROADCAST):
            message = ServerMessageAdapter.validate_python(frame)
            client.channels[TOPIC]._handle_message(message)

    receive()
    connection.lose(Loss(StateReason.SILENT, "nothing was heard"))
    receive()
    assert told.events == ["replication ready", "broadcast", "lost"]


class OpenClient(AsyncRealtimeClient):
    """A client of a connection that is open, and on which nothing comes."""

    is_connected = True

    async def send(self, message: Any) -> None: ...


def test_while_this_process_stands_still_the_server_is_not_silent() -> None:
    told = Told()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        client = OpenClient("ws://localhost", token="a key", auto_reconnect=False)
        client._listen_task = asyncio.create_task(asyncio.sleep(3600))
        connection = _Connection(client, "topic", told)
        listening = asyncio.create_task(connection._listen_for_silence())
        await asyncio.sleep(1)
        loop.now += 20
        await asyncio.sleep(3)
        assert told.events == []
        await listening
        assert told.events == ["lost"]

    run(work())
