"""A trader process for the tests: publishes through the agent, and notes what was accepted.

python -m tests.client.agent.trader URL SPOOL ACCOUNT NAME COUNT JOURNAL [PAUSE_MS]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from uuid import UUID

from signal_persistence import AccessToken, Producer
from tests.client.agent.storing_service import token_of
from tests.client.scripted_service import make_signal


def trade(
    url: str, spool: Path, account: UUID, name: str, count: int, journal: Path, pause: float = 0.0
) -> None:
    """Publish `count` signals and write the number of each to `journal` once it is accepted."""
    notes = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    credentials = AccessToken(token_of(account))
    with Producer(url, "key", credentials, agent=True, spool_dir=spool, linger_ms=5) as producer:
        for number in range(count):
            producer.publish(make_signal(number, symbol=name))
            os.write(notes, b"%d\n" % number)
            time.sleep(pause)
        assert producer.flush(60) == 0, producer.stats()
        stats = producer.stats()
        assert stats.accepted == stats.delivered + stats.dead_lettered + stats.pending
    os.close(notes)


if __name__ == "__main__":
    url, spool, account, name, count, journal, pause = sys.argv[1:]
    trade(url, Path(spool), UUID(account), name, int(count), Path(journal), float(pause))
