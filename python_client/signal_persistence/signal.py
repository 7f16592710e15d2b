"""A signal: what it is made of, when it is valid, how it is named and how it is sent.

The order of the checks and their codes are those of the shared contract, so that a signal which
passes here is only ever refused by the database for what the database alone can know.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from numbers import Real
from typing import Any, Final
from uuid import UUID

import msgspec

from signal_persistence.contract import CONTRACT, SYMBOL_TEXT, TIMESTAMP_TEXT, UUID_TEXT
from signal_persistence.errors import InvalidSignalError
from signal_persistence.jsonb import NotJsonbError, jsonb_size, plain

_FIELDS: Final = frozenset(CONTRACT.fields)
_ACTIONS: Final = CONTRACT.actions
_TIMEFRAMES: Final = CONTRACT.timeframes
_LARGEST_PRICE: Final = CONTRACT.limits.price_magnitude
_METADATA_BYTES: Final = CONTRACT.limits.metadata_bytes
_FIRST_YEAR: Final = 1000
_LAST_YEAR: Final = 2999
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One trading signal of one trader.

    `symbol` is 1 to 32 of `A-Z a-z 0-9 . _ / : = @ # ! & ^ + -`; `timeframe` a bar size such as
    `15m`; `action` one of `enter_long`, `exit_long`, `enter_short`, `exit_short`; `confidence`
    from 0 to 1. `generated_at` and `valid_until` are aware datetimes, kept to the microsecond.
    `metadata` is a JSON object of at most 2,048 bytes as PostgreSQL prints it.
    """

    trader_id: UUID
    symbol: str
    timeframe: str
    generated_at: datetime
    action: str
    confidence: float
    price: float
    stop_loss: float | None = None
    take_profit: float | None = None
    valid_until: datetime | None = None
    metadata: dict[str, Any] | None = None

    def validate(self) -> None:
        """Raise InvalidSignalError with the code of the first check that fails."""
        code = _problem(self) or _unsendable(self)
        if code is not None:
            raise InvalidSignalError(code)

    def signal_id(self, account_id: UUID) -> UUID:
        """Compute the id that this signal gets in `account_id`: a hash of its natural key."""
        return signal_id(account_id, self.trader_id, self.symbol, self.timeframe, self.generated_at)

    def to_json(self) -> bytes:
        """Encode a valid signal as the JSON object that the service stores; times are in UTC."""
        signal = self
        if not _is_plain_utc(self.generated_at):
            signal = msgspec.structs.replace(signal, generated_at=_utc(self.generated_at))
        if self.valid_until is not None and not _is_plain_utc(self.valid_until):
            signal = msgspec.structs.replace(signal, valid_until=_utc(self.valid_until))
        return _encoder.encode(signal)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, rename={"return_": "return"}):
    """What was reported of a signal; None for what was not.

    `entry_price` is the price at which it was executed, `exit_price` the one at which it was closed
    and `close_reason` why (`take_profit`, `stop_loss`, `trailing_stop`, `time_limit`,
    `exit_signal`, `reversed`, `manual`, `liquidation`). `return_` (`return` in SQL and JSON) is the
    result after fees as a fraction: 0.05 is a gain of 5 %. `fees` are those of entry and exit in
    the quote currency, negative for a rebate. `reason` is a text for people, of the last event.
    """

    entry_price: float | None = None
    exit_price: float | None = None
    close_reason: str | None = None
    return_: float | None = None
    fees: float | None = None
    reason: str | None = None


class StoredSignal(msgspec.Struct, frozen=True, kw_only=True):
    """A signal as the service stores it, with its id and its place in the account's order.

    `seq` counts the account's signals from 1 without gaps, in the order they were committed.
    `status` is `generated`, `analyzed`, `executed`, `closed`, `expired`, `cancelled` or `rejected`,
    and `outcome` what was reported with it, None when nothing was. Both are those of the moment at
    which the database answered; a live broadcast says those of the moment of storing: `generated`,
    or `expired` when `valid_until` had passed by then, and no outcome. What becomes of the signal
    later is told by events (`SignalClient.events`) and by the next query.
    """

    signal_id: UUID
    seq: int
    trader_id: UUID
    symbol: str
    timeframe: str
    generated_at: datetime
    action: str
    confidence: float
    price: float
    status: str
    stop_loss: float | None = None
    take_profit: float | None = None
    valid_until: datetime | None = None
    metadata: dict[str, Any] | None = None
    outcome: Outcome | None = None

    @classmethod
    def from_json(cls, text: bytes | str) -> StoredSignal:
        """Decode one signal object of a query answer or of a broadcast."""
        return _stored_decoder.decode(text)


def signal_id(
    account_id: UUID, trader_id: UUID, symbol: str, timeframe: str, generated_at: datetime
) -> UUID:
    """Compute the id of a natural key: SHA-256 of its parts, as a UUID of version 8 (RFC 9562)."""
    microseconds = (generated_at - _EPOCH) // _MICROSECOND
    name = f"{account_id}\n{trader_id}\n{symbol}\n{timeframe}\n{microseconds}"
    digest = int.from_bytes(sha256(name.encode()).digest()[:16], "big")
    digest = digest & ~(0xF << 76) | (8 << 76)
    return UUID(int=digest & ~(3 << 62) | (2 << 62))


def problem_of(value: object) -> str | None:
    """Return the item code that the service gives a decoded JSON value, None if it is valid.

    Only what is wrong with the value itself: `stale`, `duplicate` and the like are the database's.
    """
    if not isinstance(value, Mapping):
        return "invalid_signal"
    if not _FIELDS.issuperset(value):
        return "unknown_field"
    return _problem(from_json_object(value))


def from_json_object(value: Mapping[str, Any]) -> Signal:
    """Build the signal that a JSON object spells; what cannot be read is left for the checks."""
    parts: dict[str, Any] = {name: value.get(name) for name in CONTRACT.fields}
    parts["trader_id"] = _uuid_from(parts["trader_id"])
    parts["generated_at"] = _time_from(parts["generated_at"])
    parts["valid_until"] = _time_from(parts["valid_until"])
    return Signal(**parts)


def _problem(signal: Signal) -> str | None:
    if not isinstance(signal.trader_id, UUID):
        return "invalid_trader_id"
    if not isinstance(signal.symbol, str) or not SYMBOL_TEXT.fullmatch(signal.symbol):
        return "invalid_symbol"
    if not isinstance(signal.timeframe, str) or signal.timeframe not in _TIMEFRAMES:
        return "invalid_timeframe"
    if not _is_time(signal.generated_at):
        return "invalid_generated_at"
    if not isinstance(signal.action, str) or signal.action not in _ACTIONS:
        return "invalid_action"
    if not _is_number(signal.confidence) or not 0 <= signal.confidence <= 1:
        return "invalid_confidence"
    if not _is_price(signal.price):
        return "invalid_price"
    if signal.stop_loss is not None and not _is_price(signal.stop_loss):
        return "invalid_stop_loss"
    if signal.take_profit is not None and not _is_price(signal.take_profit):
        return "invalid_take_profit"
    if signal.valid_until is not None and not (
        _is_time(signal.valid_until) and _is_later(signal.valid_until, signal.generated_at)
    ):
        return "invalid_valid_until"
    if signal.metadata is not None and not _is_metadata(signal.metadata):
        return "invalid_metadata"
    return None


def _unsendable(signal: Signal) -> str | None:
    """Find a time that leaves the contract's years when it is sent in UTC."""
    if not _is_sendable(signal.generated_at):
        return "invalid_generated_at"
    if signal.valid_until is not None and not _is_sendable(signal.valid_until):
        return "invalid_valid_until"
    return None


def _is_number(value: object) -> bool:
    kind = type(value)
    if kind is float or kind is int:
        return True
    return kind is not bool and isinstance(value, Real)


def _is_price(value: float) -> bool:
    return _is_number(value) and -_LARGEST_PRICE <= value <= _LARGEST_PRICE


def _is_time(value: object) -> bool:
    return (
        isinstance(value, datetime)
        and _FIRST_YEAR <= value.year <= _LAST_YEAR
        and value.utcoffset() is not None
    )


def _is_later(value: datetime, other: datetime) -> bool:
    # Within one time zone Python compares what the clock shows, which is wrong when it is put back.
    return value.astimezone(UTC) > other.astimezone(UTC)


def _is_sendable(value: datetime) -> bool:
    if _FIRST_YEAR < value.year < _LAST_YEAR:
        return True
    return _FIRST_YEAR <= _utc(value).year <= _LAST_YEAR


def _is_metadata(value: object) -> bool:
    try:
        return isinstance(value, dict) and jsonb_size(value) <= _METADATA_BYTES
    except NotJsonbError:
        return False


def _is_plain_utc(value: datetime) -> bool:
    return type(value) is datetime and value.tzinfo is UTC


def _utc(value: datetime) -> datetime:
    """Return the same instant as a plain datetime (pandas' Timestamp is a subclass) in UTC."""
    moment = value.astimezone(UTC)
    return datetime.combine(moment.date(), moment.time(), UTC)


def _uuid_from(value: object) -> UUID | None:
    return UUID(value) if isinstance(value, str) and UUID_TEXT.fullmatch(value) else None


def _time_from(value: object) -> object:
    """Read a time; return what is no time unchanged, so that the check refuses it."""
    if not isinstance(value, str) or not TIMESTAMP_TEXT.fullmatch(value):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return value


_encoder: Final = msgspec.json.Encoder(enc_hook=plain)
_stored_decoder: Final = msgspec.json.Decoder(StoredSignal)
