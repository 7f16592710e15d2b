"""The state of one subscription, and what to do next to keep it live. No I/O, no clock.

Whoever owns it tells what happens (`joined`, `broadcast`, `page`, `head`, …) and, before each of
these and at `wake_at`, what time it is (`tick`). It answers with a state and its reason, and with
what it wants: a query by seq, a check of where the account is, another join.

A broadcast that never comes makes no noise: a dead replication slot looks like a quiet account.
So when no broadcast has come for a while that was on time by the database's clock, the database is
asked where the account is, and what it shows has to be broadcast within a moment (`GRACE_SECONDS`,
and the interval at which the account's broadcasts are put together): see strand.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from signal_persistence.advance import EventBroadcast, EventPage, SignalEvent
from signal_persistence.coverage import Announcement, Answer, Coverage, Observation, SeqQuery
from signal_persistence.reading import Broadcast, Page
from signal_persistence.signal import StoredSignal
from signal_persistence.strand import Strand

GRACE_SECONDS: Final = 1.0
"""How long after the database showed a signal its broadcast may come; how long LIVE may lag."""
CHECK_INTERVAL_SECONDS: Final = 3.5
"""How long nothing may show where the account is, until the service has told how long.

What is lost then shows within it, an answer and GRACE_SECONDS: in 5 seconds.
"""
CHECK_SECONDS: Final = 1.5
"""A check that has no answer after so long shows nothing: what it would show may be lost."""
CLOCK_SECONDS: Final = 60.0
"""How far apart checks are at most: by them it is known what time it is in the database."""
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
    """Follow one account: its signals each once and by seq, and how far that can be trusted.

    With `matches_event` their events as well, each once, by the seq of events, and after the
    signals that it is about.
    """

    def __init__(
        self,
        matches: Callable[[StoredSignal], bool],
        *,
        after_seq: int | None = None,
        buffer_signals: int = 10_000,
        page_size: int = 1000,
        check_interval: float | None = None,
        own_channel: bool = False,
        matches_event: Callable[[SignalEvent], bool | None] | None = None,
        after_event_seq: int | None = None,
    ) -> None:
        """`own_channel` says that broadcasts tell only of signals that the queries return.

        `check_interval` is that of the service when it is None. `matches_event` answers None for an
        event that does not say enough without its signal, which queries bring.
        """
        self._signals = Strand(
            Coverage(matches, after_seq=after_seq, buffer_size=buffer_signals, page_size=page_size)
        )
        self._matches_event = matches_event
        self._events = (
            None
            if matches_event is None
            else Strand[SignalEvent](
                Coverage(
                    lambda event: matches_event(event) is True,
                    after_seq=after_event_seq,
                    buffer_size=buffer_signals,
                    page_size=page_size,
                )
            )
        )
        self._strands: tuple[Strand[Any], ...] = (
            (self._signals,) if self._events is None else (self._signals, self._events)
        )
        self._keeps_interval = check_interval is not None
        self._check_interval = check_interval or CHECK_INTERVAL_SECONDS
        self._own_channel = own_channel
        self._now = 0.0
        self._database_time: tuple[datetime, float] | None = None
        self._checked_at = 0.0
        self._due_at = math.inf
        self._joined = False
        self._ever_joined = False
        self._replicating = False
        self._lost = StateReason.NOT_JOINED
        self._closed: StateReason | None = None
        self._interval: float | None = None
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
    def is_up_to_date(self) -> bool:
        """Whether it is LIVE and not even a moment behind: all that it knows of is here."""
        return self._state is SubscriptionState.LIVE and not self._is_behind

    @property
    def cursor(self) -> int | None:
        """Everything of the filter up to this seq has been handed out; None before it is known."""
        return self._signals.coverage.cursor

    @property
    def event_cursor(self) -> int | None:
        """The same for the seq of events; None as well when these are not followed."""
        return None if self._events is None else self._events.coverage.cursor

    @property
    def buffered(self) -> int:
        """How many signals and events wait to be taken."""
        return sum(strand.coverage.buffered for strand in self._strands)

    @property
    def has_next(self) -> bool:
        """Whether there is something to take now."""
        return self._signals.coverage.next is not None or self._next_event() is not None

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
        for strand in self._strands:
            moments.append(strand.deadline)
            if strand.behind is not None:
                moments.append(strand.behind[1] + GRACE_SECONDS)
        if self._brings_nothing:
            moments.append(self._rejoin_at)
        return min((moment for moment in moments if moment > self._now), default=math.inf)

    def tick(self, now: float) -> None:
        """It is `now`, in seconds of a clock that never goes back."""
        self._now = now
        was_missing = self._missing
        for strand in self._strands:
            if strand.tick(now) and not was_missing:
                self._given_time_at = -math.inf
        self._judge()

    def joined(self) -> None:
        """The channel is joined: what was stored while it was not has to be fetched."""
        self._joined = self._ever_joined = True
        self._replicating = False
        self._given_time_at = self._now
        for strand in self._strands:
            strand.joined()
        self._judge()

    def replication_ready(self) -> None:
        """The server now follows the database: what was stored until here has to be fetched."""
        self._replicating = True
        for strand in self._strands:
            strand.joined()
        self._judge()

    def left(self, reason: StateReason) -> None:
        """The channel is lost, or cannot be joined, and broadcasts with it."""
        self._joined = self._replicating = False
        self._lost = reason
        for strand in self._strands:
            strand.not_answerable()
        self._judge()

    def check_due(self) -> None:
        """Want a check now: a broadcast came that cannot be read, say."""
        self._due_at = min(self._due_at, self._now)

    def close(self, reason: StateReason = StateReason.CLOSED_BY_USER) -> None:
        self._closed = self._closed or reason
        self._judge()

    def broadcast(self, message: Broadcast) -> None:
        """Take in a broadcast of signals that the channel brought."""
        first, last, at = message.first_seq, message.last_seq, message.broadcast_at
        self._take_in(self._signals, Announcement(first, last, at, message.signals))

    def event_broadcast(self, message: EventBroadcast) -> None:
        """Take in a broadcast of events that the channel brought."""
        if self._events is None or self._matches_event is None:
            return
        events = message.changes
        if events is not None and any(self._matches_event(event) is None for event in events):
            events = None  # A query brings them with their signals.
        self._signals_known_by(events or ())
        first, last, at = message.first_seq, message.last_seq, message.broadcast_at
        self._take_in(self._events, Announcement(first, last, at, events))

    def page(self, query: SeqQuery, page: Page, *, asked_at: float | None = None) -> None:
        """Take in the answer to `query`; it was `asked_at` this time, now when that is None."""
        newest = page.signals[-1].seq if page.signals else 0
        through = page.last_seq if page.next_cursor is None else max(newest, query.after_seq)
        self._signals.answer(query, Answer(page.signals, through, page.last_seq))
        shown = newest if self._own_channel else page.last_seq
        asked_at = self._now if asked_at is None else asked_at
        complete = page.next_cursor is None
        self._answered_by(self._signals, page.last_seq, shown, complete, asked_at)

    def event_page(
        self, query: SeqQuery, page: EventPage, *, asked_at: float | None = None
    ) -> None:
        """Take in the answer to a query of events, in the same way."""
        if self._events is None:
            return
        through = page.events[-1].seq if page.events else page.last_seq
        answer = Answer(page.events, through, page.last_seq)
        self._events.answer(query, answer)
        self._signals_known_by(page.events)
        asked_at = self._now if asked_at is None else asked_at
        last_seq, complete = page.last_seq, answer.is_complete
        self._answered_by(self._events, last_seq, last_seq, complete, asked_at)

    def head(
        self,
        last_seq: int,
        last_event_seq: int = 0,
        *,
        broadcast_interval: float = 0.0,
        check_interval: float | None = None,
        database_time: datetime | None = None,
        asked_at: float | None = None,
    ) -> None:
        """Take in the answer to a check that was `asked_at` this time, now when that is None.

        It says where the account is, the interval of its broadcasts, how often the service wants to
        be asked, and what time it was in the database.
        """
        asked_at = self._now if asked_at is None else asked_at
        self._interval = broadcast_interval
        if check_interval is not None and not self._keeps_interval:
            self._check_interval = check_interval
        if database_time is not None:
            self._database_time = database_time, self._now
        self._checked_at = max(self._checked_at, asked_at)
        if asked_at >= self._due_at:
            self._due_at = math.inf
        self._signals.coverage.known(last_seq)
        shown: int | None = last_seq
        if self._own_channel:
            # Only that this one trader has no more, when nothing has to be fetched.
            shown = None if self._signals.coverage.is_behind else 0
        self._checked(self._signals, shown, asked_at)
        if self._events is not None:
            self._events.coverage.known(last_event_seq)
            self._checked(self._events, last_event_seq, asked_at)
        self._judge()

    def next_query(self) -> SeqQuery | None:
        """The query to make now, or None when nothing is missing or the buffer has no room."""
        return None if self._closed else self._signals.coverage.next_query()

    def next_event_query(self) -> SeqQuery | None:
        """The same for events."""
        followed = self._closed is None and self._events is not None
        return self._events.coverage.next_query() if followed and self._events else None

    def take(self) -> Observation | SignalEvent | None:
        """Hand out the next signal or event, or None when there is none yet."""
        if self._events is not None and self._next_event() is not None:
            taken_event = self._events.coverage.take()
            return taken_event and msgspec.structs.replace(taken_event[0], signal=None)
        taken = self._signals.coverage.take()
        return Observation(*taken) if taken else None

    def _next_event(self) -> SignalEvent | None:
        """The next event, unless a signal that it is about has still to be taken."""
        event = None if self._events is None else self._events.coverage.next
        if event is None or (self.cursor or 0) < event.last_signal_seq:
            return None
        return event

    def _signals_known_by(self, events: Iterable[SignalEvent]) -> None:
        """What has become of something is stored."""
        for event in events:
            self._signals.coverage.known(event.last_signal_seq)

    @property
    def _missing(self) -> bool:
        return any(strand.missing for strand in self._strands)

    @property
    def _is_behind(self) -> bool:
        return any(strand.coverage.is_behind for strand in self._strands)

    @property
    def _proven_at(self) -> float:
        return min(strand.proven_at for strand in self._strands)

    @property
    def _check_at(self) -> float:
        # The clock of this machine and that of the database may not drift apart unnoticed.
        clock_at = self._checked_at + max(CLOCK_SECONDS, self._check_interval)
        proof_at = self._proven_at + self._check_interval
        return min(proof_at, clock_at, self._due_at, *(each.ask_at for each in self._strands))

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

    def _take_in(self, strand: Strand[Any], message: Announcement[Any]) -> None:
        strand.broadcast(message, joined=self._joined)
        age = self._age(message)
        if age < -GRACE_SECONDS:
            self._database_time = None  # The clocks have drifted apart.
            self.check_due()
        elif age < GRACE_SECONDS and not strand.missing and not strand.coverage.is_behind:
            strand.proven(self._now)
        self._judge()

    def _age(self, message: Announcement[Any]) -> float:
        """How long ago a broadcast was sent: all may be late by the same time."""
        if self._database_time is None:
            return math.inf
        then, noted_at = self._database_time
        return (then - message.at).total_seconds() + self._now - noted_at

    def _answered_by(
        self, strand: Strand[Any], last_seq: int, shown: int, complete: bool, asked_at: float
    ) -> None:
        """Conclude what follows from a page beside what it brought."""
        strand.proven(asked_at)
        if self._replicating and not strand.is_answerable and strand.coverage.is_settled:
            strand.become_answerable(last_seq, self._now)
            if self._missing:
                self._due_at = min(self._due_at, self._ask_at)
        may_tell = self._interval is not None and (complete or not strand.has_pushed(shown))
        if may_tell and strand.shows_unpushed(shown, asked_at, self._lateness):
            if self._own_channel and self._now < self._checked_at + GRACE_SECONDS:
                strand.expect(shown, self._now + self._lateness)
            else:
                strand.ask_about(shown, self._ask_at)
        self._judge()

    @property
    def _ask_at(self) -> float:
        """When to ask about what the channel has not told of, if it does not tell before."""
        return self._now + min(self._lateness, self._check_interval)

    def _checked(self, strand: Strand[Any], shown: int | None, asked_at: float) -> None:
        """Conclude what follows from a check, which tells how long a broadcast may take."""
        until = self._now + self._lateness
        strand.proven(asked_at)
        strand.checked(asked_at, until)
        if shown is not None and strand.shows_unpushed(shown, asked_at, self._lateness):
            strand.expect(shown, until)

    def _judge(self) -> None:
        """Settle the state that follows from everything told so far."""
        for strand in self._strands:
            strand.judge(self._now)
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
        late = [strand for strand in self._strands if not self._is_at_most_a_moment_behind(strand)]
        if late:
            full = any(strand.coverage.is_full for strand in late)
            reason = StateReason.SLOW_CONSUMER if full else StateReason.BACKFILLING
            return SubscriptionState.CATCHING_UP, reason
        return SubscriptionState.LIVE, None

    def _is_at_most_a_moment_behind(self, strand: Strand[Any]) -> bool:
        """A live subscription stays live for the moment that fetching a broadcast's signals takes.

        Otherwise an account with large batches, whose broadcasts carry none, would never be live.
        """
        if strand.behind is None:
            return True
        was_live = self._state is SubscriptionState.LIVE
        is_recent = self._now < strand.behind[1] + GRACE_SECONDS
        return was_live and strand.coverage.is_settled and is_recent
