"""Options that several commands share, and how their words are read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast
from uuid import UUID

import typer

from signal_persistence.client import SignalClient
from signal_persistence.contract import UUID_TEXT
from signal_persistence.errors import ConfigurationError
from signal_persistence.questions import ExportFilter
from signal_persistence.reading import SignalFilterOptions

F = TypeVar("F", bound=SignalFilterOptions)


def moment(text: str) -> datetime:
    """Read a time of ISO 8601 with a zone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("use ISO 8601, such as 2026-11-22T09:30:00Z") from None
    if value.tzinfo is None:
        raise typer.BadParameter("give it a time zone, such as Z or +01:00")
    return value


AfterSeq = Annotated[
    int | None, typer.Option(min=0, help="Begin behind this seq; 0: at the first.")
]
SpoolDirectory = Annotated[
    Path | None, typer.Option("--spool-dir", help="Default: SIGNAL_SPOOL_DIR, as producers.")
]


def live_filter(
    trader: Annotated[
        list[str] | None, typer.Option(help="Only of this trader, an id or a name.")
    ] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="Only of this symbol.")] = None,
    symbol_prefix: Annotated[
        str | None, typer.Option(help="Only of symbols that begin like this.")
    ] = None,
    timeframe: Annotated[
        list[str] | None, typer.Option(help="Only of this bar size, such as 15m.")
    ] = None,
    action: Annotated[
        list[str] | None, typer.Option(help="Only this action, such as enter_long.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag in metadata.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Only with so much confidence, 0 to 1.")
    ] = None,
    max_confidence: Annotated[float | None, typer.Option(help="Only with at most so much.")] = None,
    min_price: Annotated[float | None, typer.Option(help="Only at this price or above.")] = None,
    max_price: Annotated[float | None, typer.Option(help="Only at this price or below.")] = None,
) -> SignalFilterOptions:
    """The options that choose signals, live or stored; traders are still as they were given."""
    return {
        "traders": trader or None,
        "symbols": symbol or None,
        "symbol_prefix": symbol_prefix,
        "timeframes": timeframe or None,
        "actions": action or None,
        "tags": tag or None,
        "min_confidence": min_confidence,
        "max_confidence": max_confidence,
        "min_price": min_price,
        "max_price": max_price,
    }


def times_and_status(
    from_: Annotated[
        datetime | None,
        typer.Option("--from", parser=moment, metavar="TIME", help="Generated then or later."),
    ] = None,
    to: Annotated[
        datetime | None,
        typer.Option("--to", parser=moment, metavar="TIME", help="Generated before that."),
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option(help="Only with this status now, such as executed.")
    ] = None,
) -> ExportFilter:
    """The options that choose stored signals besides."""
    return {"from_": from_, "to": to, "statuses": status or None}


def takes(*groups: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of some groups; its first argument is what they return, joined."""
    parameters = {
        name: parameter
        for group in groups
        for name, parameter in inspect.signature(group, eval_str=True).parameters.items()
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def run(**given: Any) -> None:
            wanted: dict[str, Any] = {}
            for group in groups:
                names = inspect.signature(group).parameters
                wanted |= group(**{name: given.pop(name) for name in names})
            command(wanted, **given)

        run.__signature__ = inspect.Signature([*own, *parameters.values()])  # type: ignore[attr-defined]
        return run

    return decorate


def with_trader_ids(client: SignalClient, wanted: F) -> F:
    """Return the filter with the ids of its traders; see `trader_ids`."""
    given = cast(SignalFilterOptions, wanted).get("traders")
    names = None if given is None else [str(trader) for trader in given]
    return cast(F, {**wanted, "traders": trader_ids(client, names)})


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
