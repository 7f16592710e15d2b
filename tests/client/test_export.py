"""Exports through the real function: whole, cut off and gone on with, and as Parquet."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from aiohttp.streams import AsyncStreamIterator, StreamReader
from pyarrow import parquet

from signal_persistence import (
    AccessToken,
    ApiError,
    AsyncSignalQuery,
    ConfigurationError,
    ExportOptions,
    ExportProgress,
    SignalClient,
    StoredSignal,
    TransportError,
)
from signal_persistence.export import ExportFormat
from tests.client.cuttable_proxy import CuttableProxy
from tests.plugins.stack import Account, MakeAccount, RunningStack

COUNT = 5_000
FORMS: tuple[ExportFormat, ...] = ("csv", "ndjson")
DIES = """
import itertools, os, sys
from signal_persistence import AccessToken, ExportOptions, SignalQuery
url, key, token, path, parts = sys.argv[1:]
calls = itertools.count(1)
def told(progress):
    if next(calls) == int(parts):
        os._exit(9)
with SignalQuery(url, key, AccessToken(token)) as query:
    query.export(path, ExportOptions(on_progress=told))
"""


@pytest.fixture(scope="module")
def account(stack: RunningStack, make_account: MakeAccount) -> Account:
    """An account of 5,000 signals."""
    made = make_account("elite")
    with SignalClient(
        stack.api_url, stack.publishable_key, AccessToken(made.access_token)
    ) as client:
        trader = client.create_trader("export")
    now = datetime.now(UTC)
    signals = [
        {
            "trader_id": str(trader.trader_id),
            "symbol": f"S{number % 7}" if number else "NA",
            "timeframe": "1m",
            "generated_at": (now - timedelta(seconds=number)).isoformat(),
            "action": "enter_long",
            "confidence": number % 100 / 100,
            "price": number / 8,
            "stop_loss": 0.1 if number % 2 else None,
            "metadata": {"number": number, "text": 'a "b", c\n'},
        }
        for number in range(COUNT)
    ]
    answer = httpx.post(
        f"{stack.api_url}/rest/v1/rpc/ingest_signals",
        headers={
            "apikey": stack.publishable_key,
            "authorization": f"Bearer {made.access_token}",
        },
        json={"request_id": str(uuid.uuid4()), "signals": signals},
        timeout=30,
    )
    assert answer.json()["accepted"] == COUNT, answer.text
    return made


@pytest.fixture
async def query(stack: RunningStack, account: Account) -> AsyncIterator[AsyncSignalQuery]:
    async with query_at(stack.api_url, stack, account) as made:
        yield made


def query_at(url: str, stack: RunningStack, account: Account) -> AsyncSignalQuery:
    return AsyncSignalQuery(url, stack.publishable_key, AccessToken(account.access_token))


async def test_an_export_is_all_there_is_and_tells_how_far_it_is(
    query: AsyncSignalQuery, tmp_path: Path
) -> None:
    told: list[ExportProgress] = []
    file = tmp_path / "signals.csv"
    done = await query.export(file, ExportOptions(on_progress=told.append))
    lines = file.read_bytes().splitlines()
    assert [int(line.split(b",")[1]) for line in lines[1:]] == list(range(1, COUNT + 1))
    assert done == ExportProgress(COUNT, file.stat().st_size, 1.0)
    assert names_in(tmp_path) == [file.name]
    shares = [progress.share for progress in told]
    assert shares == sorted(shares)
    assert len({*shares}) > 3
    assert told[-1] == done


async def test_whatever_cuts_it_off_the_bytes_are_the_same(
    query: AsyncSignalQuery, stack: RunningStack, account: Account, tmp_path: Path
) -> None:
    """The connection breaks after any of the parts, before and while the next ones come."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    entropy = random.Random(seed)
    cuts = Counter[str]()
    async with CuttableProxy(stack.settings.api_port) as proxy:
        for form in FORMS:
            whole, cut = tmp_path / f"whole.{form}", tmp_path / f"cut.{form}"
            await query.export(whole, ExportOptions(form))

            def cut_off(_: ExportProgress, form: ExportFormat = form) -> None:
                if entropy.random() < 0.2:
                    cuts[form] += 1
                    proxy.cut()

            options = ExportOptions(form, on_progress=cut_off)
            while cuts[form] < 10:
                async with query_at(proxy.url, stack, account) as through:
                    while not cut.exists():
                        with suppress(TransportError):
                            await through.export(cut, options)
                assert cut.read_bytes() == whole.read_bytes()
                cut.unlink()


async def test_a_process_that_is_killed_over_it_leaves_it_to_the_next(
    query: AsyncSignalQuery, stack: RunningStack, account: Account, tmp_path: Path
) -> None:
    whole, file = tmp_path / "whole.csv", tmp_path / "killed.csv"
    await query.export(whole)
    for parts in (1, 2, 3):
        arguments = [stack.api_url, stack.publishable_key, account.access_token, str(file)]
        killed = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", DIES, *arguments, str(parts)],
            env={"PYTHONPATH": "python_client"},
        )
        assert killed.returncode == 9
        assert not file.exists()
    await query.export(file)
    assert file.read_bytes() == whole.read_bytes()


async def test_an_answer_that_is_cut_off_as_if_it_were_whole_is_gone_on_with(
    query: AsyncSignalQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a gateway may end it when what it passes on breaks off."""
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    await query.export(whole)
    iterate, answers = StreamReader.iter_any, itertools.count()

    async def some(parts: AsyncStreamIterator[bytes]) -> AsyncIterator[bytes]:
        number = next(answers)
        async for part in parts:
            yield part[: 1000 + number] if number < 3 else part
            if number < 3:
                return

    monkeypatch.setattr(StreamReader, "iter_any", lambda reader: some(iterate(reader)))
    await query.export(cut)
    assert next(answers) == 4
    assert cut.read_bytes() == whole.read_bytes()


async def test_two_do_not_write_one_file(query: AsyncSignalQuery, tmp_path: Path) -> None:
    file = tmp_path / "signals.csv"
    results = await asyncio.gather(*(query.export(file) for _ in range(3)), return_exceptions=True)
    done = [result for result in results if isinstance(result, ExportProgress)]
    refused = [result for result in results if isinstance(result, ConfigurationError)]
    assert len(done) + len(refused) == 3
    assert {result.rows for result in done} == {COUNT}
    assert refused
    assert file.read_bytes().count(b"\n") == COUNT + 1


async def test_another_account_does_not_go_on_with_it(
    query: AsyncSignalQuery, stack: RunningStack, make_account: MakeAccount, tmp_path: Path
) -> None:
    file = tmp_path / "signals.csv"
    with pytest.raises(ZeroDivisionError):
        await query.export(file, ExportOptions(on_progress=lambda _: 1 / 0))
    async with query_at(stack.api_url, stack, make_account()) as other:
        with pytest.raises(ConfigurationError, match="is of a different one"):
            await other.export(file)


async def test_a_refused_filter_leaves_nothing_behind(
    query: AsyncSignalQuery, tmp_path: Path
) -> None:
    file = tmp_path / "signals.csv"
    with pytest.raises(ApiError, match="from must be"):
        await query.export(file, from_=datetime(1, 1, 1, tzinfo=UTC))
    assert (await query.export(file, symbols=["S1"])).rows > 0


async def test_what_is_stored_meanwhile_is_in_no_export_that_was_begun(
    query: AsyncSignalQuery, stack: RunningStack, make_account: MakeAccount, tmp_path: Path
) -> None:
    fresh = make_account("elite")
    file = tmp_path / "empty.ndjson"
    async with query_at(stack.api_url, stack, fresh) as other:
        done = await other.export(file, ExportOptions("ndjson"))
    assert (done.rows, file.read_bytes()) == (0, b"")


async def test_parquet_holds_what_a_query_shows(query: AsyncSignalQuery, tmp_path: Path) -> None:
    file = tmp_path / "signals.parquet"
    symbols = ["NA", "S3", "S5"]
    done = await query.export(file, ExportOptions("parquet"), symbols=symbols)
    rows = parquet.read_table(file).to_pylist()
    shown = [signal async for signal in query.signals(symbols=symbols, sort="seq")]
    assert len(rows) == done.rows == len(shown) > 1000
    assert [row["seq"] for row in rows] == [signal.seq for signal in shown]
    for row, signal in list(zip(rows, shown, strict=True))[:200]:
        assert_same(row, signal)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def assert_same(row: dict[str, object], signal: StoredSignal) -> None:
    assert row["signal_id"] == str(signal.signal_id)
    assert row["trader_id"] == str(signal.trader_id)
    assert row["generated_at"] == signal.generated_at
    assert row["valid_until"] == signal.valid_until
    for name in ("symbol", "timeframe", "action", "confidence", "price", "stop_loss"):
        assert row[name] == getattr(signal, name)


async def test_the_last_hour_stays_that_hour_when_it_is_gone_on_with(
    query: AsyncSignalQuery, stack: RunningStack, account: Account, tmp_path: Path
) -> None:
    file = tmp_path / "hour.csv"
    options = ExportOptions(last=timedelta(minutes=30), on_progress=lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await query.export(file, options)
    begun = file.with_name("hour.csv.export").read_bytes()
    with pytest.raises(ZeroDivisionError):
        await query.export(file, options)
    assert file.with_name("hour.csv.export").read_bytes() == begun
    done = await query.export(file, ExportOptions(last=timedelta(minutes=30)))
    # Every second a signal, until the account was made.
    assert 1 < done.rows <= 1800


async def test_a_file_of_another_export_is_not_gone_on_with(
    query: AsyncSignalQuery, tmp_path: Path
) -> None:
    file = tmp_path / "signals.csv"
    with pytest.raises(ZeroDivisionError):
        await query.export(file, ExportOptions(on_progress=lambda _: 1 / 0))
    with pytest.raises(ConfigurationError, match="remove that file to begin anew"):
        await query.export(file, symbols=["S1"])
    file.with_name("signals.csv.export").write_text("{")
    with pytest.raises(ConfigurationError, match="remove that file to begin anew"):
        await query.export(file)
    file.with_name("signals.csv.export").unlink()
    assert (await query.export(file, symbols=["S1"])).rows == COUNT // 7 + 1
