"""`signals agent`: the process that sends for all producers of this host."""

from __future__ import annotations

from typing import Final

import typer

PASS_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True}
"""The agent's options are its own: `signals agent --help` shows them."""


def agent(context: typer.Context) -> None:
    """Send what all producers of this host with agent=True publish; see docs/agent.md."""
    from signal_persistence.agent.__main__ import main

    raise typer.Exit(main(context.args, "signals agent"))
