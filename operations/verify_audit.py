"""Verify audit chains from outside the database: the body of scripts/verify_audit.

export  writes the head of every chain, one JSON object a line: keep them where the database's
        operators cannot write.
check   reads the chains and all that they cover, computes every digest and hash again in this
        process, and compares them with heads that were exported earlier.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import psycopg2

from operations.audit_chain import Broken, Chain, Head, Link, digests

URL_VARIABLE: Final = "SUPABASE_DB_URL"
LINKS: Final = 500
"""Links that are read at a time, with all that they cover."""

PAGE: Final = 1000
INTACT, BROKEN, CANNOT = range(3)

HEADS_QUERY: Final = """
select account_id, last_link_no, chain_hash
from private.accounts
where last_link_no > 0 and (%(after)s is null or account_id > %(after)s::uuid)
order by account_id
limit %(page)s
"""
LINKS_QUERY: Final = """
select
  link.link_no, link.kind, link.first_seq, link.last_seq, link.first_generated_at,
  link.last_generated_at, link.received_at, link.digest, link.hash
from audit.links as link
inner join private.accounts as account on account.account_no = link.account_no
where account.account_id = %(account)s::uuid
  and link.link_no > %(after)s and link.link_no <= %(until)s
order by link.link_no, link.received_at
limit %(limit)s
"""
ROWS_QUERIES: Final = {
    "signals": """
select
  signal.seq, trader.trader_id, signal.symbol, (private.timeframes())[signal.timeframe],
  signal.generated_at, (private.actions())[signal.action], signal.confidence, signal.price,
  signal.stop_loss, signal.take_profit, signal.valid_until, signal.metadata::text
from private.accounts as account
cross join lateral private.signals_by_seq(
  account.account_no, %(first)s::bigint, %(last)s::bigint) as signal
left join private.traders as trader on trader.trader_no = signal.trader_no
where account.account_id = %(account)s::uuid
order by signal.seq
""",
    "events": """
select
  event.seq, event.signal_seq, trader.trader_id, event.symbol,
  (private.timeframes())[event.timeframe], event.generated_at,
  (private.statuses())[event.status], event.occurred_at, event.received_at, event.entry_price,
  event.exit_price, (private.close_reasons())[event.close_reason], event.return, event.fees,
  event.reason, event.expired_seqs::text
from private.accounts as account
inner join private.signal_events as event on event.account_no = account.account_no
left join private.traders as trader on trader.trader_no = event.trader_no
where account.account_id = %(account)s::uuid and event.seq between %(first)s and %(last)s
order by event.seq
""",
}


class Database:
    """A connection that only reads; each question has a snapshot of its own."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg2.connect(url)
        self.connection.set_session(readonly=True, autocommit=True)

    def close(self) -> None:
        self.connection.close()

    def rows(self, query: str, **values: object) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, values)
            found: list[Any] = cursor.fetchall()
            return found

    def heads(self) -> Iterator[Head]:
        after: str | None = None
        while page := self.rows(HEADS_QUERY, after=after, page=PAGE):
            for account_id, link_no, hash_ in page:
                yield Head(uuid.UUID(account_id), link_no, bytes(hash_))
            after = page[-1][0]

    def links(self, head: Head, until: int) -> list[Link]:
        """Return the next links after the head, as far as `until`."""
        rows = self.rows(
            LINKS_QUERY, account=str(head.account_id), after=head.link_no, until=until, limit=LINKS
        )
        return [Link(*_plain(row)) for row in rows]

    def digests(self, account_id: uuid.UUID, links: Sequence[Link]) -> dict[Link, bytes | None]:
        """Compute the digest of what is stored now for each link."""
        found: dict[Link, bytes | None] = {}
        for kind, query in ROWS_QUERIES.items():
            of_kind = sorted(
                (link for link in links if link.kind == kind), key=lambda link: link.first_seq
            )
            if of_kind:
                first, last = of_kind[0].first_seq, of_kind[-1].last_seq
                rows = self.rows(query, account=str(account_id), first=first, last=last)
                found.update(zip(of_kind, digests(kind, rows, of_kind), strict=True))
        return found


def _plain(row: Sequence[Any]) -> list[Any]:
    return [bytes(value) if isinstance(value, memoryview) else value for value in row]


@dataclasses.dataclass(slots=True)
class Report:
    """What was checked; `broken` has the first broken link of each account that has one."""

    accounts: int = 0
    links: int = 0
    broken: list[Broken] = dataclasses.field(default_factory=list)

    def write(self, output: TextIO) -> None:
        broken = [
            {"account_id": str(each.account_id), "link_no": each.link_no, "problem": each.problem}
            for each in self.broken
        ]
        result = {"accounts": self.accounts, "links": self.links, "intact": not broken}
        print(json.dumps(result | {"broken": broken}), file=output)


def check(database: Database, exported: Head, start: Head | None, report: Report) -> Broken | None:
    """Walk one chain from `start` to the exported head; return what is broken first."""
    chain = Chain(exported.account_id, start)
    while links := database.links(chain.head, exported.link_no):
        stored = database.digests(exported.account_id, links)
        for link in links:
            broken = chain.extend(link, stored[link])
            if broken:
                return broken
            report.links += 1
    return chain.end(exported)


def export(database: Database, output: TextIO) -> int:
    for head in database.heads():
        line = {
            "account_id": str(head.account_id),
            "link_no": head.link_no,
            "hash": head.hash.hex(),
        }
        print(json.dumps(line), file=output)
    return INTACT


def read_heads(path: Path) -> dict[uuid.UUID, Head]:
    """Read what `export` wrote."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    heads = [
        Head(uuid.UUID(line["account_id"]), line["link_no"], bytes.fromhex(line["hash"]))
        for line in lines
    ]
    return {head.account_id: head for head in heads}


def check_all(database: Database, heads: Path, since: Path | None, output: TextIO) -> int:
    """Check every exported chain; return INTACT or BROKEN."""
    starts = read_heads(since) if since else {}
    report = Report()
    for exported in read_heads(heads).values():
        broken = check(database, exported, starts.get(exported.account_id), report)
        report.accounts += 1
        if broken:
            report.broken.append(broken)
    report.write(output)
    return BROKEN if report.broken else INTACT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when all is intact, 1 when a chain is broken, 2 when it cannot."""
    parser = argparse.ArgumentParser(
        prog="scripts/verify_audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"The database is the one that {URL_VARIABLE} names.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("export", help="write the heads of all chains to standard output")
    checking = commands.add_parser("check", help="check all chains against exported heads")
    checking.add_argument("heads", type=Path, help="what export wrote earlier")
    checking.add_argument(
        "--since", type=Path, help="trust these older heads, and check only what came after them"
    )
    options = parser.parse_args(arguments)
    try:
        database = Database(os.environ[URL_VARIABLE])
    except (KeyError, psycopg2.OperationalError) as error:
        print(f"Cannot verify: {URL_VARIABLE} names no database: {error}", file=sys.stderr)
        return CANNOT
    try:
        if options.command == "export":
            return export(database, sys.stdout)
        return check_all(database, options.heads, options.since, sys.stdout)
    except (OSError, ValueError, KeyError, psycopg2.Error) as error:
        print(f"Cannot verify: {error}", file=sys.stderr)
        return CANNOT
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
