"""`signals doctor`: is everything there that a producer on this host needs?"""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from signal_persistence.cli import host_checks, service_checks
from signal_persistence.cli.finding import Finding
from signal_persistence.cli.options import SpoolDirectory
from signal_persistence.cli.output import printable, write_json
from signal_persistence.cli.spool_view import spool_directory

_COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(
    spool_dir: SpoolDirectory = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check settings, service, sign-in, clock, spool and disk, and say what to do.

    Stores nothing. The exit code is 1 if anything fails; a warning does not change it.
    """
    findings = [host_checks.versions(), *asyncio.run(_of_service())]
    findings += host_checks.spool(spool_directory(spool_dir))
    healthy = all(finding.verdict != "fail" for finding in findings)
    if as_json:
        write_json({"healthy": healthy, "findings": findings})
    else:
        for finding in findings:
            _write(finding)
    raise typer.Exit(0 if healthy else 1)


async def _of_service() -> list[Finding]:
    return [finding async for finding in service_checks.service(os.environ)]


def _write(finding: Finding) -> None:
    verdict = typer.style(f"{finding.verdict:4}", fg=_COLOURS[finding.verdict], bold=True)
    typer.echo(f"{verdict}  {finding.check:12}  {printable(finding.found)}")
    if finding.advice:
        typer.echo(f"{'':20}-> {finding.advice}")
