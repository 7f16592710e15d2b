"""The jobs of the database, run by hand: a benchmark decides when they run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import asyncpg


@dataclass(frozen=True, slots=True)
class JobRun:
    """What one connection did when it ran a job until nothing was left."""

    rows: int
    seconds: float

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds if self.rows else 0.0


async def pause_jobs(connection: asyncpg.Connection) -> None:
    """Let pg_cron start none of the jobs any more."""
    await connection.execute("select cron.alter_job(jobid, active => false) from cron.job")


async def run_to_end(connection: asyncpg.Connection, job: str) -> JobRun:
    """Run steps of the job, each in a transaction of its own, until one finds nothing to do."""
    rows = 0
    started = time.perf_counter()
    while done := await connection.fetchval(f"select private.{job}_step()"):
        rows += done
    return JobRun(rows, time.perf_counter() - started)


async def set_clock(connection: asyncpg.Connection, days_ahead: int) -> None:
    """Let the database believe that it is some days later."""
    await connection.execute(
        "create or replace function private.clock() returns timestamptz language plpgsql stable"
        f" set search_path = '' as 'begin return pg_catalog.now() + interval ''{days_ahead} days'';"
        " end'"
    )
