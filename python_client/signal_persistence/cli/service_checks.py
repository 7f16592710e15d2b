"""What `signals doctor` looks at on the service: URL, key, clock, sign-in, reading and writing."""

from __future__ import annotations

import base64
import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import msgspec

from signal_persistence.agent.accounts import accounts_from
from signal_persistence.caller import Caller
from signal_persistence.cli.finding import Finding
from signal_persistence.client import Account, project_from
from signal_persistence.contract import CONTRACT
from signal_persistence.credentials import ApiKeyCredentials, Credentials, PasswordCredentials
from signal_persistence.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    PermissionDeniedError,
    SignalPersistenceError,
)
from signal_persistence.reading import Page
from signal_persistence.token import account_of

_SECONDS: Final = 5.0
"""For each answer."""
_SLOW: Final = 1.0
"""Seconds, from which on an answer is worth a warning."""
_SKEW_WARNS: Final = 2.0
_SKEW_FAILS: Final = CONTRACT.limits.future_seconds / 2
"""Seconds; a signal that is generated further than the contract's seconds ahead is refused."""
_EMPTY_BATCH: Final = {"request_id": UUID("d0c70200-0000-4000-8000-000000000000"), "signals": []}
"""Stores nothing, and is one and the same request whenever it is sent."""

_KINDS: Final[Mapping[type, tuple[str, str]]] = {
    PasswordCredentials: (
        "the password",
        "check SIGNALS_EMAIL and SIGNALS_PASSWORD, and that the e-mail address is confirmed",
    ),
    ApiKeyCredentials: (
        "the API key",
        "`signals keys list --all` as the owner shows whether it was revoked; make another",
    ),
}


async def service(environment: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Check all of it; what cannot be checked because of an earlier failure is left out."""
    try:
        url, key = project_from(environment)
    except ConfigurationError as error:
        yield Finding("settings", "fail", str(error), "set it: .env.example explains each")
        return
    reached = _reach(url, key)
    for finding in reached:
        yield finding
    if any(finding.verdict == "fail" and finding.check != "clock" for finding in reached):
        return
    try:
        accounts = accounts_from(environment, url, key)
    except ConfigurationError as error:
        yield Finding("sign-in", "fail", str(error), "set one of them: .env.example explains each")
        return
    signed_in: list[Credentials] = []
    for credentials in accounts.values():
        finding = await _sign_in(credentials)
        yield finding
        if finding.verdict == "ok":
            signed_in.append(credentials)
    if signed_in:
        async for finding in _calls(url, key, signed_in[0]):
            yield finding


def _reach(url: str, key: str) -> list[Finding]:
    """Ask Auth for its public settings: every project answers, for a key of its own only."""
    place = printable_place(url)
    advice = "set SUPABASE_URL to the URL of the project: Settings, Data API"
    began = time.monotonic()
    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/auth/v1/settings", headers={"apikey": key}, timeout=_SECONDS
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
        return [Finding("url", "fail", f"{place} is no http(s) URL", advice)]
    except httpx.HTTPError as error:
        what = f"{place} does not answer: {error or type(error).__name__}"
        return [Finding("url", "fail", what, f"check the network and the proxy; {advice}")]
    seconds = time.monotonic() - began
    if answer.status_code not in (200, 401, 403):
        what = f"{place} answers with HTTP status {answer.status_code}: no Supabase project"
        return [Finding("url", "fail", what, advice)]
    findings = [_url(url, place, seconds), _key(key, answer.status_code)]
    if date := answer.headers.get("date"):
        findings.append(_clock(datetime.now(UTC), date, seconds))
    return findings


def _url(url: str, place: str, seconds: float) -> Finding:
    found = f"{place} answers in {seconds * 1000:.0f} ms"
    if urlsplit(url).scheme == "http" and not _is_loopback(urlsplit(url).hostname or ""):
        return Finding("url", "warn", f"{found}, not encrypted", "use https: anybody can read keys")
    return Finding("url", "ok", found)


def _key(key: str, status: int) -> Finding:
    if status != 200:
        return Finding(
            "key",
            "fail",
            "the project does not know this key",
            "set SUPABASE_PUBLISHABLE_KEY to its publishable key: Settings, API Keys",
        )
    if is_secret(key):
        return Finding(
            "key",
            "fail",
            "this is a SECRET key, which passes every row policy",
            "use the publishable key here, and replace this one where it has leaked",
        )
    return Finding("key", "ok", "the project knows it")


def _clock(here: datetime, date: str, round_trip: float) -> Finding:
    """Compare with the Date header, which has whole seconds and is half a round trip old."""
    try:
        there = parsedate_to_datetime(date)
    except ValueError:
        return Finding("clock", "warn", "the service does not say its time", None)
    skew = (here - there).total_seconds() - 0.5 - round_trip / 2
    uncertain = 0.5 + round_trip / 2
    if abs(skew) <= _SKEW_WARNS + uncertain:
        return Finding("clock", "ok", f"within {_SKEW_WARNS + uncertain:.1f} s of the service")
    direction = "ahead of" if skew > 0 else "behind"
    limit = CONTRACT.limits.future_seconds
    return Finding(
        "clock",
        "fail" if abs(skew) > _SKEW_FAILS else "warn",
        f"this clock is {abs(skew):,.0f} s {direction} the service's",
        f"switch time synchronisation on (NTP): signals of {limit} s ahead are refused",
    )


async def _sign_in(credentials: Credentials) -> Finding:
    kind, advice = _KINDS.get(type(credentials), ("the token", "get another access token"))
    try:
        account = account_of(await credentials.access_token())
    except AuthenticationError as error:
        return Finding("sign-in", "fail", f"{kind} is refused ({error.code})", advice)
    except SignalPersistenceError as error:
        return Finding("sign-in", "fail", f"with {kind}: {error}", "try again; is Auth running?")
    return Finding("sign-in", "ok", f"with {kind}, account {account}")


async def _calls(url: str, key: str, credentials: Credentials) -> AsyncIterator[Finding]:
    caller = Caller(url, key, credentials, timeout=_SECONDS, attempts=1)
    checks: tuple[tuple[str, str, Mapping[str, Any], type[Any]], ...] = (
        ("schema", "/rest/v1/rpc/my_account", {}, Account),
        ("read", "/functions/v1/query-signals", {"page_size": 1}, Page),
        ("write", "/functions/v1/ingest-signals", _EMPTY_BATCH, _Verdict),
        ("write (rpc)", "/rest/v1/rpc/ingest_signals", _EMPTY_BATCH, _Verdict),
    )
    try:
        for check, path, parameters, answer in checks:
            decode = msgspec.json.Decoder(answer).decode
            yield await _timed(check, path, caller.call(path, parameters, decode))
    finally:
        await caller.aclose()


class _Verdict(msgspec.Struct):
    """Of an empty batch."""

    accepted: int
    duplicate: int
    rejected: int
    items: list[Any]


async def _timed(check: str, path: str, call: Awaitable[Any]) -> Finding:
    began = time.monotonic()
    try:
        answer = await call
    except PermissionDeniedError as error:
        return Finding(
            check, "warn", f"not allowed: {error}", "if it should be, use a key with that scope"
        )
    except SignalPersistenceError as error:
        return Finding(check, "fail", f"{path}: {error}", _advice_for(error))
    seconds = time.monotonic() - began
    found = f"{path} answers in {seconds * 1000:.0f} ms"
    if isinstance(answer, Account):
        day = answer.day
        found += f"; tier {answer.tier}, {day.used} of {day.limit or 'any'} signals today"
        if day.limit is not None and day.used >= day.limit:
            return Finding(check, "warn", found, "new signals are refused until 00:00 UTC")
    if seconds > _SLOW:
        return Finding(check, "warn", found, "is the project asleep, far away or overloaded?")
    return Finding(check, "ok", found)


def _advice_for(error: SignalPersistenceError) -> str:
    if isinstance(error, ApiError) and error.status == 404:
        return "apply the migrations and deploy the functions of this release: docs/operations.md"
    return "try again; if it stays, look at the project's logs, and compare its release with ours"


def is_secret(key: str) -> bool:
    """Say whether a project's key is one that passes every row policy."""
    if key.startswith("sb_secret_"):
        return True
    try:
        payload = key.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return bool(claims.get("role") == "service_role")
    except (IndexError, ValueError, AttributeError, msgspec.DecodeError):
        return False


def printable_place(url: str) -> str:
    """Return a URL without what could be a secret in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "SUPABASE_URL"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else "SUPABASE_URL"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
