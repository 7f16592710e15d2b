"""Who calls `/rest/v1` and what the database is told about the request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from local_stack.keys import Expired, Keys, KeysError, NotYetValid
from local_stack.rest_errors import ApiError, unauthorized
from local_stack.rest_pool import Begin
from local_stack.rest_schema import Function, Schema

_ROLE_CLAIMS = {
    role: json.dumps({"role": role}, separators=(",", ":")) for role in ("anon", "service_role")
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The database role of a request and the claims that it proved."""

    role: str
    claims_json: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """The `Prefer` header."""

    returns: str = "minimal"
    resolution: str | None = None
    count: str | None = None
    missing: str = "null"
    applied: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, header: str) -> Preferences:
        """Read a `Prefer` header; what is not understood is ignored, as RFC 7240 says."""
        if not header:
            return _NO_PREFERENCES
        values: dict[str, str] = {}
        applied = []
        for preference in header.split(","):
            name, _, value = preference.strip().partition("=")
            known = _PREFERENCES.get(name, ())
            if value in known and name not in values:
                values[name] = value
                applied.append(f"{name}={value}")
        return cls(
            values.get("return", "minimal"),
            values.get("resolution"),
            values.get("count"),
            values.get("missing", "null"),
            tuple(applied),
        )


_NO_PREFERENCES = Preferences()
_PREFERENCES = {
    "return": ("minimal", "representation", "headers-only"),
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "count": ("exact", "planned", "estimated"),
    "missing": ("default", "null"),
}


def query_parameters(request: web.Request) -> list[tuple[str, str]]:
    """Return the query string's parameters in order, without the gateway's own `apikey`."""
    query = request.rel_url.raw_query_string
    if not query:
        return []
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise ApiError(400, "PGRST100", "Cannot parse the query string: no UTF-8") from None
    if any("\0" in name or "\0" in value for name, value in pairs):
        raise ApiError(400, "PGRST100", "Cannot parse the query string: it holds a NUL character")
    return [(name, value) for name, value in pairs if name != "apikey"]


def authenticate(request: web.Request, keys: Keys) -> Caller:
    """Check the API key, then the bearer token; without one, the API key's role is the caller's.

    A wrong token is refused, never taken as if there were none.
    """
    role = resolve_apikey(request, keys)
    token = bearer_token(request)
    if not token or (token.startswith("sb_") and token == request.headers.get("apikey")):
        return Caller(role, _ROLE_CLAIMS[role])
    try:
        verified = keys.verify_token(token)
    except (Expired, NotYetValid) as error:
        message = "JWT expired" if isinstance(error, Expired) else "JWT not yet valid"
        raise unauthorized("PGRST303", message) from None
    except KeysError as error:
        raise unauthorized("PGRST301", str(error)) from None
    return Caller(verified.role, verified.claims_json)


def resolve_apikey(request: web.Request, keys: Keys) -> str:
    """Return the role of the request's API key, or refuse the request as hosted's gateway does."""
    apikey = request.headers.get("apikey") or request.rel_url.query.get("apikey")
    if not apikey:
        raise GatewayRefusal(
            "No API key found in request", "No `apikey` request header or url param was found."
        )
    role = keys.resolve_apikey(apikey)
    if role is None:
        raise GatewayRefusal(
            "Invalid API key", "Double check your Supabase `anon` or `service_role` API key."
        )
    return role


def bearer_token(request: web.Request) -> str:
    """Return the token of the `Authorization` header, empty if there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class GatewayRefusal(Exception):  # noqa: N818
    """An answer of the API gateway itself, before any service: `{message, hint}`."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def response(self) -> web.Response:
        return web.json_response({"message": str(self), "hint": self.hint}, status=401)


def begin(
    request: web.Request,
    caller: Caller,
    schema: Schema,
    search_path: str,
    *,
    read_only: bool,
    function: Function | None = None,
) -> Begin:
    """Say how this request's transaction starts, with the settings that PostgREST gives one."""
    settings = {
        "search_path": search_path,
        "role": caller.role,
        "request.jwt.claims": caller.claims_json,
        "request.method": request.method,
        "request.path": request.path.removeprefix("/rest/v1"),
        "request.headers": _headers_json(request),
        "request.cookies": _cookies_json(request),
        **schema.role_settings.get(caller.role, {}),
    }
    if function is not None:
        settings |= function.settings
    return Begin(read_only, settings)


def _headers_json(request: web.Request) -> str:
    headers = {name.lower(): value for name, value in request.headers.items()}
    headers.pop("cookie", None)
    try:
        return msgspec.json.encode(headers).decode()
    except UnicodeEncodeError:
        safe = {name: value.encode("utf-8", "replace").decode() for name, value in headers.items()}
        return msgspec.json.encode(safe).decode()


def _cookies_json(request: web.Request) -> str:
    if "Cookie" not in request.headers:
        return "{}"
    cookies = {
        name: value.encode("utf-8", "replace").decode() for name, value in request.cookies.items()
    }
    return msgspec.json.encode(cookies).decode()
