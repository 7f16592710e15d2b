"""Apply `supabase/migrations` with the real Supabase CLI, when there is something to apply."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from pathlib import Path

import asyncpg

from local_stack.database import superuser_dsn
from local_stack.errors import StackError
from local_stack.settings import REPOSITORY, StackSettings

MIGRATIONS = REPOSITORY / "supabase" / "migrations"
APPLIED = "migrations.json"
PUSH_TIMEOUT_S = 120


def migrate(settings: StackSettings) -> int:
    """Bring the stack's database up to date; return how many migrations were applied."""
    files = {path.name.split("_")[0]: path for path in sorted(MIGRATIONS.glob("[0-9]*_*.sql"))}
    digests = {version: _digest(path) for version, path in files.items()}
    applied = asyncio.run(_applied_versions(settings))
    _refuse_edited(settings, files, digests, applied)
    waiting = [version for version in files if version not in applied]
    if waiting:
        try:
            _push(settings)
        finally:
            applied = asyncio.run(_applied_versions(settings))
            record = {version: digests[version] for version in sorted(applied & digests.keys())}
            (settings.directory / APPLIED).write_text(json.dumps(record, indent=2) + "\n")
    return len(waiting)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def _applied_versions(settings: StackSettings) -> set[str]:
    connection = await asyncpg.connect(superuser_dsn(settings), timeout=10)
    try:
        rows = await connection.fetch("select version from supabase_migrations.schema_migrations")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return set()
    finally:
        await connection.close()
    return {row["version"] for row in rows}


def _refuse_edited(
    settings: StackSettings, files: dict[str, Path], digests: dict[str, str], applied: set[str]
) -> None:
    record = settings.directory / APPLIED
    before: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    edited = [
        files[version].name
        for version in sorted(applied & files.keys() & before.keys())
        if before[version] != digests[version]
    ]
    removed = sorted(applied - files.keys())
    if edited or removed:
        what = ", ".join(edited + removed)
        raise StackError(
            f"Cannot migrate stack {settings.name}: {what} changed after it was applied; start from"
            f" an empty database with scripts/stack reset{_name_option(settings)}"
        )


def _name_option(settings: StackSettings) -> str:
    return "" if settings.name == "default" else f" --name {settings.name}"


def _push(settings: StackSettings) -> None:
    cli = REPOSITORY / "node_modules" / ".bin" / "supabase"
    if not cli.exists():
        raise StackError("Cannot migrate: the Supabase CLI is missing; run scripts/setup")
    try:
        done = subprocess.run(
            [str(cli), "db", "push", f"--remote={settings.database_url}", "--yes"],
            cwd=REPOSITORY,
            env={**os.environ, "SUPABASE_TELEMETRY_DISABLED": "1", "DO_NOT_TRACK": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PUSH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StackError(
            f"Cannot migrate stack {settings.name}: `supabase db push` did not end within"
            f" {PUSH_TIMEOUT_S} s; a session may hold a lock, see scripts/stack logs database"
        ) from None
    if done.returncode:
        raise StackError(
            f"Cannot migrate stack {settings.name}: `supabase db push` failed; correct the"
            " migration and run scripts/stack up again. It said:\n"
            f"{done.stdout.strip()}\n{done.stderr.strip()}"
        )
