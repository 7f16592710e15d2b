"""Structured logs: one JSON object a line, with the correlation id that the service has too.

Everything is logged to the logger `signal_persistence`. Correlation ids go with each request as
`x-correlation-id`; the functions log them and the ledger keeps them, so that one id leads from a
line here to what became of the request there.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

LOGGER: Final = "signal_persistence"
CORRELATION_HEADER: Final = "x-correlation-id"

_SANE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
"""What the service takes as a correlation id; anything else it replaces by one of its own."""
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_RESERVED: Final = frozenset({"time", "level", "logger", "exception"})
_SECRET_NAME: Final = re.compile(
    r"token|password|passwd|secret|authorization|api_?key|^key$|credential|cookie", re.IGNORECASE
)
_SECRET_TEXT: Final = re.compile(
    r"""eyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?"""  # a JSON web token
    r"""|\bsgk_\w+|\bsb_secret_[\w-]+|\bsbp_\w+|\bspk?_[\w-]{16,}"""
    r"""|(?<=bearer\ )[\w.~+/=-]{8,}"""
    r"""|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"""  # user:password of a URL
    r"""|(?<=password=)[^\s&]+|(?<=apikey=)[^\s&]+|(?<=token=)[^\s&]+""",
    re.IGNORECASE | re.VERBOSE,
)
_HIDDEN: Final = "…"
_TRACE_HEADERS: Final = ("traceparent", "tracestate")

_log: Final = logging.getLogger(LOGGER)
_correlation_id: ContextVar[str | None] = ContextVar("signal_correlation_id", default=None)


def correlation_id() -> str | None:
    """Return the correlation id of the work that is going on here."""
    return _correlation_id.get()


@contextmanager
def correlation(identity: str | None = None) -> Iterator[str]:
    """Give everything done inside, its log lines and its requests, one correlation id.

    `identity` is 1 to 64 of `A-Z a-z 0-9 . _ : -` (ValueError otherwise), a new UUID by default.
    """
    if identity is None:
        identity = str(uuid4())
    elif not _SANE.fullmatch(identity):
        raise ValueError("Cannot use this correlation id: it is 1 to 64 of A-Z a-z 0-9 . _ : -")
    token = _correlation_id.set(identity)
    try:
        yield identity
    finally:
        _correlation_id.reset(token)


def request_headers() -> dict[str, str]:
    """Return the headers that let a request be found again: by correlation id, and by trace.

    The trace is that of OpenTelemetry, when the application uses it; this package does not.
    """
    headers = {CORRELATION_HEADER: _correlation_id.get() or str(uuid4())}
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is not None:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        headers |= {name: carrier[name] for name in _TRACE_HEADERS if name in carrier}
    return headers


def log_request(
    method: str, path: str, status: int, seconds: float, headers: Mapping[str, str]
) -> None:
    """Log that a request was answered, at level debug, under its correlation id."""
    if _log.isEnabledFor(logging.DEBUG):
        _log.debug(
            "%s %s answered %d",
            method,
            path.partition("?")[0],
            status,
            extra={
                "correlation_id": headers[CORRELATION_HEADER],
                "status": status,
                "ms": round(seconds * 1000, 3),
            },
        )


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, and its `extra` fields.

    What looks like a token, key or password is replaced by "…", in texts and by the names of
    fields, wherever it comes from.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if (identity := correlation_id()) is not None:
            line["correlation_id"] = identity
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        for name, value in extra.items():
            if name not in _RESERVED:
                line[name] = _plain(name, value)
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def without_secrets(text: str) -> str:
    """Return `text` with everything that looks like a token, key or password replaced."""
    return _SECRET_TEXT.sub(_HIDDEN, text)


def _plain(name: str, value: Any) -> Any:
    """Return what may be written of a value with this name."""
    if _SECRET_NAME.search(name):
        return _HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _plain(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain("", inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_secrets(str(value))
