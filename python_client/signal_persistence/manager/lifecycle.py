"""The rules of a signal's life, as the database has them: which change may follow which status.

docs/lifecycle.md draws them, and tests compare this module with that page and with the database.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

import msgspec

from signal_persistence.advance import SignalChange
from signal_persistence.contract import CONTRACT
from signal_persistence.signal import Outcome

T = TypeVar("T")
Status = Literal["generated", "analyzed", "executed", "closed", "expired", "cancelled", "rejected"]

_OPEN: Final = frozenset({"generated", "analyzed"})
_ENDS: Final = frozenset({"executed", "expired", "cancelled", "rejected"})
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "generated": _ENDS | {"analyzed"},
    "analyzed": _ENDS,
    "executed": frozenset({"closed"}),
}
"""Status → what may follow it. A status that is not a key ends the signal."""

_LARGEST_PRICE: Final = CONTRACT.limits.price_magnitude
_LARGEST_RETURN: Final = CONTRACT.limits.return_magnitude
_LONGEST_REASON: Final = CONTRACT.limits.reason_characters
_EARLIEST_CHANGE: Final = timedelta(minutes=1)
"""How long before `generated_at` a change may have occurred."""


def status_at(reported: Status, valid_until: datetime | None, moment: datetime) -> Status:
    """Return the status at `moment` of a signal whose last report was `reported`.

    One that is still generated or analyzed when its `valid_until` is reached is expired.
    """
    if reported in _OPEN and valid_until is not None and valid_until <= moment:
        return "expired"
    return reported


def content_of(change: SignalChange) -> SignalChange:
    """Return what two reports must have in common to be one: everything but their time."""
    return msgspec.structs.replace(change, occurred_at=None)


def outcome_after(outcome: Outcome | None, change: SignalChange) -> Outcome | None:
    """Return the outcome of a signal after `change`; `reason` is that of the last event."""
    before = outcome or Outcome()
    after = Outcome(
        entry_price=_first(change.entry_price, before.entry_price),
        exit_price=_first(change.exit_price, before.exit_price),
        close_reason=_first(change.close_reason, before.close_reason),
        return_=_first(change.return_, before.return_),
        fees=_first(change.fees, before.fees),
        reason=change.reason,
    )
    return None if after == Outcome() else after


def problem_of_change(change: SignalChange) -> str | None:
    """Return the item code with which the database would refuse the values of `change`."""
    closed = change.status == "closed"
    if change.occurred_at is not None and not _is_time_after(change.occurred_at, change):
        return "invalid_occurred_at"
    if change.entry_price is not None and not (
        change.status == "executed" and _is_within(change.entry_price, _LARGEST_PRICE)
    ):
        return "invalid_entry_price"
    if closed != (change.exit_price is not None) or (
        change.exit_price is not None and not _is_within(change.exit_price, _LARGEST_PRICE)
    ):
        return "invalid_exit_price"
    if closed != (change.close_reason in CONTRACT.close_reasons) or (
        not closed and change.close_reason is not None
    ):
        return "invalid_close_reason"
    if change.return_ is not None and not (closed and _is_within(change.return_, _LARGEST_RETURN)):
        return "invalid_return"
    if change.fees is not None and not (closed and _is_within(change.fees, _LARGEST_PRICE)):
        return "invalid_fees"
    if change.reason is not None and not _is_reason(change.reason):
        return "invalid_reason"
    return None


def _is_time_after(moment: datetime, change: SignalChange) -> bool:
    if moment.utcoffset() is None:
        return False
    return moment.astimezone(UTC) >= change.generated_at.astimezone(UTC) - _EARLIEST_CHANGE


def _is_within(value: float, most: float) -> bool:
    return not isinstance(value, bool) and -most <= value <= most


def _is_reason(text: str) -> bool:
    return 1 <= len(text) <= _LONGEST_REASON and not any(
        unicodedata.category(character) == "Cc" for character in text
    )


def _first(value: T | None, otherwise: T | None) -> T | None:
    return otherwise if value is None else value
