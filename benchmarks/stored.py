"""Compare what was published with what the database stores, read back over a direct connection."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import asyncpg

SYMBOLS = ("ES", "NQ", "BTC/USDT", "ETH/USDT", "EURUSD", "AAPL", "MSFT", "CL")

Key: TypeAlias = tuple[str, int, float]
"""Symbol, generated_at in microseconds since 1970, and price, of one trader."""

READ_BACK = """
select symbol, (extract(epoch from generated_at) * 1000000)::bigint as microseconds, price, seq
from public.signals
where account_id = $1
order by seq
"""


@dataclass(slots=True)
class Journal:
    """What one account published, written down before the client saw it."""

    account_id: str
    microseconds: array[int] = field(default_factory=lambda: array("q"))
    symbols: array[int] = field(default_factory=lambda: array("b"))
    prices: array[float] = field(default_factory=lambda: array("d"))

    def note(self, microseconds: int, symbol: int, price: float) -> None:
        self.microseconds.append(microseconds)
        self.symbols.append(symbol)
        self.prices.append(price)

    def signals(self) -> Counter[Key]:
        return Counter(
            (SYMBOLS[symbol], microseconds, price)
            for symbol, microseconds, price in zip(
                self.symbols, self.microseconds, self.prices, strict=True
            )
        )


def joined(journals: Iterable[Journal]) -> list[Journal]:
    """Put the journals of several processes that published for one account together."""
    accounts: dict[str, Journal] = {}
    for journal in journals:
        account = accounts.setdefault(journal.account_id, Journal(journal.account_id))
        account.microseconds.extend(journal.microseconds)
        account.symbols.extend(journal.symbols)
        account.prices.extend(journal.prices)
    return list(accounts.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """How journals and database differ: all zero when every signal is stored exactly once."""

    published: int = 0
    lost: int = 0
    duplicated: int = 0
    phantoms: int = 0
    gaps: int = 0


async def compare(database_url: str, journals: Sequence[Journal]) -> Comparison:
    """Read every signal of the journals' accounts back; seq must run from 1 without a gap."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("set statement_timeout = '10min'")
        return total(
            [
                difference(journal, await connection.fetch(READ_BACK, journal.account_id))
                for journal in journals
            ]
        )
    finally:
        await connection.close()


def difference(journal: Journal, stored: Sequence[tuple[str, int, float, int]]) -> Comparison:
    """Compare one account's journal with its rows (symbol, microseconds, price, seq), by seq."""
    published = journal.signals()
    found = Counter((symbol, microseconds, price) for symbol, microseconds, price, _ in stored)
    extra = found - published
    phantoms = sum(count for key, count in extra.items() if key not in published)
    numbers = [row[3] for row in stored]
    return Comparison(
        published=published.total(),
        lost=(published - found).total(),
        duplicated=extra.total() - phantoms,
        phantoms=phantoms,
        gaps=sum(number != place for place, number in enumerate(numbers, 1)),
    )


def total(parts: Sequence[Comparison]) -> Comparison:
    """Add up the comparisons of several accounts."""
    return Comparison(
        *(sum(getattr(part, name) for part in parts) for name in Comparison.__slots__)
    )
