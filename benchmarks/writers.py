"""What `scripts/bench producer` compares: ways of handing a signal to a client and going on.

Nobody answers at the address that they are given, except for the naive list, which has a table to
insert into: a client is needed most when the other end is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from benchmarks.naive import TABLE
from benchmarks.numbered import numbered_signal
from benchmarks.publishing import Target
from signal_persistence import AccessToken, Producer, Signal, UndeliveredError

NOBODY: Final = "127.0.0.1:9"
MANY: Final = 10_000_000
"""More signals than any run buffers."""
NAIVE_BATCH: Final = 500


class Calls(NamedTuple):
    """Make the arguments of a call, untimed, and make the call, timed."""

    prepare: Callable[[Signal], Any]
    publish: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a writer writes: a directory of its own, an account, and a project if it is there."""

    directory: Path
    target: Target
    key: str
    url: str | None = None

    def signal(self, base: int, number: int) -> Signal:
        return numbered_signal(self.target, base, number)


Row = tuple[dict[str, str | None], dict[str, Any], Any]
Writer = Callable[[Place], AbstractContextManager[Calls]]


def ours(**settings: Any) -> Writer:
    @contextmanager
    def write(place: Place) -> Iterator[Calls]:
        account_id = UUID(place.target.account_id)
        credentials = {account_id: AccessToken(place.target.access_token)}
        chosen = {"spool_dir": place.directory} | settings
        producer = Producer(f"http://{NOBODY}", place.key, credentials, **chosen)
        yield Calls(_as_it_is, producer.publish)
        with suppress(UndeliveredError):
            producer.close(0)

    return write


def questdb(*, flush: bool) -> Writer:
    """Return QuestDB's store-and-forward sender; with `flush` each row goes to its file at once.

    Without, rows stay in the memory of the process until there are a thousand, or 100 ms are over
    at the next call: a process that is killed loses them.
    """

    @contextmanager
    def write(place: Place) -> Iterator[Calls]:
        import questdb as client

        configuration = (
            f"ws::addr={NOBODY};sf_dir={place.directory};sender_id=bench;lazy_connect=true;"
            "close_flush_timeout_millis=0;"
        )

        def prepare(signal: Signal) -> Row:
            fields = msgspec.structs.asdict(signal)
            symbols: dict[str, str | None] = {
                name: str(fields[name]) for name in ("trader_id", "symbol", "action")
            }
            names = ("timeframe", "confidence", "price", "stop_loss", "take_profit")
            columns = {name: fields[name] for name in names}
            columns["metadata"] = msgspec.json.encode(signal.metadata).decode()
            return symbols, columns, client.TimestampMicros.from_datetime(signal.generated_at)

        with client.connect(configuration) as database, database.sender() as sender:

            def row(prepared: Row) -> None:
                symbols, columns, at = prepared
                sender.row("signals", symbols=symbols, columns=columns, at=at)

            def row_and_flush(prepared: Row) -> None:
                row(prepared)
                sender.flush()

            yield Calls(prepare, row_and_flush if flush else row)

    return write


@contextmanager
def confluent(place: Place) -> Iterator[Calls]:
    """Have produce() of JSON for a broker that is away; everything stays in memory."""
    from confluent_kafka import Producer as KafkaProducer

    producer = KafkaProducer(
        {
            "bootstrap.servers": NOBODY,
            "queue.buffering.max.messages": MANY,
            "queue.buffering.max.kbytes": 2_000_000_000,
            "message.timeout.ms": 0,
            "log_level": 0,
        }
    )
    encode, key = msgspec.json.Encoder().encode, place.target.account_id
    yield Calls(_as_it_is, lambda signal: producer.produce("signals", encode(signal), key))
    producer.purge()
    producer.flush(1)


@contextmanager
def naive(place: Place) -> Iterator[Calls]:
    """Have a list that is inserted when it is long, if there is a project to insert it into."""
    waiting: list[dict[str, Any]] = []
    if place.url is None:
        yield Calls(msgspec.to_builtins, waiting.append)
        return
    # Imported here because it takes a second.
    from supabase import create_client

    client = create_client(place.url, place.key)
    client.postgrest.auth(place.target.access_token)
    table = client.table(TABLE)

    def append(row: dict[str, Any]) -> None:
        waiting.append(row)
        if len(waiting) == NAIVE_BATCH:
            table.insert(waiting).execute()
            waiting.clear()

    yield Calls(msgspec.to_builtins, append)


WRITERS: Final[dict[str, Writer]] = {
    "memory": ours(spool_dir=None, buffer_max_messages=MANY, buffer_max_bytes=MANY * 1000),
    "never": ours(spool_fsync="never"),
    "interval": ours(spool_fsync="interval"),
    "always": ours(spool_fsync="always"),
    "questdb": questdb(flush=False),
    "questdb_flush": questdb(flush=True),
    "confluent": confluent,
    "naive": naive,
}


def _as_it_is(signal: Signal) -> Signal:
    return signal
