"""`signals keys`: API keys for processes without a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

import typer

from signal_persistence.cli.output import write_json, write_table
from signal_persistence.client import ApiKey, SignalClient

app: Final = typer.Typer(
    no_args_is_help=True,
    help="API keys of the account. Needs the sign-in of its owner, not that of a key.",
)
_COLUMNS: Final = (
    "key id",
    "name",
    "scopes",
    "ends in",
    "created",
    "expires",
    "last used",
    "state",
)


class Scope(StrEnum):
    """What a key may do."""

    READ = "signals:read"
    WRITE = "signals:write"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, such as the host's name.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be given twice.")],
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="Default: never.")] = None,
) -> None:
    """Make a key and write it to stdout: the only time that it is shown."""
    days = None if expires_in_days is None else timedelta(days=expires_in_days)
    with SignalClient.from_env() as client:
        key = client.create_api_key(
            name,
            [each.value for each in scope],
            expires_at=None if days is None else datetime.now(UTC) + days,
        )
    typer.echo(key.api_key)
    typer.echo(
        f"This is key {key.key_id}. It is never shown again: keep it where secrets are kept, and "
        "give it to a process as SIGNAL_API_KEY.",
        err=True,
    )


@app.command("list")
def list_(
    all_: Annotated[
        bool, typer.Option("--all", help="Also those that ended in the last 90 days.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each.")] = False,
) -> None:
    """List the keys; the keys themselves cannot be shown."""
    with SignalClient.from_env() as client:
        keys = client.list_api_keys(include_dead=all_)
    if as_json:
        for key in keys:
            write_json(key)
    else:
        write_table(_COLUMNS, (_row(key) for key in keys))


@app.command()
def revoke(
    key_id: Annotated[UUID, typer.Argument(help="As `signals keys list` shows it.")],
) -> None:
    """End a key, and every token that was made of it."""
    with SignalClient.from_env() as client:
        key = client.revoke_api_key(key_id)
    typer.echo(f"Revoked {key.key_id}; live channels of its tokens end within 15 minutes.")


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        str(key.key_id),
        key.name,
        " ".join(key.scopes),
        key.hint,
        _day(key.created_at),
        _day(key.expires_at),
        _day(key.last_used_at),
        _state(key, datetime.now(UTC)),
    )


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
