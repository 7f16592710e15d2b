"""What the columns are made of: types of arrays, times, and the few operations numpy lacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from signal_persistence.errors import InvalidAnalysisError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Times = NDArray[np.datetime64]
"""Microseconds since 1970 in UTC, as datetime64[us]; NaT where there is no time."""

TIME: Final = np.dtype("datetime64[us]")
NOT_A_TIME: Final = np.datetime64("NaT", "us")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
T = TypeVar("T")


def microseconds(span: timedelta) -> int:
    """Return `span` in whole microseconds."""
    return span // _MICROSECOND


def time_of(moment: datetime) -> np.datetime64:
    """Return an aware datetime as a datetime64 in UTC."""
    if moment.utcoffset() is None:
        raise InvalidAnalysisError(f"Cannot use the time {moment}: give it a time zone.")
    return np.datetime64((moment - _EPOCH) // _MICROSECOND, "us")


def times_of(moments: Sequence[datetime | None]) -> Times:
    """Return aware datetimes as a column; None becomes NaT."""
    missing = np.iinfo(np.int64).min
    numbers = [missing if at is None else (at - _EPOCH) // _MICROSECOND for at in moments]
    return np.array(numbers, np.int64).view(TIME)


def datetime_of(time: np.datetime64) -> datetime:
    """Return a datetime64 that is a time as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=int(time.astype(np.int64)))


def timedelta_of(span: Any) -> timedelta:
    """Return microseconds, also a fraction of them, as a timedelta."""
    return timedelta(microseconds=round(float(span)))


def floats_of(values: Sequence[float | None]) -> Floats:
    """Return numbers as a column; None becomes NaN."""
    return np.array(values, np.float64)


def factorise(values: Sequence[T]) -> tuple[tuple[T, ...], Integers]:
    """Return the distinct values in their order, and each value's place among them."""
    distinct = tuple(sorted(dict.fromkeys(values)))  # type: ignore[type-var]
    place = {value: index for index, value in enumerate(distinct)}
    return distinct, np.fromiter(map(place.__getitem__, values), np.int64, len(values))


def ranks(values: Floats) -> Floats:
    """Rank from 1 upwards; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Floats = last - (counts - 1) / 2
    return mean[place]
