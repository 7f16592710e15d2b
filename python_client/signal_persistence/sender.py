"""Sending the batches of one account, strictly one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from signal_persistence.batch import Batch, Lane, Record
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import DeliveryReport
from signal_persistence.errors import (
    AbandonedError,
    AuthenticationError,
    DeliveryTimeoutError,
    SignalPersistenceError,
    TransportError,
)
from signal_persistence.ledger import Ledger
from signal_persistence.retry import Backoff, Next, decide
from signal_persistence.transport import Transport
from signal_persistence.verdict import Verdict, read_verdict
from signal_persistence.waiting import wait

_log: Final = logging.getLogger("signal_persistence")
_ABANDONED: Final = AbandonedError.code


@dataclass(frozen=True, slots=True)
class Sending:
    """What the senders of all lanes share."""

    transport: Transport
    path: str
    ledger: Ledger
    slots: asyncio.Semaphore
    """One per request in flight."""
    backoff: Backoff
    delivery_timeout: float
    clock: Callable[[], float]
    new_id: Callable[[], UUID]
    settle: Callable[[Lane, Sequence[Record], Sequence[DeliveryReport]], None]


class LaneSender:
    """Takes batches from the front of one lane and brings each to its verdict, in order."""

    def __init__(self, lane: Lane, credentials: Credentials, sending: Sending) -> None:
        self.lane = lane
        self.wake = asyncio.Event()
        """Set when the lane has news for the timer: a first signal, a full batch, a flush."""
        self._credentials = credentials
        self._sending = sending
        self._hurry = asyncio.Event()
        self._batch: Batch | None = None
        self._failures = 0
        self._token_refused = False

    async def run(self) -> None:
        """Send until cancelled. A batch that is under way stays with this sender meanwhile."""
        while True:
            try:
                await self._next_step()
            except Exception:
                # A bug of ours must not stop the lane: the batch is kept and sent again.
                _log.exception("Cannot go on sending: trying again")
                self._failures += 1
                await self._pause(None)

    def hurry(self) -> None:
        """End a pause between attempts at once, to try once more before closing."""
        self._hurry.set()

    def abandon(self) -> list[DeliveryReport]:
        """Give up everything unfinished and return the reports; only after `run` has ended."""
        batch, self._batch = self._batch, None
        with self._sending.ledger.lock:
            batches = [batch, *self.lane.resend] if batch else list(self.lane.resend)
            waiting = self.lane.drain()
        reports: list[DeliveryReport] = []
        for part in batches:
            reports += self._fail(part, part.records, _ABANDONED, AbandonedError.__doc__)
        if waiting:
            unsent = Batch(self._sending.new_id(), waiting)
            reports += self._fail(unsent, waiting, _ABANDONED, AbandonedError.__doc__)
        return reports

    async def _next_step(self) -> None:
        if self._batch is None:
            await self._until_due()
        async with self._sending.slots:
            if self._batch is None:
                self._batch = self._sending.ledger.take(self.lane, self._sending.new_id)
            batch = self._expire(self._batch)
            if batch is None:
                return
            outcome = await self._attempt(batch)
        if isinstance(outcome, Verdict):
            self._delivered(batch, outcome)
        else:
            await self._recover(batch, outcome)

    async def _until_due(self) -> None:
        """Wait until the lane's next batch is complete: true linger, from its first signal."""
        while True:
            self.wake.clear()
            with self._sending.ledger.lock:
                due = self.lane.due_at()
            if due is None:
                await self.wake.wait()
                continue
            delay = due - self._sending.clock()
            if delay <= 0:
                return
            await wait(self.wake, delay)

    async def _attempt(self, batch: Batch) -> Verdict | SignalPersistenceError:
        sending = self._sending
        in_doubt = batch.in_doubt
        try:
            token = await self._credentials.access_token(refresh=self._token_refused)
            batch.attempts += 1
            sending.ledger.attempts += 1
            sending.ledger.retries += batch.attempts > 1
            # Until the answer says otherwise: the request may be cancelled at any point.
            batch.in_doubt = True
            batch.sent_at = sending.clock()
            response = await sending.transport.post(sending.path, batch.body(), token)
            verdict = read_verdict(response, batch)
        except SignalPersistenceError as error:
            batch.in_doubt = in_doubt or error.in_doubt
            return error
        except Exception as error:
            _log.exception("Cannot send a batch for a reason that is not foreseen")
            return TransportError(f"Cannot send the batch: {type(error).__name__}.", in_doubt=True)
        return verdict

    def _delivered(self, batch: Batch, verdict: Verdict) -> None:
        self._answered()
        self._batch = None
        reports = verdict.reports(batch, self.lane.account_id, self._sending.clock())
        self._sending.settle(self.lane, batch.records, reports)

    def _answered(self) -> None:
        """Note that the service works: the pauses start small again."""
        self._failures = 0
        self._token_refused = False
        self._sending.ledger.outage_started_at = None

    async def _recover(self, batch: Batch, error: SignalPersistenceError) -> None:
        step = decide(error, renewed=self._token_refused, messages=len(batch.records))
        self._token_refused = isinstance(error, AuthenticationError)
        if step is Next.RENEW:
            return
        if step is Next.SPLIT:
            self._answered()
            self._batch = None
            with self._sending.ledger.lock:
                self.lane.put_back(batch.split(self._sending.new_id))
        elif step is Next.GIVE_UP:
            self._answered()
            self._batch = None
            self._fail(batch, batch.records, error.code, str(error))
        else:
            self._failures += 1
            if self._sending.ledger.outage_started_at is None:
                self._sending.ledger.outage_started_at = datetime.now(UTC)
                _log.warning("Sending fails and will be tried again: %s", error)
            await self._pause(getattr(error, "retry_after", None))

    async def _pause(self, retry_after: float | None) -> None:
        """Wait before the next attempt, but not beyond the end of the oldest signal's time."""
        seconds = self._sending.backoff.pause(self._failures, retry_after)
        if self._batch is not None:
            ends = self._batch.records[0].accepted_at + self._sending.delivery_timeout
            seconds = min(seconds, max(0.0, ends - self._sending.clock()))
        if await wait(self._hurry, seconds):
            self._hurry.clear()

    def _expire(self, batch: Batch) -> Batch | None:
        """Give up the signals whose time is over; return what is left to send."""
        oldest = self._sending.clock() - self._sending.delivery_timeout
        if batch.records[0].accepted_at > oldest:
            return batch
        expired = [record for record in batch.records if record.accepted_at <= oldest]
        self._batch = batch.without(expired, self._sending.new_id)
        self._fail(batch, expired, DeliveryTimeoutError.code, DeliveryTimeoutError.__doc__)
        return self._batch

    def _fail(
        self, batch: Batch, records: Sequence[Record], code: str, message: str | None
    ) -> list[DeliveryReport]:
        now = self._sending.clock()
        reports = [
            DeliveryReport(
                signal=record.delivery.signal,
                account_id=self.lane.account_id,
                status="failed",
                code=code,
                message=message,
                request_id=batch.request_id if batch.attempts else None,
                attempts=batch.attempts,
                in_doubt=batch.in_doubt,
                latency=now - record.accepted_at,
            )
            for record in records
        ]
        self._sending.settle(self.lane, records, reports)
        return reports
