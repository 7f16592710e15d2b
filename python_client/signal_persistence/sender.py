"""Sending the batches of one account, strictly one after the other.

This core serves two masters, which differ in where signals come from and where verdicts go: the
engine of a producer, and the agent of a host that sends the signals of many processes. What it
needs of either is `Books`. To send, a master

1. makes one `Sending` for the endpoint and, for each account, a `Lane` and a `LaneSender`;
2. puts `Record`s into the lanes (`Lane.append`) and sets the sender's `wake` when that says so;
3. runs `LaneSender.run()` as a task, and cancels it to stop: the batch under way stays in its lane;
4. answers `Books.take` and `Books.settle`, which is where it writes to disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from signal_persistence.batch import Batch, Lane
from signal_persistence.breaker import Breaker
from signal_persistence.credentials import Credentials
from signal_persistence.delivery import Fate
from signal_persistence.errors import (
    AuthenticationError,
    DeliveryTimeoutError,
    SignalPersistenceError,
    TransportError,
)
from signal_persistence.logs import correlation
from signal_persistence.pacing import Pacing, RequestSlots
from signal_persistence.retry import Backoff, Next, decide, is_down, is_overload
from signal_persistence.transport import Transport
from signal_persistence.verdict import Verdict, read_verdict
from signal_persistence.waiting import Pulse, wait

_log: Final = logging.getLogger("signal_persistence")
_RATE_LIMIT_SECONDS: Final = 1.0
"""The least pause before signals beyond the allowance of a minute are sent again."""


class Books(Protocol):
    """Who holds the signals, and keeps the books on disk: a producer's engine, or the agent.

    All of it is called on the event loop, and for one lane never twice at the same time.
    """

    def due_at(self, lane: Lane) -> float | None:
        """When the lane's next batch is due on the clock (minus infinity: now), None: nothing."""
        ...

    async def take(self, lane: Lane) -> Batch | None:
        """Take the next batch (`Lane.take`), or None if there is none after all.

        When this returns, the batch's request_id and its signals are on disk, as durable as they
        are going to be: it may be sent at once.
        """
        ...

    async def settle(
        self, lane: Lane, batch: Batch, fates: Sequence[Fate], rest: Sequence[Batch]
    ) -> None:
        """End the batch under way (`Lane.finish`).

        `fates` are those of its first len(fates) signals. The signals that follow are those of
        `rest`, in order, under new request_ids, and are the next to be sent. Whoever keeps a
        journal begins the rest before it finishes the batch: then a crash in between sends some
        signals twice, which stores them once, and never loses one.
        """
        ...


class Failing(NamedTuple):
    """That, and why, an account cannot be sent now."""

    since: datetime
    reason: str


@dataclass(slots=True)
class Sending:
    """What the senders of all lanes to one endpoint share."""

    transport: Transport
    path: str
    books: Books
    pacing: Pacing
    breaker: Breaker
    backoff: Backoff
    clock: Callable[[], float]
    new_id: Callable[[], UUID]
    delivery_timeout: float = math.inf
    """Seconds after which a signal is given up."""
    attempts: int = 0
    retries: int = 0
    failing: dict[LaneSender, Failing] = field(default_factory=dict)
    """The senders of accounts that cannot be sent now."""
    slots: RequestSlots = field(init=False)
    attempt_ended: Pulse = field(init=False)

    def __post_init__(self) -> None:
        self.slots = RequestSlots(self.pacing)
        self.attempt_ended = Pulse(self.clock)

    @property
    def outage_started_at(self) -> datetime | None:
        """Set while sending fails, if only for one account."""
        return min((failing.since for failing in list(self.failing.values())), default=None)


class LaneSender:
    """Takes batches from the front of one lane and brings each to its verdict, in order."""

    def __init__(self, lane: Lane, credentials: Credentials, sending: Sending) -> None:
        self.lane = lane
        self.wake = asyncio.Event()
        """Set when the lane has news for the timer: a first signal, a full batch, a flush."""
        self._credentials = credentials
        self._sending = sending
        self._hurry = asyncio.Event()
        self._failures = 0
        self._token_refused = False

    async def run(self) -> None:
        """Send until cancelled. A batch that is under way stays in the lane meanwhile."""
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
        self._sending.breaker.hurry()
        self._sending.attempt_ended.beat()

    async def _next_step(self) -> None:
        if self.lane.under_way is None:
            await self._until_due()
        elif await self._expire(self.lane.under_way):
            return
        sending = self._sending
        ticket = sending.breaker.admit()
        if ticket is None:
            await self._until_admitted()
            return
        try:
            async with sending.slots:
                batch = self.lane.under_way or await sending.books.take(self.lane)
                if batch is None:
                    return
                outcome = await self._attempt(batch, ticket)
        finally:
            sending.breaker.release(ticket)
            sending.attempt_ended.beat()
        if isinstance(outcome, Verdict):
            await self._answered_with(batch, outcome)
        else:
            await self._recover(batch, outcome)

    async def _until_due(self) -> None:
        """Wait until the lane's next batch is complete: true linger, from its first signal."""
        while True:
            self.wake.clear()
            due = self._sending.books.due_at(self.lane)
            if due is None:
                await self.wake.wait()
                continue
            delay = due - self._sending.clock()
            if delay <= 0:
                return
            await wait(self.wake, delay)

    async def _until_admitted(self) -> None:
        """Wait until the breaker may let a call through, or a signal's time is over."""
        breaker = self._sending.breaker
        seconds = breaker.seconds_to_probe()
        left = self._seconds_left()
        if left is not None:
            seconds = left if seconds is None else min(seconds, left)
        await self._sending.attempt_ended.until(breaker.would_admit, seconds)

    async def _attempt(self, batch: Batch, ticket: int) -> Verdict | SignalPersistenceError:
        sending = self._sending
        in_doubt = batch.in_doubt
        try:
            token = await self._credentials.access_token(refresh=self._token_refused)
        except SignalPersistenceError as error:
            return error
        except Exception as error:
            return _unforeseen(error)
        batch.attempts += 1
        sending.attempts += 1
        sending.retries += batch.attempts > 1
        # Until the answer says otherwise: the request may be cancelled at any point.
        batch.in_doubt = True
        sent_at = sending.clock()
        try:
            with correlation(f"{batch.request_id}.{batch.attempts}"):
                response = await sending.transport.post(sending.path, batch.body(), token)
            verdict = read_verdict(response, batch)
        except SignalPersistenceError as error:
            batch.in_doubt = in_doubt or error.in_doubt
            self._judge(error, ticket)
            return error
        except Exception as error:
            return _unforeseen(error)
        finally:
            batch.round_trip = sending.clock() - sent_at
        sending.breaker.succeeded(ticket)
        sending.pacing.answered(len(batch.records), batch.round_trip)
        return verdict

    def _judge(self, error: SignalPersistenceError, ticket: int) -> None:
        """Tell breaker and pacing what a failed attempt says about the endpoint."""
        if is_down(error):
            retry_after = getattr(error, "retry_after", None) or 0.0
            self._sending.breaker.failed(ticket, caller=self, at_least=retry_after)
        else:
            self._sending.breaker.succeeded(ticket)
        if is_overload(error):
            self._sending.pacing.overloaded()

    async def _answered_with(self, batch: Batch, verdict: Verdict) -> None:
        """Settle the batch up to the first signal that the service will only take later."""
        self._token_refused = False
        fates = verdict.fates()
        finished = verdict.first_rate_limited()
        rest = batch.after(finished, self._sending.new_id)
        if rest:
            # Not an attempt in doubt: the service said that it did not store these.
            rest[0].in_doubt = False
        if finished or not rest:
            self._works()
        await self._sending.books.settle(self.lane, batch, fates[:finished], rest)
        if rest:
            self._failures += 1
            await self._pause(_RATE_LIMIT_SECONDS)

    def _works(self) -> None:
        """Note that the service works: the pauses start small again."""
        self._failures = 0
        self._token_refused = False
        self._sending.failing.pop(self, None)

    async def _recover(self, batch: Batch, error: SignalPersistenceError) -> None:
        step = decide(error, renewed=self._token_refused, messages=len(batch.records))
        self._token_refused = isinstance(error, AuthenticationError)
        if step is Next.RENEW:
            return
        if step is Next.SPLIT:
            self._works()
            halves = batch.split(self._sending.new_id)
            await self._sending.books.settle(self.lane, batch, [], halves)
        elif step is Next.GIVE_UP:
            self._works()
            fate = Fate("failed", error.code, str(error))
            await self._sending.books.settle(self.lane, batch, [fate] * len(batch.records), [])
        else:
            self._failures += 1
            self._fails(batch, error)
            await self._pause(getattr(error, "retry_after", None))

    def _fails(self, batch: Batch, error: SignalPersistenceError) -> None:
        """Note that sending fails, and log it unless another account fails for the same reason."""
        failing = self._sending.failing
        reason = f"{type(error).__name__} {getattr(error, 'status', '')}".rstrip()
        if all(reason != other.reason for other in failing.values()):
            _log.warning(
                "Sending fails and will be tried again: %s (%s, batch %s of %d signals)",
                error,
                reason,
                batch.request_id,
                len(batch.records),
            )
        since = failing[self].since if self in failing else datetime.now(UTC)
        failing[self] = Failing(since, reason)

    async def _pause(self, retry_after: float | None) -> None:
        """Wait before the next attempt, but not beyond the end of the oldest signal's time."""
        seconds = self._sending.backoff.pause(self._failures, retry_after)
        left = self._seconds_left()
        if await wait(self._hurry, seconds if left is None else min(seconds, left)):
            self._hurry.clear()

    def _seconds_left(self) -> float | None:
        """How long until the first signal of the batch under way is given up."""
        if self.lane.under_way is None or self._sending.delivery_timeout == math.inf:
            return None
        ends = self.lane.under_way.records[0].accepted_at + self._sending.delivery_timeout
        return max(0.0, ends - self._sending.clock())

    async def _expire(self, batch: Batch) -> bool:
        """Give up the signals at the front of the batch whose time is over, if there are any."""
        oldest = self._sending.clock() - self._sending.delivery_timeout
        expired = 0
        while expired < len(batch.records) and batch.records[expired].accepted_at <= oldest:
            expired += 1
        if expired:
            fate = Fate("failed", DeliveryTimeoutError.code, DeliveryTimeoutError.__doc__)
            rest = batch.after(expired, self._sending.new_id)
            await self._sending.books.settle(self.lane, batch, [fate] * expired, rest)
            if not rest:
                self._sending.failing.pop(self, None)
        return expired > 0


def _unforeseen(error: Exception) -> TransportError:
    _log.error("Cannot send a batch for a reason that is not foreseen", exc_info=error)
    return TransportError(f"Cannot send the batch: {type(error).__name__}.", in_doubt=True)
