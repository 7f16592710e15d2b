"""Where a manager writes through to: the persistence hook, and the one of Supabase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self
from uuid import UUID

from signal_persistence.advance import AdvanceVerdict, SignalChange
from signal_persistence.delivery import DeliveryReport
from signal_persistence.producer import Producer
from signal_persistence.signal import Signal, StoredSignal

if TYPE_CHECKING:
    from signal_persistence.client import SignalClient

_INSTANT: Final = timedelta(microseconds=1)


class SignalStore(Protocol):
    """Keeps the signals of one account; called from several threads.

    What cannot be done now raises a SignalPersistenceError and may be asked for again: everything
    here is idempotent by the natural key of a signal and the content of a change.
    """

    def publish(self, signal: Signal, done: Callable[[DeliveryReport], object]) -> None:
        """Take a signal to be stored; `done` is called once with its report, from any thread."""
        ...

    def hurry(self) -> None:
        """Send what publish() has taken at once."""
        ...

    def advance(self, changes: Sequence[SignalChange], request_id: UUID) -> AdvanceVerdict:
        """Change statuses of stored signals, and return what became of each change."""
        ...

    def find(self, signal: Signal | SignalChange | StoredSignal) -> StoredSignal | None:
        """Return the stored signal with this natural key."""
        ...

    def signals(self, trader_id: UUID | None = None) -> Iterator[StoredSignal]:
        """Iterate over the signals of the account, or of one trader, newest first."""
        ...


class SupabaseStore:
    """Keeps signals in a Supabase project, through a producer and a client of the account.

    Both stay the caller's to close, after the manager; the query that it makes is closed with it.
    """

    def __init__(
        self, client: SignalClient, producer: Producer, *, account_id: UUID | None = None
    ) -> None:
        """`account_id` is needed when the producer serves several accounts."""
        self._client = client
        self._producer = producer
        self._account_id = account_id
        # A replica that is behind lacks what the manager has written, or has its old status.
        self._query = client.query(replica=False)

    def publish(self, signal: Signal, done: Callable[[DeliveryReport], object]) -> None:
        self._producer.publish(signal, account_id=self._account_id, on_delivery=done)

    def hurry(self) -> None:
        self._producer.flush(timeout=0)

    def advance(self, changes: Sequence[SignalChange], request_id: UUID) -> AdvanceVerdict:
        return self._client.advance(changes, request_id=request_id)

    def find(self, signal: Signal | SignalChange | StoredSignal) -> StoredSignal | None:
        found = self._query.signals(
            traders=[signal.trader_id],
            symbols=[signal.symbol],
            timeframes=[signal.timeframe],
            from_=signal.generated_at,
            to=signal.generated_at + _INSTANT,
        )
        return next(found, None)

    def signals(self, trader_id: UUID | None = None) -> Iterator[StoredSignal]:
        traders = None if trader_id is None else [trader_id]
        return self._query.signals(sort="newest", traders=traders)

    def close(self) -> None:
        """Close the query."""
        self._query.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
