"""History is imported by scripts/import_history as ingest stores it, and once, whatever happens."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg2
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from local_stack.settings import REPOSITORY
from tests.contract.signal_texts import any_signals
from tests.database.callers import caller, make_signals, new_account, new_trader, operator
from tests.plugins.stack import RunningStack

COLUMNS = [
    *("strategy", "symbol", "timeframe", "generated_at", "action", "confidence", "price"),
    *("stop_loss", "take_profit", "valid_until", "metadata"),
]
FIRST = datetime(2021, 3, 30, tzinfo=UTC)
DONE, SOME_REFUSED, CANNOT_START, STOPPED = range(4)
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Importer:
    """An account with a trader called momentum, and the command that imports its history."""

    stack: RunningStack
    account_id: uuid.UUID
    trader_id: str
    database: asyncpg.Connection
    folder: Path

    def command(self, *arguments: object) -> list[str]:
        options = (f"--account={self.account_id}", "--trader-column=strategy")
        words = (sys.executable, "-m", "operations.import_history", *options, *arguments)
        return [str(word) for word in words]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "SUPABASE_DB_URL": self.stack.database_url}

    async def run(self, *arguments: object) -> tuple[int, dict[str, Any]]:
        done = await asyncio.to_thread(
            subprocess.run,
            self.command(*arguments),
            cwd=REPOSITORY,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def write(self, rows: Sequence[Sequence[object]], name: str = "history.csv") -> Path:
        path = self.folder / name
        with path.open("w", newline="") as lines:
            csv.writer(lines).writerows([COLUMNS, *rows])
        return path

    async def stored(self) -> list[dict[str, Any]]:
        """Return all signals, read as a client does."""
        found: list[dict[str, Any]] = []
        async with caller(self.stack, self.account_id) as client:
            cursor = None
            while True:
                page = await client.ask(
                    "select public.query_signals(sort => 'seq', cursor => $1, page_size => 1000)",
                    cursor,
                )
                found += page["signals"]
                if (cursor := page["next_cursor"]) is None:
                    return found

    async def is_intact(self) -> bool:
        text = await self.database.fetchval("select public.verify_audit($1)", self.account_id)
        return bool(json.loads(text)["intact"])


@pytest.fixture
async def importer(stack: RunningStack, tmp_path: Path) -> AsyncIterator[Importer]:
    async with operator(stack) as database:
        # A short allowance: an import goes beyond it.
        account_id = await new_account(database, "free")
        async with caller(stack, account_id) as client:
            trader_id = await new_trader(client)
        yield Importer(stack, account_id, trader_id, database, tmp_path)


def history(count: int) -> list[list[object]]:
    """Rows five minutes apart, which pass into another month."""
    return [
        [
            "momentum",
            f"S{number % 4}/USD",
            "5m",
            (FIRST + timedelta(minutes=5 * number)).isoformat(),
            ("enter_long", "exit_long")[number % 2],
            0.5,
            100 + number / 4,
            90.25 if number % 2 == 0 else "",
            "",
            (FIRST + timedelta(minutes=5 * number + 5)).isoformat() if number % 3 else "",
            json.dumps({"number": number}) if number % 5 == 0 else "",
        ]
        for number in range(count)
    ]


async def test_a_file_is_stored_once_however_often_it_is_imported(importer: Importer) -> None:
    file = importer.write(history(2500))
    code, report = await importer.run(file, "--chunk-rows=1000")
    assert (code, report["stored"], report["refused"]) == (DONE, 2500, {})
    first = await importer.stored()
    assert [each["seq"] for each in first] == list(range(1, 2501))
    assert [each["price"] for each in first] == [100 + number / 4 for number in range(2500)]
    assert first[0]["stop_loss"] == 90.25
    assert first[1]["stop_loss"] is None
    assert first[5]["metadata"] == {"number": 5}
    assert {each["trader_id"] for each in first} == {importer.trader_id}

    code, report = await importer.run(file, "--chunk-rows=1000")
    assert (code, report["stored"], report["stored_before"]) == (DONE, 0, 2500)
    # Cut in another way, no request is known: the natural keys tell.
    code, report = await importer.run(file, "--chunk-rows=700")
    assert (code, report["stored"], report["duplicate"]) == (DONE, 0, 2500)
    assert await importer.stored() == first
    assert await importer.is_intact()


async def begin(importer: Importer, file: Path) -> asyncio.subprocess.Process:
    """Start an import of 120 chunks, and return when some of them are stored."""
    process = await asyncio.create_subprocess_exec(
        *importer.command(file, "--chunk-rows=25"),
        cwd=REPOSITORY,
        env=importer.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + DEADLINE_SECONDS
    while await stored_count(importer) < 250:
        assert time.monotonic() < deadline, "the import did not come to 250 rows"
        assert process.returncode is None, "the import ended by itself"
        await asyncio.sleep(0.005)
    return process


async def test_an_import_that_was_killed_goes_on_where_it_was(importer: Importer) -> None:
    rows = history(3000)
    file = importer.write(rows)
    process = await begin(importer, file)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    before = await stored_count(importer)
    assert 250 <= before < 3000

    code, report = await importer.run(file, "--chunk-rows=25")
    assert code == DONE
    assert report["rows"] == 3000
    assert report["stored_before"] in (before, before + 25)  # One may have been on its way.
    assert report["stored"] + report["stored_before"] == 3000
    stored = await importer.stored()
    assert [each["seq"] for each in stored] == list(range(1, 3001))
    assert [each["price"] for each in stored] == [row[6] for row in rows]
    assert await importer.is_intact()


async def test_an_import_outlives_its_connection(importer: Importer) -> None:
    rows = history(3000)
    process = await begin(importer, importer.write(rows))
    ended = await importer.database.fetchval(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity "
        "where application_name = 'import_history'"
    )
    assert ended == 1
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    report = json.loads(output)
    # A chunk whose answer was cut off is answered again, from the ledger.
    assert (process.returncode, report["stored"], report["refused"]) == (DONE, 3000, {})
    assert [each["price"] for each in await importer.stored()] == [row[6] for row in rows]
    assert await importer.is_intact()


async def test_of_equal_requests_at_once_one_stores(importer: Importer) -> None:
    signals = json.dumps([make_signals(importer.trader_id, 1)[0]])
    call = "select private.import_signals($1, $2, $3)"
    values = (importer.account_id, uuid.uuid4(), signals)
    async with AsyncExitStack() as opened:
        calling = [await opened.enter_async_context(operator(importer.stack)) for _ in range(3)]
        async with importer.database.transaction():
            await importer.database.execute(
                "select from private.accounts where account_id = $1 for update",
                importer.account_id,
            )
            answers = [asyncio.create_task(each.fetchval(call, *values)) for each in calling]
            deadline = time.monotonic() + DEADLINE_SECONDS
            while await importer.database.fetchval(
                "select count(*) < 3 from pg_stat_activity "
                "where pid = any($1::integer[]) and wait_event_type = 'Lock'",
                [each.get_server_pid() for each in calling],
            ):
                assert time.monotonic() < deadline, "they do not wait for the lock"
                await asyncio.sleep(0.005)
        verdicts = {await answer for answer in answers}
    assert len(verdicts) == 1
    assert json.loads(verdicts.pop())["accepted"] == 1


async def stored_count(importer: Importer) -> int:
    count: int = await importer.database.fetchval(
        "select last_seq from private.accounts where account_id = $1", importer.account_id
    )
    return count


async def test_rollups_of_history_equal_a_recount(importer: Importer) -> None:
    rows = history(1500)
    # Within what rollups of an hour and a day are kept for.
    for number, row in enumerate(rows):
        row[3] = (datetime.now(UTC) - timedelta(days=20, minutes=-5 * number)).isoformat()
        row[9] = ""
    code, _ = await importer.run(importer.write(rows))
    assert code == DONE
    while await importer.database.fetchval("select private.rollup_step()"):
        pass
    counted = await importer.database.fetch(
        """
        select resolution, sum(enter_long + exit_long + enter_short + exit_short)::integer as sum
        from private.rollups inner join private.accounts using (account_no)
        where account_id = $1 and resolution in ('1h', '1d') group by resolution
        """,
        importer.account_id,
    )
    assert dict(counted) == {"1h": 1500, "1d": 1500}
    different = await importer.database.fetchval(
        """
        select count(*) from private.rollup_differences()
        inner join private.accounts using (account_no) where account_id = $1
        """,
        importer.account_id,
    )
    assert different == 0


async def test_each_row_that_is_not_stored_is_told_with_its_line_and_code(
    importer: Importer,
) -> None:
    good = history(1)[0]
    wrong = {
        3: {"strategy": "nobody"},
        4: {"generated_at": "2021-03-30 00:00:00"},  # No zone.
        5: {"price": "NaN"},
        6: {"price": "1e400"},
        7: {"metadata": '{"a": '},
        8: {"metadata": '{"a": "\\ud800"}'},
        9: {"metadata": '{"a": "\\u0000"}'},
        10: {"symbol": "A\x00B"},
        11: {"symbol": "\udcff"},  # A byte that is no UTF-8.
        12: {"confidence": ""},
        13: {"generated_at": "1969-12-31T23:59:59Z"},
        14: {},
    }
    rows = [
        good,
        *([*{**dict(zip(COLUMNS, good, strict=True)), **each}.values()] for each in wrong.values()),
    ]
    path = importer.folder / "history.csv"
    with path.open("w", newline="", errors="surrogateescape") as lines:
        csv.writer(lines).writerows([COLUMNS, *rows, ["too", "few"]])
    code, report = await importer.run(path)
    assert (code, report["stored"], report["duplicate"]) == (SOME_REFUSED, 1, 1)
    assert refused_lines(path) == {
        3: "invalid_trader_id",
        4: "invalid_generated_at",
        5: "invalid_price",
        6: "invalid_price",
        7: "invalid_metadata",
        8: "invalid_metadata",
        9: "invalid_metadata",
        10: "invalid_symbol",
        11: "invalid_symbol",
        12: "invalid_confidence",
        13: "stale",
        14: "duplicate",
        15: "invalid_signal",
    }


def refused_lines(path: Path) -> dict[int, str]:
    with Path(f"{path}.rejects.csv").open(newline="") as lines:
        return {int(row["line"]): row["code"] for row in csv.DictReader(lines)}


async def test_common_ways_of_writing_a_time_are_read(importer: Importer) -> None:
    same = [
        "2021-03-30T12:00:00.5Z",
        "2021-03-30 12:00:00.500000+00",
        "2021-03-30 14:00:00.500000000+0200",
        "2021-03-30 12:00:00.500 UTC",
    ]
    rows = [[*history(1)[0]] for _ in same]
    for number, (row, text) in enumerate(zip(rows, same, strict=True)):
        row[1], row[3], row[9] = f"S{number}", text, ""
    code, report = await importer.run(importer.write(rows))
    assert (code, report["stored"]) == (DONE, len(same))
    times = {each["generated_at"] for each in await importer.stored()}
    assert times == {"2021-03-30T12:00:00.5+00:00"}


async def test_parquet_is_read_as_csv_is(importer: Importer) -> None:
    rows = history(40)
    columns: dict[str, list[Any]] = {
        name: [None if row[place] == "" else row[place] for row in rows]
        for place, name in enumerate(COLUMNS)
    }
    for name in ("generated_at", "valid_until"):
        columns[name] = [text and datetime.fromisoformat(text) for text in columns[name]]
    table = pyarrow.table(columns)
    for name, unit in (("generated_at", "ns"), ("valid_until", "us")):
        place = table.schema.get_field_index(name)
        times = table[name].cast(pyarrow.timestamp(unit, "UTC"))
        table = table.set_column(place, name, times)
    path = importer.folder / "history.parquet"
    parquet.write_table(table, path)
    code, report = await importer.run(path)
    assert (code, report["stored"]) == (DONE, 40)
    stored = await importer.stored()

    async with operator(importer.stack) as database:
        other = await new_account(database)
        async with caller(importer.stack, other) as client:
            await new_trader(client)
        from_csv = Importer(importer.stack, other, "", database, importer.folder)
        await from_csv.run(importer.write(rows))
        own = {"signal_id", "trader_id"}
        assert [drop(each, own) for each in stored] == [
            drop(each, own) for each in await from_csv.stored()
        ]


def drop(signal_: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in signal_.items() if name not in names}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ignore=metadata", "missing.csv"], "Cannot read missing.csv: No such file"),
        (["{file}", "--column=price=close"], "no column for price"),
        (["{file}", "--set=price=5", "--column=symbol=strategy"], "no column for trader_id"),
        (["{file}", "--ignore=symbol"], "no column for symbol"),
        (["{file}", "--column=strategy=x"], "is not FIELD=…"),
    ],
)
async def test_what_cannot_work_is_told_before_anything_is_stored(
    importer: Importer, arguments: list[str], told: str
) -> None:
    file = importer.write(history(3))
    words = [word.format(file=file) for word in arguments]
    done = await asyncio.to_thread(
        subprocess.run,
        importer.command(*words),
        cwd=REPOSITORY,
        env=importer.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == CANNOT_START
    assert told in done.stderr
    assert await stored_count(importer) == 0


def test_a_password_is_never_printed(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("symbol\n")
    done = subprocess.run(
        [sys.executable, "-m", "operations.import_history", path, f"--account={uuid.uuid4()}"],
        cwd=REPOSITORY,
        env={**os.environ, "SUPABASE_DB_URL": "postgresql://postgres:hunter2@127.0.0.1:1/postgres"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == CANNOT_START
    assert "127.0.0.1" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


class SameClock:
    """One transaction that is never kept: what is asked in it has one clock and one account."""

    def __init__(self, database_url: str) -> None:
        self.connection = psycopg2.connect(database_url)
        self.cursor = self.connection.cursor()
        self.account_id, self.trader_id = str(uuid.uuid4()), str(uuid.uuid4())
        self.cursor.execute("select private.set_account_tier(%s, 'elite')", (self.account_id,))
        self.cursor.execute(
            "insert into private.traders (account_no, trader_id, name) "
            "select account_no, %s, 'one' from private.accounts where account_id = %s",
            (self.trader_id, self.account_id),
        )
        self.cursor.execute(
            "select set_config('request.jwt.claims', %s, true)",
            (json.dumps({"sub": self.account_id, "role": "authenticated"}),),
        )
        self.now: datetime = self.one("select private.clock()")

    def one(self, query: str, *values: str) -> Any:
        self.cursor.execute(query, values)
        (value,) = self.cursor.fetchone()
        return value

    def can_hold(self, value: Any) -> bool:
        return bool(self.one("select pg_input_is_valid(%s, 'jsonb')", json.dumps(value)))

    def ingested(self, signals: Sequence[Any]) -> tuple[Any, Any]:
        return self._outcome("ingest_signals(", signals)

    def imported(self, signals: Sequence[Any]) -> tuple[Any, Any]:
        return self._outcome(f"import_signals('{self.account_id}', ", signals)

    def _outcome(self, call: str, signals: Sequence[Any]) -> tuple[Any, Any]:
        """Return the verdict and what is stored then, and undo it."""
        self.cursor.execute("savepoint before")
        verdict = self.one(
            f"select private.{call} gen_random_uuid(), %s::jsonb)", json.dumps(signals)
        )
        del verdict["request_id"]
        stored = self.one(
            "select json_agg(signal order by seq) from private.stored_signals as signal "
            "inner join private.accounts using (account_no) where account_id = %s",
            self.account_id,
        )
        self.cursor.execute("rollback to savepoint before")
        return verdict, stored


@pytest.fixture(scope="module")
def same_clock(stack: RunningStack) -> Iterator[SameClock]:
    opened = SameClock(stack.database_url)
    yield opened
    opened.connection.close()


SECONDS = st.one_of(
    st.floats(-6.9 * 86_400, 59),
    st.integers(-3, 3).map(float),  # Few: duplicates.
    st.sampled_from([60.0, 61.0, 3600.0]),
)
VALID_SECONDS = st.none() | st.floats(-5, 1e6)


@dataclass(frozen=True, slots=True)
class Timed:
    """A signal, right or wrong, whose times are told from now."""

    value: Any
    after_now: float | None
    valid_for: float | None
    own_trader: bool

    def at(self, moment: datetime, trader_id: str) -> Any:
        if not isinstance(self.value, dict):
            return self.value
        signal_ = dict(self.value)
        if self.own_trader:
            signal_["trader_id"] = trader_id
        signal_.pop("valid_until", None)
        signal_["generated_at"] = "yesterday"
        if self.after_now is not None:
            generated_at = moment + timedelta(seconds=self.after_now)
            signal_["generated_at"] = generated_at.isoformat()
            if self.valid_for is not None:
                valid_until = generated_at + timedelta(seconds=self.valid_for)
                signal_["valid_until"] = valid_until.isoformat()
        return signal_


TIMED = st.builds(
    Timed, any_signals(), st.none() | SECONDS | SECONDS, VALID_SECONDS, st.integers(0, 4).map(bool)
)
thorough = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@thorough
@given(st.lists(TIMED, max_size=12))
def test_import_answers_and_stores_as_ingest_does(
    same_clock: SameClock, timed: Sequence[Timed]
) -> None:
    signals = [each.at(same_clock.now, same_clock.trader_id) for each in timed]
    signals = [each for each in signals if same_clock.can_hold(each)]
    assert same_clock.imported(signals) == same_clock.ingested(signals)


@thorough
@given(st.lists(TIMED, max_size=12))
def test_years_ago_the_same_signals_are_stored(
    same_clock: SameClock, timed: Sequence[Timed]
) -> None:
    timed = [
        each
        for each in timed
        if (each.after_now is None or each.after_now < 60)
        and same_clock.can_hold(each.at(same_clock.now, same_clock.trader_id))
    ]
    years = timedelta(days=7 * 365)
    now_verdict, now_stored = same_clock.ingested(
        [each.at(same_clock.now, same_clock.trader_id) for each in timed]
    )
    then_verdict, then_stored = same_clock.imported(
        [each.at(same_clock.now - years, same_clock.trader_id) for each in timed]
    )
    assert then_verdict == now_verdict
    for signal_ in then_stored or ():
        for name in ("generated_at", "valid_until"):
            if signal_[name] is not None:
                signal_[name] = (datetime.fromisoformat(signal_[name]) + years).isoformat()
    for signal_ in now_stored or ():
        for name in ("generated_at", "valid_until"):
            if signal_[name] is not None:
                signal_[name] = datetime.fromisoformat(signal_[name]).isoformat()
    assert then_stored == now_stored
