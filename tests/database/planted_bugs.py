"""Plant bugs in a scratch database, one after the other, and tell which tests notice.

    scripts/stack up --name scratch
    python -m tests.database.planted_bugs scratch

rewrites planted_bugs.md beside this file. Each bug is taken out again after its run; a bug whose
place is no longer found, or that no test notices, ends the command with exit code 1.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from local_stack.database import superuser_dsn
from local_stack.settings import REPOSITORY, StackSettings
from tests.plugins.stack import REUSE_VARIABLE

PAGE = Path(__file__).with_suffix(".md")
RINGS = (
    ("tests/database/test_pgtap.py",),
    (
        "tests/database/test_concurrency.py",
        "tests/database/test_plans.py",
        "tests/database/test_contract.py",
    ),
)
FAILED = re.compile(
    r"^FAILED tests/database/(?:test_pgtap\.py::test_pgtap_file\[(\S+)\]|(\S+))", re.MULTILINE
)
HEAD = """\
# Planted bugs

Each bug below was put into a migrated database, and the tests of the database were run: the right
column names those that failed. `python -m tests.database.planted_bugs <stack>` writes this page.
The tests with many connections run only for what the pgTAP files did not notice.

| bug | noticed by |
| --- | --- |
"""


@dataclass(frozen=True, slots=True)
class InFunction:
    """A bug made by replacing a piece of a function's source."""

    name: str
    function: str
    right: str
    wrong: str

    async def plant(self, database: asyncpg.Connection) -> str:
        """Plant the bug; return the SQL that takes it out."""
        source: str = await database.fetchval(
            "select pg_get_functiondef(oid) from pg_proc where oid = $1::text::regproc",
            self.function,
        )
        if self.right not in source:
            raise LookupError(f"Cannot plant {self.name!r}: {self.function} reads differently now")
        await database.execute(source.replace(self.right, self.wrong))
        return source


@dataclass(frozen=True, slots=True)
class InCatalogue:
    """A bug made by a statement, with the statement that undoes it."""

    name: str
    wrong: str
    right: str

    async def plant(self, database: asyncpg.Connection) -> str:
        await database.execute(self.wrong)
        return self.right


OWN_TRADERS = """
extension = 'broadcast' and (select realtime.topic()) like 'trader:%:signals' and exists (
  select from private.traders as trader
  where trader.account_no = (select private.caller_account_no('signals:read')) {}
    and (select realtime.topic()) = 'trader:' || trader.trader_id || ':signals')
"""
BUGS = (
    InCatalogue(
        "every account may read every signal (policy relaxed)",
        "alter policy members_read_own_signals on private.signals using (true)",
        "alter policy members_read_own_signals on private.signals using"
        " (account_no = (select private.caller_account_no('signals:read')))",
    ),
    InCatalogue(
        "the policy of accounts is forgotten (dropped)",
        "drop policy members_read_own_account on private.accounts",
        "create policy members_read_own_account on private.accounts for select to authenticated"
        " using (account_id = (select auth.uid()))",
    ),
    InCatalogue(
        "row-level security of traders is off",
        "alter table private.traders disable row level security",
        "alter table private.traders enable row level security",
    ),
    InCatalogue(
        "the view asks with the rights of its owner",
        "alter view public.signals reset (security_invoker)",
        "alter view public.signals set (security_invoker = true)",
    ),
    InCatalogue(
        "a client role may read a partition",
        "grant select on private.signals_default to authenticated",
        "revoke select on private.signals_default from authenticated",
    ),
    InCatalogue(
        "a client role may insert signals by itself",
        "grant insert on private.signals to authenticated",
        "revoke insert on private.signals from authenticated",
    ),
    InCatalogue(
        "a client role may lock any account",
        "grant execute on function private.lock_account to authenticated",
        "revoke execute on function private.lock_account from authenticated",
    ),
    InFunction(
        "scopes are not looked at",
        "private.has_scope",
        "return coalesce(",
        "return true or coalesce(",
    ),
    InCatalogue(
        "traders without a channel can be heard (policy)",
        "alter policy members_hear_own_traders on realtime.messages using ("
        + OWN_TRADERS.format("")
        + ")",
        "alter policy members_hear_own_traders on realtime.messages using ("
        + OWN_TRADERS.format("and trader.own_channel")
        + ")",
    ),
    InFunction(
        "the account's row is read but not locked",
        "private.lock_account",
        "for no key update",
        "",
    ),
    InFunction(
        "one lock for all accounts",
        "private.lock_account",
        "begin\n",
        "begin\n  lock table private.accounts in share row exclusive mode;\n",
    ),
    InFunction(
        "the first use of an account is no race to win",
        "private.lock_account",
        "on conflict do nothing",
        "",
    ),
    InFunction(
        "seq comes from a random start, not from the head",
        "private.store_all",
        "store_all.account.last_seq + each.index + 1",
        "store_all.account.last_seq + each.index + 1 + (random() * 2)::integer * 1000",
    ),
    InFunction(
        "refused signals use a seq",
        "private.store_batch",
        "last_seq = v_account.last_seq + v_result.accepted",
        "last_seq = v_account.last_seq + v_result.accepted + v_result.rejected",
    ),
    InFunction(
        "duplicates are not looked for",
        "private.store_signals",
        "or exists (",
        "or false and exists (",
    ),
    InFunction(
        "of equal signals in a batch the last one counts",
        "private.store_signals",
        "order by each.code nulls first, each.index",
        "order by each.code nulls first, each.index desc",
    ),
    InFunction(
        "duplicates use the quota",
        "private.store_batch",
        "day_used = v_account.day_used + v_result.accepted",
        "day_used = v_account.day_used + v_result.accepted + v_result.duplicate",
    ),
    InFunction(
        "the day of the quota is one of the local time zone",
        "private.opened_windows",
        "(v_now at time zone 'utc')::date",
        "v_now::date",
    ),
    InFunction(
        "a transaction that began before midnight opens its day again",
        "private.opened_windows",
        "day_started <",
        "day_started <>",
    ),
    InFunction(
        "the last signal of the quota is refused",
        "private.store_signals",
        "numbered.number > store_signals.day_left",
        "numbered.number >= store_signals.day_left",
    ),
    InFunction(
        "the short way of a good batch forgets the quota",
        "private.store_batch",
        "<= least(v_day_left, v_minute_left)",
        "<= 5000",
    ),
    InFunction(
        "the minute is named where the day is used up",
        "private.store_signals",
        "when numbered.number > store_signals.day_left then 'quota_exceeded'",
        "when numbered.number > store_signals.minute_left then 'rate_limited'"
        " when numbered.number > store_signals.day_left then 'quota_exceeded'",
    ),
    InFunction(
        "a replay is not recognised",
        "private.replayed_verdict",
        "return v_batch.verdict",
        "return null",
    ),
    InFunction(
        "a request_id may be used for other signals",
        "private.replayed_verdict",
        "found and v_batch.payload_hash",
        "found and false and v_batch.payload_hash",
    ),
    InFunction(
        "archived traders take signals",
        "private.read_signals",
        "and trader.archived_at is null",
        "",
    ),
    InFunction(
        "the traders of other accounts take signals",
        "private.read_signals",
        "account.account_id = read_signals.account_id and",
        "",
    ),
    InFunction(
        "the window ends a second late",
        "private.read_signals",
        "v_now + interval '1 minute'",
        "v_now + interval '61 seconds'",
    ),
    InFunction(
        "the cursor has no tie-break",
        "private.query_signals",
        "(generated_at, seq) < ($9, $10)",
        "generated_at < $9",
    ),
    InFunction(
        "to is inclusive",
        "private.query_signals",
        "generated_at < $7",
        "generated_at <= $7",
    ),
    InFunction(
        "a cursor of one order is taken for the other",
        "private.decode_cursor",
        "or v_parts[1] <> decode_cursor.sort",
        "",
    ),
    InFunction(
        "broadcasts are public",
        "private.broadcast_batch",
        "':signals', true)",
        "':signals', false)",
    ),
    InFunction(
        "a broadcast that fails takes the batch with it",
        "private.broadcast_batch",
        "raise warning 'Cannot broadcast the batch: %; readers catch up by seq.', sqlerrm;",
        "raise;",
    ),
    InFunction(
        "a trader's channel carries the signals of other traders",
        "private.broadcast_batch",
        "v_payload - 'signals'",
        "v_payload",
    ),
    InCatalogue(
        "the view joins traders in a way that hides how many signals there are",
        "do $$begin execute 'create or replace view public.signals with (security_invoker) as '"
        " || replace(pg_get_viewdef('public.signals'), 'LEFT JOIN private.traders',"
        " 'JOIN private.traders'); end$$",
        "do $$begin execute 'create or replace view public.signals with (security_invoker) as '"
        " || replace(pg_get_viewdef('public.signals'), 'JOIN private.traders',"
        " 'LEFT JOIN private.traders'); end$$",
    ),
    InCatalogue(
        "the index by seq is missing",
        "drop index private.signals_account_no_seq_idx",
        "create index signals_account_no_seq_idx on private.signals (account_no, seq)",
    ),
)


def _failing_tests(stack: str) -> list[str]:
    for files in RINGS:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=no", "-rf", *files],
            cwd=REPOSITORY,
            env={**os.environ, REUSE_VARIABLE: stack, "COLUMNS": "300"},
            capture_output=True,
            text=True,
            check=False,
        )
        if failed := [file or test for file, test in FAILED.findall(done.stdout)]:
            return failed
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
    return []


async def _run(stack: str) -> int:
    settings = StackSettings.load(StackSettings(name=stack).directory)
    if healthy := _failing_tests(stack):
        print(f"Cannot begin: without any bug these tests fail: {healthy}")  # noqa: T201
        return 1
    lines, unnoticed = [], 0
    database = await asyncpg.connect(superuser_dsn(settings))
    for bug in BUGS:
        undo = await bug.plant(database)
        try:
            failed = await asyncio.to_thread(_failing_tests, stack)
        finally:
            await database.execute(undo)
        unnoticed += not failed
        said = ", ".join(f"`{name}`" for name in failed[:3]) or "**nothing**"
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        lines.append(f"| {bug.name} | {said}{more} |")
        print(lines[-1], flush=True)  # noqa: T201
    await database.close()
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(_run(sys.argv[1])))
