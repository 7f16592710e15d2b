"""How many bytes of memory a signal takes, with everything that only it refers to."""

from __future__ import annotations

from datetime import UTC, datetime
from sys import getsizeof
from typing import Any, Final
from uuid import UUID

import msgspec

from signal_persistence.signal import StoredSignal


def weigh(signal: StoredSignal) -> int:
    """Return the bytes of a signal as it was decoded: nothing in it is shared with another."""
    size = _LEAST + len(signal.symbol) + len(signal.timeframe) + len(signal.action)
    size += len(signal.status)
    if signal.stop_loss is not None:
        size += _FLOAT
    if signal.take_profit is not None:
        size += _FLOAT
    if signal.valid_until is not None:
        size += _TIME
    if signal.metadata is not None:
        size += deep_size(signal.metadata)
    if signal.outcome is not None:
        size += deep_size(signal.outcome)
    return size


def deep_size(value: Any) -> int:
    """Return the bytes of a value and of all that it refers to."""
    kind = type(value)
    if value is None or kind is bool:
        return 0
    if kind is UUID:
        return getsizeof(value) + getsizeof(value.int)
    if kind is dict:
        return getsizeof(value) + sum(deep_size(part) for pair in value.items() for part in pair)
    if kind is list:
        return getsizeof(value) + sum(deep_size(part) for part in value)
    if isinstance(value, msgspec.Struct):
        parts = (getattr(value, name) for name in value.__struct_fields__)
        return getsizeof(value) + sum(deep_size(part) for part in parts)
    return getsizeof(value)


_TIME: Final = getsizeof(datetime.now(UTC))
_FLOAT: Final = getsizeof(0.5)
_ANY_ID: Final = UUID("f0000000-0000-8000-8000-000000000000")
_LEAST: Final = deep_size(
    StoredSignal(
        signal_id=_ANY_ID,
        seq=2**31,
        trader_id=_ANY_ID,
        symbol="",
        timeframe="",
        generated_at=datetime.now(UTC),
        action="",
        confidence=0.5,
        price=0.5,
        status="",
    )
)
"""Of a signal with nothing that may be left out, and empty words."""
