"""One REST request on its way: the caller, what is asked for, and how the answer is built."""

from __future__ import annotations

from dataclasses import dataclass, field

import asyncpg
import msgspec
from aiohttp import web

from local_stack.rest_errors import ApiError, not_implemented
from local_stack.rest_pool import Begin, Pool
from local_stack.rest_request import Caller, Preferences, begin
from local_stack.rest_schema import Function, Schema

OUTPUT_SQL = (
    "nullif(pg_catalog.current_setting('response.headers', true), '') as response_headers, "
    "nullif(pg_catalog.current_setting('response.status', true), '') as response_status"
)
JSON = "application/json"
CSV = "text/csv"
OBJECT = "application/vnd.pgrst.object+json"
ARRAY = "application/vnd.pgrst.array+json"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the `Accept` header asks for."""

    media_type: str
    strip_nulls: bool = False
    one_row: bool = False
    """A function that returns one row answers with an object, whatever was asked for."""
    only_of_functions: bool = False
    """Nothing is made in this type but what a function returns in it."""

    @property
    def single(self) -> bool:
        return self.media_type == OBJECT

    @property
    def content_type(self) -> str:
        nulls = "; nulls=stripped" if self.strip_nulls else ""
        return f"{self.media_type}{nulls}; charset=utf-8"

    @classmethod
    def parse(cls, header: str) -> Accepted:
        """Choose the first media type of the header that can be made, else the first there is."""
        if not header or header == "*/*" or header == JSON:
            return _PLAIN_JSON
        for part in header.split(","):
            media_type, *parameters = [piece.strip().lower() for piece in part.split(";")]
            if media_type in ("*/*", "application/*", JSON):
                return _PLAIN_JSON
            if media_type == "text/*":
                return cls(CSV)
            if media_type in (OBJECT, ARRAY, CSV):
                stripped = "nulls=stripped" in parameters and media_type != CSV
                if media_type == ARRAY and not stripped:
                    return _PLAIN_JSON
                return cls(media_type, stripped)
            if media_type.startswith("application/vnd.pgrst.plan"):
                raise not_implemented("query plans over REST (application/vnd.pgrst.plan)")
        return cls(header.split(",")[0].split(";")[0].strip().lower(), only_of_functions=True)


_PLAIN_JSON = Accepted(JSON)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What every handler of `/rest/v1` needs to answer one request."""

    request: web.Request
    caller: Caller
    schema: Schema
    schema_name: str
    search_path: str
    pool: Pool
    max_rows: int
    body: bytes
    accepted: Accepted
    preferences: Preferences

    def require_known_media_type(self) -> None:
        """Refuse an `Accept` header that asks for nothing that can be made of rows."""
        if self.accepted.only_of_functions:
            asked = self.request.headers["Accept"][:200]
            raise ApiError(406, "PGRST107", f"None of these media types are available: {asked}")

    def require_json(self) -> None:
        """Refuse a body that says it is something else than JSON."""
        content_type = self.request.content_type
        if content_type == JSON or "Content-Type" not in self.request.headers:
            return
        if content_type in (CSV, "application/x-www-form-urlencoded", "text/plain", "text/xml"):
            raise not_implemented(f"request bodies of type {content_type}")
        raise ApiError(415, "PGRST107", f"Content-Type not acceptable: {content_type[:100]}")

    def begin(self, *, read_only: bool, function: Function | None = None) -> Begin:
        return begin(
            self.request,
            self.caller,
            self.schema,
            self.search_path,
            read_only=read_only,
            function=function,
        )


@dataclass(slots=True)
class Answer:
    """A response in the making; `response.status` and `response.headers` may still change it."""

    status: int
    body: str | bytes | None = None
    content_type: str = f"{JSON}; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)

    def apply_settings(self, row: asyncpg.Record) -> None:
        """Apply what the called SQL left in `response.status` and `response.headers`."""
        status, headers = row["response_status"], row["response_headers"]
        if status is not None:
            if not status.isdecimal() or not 200 <= int(status) <= 599:
                raise ApiError(500, "PGRST112", "response.status GUC must be a valid status code")
            self.status = int(status)
        if headers is not None:
            self.headers.update(_headers_of(headers))

    def response(self, preferences: Preferences) -> web.Response:
        if preferences.applied:
            self.headers["Preference-Applied"] = ", ".join(preferences.applied)
        if self.body is None:
            return web.Response(status=self.status, headers=self.headers)
        self.headers.setdefault("Content-Type", self.content_type)
        body = self.body if isinstance(self.body, bytes) else self.body.encode()
        return web.Response(status=self.status, body=body, headers=self.headers)


def _headers_of(text: str) -> dict[str, str]:
    try:
        entries = msgspec.json.decode(text, type=list[dict[str, str]])
    except (msgspec.DecodeError, msgspec.ValidationError):
        entries = [{}]
    headers = {name: value for entry in entries for name, value in entry.items()}
    printable = all(
        name.isascii() and name.isprintable() and value.isprintable()
        for name, value in headers.items()
    )
    if any(len(entry) != 1 for entry in entries) or not printable:
        raise ApiError(
            500,
            "PGRST111",
            "response.headers GUC must be a JSON array composed of objects with a single key and "
            "a string value",
        )
    return headers
