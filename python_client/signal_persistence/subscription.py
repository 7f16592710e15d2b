"""The state of one subscription, and what to do next to keep it live. No I/O, no clock.

Whoever owns it tells what happens (`joined`, `broadcast`, `page`, `head`, …) and, before each of
these and at `wake_at`, what time it is (`tick`). It answers with a state and its reason, and with
what it wants: a query by seq, a check of where the account is, another join.

A broadcast that never comes makes no noise: a dead replication slot looks like a quiet account.
So each time the database shows a seq that no broadcast has told of, one has to follow within a
moment (`GRACE_SECONDS`, and the interval at which the account's broadcasts are put together).
Otherwise broadcasts are missing, and stay so until the channel proves itself: by a broadcast that
is there in time for what a check has shown, or by a check after another join that shows nothing
that was not pushed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from signal_persistence.coverage import Coverage, Observation, SeqQuery
from signal_persistence.reading import Broadcast, Page
from signal_persistence.signal import StoredSignal

GRACE_SECONDS: Final = 1.0
"""How long after the database showed a signal its broadcast may come; how long LIVE may lag."""
CHECK_SECONDS: Final = 2.0
"""A check that has no answer after so long has failed."""
REJOIN_SECONDS: Final = 5.0
"""How long a channel has at least after another join to prove that broadcasts come again."""

READY_SECONDS: Final = 15.0
"""If the server has not said so long after a join that it follows the database, it never will."""


class SubscriptionState(StrEnum):
    """How far a subscriber can be trusted to be up to date."""

    CONNECTING = "connecting"
    """It has not joined yet; signals already stored are fetched meanwhile."""
    CATCHING_UP = "catching_up"
    """It is joined and fetches what it has missed."""
    LIVE = "live"
    """New signals are pushed, and it has all that are stored or is a moment behind."""
    STALE = "stale"
    """New signals may be stored without its knowledge; it is being repaired, and queries go on."""
    CLOSED = "closed"
    """Nothing more will come."""


class StateReason(StrEnum):
    """Why a subscriber is not LIVE."""

    NOT_JOINED = "not_joined"
    """CONNECTING: the first join is under way."""
    AWAITING_REPLICATION = "awaiting_replication"
    """CATCHING_UP: the server does not follow the database yet."""
    BACKFILLING = "backfilling"
    """CATCHING_UP: signals that no broadcast brought are being fetched."""
    SLOW_CONSUMER = "slow_consumer"
    """CATCHING_UP: the buffer is full; what does not fit is fetched when the reader has taken."""
    CONNECTION_LOST = "connection_lost"
    """The connection or the channel ended, or cannot be opened."""
    SILENT = "silent"
    """The connection looked open, but the server answered no heartbeat."""
    RATE_LIMITED = "rate_limited"
    """The project's limit of connections, joins or messages is reached."""
    ACCESS_REFUSED = "access_refused"
    """The server refuses the token, or this account the topic."""
    BROADCASTS_MISSING = "broadcasts_missing"
    """STALE: the channel looks joined, but signals are stored that it did not tell of."""
    UNREACHABLE = "unreachable"
    """STALE: neither a check nor a broadcast has shown for a while where the account is."""
    CLOSED_BY_USER = "closed_by_user"
    """CLOSED: close() was called."""
    FAILED = "failed"
    """CLOSED: an error that cannot pass; reading raises it."""


class Subscription:
    """Follow one account: its signals each once and by seq, and how far that can be trusted."""

    def __init__(
        self,
        matches: Callable[[StoredSignal], bool],
        *,
        after_seq: int | None = None,
        buffer_signals: int = 10_000,
        page_size: int = 1000,
        check_interval: float = 2.0,
        own_channel: bool = False,
    ) -> None:
        """`own_channel` says that broadcasts tell only of signals that the queries return."""
        self._signals = Coverage(
            matches, after_seq=after_seq, buffer_signals=buffer_signals, page_size=page_size
        )
        self._check_interval = check_interval
        self._own_channel = own_channel
        self._now = 0.0
        self._answered_at = 0.0
        self._proven_at = 0.0
        self._check_at = check_interval
        self._behind: tuple[int, float] | None = None
        self._joined = False
        self._ever_joined = False
        self._replicating = False
        self._lost = StateReason.NOT_JOINED
        self._closed: StateReason | None = None
        self._interval: float | None = None
        self._pushed = 0
        self._answerable_at: float | None = None
        self._unpushed: tuple[int, float] | None = None
        self._missing = False
        self._given_time_at = -math.inf
        self._state = SubscriptionState.CONNECTING
        self._reason: StateReason | None = StateReason.NOT_JOINED

    @property
    def state(self) -> SubscriptionState:
        return self._state

    @property
    def reason(self) -> StateReason | None:
        """Why it is not LIVE; None when it is."""
        return self._reason

    @property
    def cursor(self) -> int | None:
        """Everything of the filter up to this seq has been handed out; None before it is known."""
        return self._signals.cursor

    @property
    def buffered(self) -> int:
        """How many signals wait to be taken."""
        return self._signals.buffered

    @property
    def check_wanted(self) -> bool:
        """Whether to ask where the account is: nothing has shown it for a while."""
        return self._closed is None and (self._interval is None or self._now >= self._check_at)

    @property
    def rejoin_wanted(self) -> bool:
        """Whether to leave the channel, which brings nothing, and join again."""
        may_rejoin = self._closed is None and self._joined and self._brings_nothing
        return may_rejoin and self._now >= self._rejoin_at

    @property
    def wake_at(self) -> float:
        """The next time at which a tick changes something."""
        moments = [self._check_at, self._unreachable_at]
        if self._unpushed is not None:
            moments.append(self._unpushed[1])
        if self._behind is not None:
            moments.append(self._behind[1] + GRACE_SECONDS)
        if self._brings_nothing:
            moments.append(self._rejoin_at)
        return min((moment for moment in moments if moment > self._now), default=math.inf)

    def tick(self, now: float) -> None:
        """It is `now`, in seconds of a clock that never goes back."""
        self._now = now
        if self._unpushed is not None and now >= self._unpushed[1]:
            self._unpushed = None
            if not self._missing:
                self._given_time_at = -math.inf
            self._missing = True
        self._judge()

    def joined(self) -> None:
        """The channel is joined: what was stored while it was not has to be fetched."""
        self._joined = self._ever_joined = True
        self._replicating = False
        self._given_time_at = self._now
        self._not_answerable()
        self._signals.doubt()
        self._judge()

    def replication_ready(self) -> None:
        """The server now follows the database: what was stored until here has to be fetched."""
        self._replicating = True
        self._not_answerable()
        self._signals.doubt()
        self._judge()

    def left(self, reason: StateReason) -> None:
        """The channel is lost, or cannot be joined, and broadcasts with it."""
        self._joined = self._replicating = False
        self._lost = reason
        self._not_answerable()
        self._judge()

    def check_due(self) -> None:
        """Want a check now: a broadcast came that cannot be read, say."""
        self._check_at = self._now

    def close(self, reason: StateReason = StateReason.CLOSED_BY_USER) -> None:
        self._closed = self._closed or reason
        self._judge()

    def broadcast(self, message: Broadcast) -> None:
        """Take in a broadcast that the channel brought."""
        self._signals.broadcast(message)
        if self._joined:
            self._pushed = max(self._pushed, message.last_seq)
        if self._unpushed is not None and self._unpushed[0] <= self._pushed:
            self._unpushed = None
            self._missing = False
        if not self._missing and not self._signals.is_behind:
            self._proven()
        self._judge()

    def page(self, query: SeqQuery, page: Page) -> None:
        """Take in the answer to `query`, however long ago it was asked."""
        self._signals.page(query, page)
        self._answered()
        if self._replicating and self._answerable_at is None and self._signals.is_settled:
            self._become_answerable(page.last_seq)
        newest = page.last_seq
        if self._own_channel:
            newest = page.signals[-1].seq if page.signals else 0
        if newest > self._pushed or page.next_cursor is None:
            self._shown(newest)
        self._judge()

    def head(self, last_seq: int, broadcast_interval: float = 0.0) -> None:
        """Take in the answer to a check: where the account is, and its broadcasts' interval."""
        self._interval = broadcast_interval
        self._signals.known(last_seq)
        self._answered()
        if not self._own_channel:
            self._shown(last_seq)
        elif not self._signals.is_behind:
            self._shown(0)
        self._judge()

    def next_query(self) -> SeqQuery | None:
        """The query to make now, or None when nothing is missing or the buffer has no room."""
        return None if self._closed else self._signals.next_query()

    def take(self) -> Observation | None:
        """Hand out the next signal, or None when there is none yet."""
        return self._signals.take()

    @property
    def _unreachable_at(self) -> float:
        return self._proven_at + self._check_interval + CHECK_SECONDS

    @property
    def _lateness(self) -> float:
        """How long after the database showed a signal its broadcast may still come."""
        return GRACE_SECONDS + (self._interval or 0.0)

    @property
    def _brings_nothing(self) -> bool:
        return self._missing or not self._replicating

    @property
    def _rejoin_at(self) -> float:
        """When to leave a channel that has not proved itself: late enough for a late broadcast."""
        if not self._replicating:
            return self._given_time_at + READY_SECONDS
        proof = 2 * self._lateness + self._check_interval
        return self._given_time_at + max(REJOIN_SECONDS, proof)

    def _answered(self) -> None:
        """The database has just shown where the account is."""
        self._answered_at = self._now
        self._proven()

    def _proven(self) -> None:
        """It has just been shown where the account is, if only by a broadcast.

        All broadcasts may be late by the same time: they put off a check once, not for ever.
        """
        self._proven_at = self._now
        latest = self._answered_at + 2 * self._check_interval
        self._check_at = min(self._now + self._check_interval, latest)

    def _not_answerable(self) -> None:
        """From here on the channel need not have told of what is stored."""
        self._answerable_at = None
        self._unpushed = None

    def _become_answerable(self, last_seq: int) -> None:
        """The channel has to tell of what is stored after `last_seq`."""
        self._pushed = max(self._pushed, last_seq)
        self._answerable_at = self._now
        if self._missing:
            self._check_at = self._now + min(self._lateness, self._check_interval)

    def _shown(self, seq: int) -> None:
        """The database has shown that `seq` is stored: it was pushed, or will be in a moment."""
        if self._answerable_at is None or self._interval is None:
            return
        if seq > self._pushed:
            self._unpushed = self._unpushed or (seq, self._now + self._lateness)
        elif self._now >= self._answerable_at + self._lateness:
            self._missing = False

    def _judge(self) -> None:
        """Settle the state that follows from everything told so far."""
        if not self._signals.is_behind:
            self._behind = None
        elif self._behind is None or self._signals.has(self._behind[0]):
            # Under a steady flow something is always missing: what counts is for how long.
            self._behind = self._signals.furthest, self._now
        self._state, self._reason = self._judgement()

    def _judgement(self) -> tuple[SubscriptionState, StateReason | None]:
        if self._closed is not None:
            return SubscriptionState.CLOSED, self._closed
        if not self._joined:
            lost = SubscriptionState.STALE if self._ever_joined else SubscriptionState.CONNECTING
            return lost, self._lost
        if self._missing:
            return SubscriptionState.STALE, StateReason.BROADCASTS_MISSING
        if self._now >= self._unreachable_at:
            return SubscriptionState.STALE, StateReason.UNREACHABLE
        if not self._replicating:
            return SubscriptionState.CATCHING_UP, StateReason.AWAITING_REPLICATION
        if self._behind is not None and not self._is_a_moment_behind(self._behind[1]):
            full = self._signals.is_full
            reason = StateReason.SLOW_CONSUMER if full else StateReason.BACKFILLING
            return SubscriptionState.CATCHING_UP, reason
        return SubscriptionState.LIVE, None

    def _is_a_moment_behind(self, since: float) -> bool:
        """A live subscription stays live for the moment that fetching a broadcast's signals takes.

        Otherwise an account with large batches, whose broadcasts carry none, would never be live.
        """
        was_live = self._state is SubscriptionState.LIVE
        return was_live and self._signals.is_settled and self._now < since + GRACE_SECONDS
