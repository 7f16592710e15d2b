"""What `/auth/v1` reads from requests, and the errors it answers, as Supabase Auth words them."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from local_stack.auth_store import User
from local_stack.keys import Keys, KeysError
from local_stack.rest_errors import RETRY_AFTER_SECONDS, from_exception
from local_stack.rest_request import bearer_token

MIN_PASSWORD_CHARACTERS = 6
MAX_PASSWORD_BYTES = 72  # bcrypt reads no further
HEALTH = {
    "name": "GoTrue",
    "version": "local-stack",
    "description": "A stand-in for Supabase Auth",
}
_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s.\x00-\x1f]+(\.[^@\s.\x00-\x1f]+)*")
_BAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(h|ms|m|s|us|ns)")
_BAN_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
logger = logging.getLogger("gateway")


class AuthApiError(Exception):
    """An answer of `/auth/v1` that is no success: `{code, error_code, msg}`."""

    def __init__(self, status: int, error_code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": status, "error_code": error_code, "msg": message, **more}

    def response(self) -> web.Response:
        headers = {"x-sb-error-code": str(self.body["error_code"])}
        if self.status == 503:
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return web.json_response(self.body, status=self.status, headers=headers)


def translate(exception: Exception) -> AuthApiError:
    """Turn what the database driver raised into an answer; log what is a bug of ours."""
    error = from_exception(exception, "supabase_auth_admin")
    if error is not None and error.status in (503, 504):
        return AuthApiError(503, "unexpected_failure", str(error))
    if error is not None and str(error.body["code"]).startswith("22"):
        return AuthApiError(400, "validation_failed", f"Cannot store the value: {error}")
    logger.error("auth request failed", exc_info=exception)
    return AuthApiError(500, "unexpected_failure", "Unexpected failure, please check the log")


def email_exists() -> AuthApiError:
    message = "A user with this email address has already been registered"
    return AuthApiError(422, "email_exists", message)


def no_such_user() -> AuthApiError:
    return AuthApiError(404, "user_not_found", "User not found")


def refuse_banned(user: User) -> None:
    if user.banned:
        raise AuthApiError(400, "user_banned", "User is banned")


def refuse_phone(body: Mapping[str, Any]) -> None:
    if body.get("phone"):
        raise AuthApiError(400, "phone_provider_disabled", "Phone logins are disabled")


def verified_claims(request: web.Request, keys: Keys) -> Mapping[str, Any]:
    """Return the claims of the bearer token that the endpoint needs."""
    token = bearer_token(request)
    if not token:
        raise AuthApiError(401, "no_authorization", "This endpoint requires a valid Bearer token")
    try:
        return keys.verify(token)
    except KeysError as error:
        raise AuthApiError(403, "bad_jwt", f"invalid JWT: {error}") from None


async def json_body(request: web.Request) -> dict[str, Any]:
    """Read the request's JSON object; no body at all is an empty object."""
    data = await request.read()
    if not data.strip():
        return {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise AuthApiError(400, "bad_json", "Could not parse request body as JSON") from None
    if not isinstance(body, dict):
        raise AuthApiError(400, "bad_json", "Could not parse request body as JSON object")
    return body


def text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value or not _is_utf8(value):
        raise AuthApiError(400, "validation_failed", f"{name} must be a string")
    return value


def json_object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise AuthApiError(400, "validation_failed", f"{name} must be an object")
    return value


def email_address(body: Mapping[str, Any]) -> str:
    email = text(body, "email").strip().lower()
    if not _EMAIL.fullmatch(email) or len(email) > 255:
        raise AuthApiError(
            400, "validation_failed", "Unable to validate email address: invalid format"
        )
    return email


def new_password(body: Mapping[str, Any]) -> str:
    password = text(body, "password")
    if not password:
        raise AuthApiError(400, "validation_failed", "Signup requires a valid password")
    if len(password) < MIN_PASSWORD_CHARACTERS:
        message = f"Password should be at least {MIN_PASSWORD_CHARACTERS} characters."
        raise AuthApiError(422, "weak_password", message, weak_password={"reasons": ["length"]})
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        message = f"Password cannot be longer than {MAX_PASSWORD_BYTES} characters"
        raise AuthApiError(400, "validation_failed", message)
    return password


def ban_seconds(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read `ban_duration` (`none`, or as Go writes durations: `1h30m`)."""
    duration = text(body, "ban_duration")
    if not duration:
        return {}
    if duration == "none":
        return {"ban_seconds": 0.0}
    parts = _BAN.findall(duration)
    if "".join(number + unit for number, unit in parts) != duration:
        raise AuthApiError(400, "validation_failed", f"invalid format for ban duration: {duration}")
    return {"ban_seconds": sum(float(number) * _BAN_UNITS[unit] for number, unit in parts)}


def user_id_of(body: Mapping[str, Any]) -> uuid.UUID:
    """Return the id that an administrator chose for a new user, else a new one."""
    if not body.get("id"):
        return uuid.uuid4()
    return _uuid(text(body, "id"))


def path_user_id(request: web.Request) -> uuid.UUID:
    return _uuid(request.match_info["resource"].strip("/").rpartition("/")[2])


def uuid_or_none(value: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def positive(request: web.Request, name: str, default: int, maximum: int) -> int:
    value = request.rel_url.query.get(name) or str(default)
    if not value.isdecimal() or len(value) > 9 or int(value) == 0:
        raise AuthApiError(400, "validation_failed", f"Bad Pagination Parameters: {name}")
    return min(int(value), maximum)


def _uuid(value: str) -> uuid.UUID:
    parsed = uuid_or_none(value)
    if parsed is None:
        raise AuthApiError(404, "validation_failed", "user_id must be an UUID")
    return parsed


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
