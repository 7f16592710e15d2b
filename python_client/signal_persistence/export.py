"""Take stored signals into a file, as the service writes them, and go on when that is cut off.

Rows come in the order of seq, so the last whole line of what is there tells where to go on. What is
stored never changes, so a file that was cut off many times has the bytes of one that never was.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec

from signal_persistence import frames
from signal_persistence.caller import Caller, pause_before
from signal_persistence.credentials import Credentials
from signal_persistence.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    TransportError,
    UnavailableError,
)
from signal_persistence.token import account_of
from signal_persistence.transport import HttpTransport, Response

ExportFormat = Literal["csv", "ndjson", "parquet"]
"""Parquet is made here, of the CSV; it needs pyarrow: `signal-persistence[parquet]`."""

_PATH: Final = "/functions/v1/export-signals"
_RANGE_PATH: Final = "/rest/v1/rpc/export_range"
_LONGEST_LINE: Final = 32 * 1024
"""More than any signal takes as a line: 2 KB of metadata, each byte escaped."""
_READ_BYTES: Final = 1024 * 1024
_ATTEMPTS: Final = 8
"""How often it is tried again without any row in between."""
_LEAST_SEQS: Final = 5_000
_END: Final = b"#"
"""What follows the last line of an answer that is whole."""
_LAST_FOR: Final = timedelta(hours=6)
"""An export of the last hours or days that was begun longer ago is begun anew."""

_log: Final = logging.getLogger("signal_persistence")


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far an export is: rows and bytes written, and the share of seqs that were looked through.

    `share` is from 0 to 1; seqs that no signal of the filter has count as well.
    """

    rows: int
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export is besides its filter."""

    form: ExportFormat = "csv"
    last: timedelta | None = None
    """Only what was generated so long before the export began."""
    for_spreadsheets: bool = True
    """In CSV, an apostrophe goes before a symbol that a spreadsheet would take for a formula."""
    compress: bool = False
    """Have it sent packed: for slow networks."""
    on_progress: Callable[[ExportProgress], object] | None = None


class SeqRange(msgspec.Struct, frozen=True):
    """The signals with `after_seq` < seq <= `until_seq`."""

    after_seq: int
    until_seq: int

    def share(self, seq: int) -> float:
        """How much of it, from 0 to 1, is not after `seq`."""
        return (seq - self.after_seq) / max(1, self.until_seq - self.after_seq)


class _Plan(msgspec.Struct, frozen=True):
    """What is exported: kept beside the file until that is whole."""

    asked: dict[str, Any]
    """What the caller wanted: only who wants the same may go on with the file."""
    begun_at: datetime
    parameters: dict[str, Any]
    range: SeqRange


class Export:
    """One export into one file."""

    def __init__(
        self,
        transport: HttpTransport,
        credentials: Credentials,
        path: Path,
        parameters: Mapping[str, Any],
        options: ExportOptions,
        *,
        attempts: int = _ATTEMPTS,
    ) -> None:
        """`parameters` are the filter, as `query_parameters` makes it."""
        self._transport = transport
        self._credentials = credentials
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._plan_file = path.with_name(path.name + ".export")
        self._options = options
        self._parameters = {
            **parameters,
            "format": "ndjson" if options.form == "ndjson" else "csv",
            "for_spreadsheets": options.for_spreadsheets and options.form == "csv",
        }
        self._attempts = attempts
        self._token_refused = False

    async def run(self) -> ExportProgress:
        """Write the file and return what is in it; go on with one that was cut off.

        Raises OSError, ConfigurationError while another process writes it, and what queries raise
        after some attempts: then it can be run again.
        """
        asked = await self._asked()
        with self._locked_part() as file:
            plan = self._saved_plan(asked)
            if plan is None:
                file.truncate(0)
                plan = await self._new_plan(asked)
            rows = _Rows(file, is_csv=self._parameters["format"] == "csv")
            try:
                await self._download(rows, plan)
            except ApiError:
                if not rows.count:
                    # Perhaps what was asked is refused, and will be asked otherwise.
                    self._plan_file.unlink(missing_ok=True)
                raise
            file.flush()
            os.fsync(file.fileno())
            if self._options.form == "parquet":
                draft = await asyncio.to_thread(_write_parquet, self._part, self._path)
                self._part.unlink()
                draft.replace(self._path)
            else:
                self._part.replace(self._path)
        self._plan_file.unlink()
        return ExportProgress(rows.count, self._path.stat().st_size, 1.0)

    @contextmanager
    def _locked_part(self) -> Iterator[BinaryIO]:
        """Open the part that only this process writes, as long as it is open."""
        while True:
            with self._part.open("a+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ConfigurationError(
                        f"Cannot export to {self._path}: another process does; wait for it, or "
                        "choose another file."
                    ) from None
                # Whoever had the lock may have made it the file that was asked for.
                if self._is_part(file):
                    yield file
                    return

    def _is_part(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._part.stat())
        except FileNotFoundError:
            return False

    def _saved_plan(self, asked: Mapping[str, Any]) -> _Plan | None:
        """Return the plan of what is there, if it is to be gone on with."""
        if not self._plan_file.exists() or not self._part.stat().st_size:
            return None
        try:
            plan = msgspec.json.decode(self._plan_file.read_bytes(), type=_Plan)
        except msgspec.DecodeError:
            plan = None
        if plan is None or plan.asked != asked:
            raise ConfigurationError(
                f"Cannot go on with the export to {self._path}: {self._plan_file} is of a "
                "different one; ask for the same, or remove that file to begin anew."
            )
        if self._options.last is not None and datetime.now(UTC) - plan.begun_at > _LAST_FOR:
            _log.warning("Beginning %s anew: it was begun %s ago", self._path, _LAST_FOR)
            return None
        return plan

    async def _new_plan(self, asked: dict[str, Any]) -> _Plan:
        parameters = dict(self._parameters)
        begun_at = datetime.now(UTC)
        if self._options.last is not None:
            parameters["from"] = (begun_at - self._options.last).isoformat()
        times: dict[str, Any] = {
            name: parameters[name] for name in ("from", "to") if name in parameters
        }
        caller = Caller("", "", self._credentials, transport=self._transport)
        found = await caller.call(_RANGE_PATH, times, msgspec.json.Decoder(SeqRange).decode)
        plan = _Plan(asked, begun_at, parameters, found)
        draft = self._plan_file.with_name(self._plan_file.name + ".new")
        draft.write_bytes(msgspec.json.encode(plan))
        draft.replace(self._plan_file)
        return plan

    async def _asked(self) -> dict[str, Any]:
        last = self._options.last
        account_id = account_of(await self._credentials.access_token())
        asked = {
            "project": self._transport.url,
            "account_id": account_id,
            "form": self._options.form,
            "last": None if last is None else last.total_seconds(),
            **self._parameters,
        }
        # As it is read back from the plan.
        return dict(msgspec.json.decode(msgspec.json.encode(asked)))

    async def _download(self, rows: _Rows, plan: _Plan) -> None:
        """Append what is not there yet."""
        end = plan.range.until_seq
        seq, until = max(rows.last_seq, plan.range.after_seq), end
        failures = 0
        while True:
            before = rows.count
            try:
                seq = await self._append(rows, plan, seq, until)
            except AuthenticationError:
                if self._token_refused:
                    raise
                self._token_refused = True
            except (TransportError, UnavailableError) as error:
                rows.cut_torn_line()
                seq = max(seq, rows.last_seq)
                failures = failures + 1 if rows.count == before else 1
                if failures >= self._attempts:
                    raise
                # Where no signal is of the filter nothing is sent, and too much takes too long.
                until = min(end, seq + max(_LEAST_SEQS, (until - seq) // 4))
                wanted = getattr(error, "retry_after", None) or 0.0
                await asyncio.sleep(max(wanted, pause_before(failures)))
            else:
                if seq >= end:
                    return
                until = min(end, seq + 4 * max(_LEAST_SEQS, until - seq)) if failures else end

    async def _append(self, rows: _Rows, plan: _Plan, seq: int, until: int) -> int:
        """Append one answer of the service, and return up to which seq it goes."""
        asked = {
            **plan.parameters,
            "after_seq": seq,
            "until_seq": until,
            "with_header": not rows.bytes,
            "with_end": True,
        }
        headers = {"accept-encoding": "gzip" if self._options.compress else "identity"}
        token = await self._credentials.access_token(refresh=self._token_refused)
        async with self._transport.stream(_PATH, msgspec.json.encode(asked), token, headers) as (
            response,
            parts,
        ):
            response.raise_for_status()
            self._token_refused = False
            reached = _until_seq(response)
            async for part in parts:
                rows.append(part)
                self._tell(rows, plan, seq)
        rows.take_off_end()
        self._tell(rows, plan, reached)
        return reached

    def _tell(self, rows: _Rows, plan: _Plan, seq: int) -> None:
        if self._options.on_progress is not None:
            share = plan.range.share(max(seq, rows.last_seq))
            self._options.on_progress(ExportProgress(rows.count, rows.bytes, share))


class _Rows:
    """The file as lines: how many rows it has, and the seq of the last whole one."""

    def __init__(self, file: BinaryIO, *, is_csv: bool) -> None:
        self._file = file
        self._is_csv = is_csv
        self.bytes = self.last_seq = self._lines = 0
        self._torn = b""
        """The beginning of what follows the last whole line."""
        self.cut_torn_line()

    @property
    def count(self) -> int:
        """How many whole rows there are."""
        return max(0, self._lines - self._is_csv)

    def append(self, part: bytes) -> None:
        """Write a part, of which only its last lines are looked into."""
        self._file.write(part)
        self.bytes += len(part)
        self._lines += part.count(b"\n")
        ends = part.rfind(b"\n") + 1
        self._torn = (b"" if ends else self._torn) + part[ends : ends + len(_END) + 1]
        # Of a part that is less than two lines, the end is told with the next.
        begins = part.rfind(b"\n", 0, max(0, ends - 1)) + 1
        if begins:
            self.last_seq = self._seq_of(part[begins : ends - 1])

    def take_off_end(self) -> None:
        """Take off what the service ends an answer with. Raises ConnectionLostError without it."""
        if self._torn != _END:
            raise ConnectionLostError(
                f"Cannot use the answer of {_PATH}: it was cut off, and ends as if it were whole."
            )
        self._torn = b""
        self.bytes -= len(_END)
        self._file.truncate(self.bytes)

    def cut_torn_line(self) -> None:
        """Read what is there, and cut off what follows the last whole line."""
        self._file.seek(0)
        self.bytes = self.last_seq = self._lines = whole = 0
        while block := self._file.read(_READ_BYTES):
            self._lines += block.count(b"\n")
            if b"\n" in block:
                whole = self.bytes + block.rindex(b"\n") + 1
            self.bytes += len(block)
        self._file.truncate(whole)
        self.bytes, self._torn = whole, b""
        if self.count:
            self._file.seek(max(0, whole - _LONGEST_LINE))
            self.last_seq = self._seq_of(self._file.read().rstrip(b"\r\n").rpartition(b"\n")[2])

    def _seq_of(self, line: bytes) -> int:
        if self._is_csv:
            return int(line.split(b",", 2)[1])
        return int(msgspec.json.decode(line, type=_Line).seq)


class _Line(msgspec.Struct):
    seq: int


def _until_seq(response: Response) -> int:
    try:
        return int(response.headers["export-until-seq"])
    except (KeyError, ValueError) as error:
        raise ConnectionLostError(
            f"Cannot read the answer of {_PATH}: it is not what the service sends; check the URL, "
            "and whether something between here and the service changes answers."
        ) from error


def _write_parquet(csv: Path, path: Path) -> Path:
    """Turn the CSV into Parquet beside `path`, a part of it in memory at a time."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError(
            "Cannot write Parquet without pyarrow: pip install signal-persistence[parquet], then "
            "run the same export again; what was fetched is kept."
        ) from error
    reader = frames.open_csv(csv)
    draft = path.with_name(path.name + ".new")
    with parquet.ParquetWriter(draft, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
    return draft
