"""Record what became of signals, and read it back in order.

A signal is never changed: each step of its life is an event that is appended to it, with an event
seq of its own. What may follow what is the database's to decide; its verdict tells.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Self
from uuid import UUID, uuid4

import msgspec

from signal_persistence.caller import Caller
from signal_persistence.contract import CONTRACT
from signal_persistence.credentials import Credentials
from signal_persistence.jsonb import plain
from signal_persistence.signal import Signal, StoredSignal
from signal_persistence.verdict import VerdictItem

_ADVANCE: Final = "/rest/v1/rpc/advance_signals"
_EVENTS: Final = "/rest/v1/rpc/query_events"

Reached = Literal["analyzed", "executed", "closed", "cancelled", "rejected"]
"""The statuses that a change may report; `expired` comes by itself."""


class SignalChange(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"return_": "return"}
):
    """A status that a signal reached; the signal is named by its natural key.

    `occurred_at` is the time of the change if it is not now. `entry_price` belongs to `executed`.
    `closed` needs `exit_price` and `close_reason` (`take_profit`, `stop_loss`, `trailing_stop`,
    `time_limit`, `exit_signal`, `reversed`, `manual`, `liquidation`), and may have `return_`, the
    result after fees as a fraction (0.05 is a gain of 5 %), and `fees` of entry and exit in the
    quote currency. `reason` is a text of up to 200 characters for people.
    """

    trader_id: UUID
    symbol: str
    timeframe: str
    generated_at: datetime
    status: Reached
    occurred_at: datetime | None = None
    entry_price: float | None = None
    exit_price: float | None = None
    close_reason: str | None = None
    return_: float | None = None
    fees: float | None = None
    reason: str | None = None

    @classmethod
    def of(cls, signal: Signal | StoredSignal, status: Reached, **outcome: Any) -> SignalChange:
        """Make the change of `signal` to `status`; `outcome` are the other fields."""
        return cls(
            trader_id=signal.trader_id,
            symbol=signal.symbol,
            timeframe=signal.timeframe,
            generated_at=signal.generated_at,
            status=status,
            **outcome,
        )


class AdvanceVerdict(msgspec.Struct, frozen=True):
    """What became of each change of a request.

    `first_seq` to `last_seq` are the event seq of the accepted ones, in their order. `items` names
    every other: `duplicate_change` when the signal has had the status with the same content,
    `invalid_transition` when its status now does not allow the change (another worker was first, or
    its `valid_until` has passed), `unknown_signal`, or the field that is not valid.
    """

    request_id: UUID
    accepted: int
    duplicate: int
    rejected: int
    first_seq: int | None
    last_seq: int | None
    items: tuple[VerdictItem, ...]


class SignalEvent(msgspec.Struct, frozen=True, kw_only=True, rename={"return_": "return"}):
    """One event in the life of a signal; of many signals when it is their expiry.

    `seq` counts the account's events from 1 without gaps, apart from the seq of signals. An expiry
    names no single signal: `expired_seqs` are the first and last seq of each run of signals whose
    `valid_until` has passed by `occurred_at`. `signal` is the signal, with the status of the event,
    where it was asked for.
    """

    seq: int
    status: str
    signal_seq: int
    occurred_at: datetime
    received_at: datetime
    signal_id: UUID | None = None
    trader_id: UUID | None = None
    symbol: str | None = None
    timeframe: str | None = None
    generated_at: datetime | None = None
    entry_price: float | None = None
    exit_price: float | None = None
    close_reason: str | None = None
    return_: float | None = None
    fees: float | None = None
    reason: str | None = None
    expired_seqs: tuple[tuple[int, int], ...] | None = None
    signal: StoredSignal | None = None

    @property
    def last_signal_seq(self) -> int:
        """The highest seq of the signals that it is about."""
        return max(last for _, last in self.expired_seqs) if self.expired_seqs else self.signal_seq


class EventPage(msgspec.Struct, frozen=True):
    """A page of events; `last_seq` is the account's last event seq in the same snapshot."""

    events: tuple[SignalEvent, ...]
    last_seq: int


class EventBroadcast(msgspec.Struct, frozen=True):
    """The broadcast `signals_advanced`: a hint that the events of these seq are stored."""

    first_seq: int
    last_seq: int
    broadcast_at: datetime
    changes: tuple[SignalEvent, ...] | None = None


class AsyncSignalLifecycle:
    """Record and read what becomes of the signals of one account.

    Failures that may pass are tried again a few times, with the same request_id; what is raised
    then is the last TransportError or ApiError.
    """

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials,
        *,
        timeout: float = 10.0,
        attempts: int = 5,
        caller: Caller | None = None,
    ) -> None:
        """`url` is the project's URL, `key` its publishable key, `timeout` is in seconds."""
        self._caller = caller or Caller(url, key, credentials, timeout=timeout, attempts=attempts)

    async def advance(
        self, changes: Iterable[SignalChange], *, request_id: UUID | None = None
    ) -> AdvanceVerdict:
        """Report up to 5,000 changes; those of one signal are applied in their order.

        A change that is not allowed does not hinder the others. Called again with the same changes
        and `request_id` after an error in doubt, it gives the same verdict and changes nothing.
        Raises BatchTooLargeError for more than 5,000 changes or 1 MB.
        """
        parameters = {
            "request_id": request_id or uuid4(),
            "changes": [msgspec.Raw(_encoder.encode(change)) for change in changes],
        }
        return await self._caller.call(_ADVANCE, parameters, _verdict_decoder.decode)

    async def event_page(
        self,
        after_seq: int = 0,
        *,
        page_size: int = CONTRACT.limits.page_size,
        with_signals: bool = False,
    ) -> EventPage:
        """Return the events that follow `after_seq`, up to `page_size` of them.

        With `with_signals`, each has the signal that it is about.
        """
        parameters: dict[str, Any] = {"after_seq": after_seq, "page_size": page_size}
        if with_signals:
            parameters["with_signals"] = True
        return await self._caller.call(_EVENTS, parameters, _page_decoder.decode)

    async def events(self, after_seq: int = 0) -> AsyncIterator[SignalEvent]:
        """Iterate over the events that follow `after_seq`, in order, up to the newest."""
        while True:
            page = await self.event_page(after_seq)
            for event in page.events:
                yield event
                after_seq = event.seq
            if not page.events or after_seq >= page.last_seq:
                return

    async def close(self) -> None:
        """Close the connections."""
        await self._caller.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


_encoder: Final = msgspec.json.Encoder(enc_hook=plain)
_verdict_decoder: Final = msgspec.json.Decoder(AdvanceVerdict)
_page_decoder: Final = msgspec.json.Decoder(EventPage)
