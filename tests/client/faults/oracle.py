"""Compare the journals of all processes with what the database stores, over a direct connection."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg2

from tests.checkers.histories import AccountHistory, Anomaly, Stored, anomalies
from tests.client.faults.desk import Desk
from tests.client.faults.journal import Told
from tests.client.faults.watch import watching

_Ids = dict[UUID, dict[str, list[UUID]]]
STORED = """
select signal_id::text, seq from public.signals where account_id = %s order by seq
"""


DELIVERY_SECONDS = 60.0


def deliver_all(desk: Desk, **settings: Any) -> None:
    """Have every slot's signals delivered, as processes that are started again would.

    A producer takes one slot and adopts what others it finds; what it leaves is for the next.
    """
    ends = time.monotonic() + DELIVERY_SECONDS
    while any(desk.spool.glob("*/slots/*/log/*.seg")):
        with desk.producer(**settings) as producer, watching(producer):
            # Those of adopted slots are pending as well, and flush() is about its own.
            while producer.flush(DELIVERY_SECONDS) or len(producer):
                assert time.monotonic() < ends, producer.stats()
                time.sleep(0.01)
            assert producer.stats().dead_lettered == 0, producer.stats()
        assert time.monotonic() < ends, "a slot is held by another process, or never empty"


def found(
    desk: Desk, database_url: str, writer_of: Callable[[str], str] = str
) -> dict[str, list[Anomaly]]:
    """Return what is wrong, by name; nothing when every accepted signal is stored once, in order.

    `writer_of` names the writer of a stream: the streams of one writer follow each other in the
    order of their names, so their signals must be stored in that order too.
    """
    offered: _Ids = defaultdict(lambda: defaultdict(list))
    acknowledged: _Ids = defaultdict(lambda: defaultdict(list))
    for account, stream, told in _journals(desk):
        ids = _ids(desk, account, stream, told.offered)
        offered[account][writer_of(stream)] += ids
        acknowledged[account][writer_of(stream)] += ids[: told.accepted]
    history = {
        str(account): AccountHistory(
            stored=_stored(database_url, account),
            offered=offered[account],
            acknowledged=acknowledged[account],
        )
        for account in desk.tokens
    }
    return {name: anomaly for name, anomaly in anomalies(history).items() if anomaly}


def assert_sound(
    desk: Desk, database_url: str, writer_of: Callable[[str], str] = str
) -> dict[str, int]:
    """Fail unless every accepted signal is stored exactly once and in order, and counts held.

    Returns how many signals were accepted, how many are in doubt and how often counts were looked
    at, for a test to say that something happened at all.
    """
    wrong = found(desk, database_url, writer_of)
    shown = {name: [f"{len(told)} in all", *told[:3]] for name, told in wrong.items()}
    assert not shown, shown
    told = [each for _, _, each in _journals(desk)]
    assert sum(each.violations for each in told) == 0, "accepted ≠ delivered + dead + pending"
    return {
        "accepted": sum(each.accepted for each in told),
        "in_doubt": sum(each.offered - each.accepted for each in told),
        "looks": sum(each.looks for each in told),
    }


def _journals(desk: Desk) -> list[tuple[UUID, str, Told]]:
    """Return account, name and counts of each stream, by name."""
    names = sorted(path.name.split("@") for path in desk.journals.iterdir())
    return [
        (UUID(account), stream, Told.read(desk.journals / f"{stream}@{account}"))
        for stream, account in names
    ]


def _ids(desk: Desk, account: UUID, stream: str, count: int) -> list[UUID]:
    signals = (desk.signal(stream, number, account) for number in range(1, count + 1))
    return [signal.signal_id(account) for signal in signals]


def _stored(database_url: str, account: UUID) -> list[Stored]:
    connection = psycopg2.connect(database_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(STORED, (str(account),))
            return [Stored(UUID(text), seq) for text, seq in cursor.fetchall()]
    finally:
        connection.close()
