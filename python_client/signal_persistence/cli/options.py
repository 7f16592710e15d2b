"""Options that several commands share, and how their words are read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from signal_persistence.client import SignalClient
from signal_persistence.contract import UUID_TEXT
from signal_persistence.errors import ConfigurationError


def moment(text: str) -> datetime:
    """Read a time of ISO 8601 with a zone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("use ISO 8601, such as 2026-11-22T09:30:00Z") from None
    if value.tzinfo is None:
        raise typer.BadParameter("give it a time zone, such as Z or +01:00")
    return value


Traders = Annotated[
    list[str] | None, typer.Option("--trader", help="Only of this trader, an id or a name.")
]
Symbols = Annotated[list[str] | None, typer.Option("--symbol", help="Only of this symbol.")]
Timeframes = Annotated[
    list[str] | None, typer.Option("--timeframe", help="Only of this bar size, such as 15m.")
]
Actions = Annotated[
    list[str] | None, typer.Option("--action", help="Only this action, such as enter_long.")
]
From = Annotated[
    datetime | None,
    typer.Option("--from", parser=moment, metavar="TIME", help="Generated then or later."),
]
To = Annotated[
    datetime | None,
    typer.Option("--to", parser=moment, metavar="TIME", help="Generated before that."),
]
MinConfidence = Annotated[float | None, typer.Option(help="Only with so much confidence, 0 to 1.")]
AfterSeq = Annotated[
    int | None, typer.Option(min=0, help="Begin behind this seq; 0: at the first.")
]
SpoolDirectory = Annotated[
    Path | None, typer.Option("--spool-dir", help="Default: SIGNAL_SPOOL_DIR, as producers.")
]


def trader_ids(client: SignalClient, traders: Sequence[str] | None) -> list[UUID] | None:
    """Return the ids of traders that are given by id or by name; None if none are given.

    Raises ConfigurationError for a name that no trader of the account has.
    """
    if not traders:
        return None
    if all(UUID_TEXT.fullmatch(trader) for trader in traders):
        return [UUID(trader) for trader in traders]
    by_name = {
        trader.name: trader.trader_id for trader in client.list_traders(include_archived=True)
    }
    return [_trader_id(trader, by_name) for trader in traders]


def _trader_id(trader: str, by_name: dict[str, UUID]) -> UUID:
    if UUID_TEXT.fullmatch(trader):
        return UUID(trader)
    if trader not in by_name:
        raise ConfigurationError(f"Cannot find a trader {trader!r} in this account.")
    return by_name[trader]
