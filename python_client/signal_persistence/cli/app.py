"""All commands in one tree, and what an error of the package becomes: a sentence and a code."""

from __future__ import annotations

import os
from typing import Any, Final

import typer
from typer.core import TyperGroup

from signal_persistence.cli import agent, doctor, export, keys, publish, query, spool, tail
from signal_persistence.errors import ConfigurationError, SignalPersistenceError


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            raise _ended(error, os.EX_CONFIG) from error
        except SignalPersistenceError as error:
            raise _ended(error, 1) from error


def _ended(error: SignalPersistenceError, code: int) -> typer.Exit:
    typer.echo(str(error), err=True)
    if hint := getattr(error, "hint", None):
        typer.echo(str(hint), err=True)
    return typer.Exit(code)


app: Final = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Durable trading signals: publish, follow, query, export, and look after this host's. "
    "The project and the account come from the environment: see .env.example.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 75 not delivered yet, 78 wrong settings.",
)
app.command("publish")(publish.publish)
app.command("tail")(tail.tail)
app.command("query")(query.query)
app.command("export")(export.export)
app.add_typer(spool.app, name="spool")
app.add_typer(keys.app, name="keys")
app.command("agent", add_help_option=False, context_settings=agent.PASS_ON)(agent.agent)
app.command("doctor")(doctor.doctor)
