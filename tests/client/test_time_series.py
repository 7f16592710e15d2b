"""Time series through the client: the same by the Edge Function and by the REST API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from signal_persistence import (
    ApiError,
    InvalidQueryError,
    PasswordCredentials,
    Signal,
    SignalClient,
    SignalQuery,
)
from signal_persistence.time_series import TimeSeries
from tests.plugins.stack import Account, RunningStack

NOW = datetime.now(UTC)
START = NOW - timedelta(hours=1)
HOURS: dict[str, Any] = {"from_": START, "to": NOW + timedelta(minutes=1)}
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def credentials(stack: RunningStack, make_account: Any) -> PasswordCredentials:
    """Of an account in which every minute of half an hour has a signal of A, then one of B."""
    account: Account = make_account("pro")
    credentials = PasswordCredentials(
        stack.api_url, stack.publishable_key, account.email, account.password
    )
    with SignalClient(stack.api_url, stack.publishable_key, credentials) as client:
        trader_id = client.create_trader("series").trader_id
        with client.producer(spool_dir=None) as producer:
            for minute in range(30):
                for seconds, symbol in ((0, "A"), (10, "B")):
                    at = NOW - timedelta(minutes=40 - minute, seconds=-seconds)
                    producer.publish(
                        Signal(
                            trader_id=trader_id,
                            symbol=symbol,
                            timeframe="1m",
                            generated_at=at,
                            action="enter_long",
                            confidence=0.5,
                            price=100.0 + minute,
                        )
                    )
            producer.flush(timeout=30)
    return credentials


@pytest.mark.parametrize("transport", ["edge", "rpc"])
def test_every_function_answers_by_each_way(
    stack: RunningStack, credentials: PasswordCredentials, transport: Any
) -> None:
    with SignalQuery(
        stack.api_url, stack.publishable_key, credentials, transport=transport
    ) as query:
        series: TimeSeries = query.time_series
        days = series.time_buckets(timedelta(days=1), by="symbol", **HOURS)
        assert {each.key: sum(each.signals) for each in days.series} == {"A": 30, "B": 30}
        assert (days.last_seq, days.keys_left_out) == (60, 0)
        assert days.from_ == START
        (rolling,) = series.rolling_statistics(MINUTE, "price", window=2, **HOURS).series
        assert len(rolling.value) == len(rolling.z_score)
        assert {each for each in rolling.stddev if each} != set()
        correlations = series.correlations(MINUTE, max_lag=1, **HOURS)
        assert correlations.at("A", "B", 1) == correlations.at("B", "A", -1)
        assert correlations.matrix()[0][0] == pytest.approx(1)
        with pytest.raises(KeyError):
            correlations.at("A", "B", 2)
        led, _ = series.co_occurrence(timedelta(seconds=15), **HOURS).pairs
        assert (led.leader, led.trigger_rate, led.median_delay_seconds) == ("A", 1, 10)
        assert sum(map(sum, (row.signals for row in series.heat_map(**HOURS).series))) == 60


@pytest.mark.parametrize("transport", ["edge", "rpc"])
def test_what_cannot_be_answered_is_told(
    stack: RunningStack, credentials: PasswordCredentials, transport: Any
) -> None:
    with SignalQuery(
        stack.api_url, stack.publishable_key, credentials, transport=transport
    ) as query:
        with pytest.raises(ApiError) as caught:
            query.time_series.time_buckets(MINUTE, from_=NOW - timedelta(days=300))
        assert caught.value.code == "query_too_wide"
        with pytest.raises(InvalidQueryError, match="time zone"):
            query.time_series.heat_map(from_=datetime(2026, 11, 1))
        with pytest.raises(InvalidQueryError, match="whole seconds"):
            query.time_series.time_buckets(timedelta(seconds=90.5), **HOURS)
        with pytest.raises(InvalidQueryError, match="no symbols"):
            query.time_series.time_buckets(MINUTE, symbols=[], **HOURS)
