"""`signals spool`: what is on this host's disk, and its dead letters."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from signal_persistence.cli import replay as replaying
from signal_persistence.cli import spool_view as view
from signal_persistence.cli.options import SpoolDirectory
from signal_persistence.cli.output import printable, size, write_json, write_table
from signal_persistence.spool import SlotInfo

app: Final = typer.Typer(
    no_args_is_help=True,
    help="Slots, pending signals, damage and dead letters of this host. "
    "Producers may be running: nothing here writes to a slot.",
)
Project = Annotated[
    str | None, typer.Option("--project", help="Its directory's name. Default: of SUPABASE_URL.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines.")]
_COLUMNS: Final = (
    "project",
    "slot",
    "writer",
    "sender",
    "pending",
    "dead letters",
    "log",
    "damaged",
    "accounts",
)


@app.command("ls")
def ls(spool_dir: SpoolDirectory = None, as_json: AsJson = False) -> None:
    """List the slots of all projects."""
    spool = view.spool_directory(spool_dir)
    rows = [
        _facts(project, slot, letters)
        for project in view.projects(spool)
        for letters in [_letters_by_slot(project)]
        for slot in view.slots(project)
    ]
    if as_json:
        for row in rows:
            write_json(row)
    elif rows:
        write_table(_COLUMNS, (_cells(row) for row in rows))
    else:
        typer.echo(f"There is nothing in {spool}.")


@app.command()
def show(
    slot: Annotated[str, typer.Argument(help="Its name, such as 0001.")],
    project: Project = None,
    spool_dir: SpoolDirectory = None,
) -> None:
    """Tell all about one slot, as JSON."""
    place = view.one_project(view.spool_directory(spool_dir), project)
    found = view.one_slot(place, slot)
    sent = view.Sent(place, found)
    by_code: Counter[str] = Counter()
    unreadable = 0
    for file in view.letter_files(place, slot):
        by_code.update(letter.code for letter in file.letters)
        unreadable += file.unreadable
    facts = _facts(place, found, {slot: by_code.total()}) | {
        "path": str(found.path),
        "opened": found.epoch,
        "pending_by_account": view.pending_by_account(place, found),
        "open_batches": [
            {
                "request_id": batch.request_id,
                "account": batch.lane,
                "signals": sent.signals_in(batch),
            }
            for batch in sent.batches
        ],
        "dead_letters_by_code": by_code,
        "unreadable_dead_letters": unreadable,
        "damaged": [str(path) for path in found.damaged],
    }
    typer.echo(_indented(facts))


@app.command()
def export(
    slot: Annotated[str | None, typer.Argument(help="Its name. Default: all slots.")] = None,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters", help="Dead letters, with account and reason.")
    ] = False,
    account: Annotated[str | None, typer.Option(help="Only of this account.")] = None,
    project: Project = None,
    spool_dir: SpoolDirectory = None,
) -> None:
    """Write pending signals as JSON lines, which `signals publish -` takes on any host.

    What is also sent from here is still stored only once.
    """
    place = view.one_project(view.spool_directory(spool_dir), project)
    if dead_letters:
        for file in view.letter_files(place, slot):
            for letter in file.letters:
                if account in (None, letter.account):
                    write_json(letter)
            if file.unreadable:
                typer.echo(f"{file.path}: {file.unreadable} lines are no dead letters", err=True)
        return
    for found in view.slots(place) if slot is None else [view.one_slot(place, slot)]:
        for frame in view.pending(place, found):
            if account in (None, found.lanes[frame.lane]):
                typer.echo(frame.body.decode())


@app.command()
def replay(
    slot: Annotated[str | None, typer.Argument(help="Its name. Default: all slots.")] = None,
    code: Annotated[str | None, typer.Option(help="Only what was refused for this.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each file.")] = 60.0,
    project: Project = None,
    spool_dir: SpoolDirectory = None,
) -> None:
    """Send dead letters again, after what they were refused for was repaired.

    A file whose letters are all stored is removed, unless a producer of its slot is running.
    Letters of accounts that the environment has no credentials for are left.
    """
    place = view.one_project(view.spool_directory(spool_dir), project)
    done = replaying.replay(place, slot, code, timeout)
    for reason, count in sorted(done.refusals.items()):
        typer.echo(f"{count} refused again: {printable(reason)}", err=True)
    typer.echo(
        f"{done.stored} stored, {done.refusals.total()} refused again, {done.unsent} not sent, "
        f"{done.foreign} of other accounts, {done.removed} files removed"
    )
    if done.unsent:
        raise typer.Exit(os.EX_TEMPFAIL)
    if done.refusals:
        raise typer.Exit(1)


def _facts(project: Path, slot: SlotInfo, letters: dict[str, int]) -> dict[str, Any]:
    return {
        "project": project.name,
        "slot": slot.name,
        "writer": view.writer_pid(slot),
        "sender": view.sender_pid(slot),
        "pending": sum(view.pending_by_account(project, slot).values()),
        "dead_letters": letters.get(slot.name, 0),
        "log_bytes": slot.log_bytes,
        "damaged": len(slot.damaged),
        "accounts": slot.lanes,
    }


def _cells(facts: dict[str, Any]) -> list[str]:
    written = facts | {
        "log_bytes": size(facts["log_bytes"]),
        "accounts": " ".join(facts["accounts"]),
    }
    return [str(value) for value in written.values()]


def _letters_by_slot(project: Path) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for file in view.letter_files(project):
        counts[file.slot] += len(file.letters)
    return counts


def _indented(facts: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(facts)).decode()
