"""Sending dead letters again, a file at a time."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from signal_persistence.agent.accounts import accounts_from
from signal_persistence.cli.spool_view import LetterFile, letter_files
from signal_persistence.client import project_from
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import Delivery
from signal_persistence.errors import (
    BufferFullError,
    InvalidSignalError,
    UndeliveredError,
)
from signal_persistence.producer import Producer
from signal_persistence.signal import Signal
from signal_persistence.spool import DeadLetter
from signal_persistence.spool.files import OS_FILES
from signal_persistence.token import account_of


@dataclass(slots=True)
class Replayed:
    """What became of the letters."""

    stored: int = 0
    unsent: int = 0
    """The service could not be asked, or not in time."""
    foreign: int = 0
    """Of accounts whose credentials are not here."""
    removed: int = 0
    """Files of which nothing was left to keep."""
    refusals: Counter[str] = field(default_factory=Counter)


def replay(project: Path, slot: str | None, code: str | None, timeout: float) -> Replayed:
    """Send the letters of a project again; `timeout` is in seconds, for each file.

    Only in memory: the letters are on disk until they are stored. Raises ConfigurationError, and
    ApiError or TransportError when nobody can sign in.
    """
    url, key = project_from(os.environ)
    accounts = _by_every_name(accounts_from(os.environ, url, key))
    done = Replayed()
    for file in letter_files(project, slot):
        letters = [letter for letter in file.letters if code in (None, letter.code)]
        stored = 0
        for account in dict.fromkeys(letter.account for letter in letters):
            own = [letter for letter in letters if letter.account == account]
            if account not in accounts:
                done.foreign += len(own)
                continue
            producer = Producer(
                url, key, accounts[account], spool_dir=None, max_block_ms=timeout * 1000
            )
            stored += _send(producer, own, timeout, done)
        if stored == len(file.letters) and not file.unreadable:
            done.removed += _remove(project, file)
    return done


def _send(producer: Producer, letters: Sequence[DeadLetter], timeout: float, done: Replayed) -> int:
    """Send letters of one account, count what became of them, and return how many are stored."""
    deliveries: list[Delivery] = []
    before = done.refusals.total()
    try:
        for letter in letters:
            try:
                deliveries.append(producer.publish(msgspec.json.decode(letter.signal, type=Signal)))
            except (InvalidSignalError, msgspec.ValidationError) as error:
                done.refusals[getattr(error, "code", "invalid_signal")] += 1
        producer.flush(timeout)
    except BufferFullError:
        # What was not taken counts as not sent.
        pass
    finally:
        with suppress(UndeliveredError):
            producer.close(0)
    stored = sum(_is_stored(delivery, done) for delivery in deliveries)
    done.stored += stored
    done.unsent += len(letters) - stored - (done.refusals.total() - before)
    return stored


def _is_stored(delivery: Delivery, done: Replayed) -> bool:
    report = delivery.report
    if report is not None and report.status == "rejected":
        done.refusals[report.code or "internal"] += 1
    return report is not None and report.stored


def _remove(project: Path, file: LetterFile) -> bool:
    """Remove a file, unless somebody who may write to it runs, or has written since."""
    slot = project / "slots" / file.slot
    with ExitStack() as locks:
        for name in ("writer.lock", "sender.lock"):
            lock = OS_FILES.lock(slot / name) if slot.is_dir() else None
            if lock is None:
                return False
            locks.callback(lock.release)
        if OS_FILES.size(file.path) != file.bytes:
            return False
        OS_FILES.remove(file.path)
        OS_FILES.sync_directory(file.path.parent)
    return True


def _by_every_name(accounts: Mapping[str, Credentials]) -> dict[str, Credentials]:
    """Add the accounts' ids, by which a producer with other credentials may have called them."""
    named = dict(accounts)
    for credentials in accounts.values():
        token = asyncio.run(_token(credentials))
        named.setdefault(str(account_of(token)), credentials)
    return named


async def _token(credentials: Credentials) -> str:
    return await credentials.access_token()
