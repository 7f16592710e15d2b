"""Time series say what pandas says of the same signals, wherever and however these are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.database.series_world import World, real_signals, series_world
from tests.plugins.stack import RunningStack

ORIGIN = pd.Timestamp("2000-01-03", tz="UTC")
ACTIONS = ("enter_long", "exit_long", "enter_short", "exit_short")
COUNTS = ("signals", *ACTIONS)
SPAN = {
    "from_": datetime(2021, 10, 30, 7, 20, tzinfo=UTC),
    "to": datetime(2021, 11, 14, tzinfo=UTC),
}
"""With ends within a bucket; all three markets are in it."""
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def world(stack: RunningStack) -> Iterator[World]:
    """Hold the real signals in all tiers at once: as rows, in small segments and in merged ones."""
    with series_world(stack) as made:
        made.store(autumn())
        made.pack(3, 0)
        made.merge()
        made.pack(2, 0)
        yield made


@cache
def autumn() -> pd.DataFrame:
    """Return the real signals of some weeks around those that are asked about."""
    signals = real_signals()
    at = signals["generated_at"]
    first, last = datetime(2021, 10, 20, tzinfo=UTC), datetime(2021, 11, 25, tzinfo=UTC)
    return signals[(at >= first) & (at < last)].reset_index(drop=True)


@pytest.fixture(scope="module")
def recent(stack: RunningStack) -> Iterator[World]:
    """Hold them as if they had ended the day before yesterday, all of them rolled up."""
    with series_world(stack) as made:
        made.store(recent_signals(made))
        made.roll_up()
        yield made


@pytest.fixture(scope="module")
def quiet(stack: RunningStack) -> Iterator[World]:
    """Hold nothing but a trader."""
    with series_world(stack) as made:
        made.add_traders({"one"})
        yield made


@contextmanager
def put_back(world: World) -> Iterator[None]:
    """Undo at the end what was changed in between."""
    world.cursor.execute("savepoint before")
    try:
        yield
    finally:
        world.cursor.execute("rollback to savepoint before")


def recent_signals(world: World) -> pd.DataFrame:
    """Return some days of the real signals as if they had ended the day before yesterday.

    Rollups of the last 8 days have their partitions already.
    """
    signals = real_signals()
    end = signals["generated_at"].max()
    age = (world.now() - end).days - 1
    latest = signals[signals["generated_at"] >= end - timedelta(days=5)]
    return latest.assign(generated_at=latest["generated_at"] + timedelta(days=age))


def numbers(values: Sequence[float | None]) -> np.ndarray[Any, Any]:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def same(found: Sequence[float | None], wanted: Any, near: float = 1e-12) -> None:
    """Compare to 1e-9 relative; near 0, to `near`."""
    np.testing.assert_allclose(numbers(found), np.asarray(wanted, float), rtol=1e-9, atol=near)


def within(signals: pd.DataFrame, span: Mapping[str, Any]) -> pd.DataFrame:
    at = signals["generated_at"]
    return signals[(at >= span["from_"]) & (at < span["to"])]


def buckets(width: timedelta, span: Mapping[str, Any]) -> pd.DatetimeIndex:
    first = ORIGIN + (pd.Timestamp(span["from_"]) - ORIGIN) // width * width
    if span["from_"] >= span["to"]:
        first = span["to"]
    return pd.date_range(first, span["to"], freq=width, inclusive="left")


def resampled(signals: pd.DataFrame, width: timedelta, span: Mapping[str, Any]) -> pd.DataFrame:
    """Return the columns of time_buckets as pandas has them, a row for each bucket."""
    signals = within(signals, span)
    index = buckets(width, span)
    at = ORIGIN + (signals["generated_at"] - ORIGIN) // width * width
    grouped = signals.groupby(at)
    columns = {"signals": grouped.size()}
    for action in ACTIONS:
        columns[action] = (signals["action"] == action).groupby(at).sum()
    for name in ("confidence", "price"):
        values = grouped[name]
        columns[f"{name}_avg"] = values.mean()
        columns[f"{name}_stddev"] = values.std()
        columns[f"{name}_min"] = values.min()
        columns[f"{name}_max"] = values.max()
    table = pd.DataFrame(columns).reindex(index)
    return table.fillna(dict.fromkeys(COUNTS, 0))


def top(signals: pd.DataFrame, by: str, count: int, name: Callable[[str], str] = str) -> list[str]:
    """Return the keys with the most signals, those with as many in the order of their names."""
    sizes = signals.groupby(by).size()
    return sorted(sizes.index, key=lambda key: (-sizes[key], name(key)))[:count]


def same_buckets(series: Mapping[str, Any], wanted: pd.DataFrame) -> None:
    for column in wanted:
        same(series[column], wanted[column], 1e-9 if column.endswith("stddev") else 1e-12)


@pytest.mark.parametrize("width", [timedelta(minutes=15), timedelta(hours=7), timedelta(days=1)])
def test_buckets_are_those_of_pandas(world: World, width: timedelta) -> None:
    answer = world.ask("time_buckets", width=width, **SPAN)
    wanted = resampled(autumn(), width, SPAN)
    assert list(pd.to_datetime(answer["buckets"], utc=True)) == list(wanted.index)
    (series,) = answer["series"]
    assert series["key"] is None
    same_buckets(series, wanted)


@pytest.mark.parametrize("by", ["trader", "symbol", "timeframe"])
def test_buckets_are_told_apart(world: World, by: str) -> None:
    answer = world.ask("time_buckets", width="6h", by=by, top=4, **SPAN)
    signals = within(autumn(), SPAN)
    names = world.traders.__getitem__ if by == "trader" else str
    keys = top(signals, by, 4, names)
    assert [series["key"] for series in answer["series"]] == [names(key) for key in keys]
    assert answer["keys_left_out"] == max(0, signals[by].nunique() - 4)
    for key, series in zip(keys, answer["series"], strict=True):
        same_buckets(series, resampled(signals[signals[by] == key], 6 * HOUR, SPAN))


def test_filters_leave_out_what_query_signals_leaves_out(world: World) -> None:
    answer = world.ask(
        "time_buckets",
        width="1h",
        symbols=["BTC-USD", "NONE"],
        timeframes=["15m"],
        actions=["enter_long", "exit_short"],
        min_confidence=0.6,
        max_confidence=0.9,
        **SPAN,
    )
    signals = autumn()
    wanted = signals[
        (signals["symbol"] == "BTC-USD")
        & signals["action"].isin(["enter_long", "exit_short"])
        & signals["confidence"].between(0.6, 0.9)
    ]
    assert 0 < len(within(wanted, SPAN)) < len(within(signals, SPAN))
    same_buckets(answer["series"][0], resampled(wanted, HOUR, SPAN))


def test_gaps_are_filled(world: World) -> None:
    wanted = resampled(autumn(), timedelta(minutes=15), SPAN)["price_avg"]
    assert wanted.isna().any()
    for fill, filled in {
        "null": wanted,
        "previous": wanted.ffill(),
        "linear": wanted.interpolate(limit_area="inside"),
    }.items():
        answer = world.ask("time_buckets", width="15m", fill=fill, **SPAN)
        same(answer["series"][0]["price_avg"], filled)


@pytest.mark.parametrize("min_periods", [None, 1])
@pytest.mark.parametrize("value", ["signals", "net_entries", "confidence", "price"])
def test_rolling_figures_are_those_of_pandas(
    world: World, value: str, min_periods: int | None
) -> None:
    answer = world.ask(
        "rolling_statistics", width="1h", value=value, window=24, min_periods=min_periods, **SPAN
    )
    table = resampled(autumn(), HOUR, SPAN)
    x = {
        "signals": table["signals"],
        "net_entries": table["enter_long"] - table["enter_short"],
        "confidence": table["confidence_avg"],
        "price": table["price_avg"],
    }[value]
    (series,) = answer["series"]
    same(series["value"], x)
    rolling = x.rolling(24, min_periods=min_periods)
    same(series["mean"], rolling.mean(), 1e-9)
    exponential = x.ewm(span=24, min_periods=24 if min_periods is None else min_periods)
    same(series["exponential_mean"], exponential.mean())
    same(series["weighted_mean"], rolling.apply(weighted_mean, raw=True), 1e-9)
    # Not rolling.std(), which loses digits as it goes.
    deviation = rolling.apply(
        lambda values: np.nanstd(values, ddof=1) if count(values) > 1 else np.nan
    )
    same(series["stddev"], deviation, 1e-9)
    same(series["z_score"], (x - rolling.mean()) / deviation.where(deviation > 1e-9), 1e-7)


def count(values: Any) -> int:
    return int(np.count_nonzero(~np.isnan(values)))


def weighted_mean(values: np.ndarray[Any, Any]) -> float:
    weights = np.arange(24 - len(values), 24) + 1.0
    known = ~np.isnan(values)
    return float(np.average(values[known], weights=weights[known]))


def test_the_exponential_mean_stays_when_nobody_signals_for_long(quiet: World) -> None:
    start = datetime(2020, 5, 4, tzinfo=UTC)
    minutes = [0, 1, 2, 700, 703, 5000, 5001]
    prices = [50_000.0, 50_001.0, 40_000.0, 100.0, 90.0, 1e-3, 7.0]
    signals = at_minutes("A", start, minutes).assign(price=prices)
    span = {"from_": start, "to": start + timedelta(minutes=9000)}
    with put_back(quiet):
        quiet.store(signals)
        for window in (2, 3, 20, 500):
            answer = quiet.ask(
                "rolling_statistics",
                **{"width": "1m", "value": "price", "window": window, "min_periods": 1, **span},
            )
            x = pd.Series(np.nan, index=range(9000))
            x[minutes] = prices
            wanted = x.ewm(span=window, min_periods=1).mean()
            found = numbers(answer["series"][0]["exponential_mean"])
            np.testing.assert_allclose(found, wanted, rtol=1e-9)
            counted = quiet.ask("rolling_statistics", width="1m", window=window, **span)
            x = x.notna().astype(float)
            same(
                counted["series"][0]["exponential_mean"],
                x.ewm(span=window, min_periods=window).mean(),
                1e-150,
            )


def at_minutes(symbol: str, start: datetime, minutes: Sequence[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trader": "one",
            "symbol": symbol,
            "timeframe": "1m",
            "generated_at": [start + timedelta(minutes=minute) for minute in minutes],
            "action": "enter_long",
            "confidence": 0.5,
            "price": 1.0,
        }
    )


@pytest.mark.parametrize(
    "window", ["1 microsecond", "23 hours", "86399 seconds", "1 day", "7 days"]
)
def test_what_chance_expects_of_many_signals_is_a_number(quiet: World, window: str) -> None:
    start = datetime(2020, 5, 4, tzinfo=UTC)
    span = {"from_": start, "to": start + timedelta(days=1)}
    follower = at_minutes("B", start, range(1000))
    with put_back(quiet):
        quiet.store(pd.concat([at_minutes("A", start, [1]), follower]))
        answer = quiet.ask("co_occurrence", window=window, **span)
    share = max(1 - pd.Timedelta(window) / pd.Timedelta("1 day"), 0.0)
    for pair in answer["pairs"]:
        wanted = 1 - share ** pair["follower_signals"]
        assert pair["expected_trigger_rate"] == pytest.approx(wanted, rel=1e-9, abs=1e-12)


TINY = [5e-324, 1e-320, 3e-170, 1e-170, -1e-170, 0.0, 3e-162, 1000.0, -1000.0]


@pytest.mark.parametrize("prices", [TINY, TINY[:-2], TINY[:2], TINY[4:6], [1e-90, 3e-90, 2e-90]])
@pytest.mark.parametrize("moves", [[], ["roll up"], ["pack"]], ids=str)
def test_no_question_fails_on_numbers_close_to_0(
    quiet: World, prices: list[float], moves: list[str]
) -> None:
    start = (quiet.now() - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = [n * 37 for n in range(len(prices))]
    tiny = at_minutes("A", start, minutes).assign(
        price=prices, confidence=[n * 5e-324 for n in range(len(prices))]
    )
    more = at_minutes("B", start, minutes).assign(price=prices[::-1], confidence=5e-324)
    span = {"from_": start - timedelta(hours=1), "to": start + timedelta(days=1)}
    with put_back(quiet):
        quiet.store(pd.concat([tiny, more]))
        for move in moves:
            MOVES[move](quiet)
        for width in ("1m", "1h", "1d"):
            for by in ("all", "symbol"):
                asked = {"width": width, "by": by, **span}
                for fill in ("null", "linear"):
                    quiet.ask("time_buckets", fill=fill, **asked)
                for value in ("price", "confidence"):
                    rolling = quiet.ask(
                        "rolling_statistics", value=value, window=3, min_periods=1, **asked
                    )
                    assert "nfinity" not in str(rolling)
                    pairs = quiet.ask("correlations", value=value, max_lag=1, **asked)["pairs"]
                    assert "nfinity" not in str(pairs)
                    assert "NaN" not in str(pairs)
        quiet.ask("heat_map", **span)


def test_rollups_that_the_filters_leave_out_are_not_counted_against_the_limit(
    recent: World,
) -> None:
    start = (recent.now() - timedelta(days=7)).replace(hour=0, minute=0, second=0, microsecond=0)
    with put_back(recent):
        recent.cursor.execute(
            "insert into private.rollups select (jsonb_populate_record(rollup,"
            " jsonb_build_object('symbol', 'X' || place))).*"
            " from generate_series(1, 300001) as place cross join ("
            "  select rollup from private.rollups as rollup"
            "  inner join private.accounts as account on account.account_no = rollup.account_no"
            "  where account.account_id = %s and rollup.resolution = '1d' and rollup.bucket >= %s"
            "  limit 1) as one",
            [recent.account_id, start],
        )
        asked = {"width": "1d", "from_": start, "to": None}
        assert refusal(recent, "time_buckets", **asked) == ("PT400", "query_too_wide")
        answer = recent.ask("time_buckets", symbols=["X5"], **asked)
        assert sum(answer["series"][0]["signals"]) > 0


@pytest.mark.parametrize(("by", "value"), [("symbol", "signals"), ("trader", "confidence")])
def test_correlations_are_those_of_pandas(world: World, by: str, value: str) -> None:
    answer = world.ask("correlations", width="6h", by=by, value=value, max_lag=3, top=3, **SPAN)
    signals = within(autumn(), SPAN)
    names = world.traders.__getitem__ if by == "trader" else str
    column = {"signals": "signals", "confidence": "confidence_avg"}[value]
    series = {
        names(key): resampled(signals[signals[by] == key], 6 * HOUR, SPAN)[column]
        for key in top(signals, by, 3, names)
    }
    assert answer["keys"] == list(series)
    assert answer["lags"] == [-3, -2, -1, 0, 1, 2, 3]
    assert [(pair["leader"], pair["follower"]) for pair in answer["pairs"]] == [
        (answer["keys"][a], answer["keys"][b]) for a in range(3) for b in range(a, 3)
    ]
    for pair in answer["pairs"]:
        leader, follower = series[pair["leader"]], series[pair["follower"]]
        shifted = [follower.shift(-lag) for lag in answer["lags"]]
        same(pair["correlation"], [leader.corr(other) for other in shifted])
        assert pair["observations"] == [int((leader * other).count()) for other in shifted]


@pytest.mark.parametrize("by", ["symbol", "trader"])
def test_co_occurrence_is_what_merging_in_order_finds(world: World, by: str) -> None:
    window = timedelta(hours=2)
    answer = world.ask("co_occurrence", window=window, by=by, top=3, **SPAN)
    signals = within(autumn(), SPAN)
    names = world.traders.__getitem__ if by == "trader" else str
    keys = top(signals, by, 3, names)
    times = {
        names(key): pd.DataFrame({"at": signals["generated_at"][signals[by] == key].sort_values()})
        for key in keys
    }
    assert answer["keys"] == list(times)
    assert len(answer["pairs"]) == len(keys) * (len(keys) - 1)
    for pair in answer["pairs"]:
        leader, follower = times[pair["leader"]], times[pair["follower"]]
        before = matches(follower, leader, window, "backward")
        after = matches(leader, follower, window, "forward")
        share = 1 - window / (SPAN["to"] - SPAN["from_"])
        same(
            [pair["trigger_rate"], pair["precursor_rate"], pair["median_delay_seconds"]],
            [after.notna().mean(), before.notna().mean(), before.dropna().median()],
        )
        same([pair["expected_trigger_rate"]], [1 - share ** len(follower)])
        assert pair["leader_signals"] == len(leader)
        assert pair["follower_signals"] == len(follower)


def matches(
    signals: pd.DataFrame, others: pd.DataFrame, window: timedelta, direction: str
) -> pd.Series:
    """Return how many seconds off the next other signal is, NaN without one in the window."""
    merged = pd.merge_asof(
        signals,
        others.assign(other=others["at"]),
        on="at",
        tolerance=pd.Timedelta(window),
        direction=direction,
    )
    return (merged["at"] - merged["other"]).dt.total_seconds().abs()


@pytest.mark.parametrize(("cycle", "hours"), [("day", 24), ("week", 168)])
def test_the_heat_map_is_the_buckets_by_hour(world: World, cycle: str, hours: int) -> None:
    answer = world.ask("heat_map", cycle=cycle, **SPAN)
    assert answer["hours"] == list(range(hours))
    signals = within(autumn(), SPAN)
    at = signals["generated_at"].dt
    hour = at.hour if cycle == "day" else at.day_of_week * 24 + at.hour
    assert [series["key"] for series in answer["series"]] == top(signals, "symbol", 10)
    for series in answer["series"]:
        grouped = signals[signals["symbol"] == series["key"]].groupby(hour)
        same(series["signals"], grouped.size().reindex(range(hours), fill_value=0))
        same(series["confidence_avg"], grouped["confidence"].mean().reindex(range(hours)))
        same(series["price_stddev"], grouped["price"].std().reindex(range(hours)), 1e-9)


QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("time_buckets", {"width": "1h", "by": "symbol", "fill": "linear"}),
    ("time_buckets", {"width": "1d", "by": "trader", "actions": ["exit_long"]}),
    ("rolling_statistics", {"width": "1h", "value": "price", "min_periods": 2, "symbols": ["ES"]}),
    ("correlations", {"width": "3h", "value": "net_entries", "max_lag": 2, "by": "timeframe"}),
    ("co_occurrence", {"window": "20 minutes", "by": "trader", "min_confidence": 0.6}),
    ("heat_map", {"cycle": "week", "max_confidence": 0.8}),
]


def test_tiers_do_not_show(stack: RunningStack) -> None:
    with series_world(stack) as made:
        made.store(autumn())
        known = [made.ask(function, **asked, **SPAN) for function, asked in QUESTIONS]
        made.pack(2, 1)
        assert_alike([made.ask(function, **asked, **SPAN) for function, asked in QUESTIONS], known)
        made.merge()
        made.pack()
        assert_alike([made.ask(function, **asked, **SPAN) for function, asked in QUESTIONS], known)


def assert_alike(found: Any, wanted: Any) -> None:
    """Compare answers; a sum may differ in its last digits, as it depends on the order."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert_alike(found[name], wanted[name])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    else:
        assert found == wanted


MICROSECOND = timedelta(microseconds=1)
MOMENTS = st.builds(
    lambda days, minutes, more: timedelta(days=days, minutes=minutes) + more,
    st.integers(0, 2),
    st.sampled_from([0, 1, 59, 60, 90, 720, 1439]),
    st.sampled_from([timedelta(0), MICROSECOND, -MICROSECOND]),
)


MOVES: dict[str, Callable[[World], None]] = {
    "pack some": lambda world: world.pack(2, 0),
    "pack": World.pack,
    "merge": World.merge,
    "roll up": World.roll_up,
}


@settings(
    max_examples=15,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    moments=st.lists(MOMENTS, unique=True, max_size=12),
    prices=st.lists(st.sampled_from([0.1, -5.25, 1e15 / 3, 50_000.01]), min_size=12, max_size=12),
    ends=st.tuples(MOMENTS, MOMENTS),
    width=st.sampled_from([1, 7, 60, 61, 240, 1440, 2880]),
    moves=st.lists(st.sampled_from(list(MOVES)), max_size=3),
)
def test_any_signals_are_summed_up_in_any_buckets(
    quiet: World,
    moments: list[timedelta],
    prices: list[float],
    ends: tuple[timedelta, timedelta],
    width: int,
    moves: list[str],
) -> None:
    """Ends, signals and buckets meet at the same instants, or are a microsecond apart."""
    midnight = quiet.now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=5)
    signals = pd.DataFrame(
        {
            "trader": "one",
            "symbol": "A",
            "timeframe": "1m",
            "generated_at": pd.to_datetime([midnight + moment for moment in moments], utc=True),
            "action": [ACTIONS[place % 4] for place in range(len(moments))],
            "confidence": [place / 12 for place in range(len(moments))],
            "price": prices[: len(moments)],
        }
    )
    span = {"from_": midnight + min(ends), "to": midnight + max(ends)}
    with put_back(quiet):
        quiet.store(signals)
        for move in moves:
            MOVES[move](quiet)
        answer = quiet.ask("time_buckets", width=timedelta(minutes=width), **span)
    wanted = resampled(signals, timedelta(minutes=width), span)
    assert list(pd.to_datetime(answer["buckets"], utc=True)) == list(wanted.index)
    assert len(answer["series"]) == (1 if len(wanted) else 0)
    for column in wanted if len(wanted) else ():
        # What is left of prices that nearly cancel out is as exact as they are.
        near = 1e-9 * max(map(abs, prices))
        same(answer["series"][0][column], wanted[column], near if "price" in column else 1e-12)


@pytest.mark.parametrize("width", [HOUR, 12 * HOUR, timedelta(days=2)])
@pytest.mark.parametrize("late", [False, True], ids=["rolled_up", "some_wait"])
def test_rollups_say_the_same(recent: World, width: timedelta, late: bool) -> None:
    signals = recent_signals(recent)
    end = signals["generated_at"].max()
    span = {"from_": (end - timedelta(days=4, minutes=3)).to_pydatetime(), "to": None}
    with put_back(recent):
        if late:
            more = signals[signals["symbol"] == "BTC-USD"].assign(symbol="BTC-EUR")
            recent.store(more)
            signals = pd.concat([signals, more])
        answer = recent.ask("time_buckets", width=width, by="symbol", **span)
    asked = {**span, "to": datetime.fromisoformat(answer["to"])}
    keys = top(within(signals, asked), "symbol", 10)
    assert [series["key"] for series in answer["series"]] == keys
    for key, series in zip(keys, answer["series"], strict=True):
        same_buckets(series, resampled(signals[signals["symbol"] == key], width, asked))


def test_whole_hours_and_days_are_read_from_rollups(recent: World) -> None:
    end = recent.now()
    spans = {
        "1h": (end - timedelta(days=7)).replace(minute=0, second=0, microsecond=0),
        "1d": (end - timedelta(days=8)).replace(hour=0, minute=0, second=0, microsecond=0),
    }
    asked = {width: {"width": width, "from_": start, "to": None} for width, start in spans.items()}
    known = {width: recent.ask("time_buckets", **asked[width]) for width in spans}
    with put_back(recent):
        recent.forget_signals()
        for width in spans:
            assert recent.ask("time_buckets", **asked[width]) == known[width]
            assert sum(known[width]["series"][0]["signals"]) == len(recent_signals(recent))
        entries = recent.ask("time_buckets", actions=["enter_long"], **asked["1d"])
        assert sum(entries["series"][0]["signals"]) == 0


CALLS: dict[str, dict[str, Any]] = {
    "time_buckets": {"width": "1h"},
    "rolling_statistics": {"width": "1h"},
    "correlations": {"width": "1h"},
    "co_occurrence": {"window": "1h"},
    "heat_map": {},
}


@pytest.mark.parametrize("function", CALLS)
def test_an_empty_range_has_no_buckets(world: World, function: str) -> None:
    for start, end in (("2021-11-05", "2021-11-05"), ("2021-11-06", "2021-11-05")):
        answer = world.ask(function, from_=start, to=end, **CALLS[function])
        assert answer.get("buckets", []) == []
        assert answer.get("pairs", []) == []
        assert answer["keys_left_out"] == 0


@pytest.mark.parametrize("function", CALLS)
def test_nobody_signalled(world: World, function: str) -> None:
    answer = world.ask(function, from_="2022-05-01", to="2022-05-03", **CALLS[function])
    assert answer.get("keys", []) == []
    if function in ("time_buckets", "rolling_statistics"):
        (series,) = answer["series"]
        assert series.get("signals", series.get("value")) == [0] * 48
        assert set(series.get("price_avg", series.get("z_score"))) == {None}
    else:
        assert answer.get("series", []) == []


def test_one_bucket_has_no_deviation_and_no_correlation(world: World) -> None:
    span = {"from_": "2021-11-04T10:00Z", "to": "2021-11-04T11:00Z"}
    rolling = world.ask("rolling_statistics", width="1h", min_periods=1, **span)["series"][0]
    assert rolling["mean"] == rolling["value"] == rolling["exponential_mean"]
    assert rolling["weighted_mean"] == rolling["value"]
    assert rolling["stddev"] == rolling["z_score"] == [None]
    correlations = world.ask("correlations", width="1h", max_lag=2, **span)
    for pair in correlations["pairs"]:
        assert pair["correlation"] == [None] * 5
        assert pair["observations"] == [0, 0, 1, 0, 0]


def constant(symbol: str, price: float, hours: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trader": "constant",
            "symbol": symbol,
            "timeframe": "1h",
            "generated_at": [datetime(2020, 5, 4, hour, tzinfo=UTC) for hour in range(hours)],
            "action": "enter_long",
            "confidence": 0.1,
            "price": price,
        }
    )


def test_what_is_constant_has_deviation_0_and_neither_score_nor_correlation(
    stack: RunningStack,
) -> None:
    span = {"from_": "2020-05-04", "to": "2020-05-05"}
    with series_world(stack) as made:
        made.store(pd.concat([constant("A", 0.1, 24), constant("B", 1e15 / 3, 24)]))
        for value in ("signals", "confidence", "price"):
            rolling = made.ask(
                "rolling_statistics", width="1h", value=value, window=7, symbols=["B"], **span
            )["series"][0]
            assert rolling["stddev"] == [None] * 6 + [0] * 18
            assert rolling["z_score"] == [None] * 24
            pairs = made.ask("correlations", width="1h", value=value, max_lag=1, **span)["pairs"]
            assert [pair["correlation"] for pair in pairs] == [[None] * 3] * 3
            assert [pair["observations"] for pair in pairs] == [[23, 24, 23]] * 3
        day = made.ask("time_buckets", width="1d", symbols=["B"], **span)["series"][0]
        assert day["confidence_stddev"] == day["price_stddev"] == [0]


def test_a_lag_longer_than_the_range_compares_nothing(world: World) -> None:
    answer = world.ask(
        "correlations", width="1h", max_lag=9, from_="2021-11-04T10:00Z", to="2021-11-04T15:00Z"
    )
    for pair in answer["pairs"]:
        assert pair["observations"] == [0] * 5 + [1, 2, 3, 4, 5, 4, 3, 2, 1] + [0] * 5
        assert set(pair["correlation"][:5] + pair["correlation"][-5:]) == {None}


@pytest.mark.parametrize("clock_change", ["2021-10-31", "2021-11-07"])
def test_days_have_24_hours_when_clocks_change(world: World, clock_change: str) -> None:
    start = datetime.fromisoformat(clock_change).replace(tzinfo=UTC)
    world.cursor.execute("set local timezone to 'America/New_York'")
    answer = world.ask("time_buckets", width="1d", from_=start, to=start + timedelta(days=2))
    world.cursor.execute("set local timezone to default")
    assert answer["buckets"] == [
        f"{clock_change}T00:00:00+00:00",
        f"{(start + timedelta(days=1)).isoformat()}",
    ]


def refusal(world: World, function: str, **parameters: Any) -> tuple[str, str]:
    with pytest.raises(psycopg2.Error) as caught:
        world.ask(function, **parameters)
    return caught.value.pgcode, caught.value.diag.message_detail


DAY = {"from_": "2021-11-04", "to": "2021-11-05"}
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("time_buckets", {"width": "1h"}),
    ("time_buckets", {"width": "1h", "from_": "-infinity", "to": "2021-11-05"}),
    ("time_buckets", {"width": "1h", "from_": "2021-11-05", "to": "infinity"}),
    ("time_buckets", DAY),
    *(
        ("time_buckets", {"width": width, **DAY})
        for width in ("59s", "1 month", "367d", "infinity")
    ),
    ("time_buckets", {"width": "1h", "by": "all of it", **DAY}),
    ("time_buckets", {"width": "1h", "fill": "zero", **DAY}),
    ("time_buckets", {"width": "1h", "fill": None, **DAY}),
    ("time_buckets", {"width": "1h", "top": 51, **DAY}),
    ("time_buckets", {"width": "1h", "symbols": ["A"] * 101, **DAY}),
    ("rolling_statistics", {"width": "1h", "window": 1, **DAY}),
    ("rolling_statistics", {"width": "1h", "window": 501, **DAY}),
    ("rolling_statistics", {"width": "1h", "window": 5, "min_periods": 6, **DAY}),
    ("rolling_statistics", {"width": "1h", "value": "profit", **DAY}),
    ("correlations", {"width": "1h", "max_lag": -1, **DAY}),
    ("correlations", {"width": "1h", "max_lag": 101, **DAY}),
    ("correlations", {"width": "1h", "by": None, **DAY}),
    ("co_occurrence", DAY),
    ("co_occurrence", {"window": "8d", **DAY}),
    ("co_occurrence", {"window": "0s", **DAY}),
    ("heat_map", {"cycle": "month", **DAY}),
    ("heat_map", {"by": "account", **DAY}),
]


@pytest.mark.parametrize(("function", "parameters"), WRONG)
def test_wrong_arguments_are_refused(
    world: World, function: str, parameters: dict[str, Any]
) -> None:
    assert refusal(world, function, **parameters) == ("PT400", "invalid_filter")


LARGE: list[tuple[str, dict[str, Any]]] = [
    ("time_buckets", {"width": "1m", "from_": "2021-10-01", "to": "2021-10-09"}),
    ("time_buckets", {"width": "1m", "by": "symbol", "from_": "2021-10-01", "to": "2021-10-03"}),
    (
        "correlations",
        {"width": "1m", "max_lag": 100, "top": 3, "from_": "2021-11-02", "to": "2021-11-06"},
    ),
]


@pytest.mark.parametrize(("function", "parameters"), LARGE)
def test_too_large_an_answer_is_refused(
    world: World, function: str, parameters: dict[str, Any]
) -> None:
    assert refusal(world, function, **parameters) == ("PT400", "query_too_wide")


def test_too_many_signals_to_read_are_refused(world: World) -> None:
    with put_back(world):
        # A segment that says that it holds a million.
        world.cursor.execute(
            "update private.segments set signals = 1000000 from private.accounts"
            " where segments.account_no = accounts.account_no and account_id = %s"
            " and first_generated_at >= '2021-11-01' and last_generated_at < '2021-12-01'",
            [world.account_id],
        )
        assert world.cursor.rowcount
        asked = {"width": "1h", "from_": "2021-11-03", "to": "2021-11-20"}
        assert refusal(world, "time_buckets", **asked) == ("PT400", "query_too_wide")


def test_an_account_sees_only_its_own(world: World, stack: RunningStack) -> None:
    stranger = World(world.cursor, "00000000-0000-4000-8000-000000000001")
    answer = stranger.ask("time_buckets", width="1h", **SPAN)
    assert sum(answer["series"][0]["signals"]) == 0
    assert answer["last_seq"] == 0
