"""Errors of the REST and Auth stand-ins, in the shapes and with the statuses of the hosted ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import asyncpg
from aiohttp import web

RETRY_AFTER_SECONDS = 1

# PostgreSQL error code, or its beginning → HTTP status, most specific first (PostgREST's table).
_STATUS_BY_SQLSTATE = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "25": 500,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "42501": 403,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "53400": 500,
    "53": 503,
    "54": 500,
    "55": 500,
    "57014": 500,
    "57P": 503,
    "57": 500,
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0001": 400,
    "P0": 500,
    "XX": 500,
}


class ApiError(Exception):
    """An answer of `/rest/v1` that is no success: `{code, message, details, hint}`."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "details": details, "hint": hint, "message": message}
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        return web.Response(
            status=self.status,
            body=json.dumps(self.body, ensure_ascii=False).encode("utf-8", "replace"),
            headers=self.headers,
            content_type="application/json",
            charset="utf-8",
        )


def not_implemented(feature: str) -> ApiError:
    """The honest answer to what hosted Supabase has and this stand-in has not."""
    return ApiError(
        501,
        "LOCAL501",
        f"Cannot serve {feature}: the local stack does not imitate it",
        hint="Use a hosted project or `supabase start` for this feature",
    )


def database_unavailable(code: str, reason: str) -> ApiError:
    return ApiError(
        503,
        code,
        "Database connection error. Retrying the connection.",
        details=reason,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def pool_exhausted() -> ApiError:
    return ApiError(504, "PGRST003", "Timed out acquiring connection from connection pool.")


def unauthorized(code: str, message: str) -> ApiError:
    description = message.replace('"', "'")
    challenge = f'Bearer error="invalid_token", error_description="{description}"'
    return ApiError(401, code, message, headers={"WWW-Authenticate": challenge})


def from_exception(error: BaseException, role: str) -> ApiError | None:
    """Translate what the database driver raised, or return None if that is a bug of ours."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        return _from_postgres(error, role)
    if isinstance(error, asyncpg.DataError | UnicodeEncodeError):
        return ApiError(400, "22023", f"Cannot use a value of the request: {error}")
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        code = "PGRST000" if isinstance(error, OSError) else "PGRST001"
        return database_unavailable(code, str(error) or type(error).__name__)
    if isinstance(error, asyncio.TimeoutError):
        return database_unavailable("PGRST001", "no answer in time")
    return None


def _from_postgres(error: asyncpg.PostgresError, role: str) -> ApiError:
    code = str(error.sqlstate)
    status = _status(code)
    headers = {}
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if code == "42501" and role == "anon":
        status = 401
        headers["WWW-Authenticate"] = "Bearer"
    return ApiError(
        status,
        code,
        error.message or "",
        details=error.detail,
        hint=error.hint,
        headers=headers,
    )


def _status(code: str) -> int:
    if code.startswith("PT"):
        status = code[2:]
        return int(status) if status.isdecimal() and 200 <= int(status) <= 599 else 500
    for length in (5, 3, 2):
        status_of_class = _STATUS_BY_SQLSTATE.get(code[:length])
        if status_of_class is not None:
            return status_of_class
    return 400
