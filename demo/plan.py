"""Who takes part in a demonstration: three accounts, their traders, and how fast each publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from demo.replay import STRATEGIES

TIERS: Final = ("free", "pro", "elite")
FREE_SIGNALS: Final = 150
"""What the free account tries to store: more than the 100 signals a day of its tier."""
PRO_PER_MINUTE: Final = 1_000
"""The limit of its tier."""
PRO_SHARE: Final = 0.25
PRO_MOST_PER_SECOND: Final = 120.0
"""Enough to meet that limit within some seconds."""
PRO_BEYOND_ITS_MINUTES: Final = 1_900
"""So many more than that for each whole minute: those beyond the limit are stored in the next
minute, which a publisher waits for, wherever in a minute the demonstration begins."""

TRADERS: Final[Mapping[str, Sequence[str]]] = {
    "free": ("average-cross-5-20",),
    "pro": ("rsi-7", "donchian-20-10", "bollinger-20-2", "macd-12-26-9"),
    "elite": tuple(STRATEGIES),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Supabase project: its URL, the key of applications, and the key of its operator."""

    url: str
    publishable_key: str
    service_role_key: str


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """A signed-up account with the traders that publish for it, by name."""

    tier: str
    account_id: UUID
    email: str
    password: str
    trader_ids: Mapping[str, UUID]


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One publishing process: for whom, on which markets, how many signals a second."""

    name: str
    tier: str
    traders: Sequence[str]
    symbols: Sequence[str]
    signals_per_second: float
    at_most: int | None = None


def plan_workers(signals_per_minute: float, seconds: float) -> list[WorkerPlan]:
    """Share the wanted rate out: the free account little, pro up to its limit, elite the rest."""
    wanted = signals_per_minute / 60
    free = FREE_SIGNALS / seconds
    pro_at_most = PRO_BEYOND_ITS_MINUTES + PRO_PER_MINUTE * (seconds // 60)
    pro = min(PRO_SHARE * wanted, PRO_MOST_PER_SECOND, pro_at_most / seconds)
    elite = max(wanted - free - pro, PRO_SHARE * wanted)
    fast, slow = _halves(TRADERS["elite"])
    return [
        WorkerPlan("free", "free", TRADERS["free"], ("ES",), free, FREE_SIGNALS),
        WorkerPlan("pro", "pro", TRADERS["pro"], ("BTC-USD", "EUR/USD", "ES"), pro),
        WorkerPlan("elite-1", "elite", fast, ("ES",), elite / 2),
        WorkerPlan("elite-2", "elite", slow, ("EUR/USD", "BTC-USD", "ES"), elite / 2),
    ]


def _halves(names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    return names[::2], names[1::2]
