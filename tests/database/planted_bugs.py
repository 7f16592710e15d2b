"""Plant bugs in a scratch database, one after the other, and tell which tests notice.

    scripts/stack up --name scratch
    python -m tests.database.planted_bugs scratch [part of a bug's name ...]

rewrites planted_bugs.md beside this file, or only the lines of the bugs that are named. The tests
that the page knows to notice a bug are run first, and the others only if these do not fail. Each
bug is taken out again, and what failed must pass without it. A bug whose place is no longer found,
or that no test notices, ends the command with exit code 1.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from local_stack.database import superuser_dsn
from local_stack.settings import REPOSITORY, StackSettings
from tests.plugins.stack import REUSE_VARIABLE

PAGE = Path(__file__).with_suffix(".md")
RINGS = (
    ("test_pgtap.py",),
    (
        "test_concurrency.py",
        "test_broadcasts.py",
        "test_lifecycle.py",
        "test_packing.py",
        "test_rollups.py",
        "test_audit.py",
        "test_plans.py",
        "test_segment_plans.py",
        "test_contract.py",
        "test_api_keys.py",
        "test_read_locks.py",
    ),
    ("test_one_answer.py", "test_jobs.py", "test_import.py"),
)
AT_MOST = 3
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=no", "-rfE"),
    f"--maxfail={AT_MOST}",
)
PASSED, FAILED, NOT_FOUND = 0, 1, 4
PGTAP = "tests/database/test_pgtap.py::test_pgtap_file[{}]"
FAILURE = re.compile(
    r"^(?:FAILED|ERROR) (?:" + re.escape(PGTAP).replace(r"\{\}", r"(\S+)") + "|"
    r"tests/database/(test_\w+\.py::\w+))",
    re.MULTILINE,
)
ROW = re.compile(r"^\| (.+) \| (`.+`) \|$", re.MULTILINE)
HEAD = """\
# Planted bugs

Each bug below was put into a migrated database, and the tests of the database were run: the right
column names those that failed, three at most. The same tests pass without the bug.
`python -m tests.database.planted_bugs <stack>` writes this page. The tests with many connections
run only for what the pgTAP files do not notice.

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
        " using (account_id = (select auth.uid()) and (select private.has_scope('signals:read')))",
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
    InFunction(
        "one function forgets to ask for its scope",
        "private.create_trader",
        "private.caller_id('signals:write')",
        "auth.uid()",
    ),
    InFunction(
        "a token of an API key may do all when it names no scope",
        "private.has_scope",
        "v_claims ->> 'api_key_id' is null",
        "true",
    ),
    InFunction(
        "a token outlives its API key",
        "private.has_scope",
        "and private.token_is_live()",
        "",
    ),
    InFunction(
        "an API key may make API keys",
        "private.create_api_key",
        "'keys:manage'",
        "'signals:write'",
    ),
    InFunction(
        "half of an API key's hash is enough",
        "private.exchange_api_key",
        "api_key.key_hash = decode(exchange_api_key.key_hash, 'hex')",
        "substring(api_key.key_hash for 16) ="
        " substring(decode(exchange_api_key.key_hash, 'hex') for 16)",
    ),
    InFunction(
        "an API key can be read back",
        "private.create_api_key",
        "right(v_secret, 4)",
        "v_secret",
    ),
    InFunction(
        "a revoked API key still works",
        "private.is_live",
        "api_key.revoked_at is null",
        "true",
    ),
    InFunction(
        "an expired API key still works",
        "private.is_live",
        "coalesce(api_key.expires_at > private.clock(), true)",
        "true",
    ),
    InFunction(
        "the API key of a banned user still works",
        "private.account_of_api_key",
        "coalesce(member.banned_until <= private.clock(), true)",
        "true",
    ),
    InFunction(
        "any account may revoke an API key",
        "private.revoke_api_key",
        "and api_key.account_no = account.account_no",
        "",
    ),
    InFunction(
        "an API key is exchanged without end",
        "private.pay_for_exchange",
        "v_now + interval '1 minute' - interval '1 second'",
        "'infinity'",
    ),
    InFunction(
        "whoever exchanges an API key too often waits for its row",
        "private.exchange_api_key",
        "and private.is_live(api_key);",
        "and private.is_live(api_key) for no key update;",
    ),
    InFunction(
        "of two exchanges at once only one is paid for",
        "private.pay_for_exchange",
        "payer.exchanges_paid_until <= v_now",
        "pay_for_exchange.api_key.exchanges_paid_until <= v_now",
    ),
    InFunction(
        "an access token makes API keys when its session has ended",
        "private.require_session",
        "coalesce(session.not_after > private.clock(), true)",
        "true",
    ),
    InFunction(
        "an access token makes API keys in the session of another user",
        "private.require_session",
        "and session.user_id = auth.uid()",
        "",
    ),
    InFunction(
        "a password makes API keys where a second factor is asked for",
        "private.require_session",
        "session.aal = 'aal2' or",
        "true or",
    ),
    InFunction(
        "an API key may live until infinity",
        "private.require_api_key_request",
        "or not isfinite(expires_at)",
        "",
    ),
    InFunction(
        "API keys are made and revoked without end",
        "private.require_room_for_api_key",
        "count(*) >= 50",
        "false",
    ),
    InFunction(
        "traders are made and archived without end",
        "private.require_room_for_trader",
        "count(*) >= 2 * v_most",
        "false",
    ),
    InFunction(
        "an API key may archive a trader for good",
        "private.change_trader",
        "'traders:manage'",
        "'signals:write'",
    ),
    InFunction(
        "who may not ask learns what is wrong with the question",
        "private.read_filter",
        "perform private.caller_id('signals:read');",
        "",
    ),
    InFunction(
        "a token outlives the end of its API key",
        "private.exchange_api_key",
        "least(v_key.expires_at - v_now, '15 minutes')",
        "interval '15 minutes'",
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
        "private.insert_signals",
        "account.last_seq + 1 + each.index",
        "account.last_seq + 1 + each.index + (random() * 2)::integer * 1000",
    ),
    InFunction(
        "refused signals use a seq",
        "private.record_batch",
        "v_account.last_seq := summary.last_seq",
        "v_account.last_seq := summary.last_seq + coalesce(jsonb_array_length(refused), 0)",
    ),
    InFunction(
        "duplicates are not looked for",
        "private.judge_signals",
        "exists (\n        select from private.signals",
        "false and exists (\n        select from private.signals",
    ),
    InFunction(
        "of equal signals in a batch the last one counts",
        "private.judge_signals",
        "order by each.index\n      ) > 1",
        "order by each.index desc\n      ) > 1",
    ),
    InFunction(
        "duplicates use the quota",
        "private.store_batch",
        "v_account.day_used + v_summary.signals",
        "v_account.day_used + v_summary.signals"
        " + coalesce(jsonb_array_length(v_judgement.refused), 0)",
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
        "private.judge_signals",
        "counted.first_number > judge_signals.day_left",
        "counted.first_number >= judge_signals.day_left",
    ),
    InFunction(
        "the short way of a good batch forgets the quota",
        "private.store_batch",
        "<= least(v_day_left, v_minute_left)",
        "<= 5000",
    ),
    InFunction(
        "the minute is named where the day is used up",
        "private.judge_signals",
        "when counted.first_number > judge_signals.day_left then 'quota_exceeded'",
        "when counted.first_number > judge_signals.minute_left then 'rate_limited'"
        " when counted.first_number > judge_signals.day_left then 'quota_exceeded'",
    ),
    InFunction(
        "a replay is not recognised",
        "private.replayed_verdict",
        "return private.verdict_of(\n"
        "    v_batch.request_id, v_batch.first_seq, v_batch.last_seq, v_batch.refused)",
        "return null",
    ),
    InFunction(
        "a request_id may be used for other signals",
        "private.replayed_verdict",
        "if v_batch.payload_hash <>",
        "if false and v_batch.payload_hash <>",
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
        "trader.account_no = v_account_no and",
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
        "private.heap_signals",
        "(signal.generated_at, signal.seq) < (query.start_time, query.start_seq)",
        "signal.generated_at < query.start_time",
    ),
    InFunction(
        "the cursor of the oldest has no tie-break",
        "private.heap_signals",
        "(signal.generated_at, signal.seq) > (query.start_time, query.start_seq)",
        "signal.generated_at > query.start_time",
    ),
    InFunction(
        "a signal without metadata passes every filter by tag",
        "private.heap_signals",
        "coalesce(signal.metadata, '{}') @>",
        "signal.metadata @>",
    ),
    InFunction(
        "the highest price that is asked for is left out",
        "private.heap_signals",
        "and (signal.price between query.min_price and query.max_price) is not false",
        "and (signal.price >= query.min_price and signal.price < query.max_price) is not false",
    ),
    InFunction(
        "until_seq is exclusive for the newest",
        "private.heap_signals",
        "        and signal.seq <= query.until_seq",
        "        and signal.seq < query.until_seq",
    ),
    InFunction(
        "rows of other symbols are fetched to look for a rare one",
        "private.heap_signals",
        "and signal.symbol between v_first_symbol and v_last_symbol",
        "",
    ),
    InFunction(
        "of two symbols the table is asked for the first only",
        "private.heap_signals",
        'max(each collate "C")',
        'min(each collate "C")',
    ),
    InFunction(
        "of two traders the table is asked for the first only",
        "private.heap_signals",
        "min(each), max(each)",
        "min(each), min(each)",
    ),
    InFunction(
        "to is inclusive",
        "private.heap_signals",
        "signal.generated_at < query.to_time",
        "signal.generated_at <= query.to_time",
    ),
    InFunction(
        "a cursor of one order is taken for the other",
        "private.decode_cursor",
        "and v_parts[1] = query.sort",
        "",
    ),
    InFunction(
        "a cursor that was changed is taken",
        "private.decode_cursor",
        "private.sealed_cursor(v_words, query.digest) = decode_cursor.cursor",
        "v_words is not null",
    ),
    InFunction(
        "the digest of the filters forgets the limits of seq",
        "private.read_filter",
        "record_send(v_query)",
        "record_send(row(v_query.symbols, v_query.first_symbol, v_query.trader_nos,"
        " v_query.timeframes, v_query.actions, v_query.statuses, v_query.tags,"
        " v_query.min_confidence, v_query.max_confidence, v_query.min_price, v_query.max_price,"
        " v_query.from_time, v_query.to_time))",
    ),
    InFunction(
        "a cursor by confidence need not have a number",
        "private.decode_cursor",
        "and (not v_is_by_confidence or pg_input_is_valid(v_parts[4], 'double precision'))",
        "",
    ),
    InFunction(
        "of symbols and a prefix the prefix is forgotten",
        "private.filter_symbols",
        "coalesce(filter_symbols.symbol_prefix, '')",
        "''",
    ),
    InFunction(
        "a prefix is any text",
        "private.require_values",
        "require_values.symbol_prefix !~ '^[A-Za-z0-9._/:=@#!&^+-]{1,32}$'",
        "false",
    ),
    InFunction(
        "a time beyond all calendars is taken as it is",
        "private.known_time",
        "when at >= '9999-01-01 00:00:00+00' then 'infinity'",
        "",
    ),
    InFunction(
        "a field that no signal has is passed over",
        "private.require_fields",
        "not require_fields.fields <@ private.signal_fields()",
        "false",
    ),
    InFunction(
        "a page is in no order",
        "private.signals_json",
        "order by given.ordinality",
        "order by hashint8(given.seq)",
    ),
    InFunction(
        "what expired by the clock alone is taken for generated",
        "private.with_status",
        "private.status_at(null, each.valid_until, v_now)",
        "'generated'",
    ),
    InFunction(
        "a status is looked for without end",
        "private.found_with_status",
        "if v_looked_at >= v_most then",
        "if false then",
    ),
    InFunction(
        "a search for a status that is cut short says that it is done",
        "private.found_with_status",
        "next_cursor := private.encode_cursor(query, v_last);",
        "",
    ),
    InFunction(
        "an order that no index has is made of however many signals",
        "private.ranked_signals",
        "cardinality(v_signals) > v_most",
        "false",
    ),
    InFunction(
        "of as many signals as can be put in order, some are left out",
        "private.ranked_signals",
        "v_query.row_limit := v_most + 1;",
        "v_query.row_limit := 20;",
    ),
    InFunction(
        "of equal confidence, a page begins again with all",
        "private.ranked_signals",
        "(-signal.confidence, signal.generated_at, signal.seq)\n"
        "          < (-v_level, query.start_time, query.start_seq)",
        "-signal.confidence <= -v_level",
    ),
    InFunction(
        "of equal symbols, a page leaves out the rest",
        "private.ranked_signals",
        "signal.symbol > query.start_key or signal.symbol = query.start_key\n"
        "          and (signal.generated_at, signal.seq) < (query.start_time, query.start_seq)",
        "signal.symbol > query.start_key",
    ),
    InFunction(
        "broadcasts are public",
        "private.send_broadcast",
        "realtime.send(payload, event, topic, true)",
        "realtime.send(payload, event, topic, false)",
    ),
    InFunction(
        "a broadcast that fails takes the batch with it",
        "private.broadcast_news",
        "perform private.note_failure(",
        "raise; perform private.note_failure(",
    ),
    InFunction(
        "a trader's channel carries the signals of other traders",
        "private.tell_signals",
        "v_payload - 'signals'",
        "v_payload",
    ),
    InFunction(
        "the short way of a batch forgets the interval",
        "private.broadcast_batch",
        "state.broadcast_interval = interval '0'",
        "true",
    ),
    InFunction(
        "what realtime.send swallows counts as sent",
        "private.send_broadcast",
        "is distinct from topic then",
        "is distinct from topic and false then",
    ),
    InFunction(
        "a broadcast that failed is not tried again",
        "private.note_failure",
        "perform private.hold_broadcast("
        "account_no, first_seq, first_event_seq, trader_nos, error);",
        "",
    ),
    InFunction(
        "of the batches that wait only the last is told",
        "private.hold_broadcast",
        "first_seq = coalesce(pending.first_seq, excluded.first_seq)",
        "first_seq = coalesce(excluded.first_seq, pending.first_seq)",
    ),
    InFunction(
        "the channel of a trader is not told of what waited",
        "private.tell_pending",
        "v_pending.trader_nos",
        "'{}'",
    ),
    InFunction(
        "an account is told of before its interval is over",
        "private.tell_pending",
        "and pending.due_at <= v_now",
        "",
    ),
    InFunction(
        "the job tells of accounts without their lock",
        "private.tell_due",
        "for no key update of account skip locked",
        "",
    ),
    InFunction(
        "the job waits for accounts that are locked",
        "private.tell_due",
        "skip locked",
        "",
    ),
    InFunction(
        "the interval forgets that each delivery counts",
        "private.automatic_interval",
        "(1 + v_settings.subscribers_per_account)::double precision",
        "1::double precision",
    ),
    InFunction(
        "accounts that wait seem to have gone",
        "private.automatic_interval",
        "greatest(interval '10 seconds', present * 1.25)",
        "interval '10 seconds'",
    ),
    InFunction(
        "a signal may be changed at the instant of its valid_until",
        "private.status_at",
        "valid_until <= moment",
        "valid_until < moment",
    ),
    InFunction(
        "executed signals expire",
        "private.status_at",
        "coalesce(last_status, 1) <= 2",
        "coalesce(last_status, 1) <= 3",
    ),
    InFunction(
        "what was told as expired may be executed by a transaction that began before",
        "private.judge_changes",
        "greatest(private.clock(), account.expired_until)",
        "private.clock()",
    ),
    InFunction(
        "changes of one signal are judged by the status before the request",
        "private.judge_changes",
        "v_statuses[v_row.place] := v_row.word;",
        "",
    ),
    InFunction(
        "a status that was reported differently counts as a duplicate",
        "private.judge_changes",
        "v_contents[v_row.place][v_row.status] = v_row.content",
        "v_contents[v_row.place][v_row.status] is not null",
    ),
    InFunction(
        "refused changes use an event seq",
        "private.store_changes",
        "row_number() over (order by change.index)",
        "change.index + 1",
    ),
    InFunction(
        "packed signals cannot be advanced",
        "private.signals_at",
        "segment.last_generated_at >= times[1]",
        "false",
    ),
    InFunction(
        "the job tells the expiry of signals that were used",
        "private.expire_signals",
        "due.seqs - coalesce(",
        "due.seqs + coalesce(",
    ),
    InFunction(
        "the job for expiries reads the ledger without a limit",
        "private.schedule_expiries",
        "pending.signals >= v_signals",
        "false",
    ),
    InFunction(
        "a batch with a duplicate is told as stored, though none of it is",
        "private.all_inserted",
        "when unique_violation then return false",
        "when unique_violation then return true",
    ),
    InFunction(
        "duplicates are not looked for in segments",
        "private.judge_signals",
        "or each.generated_at <= judge_signals.account.packed_until and (",
        "or false and (",
    ),
    InFunction(
        "the short way of a good batch looks for duplicates in the table alone",
        "private.store_batch",
        "and v_summary.first_generated_at > v_account.packed_until",
        "",
    ),
    InFunction(
        "the head of the account stays where it was",
        "private.append_link",
        "last_seq = v_account.last_seq,",
        "",
    ),
    InFunction(
        "the head of the chain stays where it was",
        "private.append_link",
        "last_link_no = v_account.last_link_no,",
        "",
    ),
    InFunction(
        "the digest leaves metadata out",
        "private.summary_of",
        "each.metadata::text",
        "null::text",
    ),
    InFunction(
        "lifecycle events get no link",
        "private.publish_events",
        "perform private.append_link(\n"
        "    v_account, 'events', v_first_seq, v_last_seq, v_first_generated_at,"
        " v_last_generated_at,\n"
        "    private.clock(),"
        " private.events_digest(v_account.account_no, v_first_seq, v_last_seq));",
        "update private.accounts as head"
        " set last_event_seq = v_last_seq, expired_until = v_account.expired_until"
        " where head.account_no = v_account.account_no;",
    ),
    InFunction(
        "packing loses a signal of each chunk",
        "private.take_chunk",
        "select array_agg(taken.signal) into",
        "select (array_agg(taken.signal))[2:] into",
    ),
    InFunction(
        "packing leaves a signal of each chunk in the table as well",
        "private.take_chunk",
        "perform private.store_segments(v_signals);",
        "perform private.store_segments(v_signals);"
        " insert into private.signals select (v_signals[1]).*;",
    ),
    InFunction(
        "nobody is told up to where an account is packed",
        "private.announce_packing",
        "begin\n",
        "begin\n  if now() is not null then return 0; end if;\n",
    ),
    InFunction(
        "signals are moved in the transaction that announces it",
        "private.pack_day",
        "if v_progress = 0 then",
        "if v_progress >= 0 then",
    ),
    InFunction(
        "merging loses what comes after its end",
        "private.merge_segments",
        "if v_left is not null then",
        "if v_left is null and v_left is not null then",
    ),
    InFunction(
        "space is given back while an older snapshot is open",
        "private.reclaim_step",
        "continue when private.snapshot_is_open(v_day.last_packed_by);",
        "",
    ),
    InFunction(
        "a signal stored at the last moment goes with the space of its day",
        "private.truncate_day",
        "if exists (\n    select from private.batches",
        "if v_seen is null and exists (\n    select from private.batches",
    ),
    InFunction(
        "the newest order stops a segment too early",
        "private.with_packed_signals",
        "v_segment.last_generated_at < v_last.generated_at",
        "v_segment.first_generated_at < v_last.generated_at",
    ),
    InFunction(
        "the newest order stops at a segment that ends at the same time",
        "private.with_packed_signals",
        "v_segment.last_generated_at < v_last.generated_at",
        "v_segment.last_generated_at <= v_last.generated_at",
    ),
    InFunction(
        "the order by seq stops a segment too early",
        "private.with_packed_signals",
        "v_segment.first_seq > v_last.seq",
        "v_segment.last_seq > v_last.seq",
    ),
    InFunction(
        "segments whose best confidence is just enough are left out",
        "private.open_segments",
        "segment.confidence_max >= query.min_confidence",
        "segment.confidence_max > query.min_confidence",
    ),
    InFunction(
        "segments that begin before from are left out",
        "private.open_segments",
        "date_trunc('month', query.from_time, 'utc')",
        "query.from_time",
    ),
    InFunction(
        "signals of the same time have no order by seq",
        "private.first_signals",
        "order by signal.generated_at desc, signal.seq desc",
        "order by signal.generated_at desc",
    ),
    InFunction(
        "segments with a symbol that is just the prefix are left out",
        "private.open_segments",
        "or query.first_symbol = any(segment.symbols)",
        "",
    ),
    InFunction(
        "segments whose best price is just enough are left out",
        "private.open_segments",
        "segment.price_max >= query.min_price",
        "segment.price_max > query.min_price",
    ),
    InFunction(
        "segments are opened whatever their prices are",
        "private.open_segments",
        "and (segment.price_min <= query.max_price) is not false",
        "",
    ),
    InFunction(
        "a prefix counts as that of all symbols of a segment when it is that of the first",
        "private.without_idle_filters",
        "and segment.symbols[cardinality(segment.symbols)] <= query.last_symbol",
        "",
    ),
    InFunction(
        "a segment is taken by the first of two filters by number",
        "private.without_idle_filters",
        "segment.price_max <= query.max_price",
        "segment.price_min <= query.max_price",
    ),
    InFunction(
        "packed signals without metadata pass every filter by tag",
        "private.tested_positions",
        "coalesce(v_metadata[n], '{}') @>",
        "v_metadata[n] @>",
    ),
    InFunction(
        "packed signals are not asked for their prices",
        "private.tested_positions",
        "and (part.price[n] >= query.min_price) is not false",
        "",
    ),
    InFunction(
        "a page of the oldest begins again with the last signal of the page before",
        "private.span_of",
        "query.start_seq + 1",
        "query.start_seq",
    ),
    InFunction(
        "a page of the oldest stops a segment too early",
        "private.with_packed_signals",
        "v_segment.first_generated_at > v_last.generated_at",
        "v_segment.first_generated_at >= v_last.generated_at",
    ),
    InFunction(
        "a full page of the oldest takes nothing more of its last moment",
        "private.with_packed_signals",
        "v_last.generated_at + interval '1 microsecond')",
        "v_last.generated_at)",
    ),
    InFunction(
        "the oldest page looks for nothing that is packed",
        "private.oldest_signals",
        "oldest_signals.packed_until > '-infinity'",
        "query.start_time > '-infinity'",
    ),
    InFunction(
        "a window of seq that is read downward leaves one out",
        "private.signals_in_order",
        "v_rest.until_seq := v_query.after_seq;",
        "v_rest.until_seq := v_query.after_seq - 1;",
    ),
    InFunction(
        "of a window of seq that is read downward the first are taken",
        "private.signals_in_order",
        "v_query.row_limit := v_query.until_seq - v_query.after_seq;",
        "",
    ),
    InFunction(
        "the cursor begins again with the last signal of the page before",
        "private.tied_before",
        "tie.value < tied_before.seq",
        "tie.value <= tied_before.seq",
    ),
    InFunction(
        "signals generated at from are left out of segments",
        "private.span_of",
        "width_bucket(v_from - interval '1 microsecond', v_times)",
        "width_bucket(v_from, v_times)",
    ),
    InFunction(
        "segments whose signals came in another order are read by seq as if in that of time",
        "private.span_of",
        "0 = all(segment.seq_offsets)",
        "0 = any(segment.seq_offsets)",
    ),
    InFunction(
        "a page by seq begins one too late in a segment in order",
        "private.span_of",
        "query.after_seq - segment.first_seq + 2",
        "query.after_seq - segment.first_seq + 3",
    ),
    InFunction(
        "a page by seq ends one too early in a segment in order",
        "private.span_of",
        "query.until_seq - segment.first_seq + 1",
        "query.until_seq - segment.first_seq",
    ),
    InFunction(
        "a filter counts as passed by all signals when it is by some",
        "private.without_idle_filters",
        "segment.symbols <@ query.symbols",
        "segment.symbols && query.symbols",
    ),
    InFunction(
        "the confidence counts as enough in all signals when it is in the best",
        "private.without_idle_filters",
        "segment.confidence_min >=",
        "segment.confidence_max >=",
    ),
    InFunction(
        "of two filters the second is forgotten",
        "private.matching_positions",
        "v_filters > 1",
        "v_filters > 2",
    ),
    InFunction(
        "of two symbols the second is forgotten",
        "private.equal_positions",
        "cardinality(v_symbol_positions) = 1",
        "cardinality(v_symbol_positions) >= 1",
    ),
    InFunction(
        "a filter by one value forgets from where and to where to look",
        "private.matching_positions",
        "1 + width_bucket(v_span.first - 1, v_positions):width_bucket(v_span.last, v_positions)",
        "1:",
    ),
    InFunction(
        "a page that is full takes nothing more of its last moment",
        "private.with_packed_signals",
        "v_last.generated_at);",
        "v_last.generated_at + interval '1 microsecond');",
    ),
    InFunction(
        "a page by seq that is full takes nothing more before its last",
        "private.with_packed_signals",
        "v_query.until_seq := v_last.seq;",
        "v_query.until_seq := v_last.seq / 2;",
    ),
    InFunction(
        "a page ends with the signals of the last two months",
        "private.newest_signals",
        "interval '1 month', '1 year', 'infinity'",
        "interval '1 month'",
    ),
    InFunction(
        "months that were read are read again for the rest of the page",
        "private.newest_signals",
        "v_query.to_time := v_query.from_time;",
        "",
    ),
    InFunction(
        "the index by seq is left a block too early",
        "private.open_segments",
        "query.until_seq | private.seq_block()",
        "query.until_seq",
    ),
    InFunction(
        "segments are not cut where a block of seq ends",
        "private.segment_parts",
        "group by signal.account_no, signal.seq | private.seq_block()",
        "group by signal.account_no",
    ),
    InFunction(
        "the cursor has no tie-break in segments",
        "private.span_of",
        "last := last + private.tied_before(segment, query.start_time, query.start_seq);",
        "",
    ),
    InFunction(
        "a window of seq begins one too late",
        "private.signals_in_order",
        "v_rest.after_seq := v_query.until_seq;",
        "v_rest.after_seq := v_query.until_seq + 1;",
    ),
    InFunction(
        "a window of seq ends one too early in segments",
        "private.tested_positions",
        "value.seq <= query.until_seq",
        "value.seq < query.until_seq",
    ),
    InFunction(
        "a page that ends where packing has come to is taken from the table alone",
        "private.newest_signals",
        "> newest_signals.packed_until",
        ">= newest_signals.packed_until",
    ),
    InFunction(
        "the head of the rollups moves without a merge",
        "private.roll_up",
        "perform private.add_rollups(v_added);",
        "",
    ),
    InFunction(
        "each step counts the last signal of the step before again",
        "private.next_to_roll_up",
        "behind.seq + 1",
        "greatest(behind.seq, 1)",
    ),
    InFunction(
        "what the job has counted is counted again in the answer",
        "private.live_rollups",
        "v_seq + 1,",
        "greatest(v_seq, 1),",
    ),
    InFunction(
        "a page of hours counts all that waits for the job, however much",
        "private.countable_seq",
        "v_most constant integer := 10000",
        "v_most constant integer := 2000000000",
    ),
    InFunction(
        "a page of minutes reads a minute to its end, however long it is",
        "private.require_countable_minute",
        "signals >= 100000",
        "false and 100000 > 0",
    ),
    InFunction(
        "two minutes that are large together are refused as one",
        "private.minute_rollups",
        "v_read - v_read_before",
        "v_read",
    ),
    InFunction(
        "a page of minutes ends within a minute that is not all read",
        "private.minute_rollups",
        "rollups[query.row_limit].bucket > v_minute",
        "rollups[query.row_limit].bucket >= v_minute",
    ),
    InFunction(
        "a page of minutes that is cut ends within a minute",
        "private.minute_rollups",
        "where rollup.bucket > v_minute",
        "where rollup.bucket >= v_minute",
    ),
    InFunction(
        "a page of minutes that is cut tells no next one",
        "private.minute_rollups",
        "is_cut := true",
        "is_cut := false",
    ),
    InFunction(
        "the next page of minutes leaves out the rest of the minute of the cursor",
        "private.minute_rollups",
        "private.next_minute(start.bucket + interval '1 minute')",
        "private.next_minute(start.bucket)",
    ),
    InFunction(
        "the signals of a minute that are read later take the place of the first ones",
        "private.merged_rollups",
        "private.merged_rollup(same.parts[1], same.parts[2])",
        "same.parts[2]",
    ),
    InFunction(
        "from and to of a page of minutes are taken down to whole minutes",
        "private.next_minute",
        "next_minute.at + interval '1 minute' - interval '1 microsecond', 'UTC')",
        "next_minute.at, 'UTC')",
    ),
    InFunction(
        "rollups count packed signals as if there were none",
        "private.signals_in",
        "if cardinality(v_signals) < (",
        "if cardinality(v_signals) > (",
    ),
    InFunction(
        "retention drops a partition too early",
        "private.expired_partitions",
        "made.ends <= kept.since",
        "made.starts <= kept.since",
    ),
    InFunction(
        "retention forgets accounts that have a longer tier now",
        "private.rehome_segments",
        "continue when cardinality(v_segments) = 0;",
        "continue when cardinality(v_segments) >= 0;",
    ),
    InFunction(
        "an error of a job is not written down",
        "private.run_step",
        "error = v_error,",
        "error = null,",
    ),
    InFunction(
        "partitions made on demand have no row-level security",
        "private.make_partition",
        "perform private.close_partitions(make_partition.parent);",
        "",
    ),
    InFunction(
        "an import does not tell up to where it has packed",
        "private.store_import",
        "v_account.packed_until := greatest(v_account.packed_until, v_summary.last_generated_at);",
        "",
    ),
    InFunction(
        "an import looks for duplicates in the table alone",
        "private.store_import",
        "v_judgement private.judgement := private.judge_signals(\n    v_account,",
        "v_blind private.accounts := jsonb_populate_record(\n"
        '    store_import.account, \'{"packed_until": "-infinity"}\');\n'
        "  v_judgement private.judgement := private.judge_signals(\n    v_blind,",
    ),
    InFunction(
        "the usage of an account reads all segments, however many",
        "private.packed_usage",
        "limit 10001",
        "-- limit 10001",
    ),
    InFunction(
        "the usage of an account counts the segments of all",
        "private.packed_usage",
        "segment.account_no = packed_usage.account_no",
        "packed_usage.account_no is not null",
    ),
    InCatalogue(
        "every account may read every segment (policy relaxed)",
        "alter policy members_read_own_segments on private.segments using (true)",
        "alter policy members_read_own_segments on private.segments using"
        " (account_no = (select private.caller_account_no('signals:read')))",
    ),
    InCatalogue(
        "every account may read every rollup (policy relaxed)",
        "alter policy members_read_own_rollups on private.rollups using (true)",
        "alter policy members_read_own_rollups on private.rollups using"
        " (account_no = (select private.caller_account_no('signals:read')))",
    ),
    InCatalogue(
        "every account may read every link of the audit (policy relaxed)",
        "alter policy members_read_own_links on audit.links using (true)",
        "alter policy members_read_own_links on audit.links using"
        " (account_no = (select private.caller_account_no('signals:read')))",
    ),
    InCatalogue(
        "links of the audit may be changed by their owner",
        "alter table audit.links disable trigger refuse_change",
        "alter table audit.links enable always trigger refuse_change",
    ),
    InCatalogue(
        "the usage of an account is planned anew each time",
        "alter function private.account_usage reset plan_cache_mode",
        "alter function private.account_usage set plan_cache_mode = 'force_generic_plan'",
    ),
    InCatalogue(
        "what follows a seq is planned anew each time",
        "alter function private.signals_by_seq reset plan_cache_mode",
        "alter function private.signals_by_seq set plan_cache_mode = 'force_generic_plan'",
    ),
    InCatalogue(
        "the index by seq is missing",
        "drop index private.signals_account_no_seq_idx",
        "create index signals_account_no_seq_idx on private.signals (account_no, seq)",
    ),
    InFunction(
        "an export begins a piece with the end of the one before",
        "private.export_text",
        "stored.seq > query.after_seq",
        "stored.seq >= query.after_seq",
    ),
    InFunction(
        "an export with a filter has everything in it",
        "private.export_signals",
        "if not private.asks_for_all(query) then",
        "if false then",
    ),
    InFunction(
        "an export runs formulas in a spreadsheet",
        "private.export_text",
        "array[ascii('='), ascii('+'), ascii('-'), ascii('@')]",
        "array[ascii('='), ascii('@')]",
    ),
    InFunction(
        "an export makes ids of rounded times",
        "private.export_text",
        "(date_part('epoch', signal.generated_at) * 1000000)::bigint",
        "(date_part('epoch', signal.generated_at)::numeric * 1000000)::bigint",
    ),
    InFunction(
        "an export does not double the quotes in metadata",
        "private.export_text",
        "replace(shown.metadata::text, '\"', '\"\"')",
        "shown.metadata::text",
    ),
    InFunction(
        "the range of an export does not look into segments",
        "private.seqs_between",
        "least(hot.first_seq, packed.first_seq), greatest(hot.last_seq, packed.last_seq)",
        "hot.first_seq, hot.last_seq",
    ),
    InFunction(
        "what is not summed up yet is not counted",
        "private.parts_to_count",
        "account.last_seq > v_head_seq",
        "false",
    ),
    InFunction(
        "the hours of days that are no longer kept are counted from rollups",
        "private.spans_to_count",
        "elsif v_last_day < hours_since then",
        "elsif false then",
    ),
    InFunction(
        "what comes after the last whole hour is not counted",
        "private.spans_to_count",
        "(null, v_last_hour, to_time)",
        "(null, to_time, to_time)",
    ),
    InFunction(
        "an hour that began before the question is counted whole",
        "private.spans_to_count",
        "private.whole_since(greatest(from_time, hours_since), 'hour')",
        "date_trunc('hour', greatest(from_time, hours_since), 'UTC')",
    ),
    InFunction(
        "rollups count signals of a seq that was not asked for",
        "private.is_summed_up",
        "and query.after_seq = 0 and query.until_seq = 9223372036854775807",
        "",
    ),
    InFunction(
        "a segment is counted whole though some of it has another seq",
        "private.is_whole",
        "and segment.first_seq > query.after_seq",
        "",
    ),
    InFunction(
        "an exact count looks at any number of signals",
        "private.exact_counts",
        "when v_left >= 0 then private.found_counts",
        "when true then private.found_counts",
    ),
    InFunction(
        "an estimate says that it is exact",
        "private.count_signals",
        "'exact', v_is_exact",
        "'exact', true",
    ),
    InFunction(
        "an estimate is of the samples only",
        "private.sampled_counts",
        "each.signals * v_seqs / (v_samples * v_size)",
        "each.signals",
    ),
    InFunction(
        "facets are not in the order of their counts",
        "private.facets_of",
        "order by sum(each.signals) desc, value.value",
        "order by value.value",
    ),
    InFunction(
        "the latest of what is not summed up yet is not found",
        "private.latest_signals",
        "|| private.newer_places(query, v_account)",
        "",
    ),
    InFunction(
        "the latest of an action is looked for where the latest of all is",
        "private.last_places",
        "else each.first_generated_at end",
        "else each.last_generated_at end",
    ),
    InFunction(
        "a cursor of the latest works with other filters",
        "private.decode_latest_cursor",
        "if v_trader_no is null or decode_latest_cursor.cursor",
        "if v_trader_no is null and decode_latest_cursor.cursor",
    ),
)


Bug = InFunction | InCatalogue


def _failing_tests(stack: str, tests: Sequence[str]) -> list[str]:
    """Run these tests of the database, and return which fail: at most so many."""
    done = subprocess.run(
        [*PYTEST, *map(_node_id, tests)],
        cwd=REPOSITORY,
        env={**os.environ, REUSE_VARIABLE: stack, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [file or test for file, test in FAILURE.findall(done.stdout)]
    ended_as_told = done.returncode == FAILED if failed else done.returncode in (PASSED, NOT_FOUND)
    if not ended_as_told:
        raise RuntimeError(done.stdout + done.stderr)
    return list(dict.fromkeys(failed))


def _node_id(test: str) -> str:
    return PGTAP.format(test) if test.endswith(".sql") else f"tests/database/{test}"


def _noticing_tests(stack: str, known: Sequence[str]) -> list[str]:
    """Return which tests fail: of those that are known to notice the bug, else of all."""
    for tests in (known, *RINGS):
        if tests and (failed := _failing_tests(stack, tests)):
            return failed
    return []


async def _noticed_by(bug: Bug, stack: str, known: Sequence[str]) -> list[str]:
    """Plant the bug for one run of the tests; return those that fail with it only."""
    settings = StackSettings.load(StackSettings(name=stack).directory)
    database = await asyncpg.connect(superuser_dsn(settings))
    undo = await bug.plant(database)
    try:
        failed = await asyncio.to_thread(_noticing_tests, stack, known)
    finally:
        await database.execute(undo)
        await database.close()
    if failed and (still := await asyncio.to_thread(_failing_tests, stack, failed)):
        raise RuntimeError(f"Cannot tell who notices {bug.name!r}: without it {still} fail, too")
    return failed


def _rows() -> dict[str, list[str]]:
    """Return the bugs that the page has, with the tests that noticed each."""
    text = PAGE.read_text() if PAGE.exists() else ""
    return {name: re.findall("`(.+?)`", said) for name, said in ROW.findall(text)}


def _write(rows: dict[str, list[str]]) -> None:
    lines = (
        f"| {bug.name} | {', '.join(f'`{test}`' for test in rows[bug.name])} |\n"
        for bug in BUGS
        if rows.get(bug.name)
    )
    PAGE.write_text(HEAD + "".join(lines))


async def _run(stack: str, parts: Sequence[str]) -> int:
    rows, unnoticed = _rows(), []
    for bug in BUGS:
        if parts and not any(part in bug.name for part in parts):
            continue
        rows[bug.name] = await _noticed_by(bug, stack, rows.get(bug.name, []))
        unnoticed += [bug.name] if not rows[bug.name] else []
        print(f"{bug.name}: {', '.join(rows[bug.name]) or 'NOTHING'}", flush=True)  # noqa: T201
        _write(rows)
    return int(unnoticed != [])


if __name__ == "__main__":
    sys.exit(asyncio.run(_run(sys.argv[1], sys.argv[2:])))
