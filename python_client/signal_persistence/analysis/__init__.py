"""Measure what signals are worth: trades, figures, forecasts, a back-test. Needs numpy.

    from signal_persistence.analysis import SignalTable, pair_trades, trade_statistics

    table = SignalTable.of(query.signals(from_=monday), events=client.events())
    print(trade_statistics(pair_trades(table).closed))

Columns inside, frozen values outside; times are UTC. A figure that is not defined is None, never
infinite or NaN. docs/analysis.md shows all of it on real data.
"""

try:
    import numpy as _numpy  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "Cannot analyse signals without numpy: install signal-persistence[analysis]."
    ) from missing

from signal_persistence.analysis.adapters import SignalArrays, signal_arrays
from signal_persistence.analysis.bars import Bars
from signal_persistence.analysis.comparison import TraderPerformance, compare_traders
from signal_persistence.analysis.forecasts import (
    Calibration,
    CalibrationBin,
    InformationCoefficient,
    MarkoutPoint,
    calibration,
    forward_returns,
    information_coefficient,
    markout_curve,
)
from signal_persistence.analysis.pairing import Pairing, PairingRules, pair_trades
from signal_persistence.analysis.replay import BacktestResult, Costs, Equity, backtest
from signal_persistence.analysis.returns import (
    Drawdown,
    Returns,
    RiskStatistics,
    equity_returns,
    max_drawdown,
    risk_statistics,
    trade_returns,
)
from signal_persistence.analysis.signal_table import SignalTable
from signal_persistence.analysis.statistics import (
    Excursions,
    HoldingTimes,
    Proportion,
    TradeStatistics,
    excursions,
    exposure,
    holding_times,
    trade_statistics,
)
from signal_persistence.analysis.trades import CLOSE_REASONS, Trade, Trades
from signal_persistence.errors import InvalidAnalysisError

__all__ = [
    "CLOSE_REASONS",
    "BacktestResult",
    "Bars",
    "Calibration",
    "CalibrationBin",
    "Costs",
    "Drawdown",
    "Equity",
    "Excursions",
    "HoldingTimes",
    "InformationCoefficient",
    "InvalidAnalysisError",
    "MarkoutPoint",
    "Pairing",
    "PairingRules",
    "Proportion",
    "Returns",
    "RiskStatistics",
    "SignalArrays",
    "SignalTable",
    "Trade",
    "TradeStatistics",
    "TraderPerformance",
    "Trades",
    "backtest",
    "calibration",
    "compare_traders",
    "equity_returns",
    "excursions",
    "exposure",
    "forward_returns",
    "holding_times",
    "information_coefficient",
    "markout_curve",
    "max_drawdown",
    "pair_trades",
    "risk_statistics",
    "signal_arrays",
    "trade_returns",
    "trade_statistics",
]
