"""Bugs that were planted in the analysis, and the test that catches each.

`python -m tests.analysis.planted_bugs [WORD ...]` plants them as `tests.client.planted_bugs` does.
"""

from __future__ import annotations

from tests.client.planted_bugs import PlantedBug, plant

HERE = "tests/analysis"


def pairing(name: str, right: str, wrong: str, test: str = "") -> PlantedBug:
    test = test or "test_trades_are_those_of_a_queue_per_book"
    return PlantedBug(name, "analysis/pairing.py", right, wrong, f"{HERE}/test_pairing.py::{test}")


def replay(name: str, right: str, wrong: str, test: str = "") -> PlantedBug:
    test = f"{HERE}/test_backtest.py::{test or 'test_a_replay_is_that_of_a_loop'}"
    return PlantedBug(name, "analysis/replay.py", right, wrong, test)


def prices(name: str, right: str, wrong: str, test: str) -> PlantedBug:
    return PlantedBug(name, "analysis/bars.py", right, wrong, f"{HERE}/{test}")


def figure(name: str, right: str, wrong: str, test: str) -> PlantedBug:
    test = f"{HERE}/test_statistics.py::{test}"
    return PlantedBug(name, "analysis/statistics.py", right, wrong, test)


def risk(name: str, right: str, wrong: str, test: str) -> PlantedBug:
    test = f"{HERE}/test_returns.py::{test}"
    return PlantedBug(name, "analysis/returns.py", right, wrong, test)


def forecast(name: str, right: str, wrong: str, test: str) -> PlantedBug:
    test = f"{HERE}/test_forecasts.py::{test}"
    return PlantedBug(name, "analysis/forecasts.py", right, wrong, test)


BUGS = [
    pairing(
        "last in, first out",
        "return rows[lots], rows[closers],",
        "return rows[lots[::-1]], rows[closers],",
    ),
    pairing(
        "books run into each other",
        "np.flatnonzero(np.diff(book)) + 1",
        "np.flatnonzero(np.diff(book)) + 0",
    ),
    pairing(
        "a position goes below nothing",
        "np.minimum.accumulate(np.minimum(total, 0))",
        "np.minimum(total.min(), 0)",
    ),
    pairing("one book for all timeframes", "if rules.per_timeframe:", "if False:"),
    pairing("an entry never reverses", "own if hedged else", "own if True else"),
    pairing("rejected signals count", '"cancelled", "rejected"', '"cancelled"'),
    pairing("an exit closes one lot", '& (rules.exit_closes == "oldest")', "& True"),
    pairing("idle exits are forgotten", "idle_exits += int(", "idle_exits += 0 * int("),
    pairing(
        "a reported close is closed again",
        "leave_out=reported)",
        "leave_out=None)",
        "test_a_reported_close_is_a_trade_that_no_exit_signal_closes_again",
    ),
    pairing(
        "the reported return is not used",
        "profit[told] =",
        "profit[told & False] +=",
        "test_a_reported_close_is_a_trade_that_no_exit_signal_closes_again",
    ),
    pairing(
        "the price of execution is not used",
        "np.where(np.isnan(signals.executed_price)",
        "np.where(np.isfinite(signals.price)",
        "test_prices_and_times_are_those_of_execution_where_they_were_reported",
    ),
    pairing(
        "shorts earn when prices rise",
        "profit = side * (exit_price",
        "profit = (exit_price",
        "test_a_trade_says_what_happened",
    ),
    replay(
        "a signal is filled a bar too early",
        "len(bars), bars.first_from(at[closer]))",
        "len(bars), np.maximum(bars.first_from(at[closer]) - 1, entry_bar))",
    ),
    replay(
        "the target counts before the stop", "(stop_bar <= target_bar)", "(stop_bar < target_bar)"
    ),
    replay("a gap fills at the stop", "np.minimum(stop[hit], open_[bar])", "stop[hit]"),
    replay("a gap does not help a target", "np.maximum(target[hit], open_[bar])", "target[hit]"),
    replay("slippage helps", "price + direction * costs", "price - direction * costs"),
    replay(
        "shorts stop as longs do",
        "SHORT, (rises, falls))",
        "SHORT, (falls, rises))",
    ),
    replay(
        "an open trade pays for its exit",
        "fees += np.where(open_, 0.0,",
        "fees += np.where(open_ & False, 0.0,",
    ),
    replay(
        "the exit is free",
        "return costs.fee_rate * quantity * np.abs(price) + costs.fee_per_fill",
        "return costs.fee_rate * quantity * np.abs(price)",
    ),
    replay(
        "equity forgets what is open",
        "np.cumsum(held) * bars.close - np.cumsum(cost)",
        "0 * bars.close",
    ),
    replay(
        "equity pays entries late",
        "np.bincount(fills.entry_bar, -entry_fee, count)",
        "np.bincount(fills.entry_bar * 0 + count - 1, -entry_fee, count)",
    ),
    replay(
        "symbols overwrite each other",
        "value += np.append(0.0, profit)[known]",
        "value = capital + np.append(0.0, profit)[known]",
        "test_symbols_are_replayed_apart_and_their_profits_add_up",
    ),
    replay(
        "the latency is forgotten",
        "at = signals.generated_at + np.timedelta64(microseconds(latency)",
        "at = signals.generated_at + 0 * np.timedelta64(microseconds(latency)",
        "test_a_signal_is_filled_at_the_next_open_never_before",
    ),
    prices(
        "a price is known when its bar begins",
        'np.searchsorted(end, times, side="right")',
        'np.searchsorted(self.at, times, side="right")',
        "test_forecasts.py::test_the_markout_curve_is_an_as_of_join",
    ),
    prices(
        "the last price is known for ever",
        "(bar >= 0) & (times <= end[-1])",
        "bar >= 0",
        "test_forecasts.py::test_nothing_is_known_outside_of_the_bars",
    ),
    prices(
        "half of a stretch is not looked at",
        "np.minimum(values[left], values[right])",
        "values[left]",
        "test_statistics.py::test_excursions_are_the_extremes_of_the_bars_between",
    ),
    figure(
        "a result of 0 is a win",
        "wins=len(won),",
        "wins=len(results) - len(lost),",
        "test_figures_equal_those_of_pandas",
    ),
    figure(
        "the interval is Wald's",
        "low, high = max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)",
        "low, high = max(0.0, share - spread), min(1.0, share + spread)",
        "test_the_interval_of_the_win_rate_is_that_of_scipy",
    ),
    figure(
        "the deviation is that of a population",
        "values.std(ddof=1)",
        "values.std()",
        "test_figures_equal_those_of_pandas",
    ),
    figure(
        "equal values deviate by rounding",
        "values.min() == values.max()",
        "values.std() == 0",
        "test_what_is_not_defined_is_none",
    ),
    figure(
        "no loss is an infinite factor",
        "if above is not None and below else None",
        'if below else float("inf")',
        "test_what_is_not_defined_is_none",
    ),
    figure(
        "streaks are one too short",
        "(edges[1::2] - edges[::2])",
        "(edges[1::2] - edges[::2] - 1)",
        "test_streaks_are_runs_in_the_order_of_exits",
    ),
    figure(
        "overlapping trades count twice",
        "np.maximum(begins, covered)",
        "begins",
        "test_exposure_is_the_share_of_moments_with_a_position",
    ),
    figure(
        "shorts suffer from falls",
        "np.where(is_long, low, high), np.where(is_long, high, low)",
        "low, high",
        "test_excursions_are_the_extremes_of_the_bars_between",
    ),
    figure(
        "bars reach into the exit",
        'np.searchsorted(bars.end, trades.exited_at, side="right")',
        'np.searchsorted(bars.at, trades.exited_at, side="right")',
        "test_excursions_are_the_extremes_of_the_bars_between",
    ),
    risk(
        "Sortino divides by the losing periods only",
        "np.mean(below**2)",
        "np.mean(below[below < 0] ** 2)",
        "test_risk_equals_that_of_empyrical",
    ),
    risk(
        "the rate without risk is not annual",
        "risk_free / per_year",
        "risk_free",
        "test_risk_equals_that_of_empyrical",
    ),
    risk(
        "the year of a Sharpe ratio is not rooted",
        "excess.mean() / spread * np.sqrt(per_year)",
        "excess.mean() / spread * per_year",
        "test_risk_equals_that_of_empyrical",
    ),
    risk(
        "growth is not compounded",
        "float(growth ** (1 / years) - 1)",
        "float((growth - 1) / years)",
        "test_risk_equals_that_of_empyrical",
    ),
    risk(
        "the first fall has no peak",
        "value = np.concatenate([[1.0], returns.growth()])",
        "value = np.concatenate([[returns.growth()[0]], returns.growth()])",
        "test_the_first_fall_counts_from_the_start",
    ),
    risk(
        "the peak is the first of equals",
        "== peak[bottom])[-1])",
        "== peak[bottom])[0])",
        "test_any_drawdown_is_that_of_pandas",
    ),
    risk(
        "trades count in the period after their exit",
        "// width - first\n",
        "// width - first + 1\n",
        "test_returns_of_trades_are_their_sum_by_day_of_exit",
    ),
    risk(
        "an equity's first period is lost",
        "first = _period(at[0], width)",
        "first = _period(at[0], width) + 1",
        "test_returns_of_an_equity_curve_are_those_of_its_last_values",
    ),
    forecast(
        "shorts have the markout of longs",
        "BASIS_POINTS * entries.side *",
        "BASIS_POINTS *",
        "test_the_markout_curve_is_an_as_of_join",
    ),
    forecast(
        "exits are marked out too",
        "    entries = signals.take(signals.is_entry)\n    points = []",
        "    entries = signals\n    points = []",
        "test_the_markout_curve_is_an_as_of_join",
    ),
    forecast(
        "confidence is correlated without its side",
        "(entries.side * entries.confidence)[known]",
        "entries.confidence[known]",
        "test_the_information_coefficient_is_spearmans",
    ),
    forecast(
        "values are correlated, not their ranks",
        "correlation(ranks(claims), ranks(change))",
        "correlation(claims, change)",
        "test_the_information_coefficient_is_spearmans",
    ),
    forecast(
        "deciles part equal confidences",
        'np.searchsorted(np.sort(values), values, side="left")',
        "np.argsort(np.argsort(values))",
        "test_every_trade_is_in_one_bin_and_equal_confidences_stay_together",
    ),
]


if __name__ == "__main__":
    plant(BUGS)
