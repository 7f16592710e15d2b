"""What a question about time series sends, and what it refuses to send."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy
import pytest

from signal_persistence.credentials import AccessToken
from signal_persistence.errors import InvalidQueryError
from signal_persistence.query import SignalQuery
from signal_persistence.time_series import TimeSeries
from tests.client.loopback_service import LoopbackService, json_answer

START = datetime(2026, 1, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOTHING = {
    "from": START.isoformat(),
    "to": START.isoformat(),
    "keys_left_out": 0,
    "last_seq": 7,
    "buckets": [],
    "hours": [],
    "series": [],
    "keys": [],
    "pairs": [],
    "lags": [],
}


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    with LoopbackService(lambda request: json_answer(NOTHING)) as service:
        yield service


@pytest.fixture
def series(service: LoopbackService) -> Iterator[TimeSeries]:
    with SignalQuery(service.url, "key", AccessToken("t"), attempts=1) as query:
        yield query.time_series


def test_what_is_none_is_left_out_and_numbers_may_be_those_of_numpy(
    service: LoopbackService, series: TimeSeries
) -> None:
    series.rolling_statistics(
        MINUTE,
        window=numpy.int64(5),  # type: ignore[arg-type]
        from_=START,
        to=None,
        traders=None,
        min_confidence=numpy.float32(0.5),  # type: ignore[arg-type]
        top=None,
        fill=None,
    )
    assert [request.json() for request in service.received] == [
        {
            "from": "2026-01-05T00:00:00+00:00",
            "min_confidence": 0.5,
            "width": "60s",
            "value": "signals",
            "window": 5,
        }
    ]


@pytest.mark.parametrize(
    "name",
    ["symbol", "tags", "symbol_prefix", "min_price", "statuses", "after_seq", "at_least_seq"],
)
def test_an_option_that_no_series_has_is_refused(
    service: LoopbackService, series: TimeSeries, name: str
) -> None:
    unknown: Any = {name: 1}
    with pytest.raises(InvalidQueryError, match=f"'{name}' here: there are actions, fill, from_"):
        series.time_buckets(MINUTE, from_=START, **unknown)
    with pytest.raises(InvalidQueryError, match=f"'{name}' here"):
        series.heat_map(from_=START, **unknown)
    assert not service.received


def test_gaps_are_filled_only_where_there_are_buckets(series: TimeSeries) -> None:
    fill: Any = {"fill": "linear"}
    with pytest.raises(InvalidQueryError, match="'fill' here"):
        series.heat_map(from_=START, **fill)
    with pytest.raises(InvalidQueryError, match="'fill' here"):
        series.co_occurrence(MINUTE, from_=START, **fill)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "without from_"),
        ({"from_": None}, "without from_"),
        ({"from_": "2026-01-05"}, "must be a datetime"),
        ({"from_": START, "top": 2.5}, "top 2.5: it must be a whole number"),
        ({"from_": START, "window": "5"}, "window '5': it must be a whole number"),
        ({"from_": START, "width": 60}, "width 60: it must be a timedelta"),
    ],
)
def test_a_value_that_cannot_work_is_refused(
    service: LoopbackService, series: TimeSeries, options: Any, sentence: str
) -> None:
    with pytest.raises(InvalidQueryError, match=sentence):
        series.rolling_statistics(**{"width": MINUTE, **options})
    assert not service.received
