"""Audit chains are checked from outside the database, against heads that were exported earlier."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from local_stack.settings import REPOSITORY
from tests.database.callers import caller, make_signals, new_account, new_trader, operator
from tests.plugins.stack import RunningStack

BATCHES, SIZE = 5, 20
# The whole chain computed again, as someone who owns the database could.
FORGE = """
do $$
declare
  v_link audit.links;
  v_hash bytea := '\\x';
begin
  for v_link in
    select link.* from audit.links as link
    inner join private.accounts as account on account.account_no = link.account_no
    where account.account_id = '{account}' order by link.link_no
  loop
    select summary.digest into v_link.digest
    from private.checked_links(v_link.account_no, v_link.link_no, v_link.link_no) as summary;
    v_hash := audit.link_hash(v_hash, '{account}', v_link);
    update audit.links as link set digest = v_link.digest, hash = v_hash
    where link.account_no = v_link.account_no and link.link_no = v_link.link_no;
  end loop;
  update private.accounts set chain_hash = v_hash where account_id = '{account}';
end
$$
"""


@dataclass(frozen=True, slots=True)
class Audited:
    """An account with a chain, and the file with its head as it was exported."""

    stack: RunningStack
    account_id: uuid.UUID
    database: asyncpg.Connection
    heads: Path

    def check(self, *options: str) -> dict[str, Any]:
        done = verify(self.stack, "check", str(self.heads), *options)
        assert done.returncode in (0, 1), done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["intact"] is (done.returncode == 0)
        return report

    async def tamper(self, statement: str) -> None:
        """Change what is stored, as its owner can with the triggers off."""
        async with self.database.transaction():
            await self.database.execute("alter table audit.links disable trigger user")
            await self.database.execute(statement.replace("{account}", str(self.account_id)))
            await self.database.execute("alter table audit.links enable always trigger chain_link")
            await self.database.execute(
                "alter table audit.links enable always trigger refuse_change"
            )
            await self.database.execute(
                "alter table audit.links enable always trigger refuse_truncate"
            )


def verify(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "operations.verify_audit", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "SUPABASE_DB_URL": stack.database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
async def audited(stack: RunningStack, tmp_path: Path) -> AsyncIterator[Audited]:
    async with operator(stack) as database:
        account_id = await new_account(database)
        async with caller(stack, account_id) as client:
            trader_id = await new_trader(client)
            for batch in range(BATCHES):
                signals = make_signals(trader_id, SIZE, first=batch * SIZE)
                signals[0] |= {
                    "metadata": {"note": "ü", "list": [1, None, 2.50]},
                    "stop_loss": None,
                }
                signals[1] |= {"valid_until": "2100-01-01T00:00:00.000001Z", "price": 0.1}
                await client.ingest(signals)
        exported = await asyncio.to_thread(verify, stack, "export")
        assert exported.returncode == 0, exported.stderr
        heads = tmp_path / "heads.jsonl"
        heads.write_text(
            "".join(
                line
                for line in exported.stdout.splitlines(keepends=True)
                if str(account_id) in line
            )
        )
        yield Audited(stack, account_id, database, heads)


async def test_a_chain_that_nobody_touched_is_intact(audited: Audited) -> None:
    report = audited.check()
    assert report == {"accounts": 1, "links": BATCHES, "intact": True, "broken": []}
    assert audited.check("--since", str(audited.heads))["links"] == 0


async def test_lifecycle_events_are_links_of_the_same_chain(
    audited: Audited, tmp_path: Path
) -> None:
    async with caller(audited.stack, audited.account_id) as client:
        page = await client.ask("select public.query_signals(page_size => 3)")
        changes = [
            {key: signal[key] for key in ("trader_id", "symbol", "timeframe", "generated_at")}
            | {"status": "cancelled", "reason": "ü"}
            for signal in page["signals"]
        ]
        verdict = await client.ask(
            "select public.advance_signals($1, $2)", uuid.uuid4(), json.dumps(changes)
        )
        assert verdict["accepted"] == len(changes), verdict
        head = await client.ask("select public.audit_head()")
    later = tmp_path / "later.jsonl"
    later.write_text(json.dumps(head))
    done = await asyncio.to_thread(
        verify, audited.stack, "check", str(later), "--since", str(audited.heads)
    )
    assert json.loads(done.stdout) == {"accounts": 1, "links": 1, "intact": True, "broken": []}


MINE = "account_no = (select account_no from private.accounts where account_id = '{account}')"


@pytest.mark.parametrize(
    ("statement", "link_no", "problem"),
    [
        (
            f"update private.signals set price = price + 1 where {MINE} and seq = 45",
            3,
            "content_changed",
        ),
        (f"delete from audit.links where {MINE} and link_no = 2", 2, "link_missing"),
        (f"delete from audit.links where {MINE} and link_no = 5", 5, "link_missing"),
        (
            f"update audit.links set received_at = received_at - interval '1 hour'"
            f" where {MINE} and link_no = 4",
            4,
            "link_altered",
        ),
        (
            f"update audit.links set link_no = 99 where {MINE} and link_no = 2;"
            f"update audit.links set link_no = 2 where {MINE} and link_no = 3;"
            f"update audit.links set link_no = 3 where {MINE} and link_no = 99",
            2,
            "order_changed",
        ),
    ],
)
async def test_tampering_is_named_at_its_link(
    audited: Audited, statement: str, link_no: int, problem: str
) -> None:
    await audited.tamper(statement)
    assert audited.check()["broken"] == [
        {"account_id": str(audited.account_id), "link_no": link_no, "problem": problem}
    ]


async def test_a_chain_that_was_computed_anew_does_not_fit_its_exported_head(
    audited: Audited,
) -> None:
    await audited.tamper(
        f"update private.signals set price = price + 1 where {MINE} and seq = 45;{FORGE}"
    )
    inside = await audited.database.fetchval(
        "select private.verify_audit($1, 1, null) ->> 'intact'", audited.account_id
    )
    assert inside == "true", "nothing inside the database shows it"
    assert audited.check()["broken"] == [
        {"account_id": str(audited.account_id), "link_no": BATCHES, "problem": "head_mismatch"}
    ]


async def test_reads_by_operators_are_logged_as_the_document_says(audited: Audited) -> None:
    document = (REPOSITORY / "docs" / "audit.md").read_text()
    settings = document.split("## Reads by operators")[1].split("```sql")[1].split("```")[0]
    log = audited.stack.settings.log_directory / "database.log"
    await audited.database.execute(settings)
    try:
        before = log.stat().st_size
        async with caller(audited.stack, audited.account_id) as client:
            await client.ask("select public.query_signals()")
        async with operator(audited.stack) as database:
            await database.fetch(
                "select count(*) /* snooping */ from private.signals where seq < 9"
            )
        written = log.read_bytes()[before:].decode()
    finally:
        await audited.database.execute(
            "alter role postgres reset pgaudit.role;"
            "alter role postgres reset pgaudit.log_statement_once;"
            "revoke all on private.signals, private.segments, private.signal_events,"
            " public.signals, public.signal_events, audit.links from signals_audited;"
            "drop role signals_audited; drop extension pgaudit"
        )
    assert "AUDIT: OBJECT,1,1,READ,SELECT,TABLE,private.signals," in written
    assert "snooping" in written
    assert "query_signals" not in written, "what accounts read of their own is not logged"
