"""`/auth/v1`: a stand-in for Supabase Auth: e-mail and password, sessions, admin users."""

from __future__ import annotations

import tomllib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from aiohttp import web

from local_stack import auth_store
from local_stack.auth_admin import READ_WRITE, AuthAdmin, Passwords, save_changes
from local_stack.auth_request import (
    HEALTH,
    AuthApiError,
    email_address,
    json_body,
    json_object,
    new_password,
    no_such_user,
    refuse_banned,
    refuse_phone,
    text,
    translate,
    uuid_or_none,
    verified_claims,
)
from local_stack.keys import Keys
from local_stack.rest_pool import Pool
from local_stack.rest_request import GatewayRefusal, resolve_apikey
from local_stack.settings import StackSettings

POOL_SIZE = 4


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """The `[auth]` table of `supabase/config.toml`."""

    jwt_expiry: int
    signup_enabled: bool

    @classmethod
    def load(cls, path: Path) -> AuthConfig:
        auth = tomllib.loads(path.read_text()).get("auth", {})
        return cls(int(auth.get("jwt_expiry", 3600)), bool(auth.get("enable_signup", True)))


class AuthApi:
    """Sign users up and in, and let administrators manage them."""

    def __init__(self, settings: StackSettings, keys: Keys, config: AuthConfig) -> None:
        self._keys = keys
        self._config = config
        self._issuer = f"{settings.api_url}/auth/v1"
        self._pool = Pool(settings.socket_dsn("supabase_auth_admin"), size=POOL_SIZE)
        self._passwords = Passwords(cost=10 if settings.durable else 4)
        self._admin = AuthAdmin(keys, self._pool, self._passwords)
        self._routes: dict[tuple[str, str], Callable[[web.Request], Awaitable[web.Response]]] = {
            ("POST", "signup"): self._sign_up,
            ("POST", "token"): self._token,
            ("GET", "user"): self._get_user,
            ("PUT", "user"): self._put_user,
            ("POST", "logout"): self._log_out,
            ("GET", "settings"): self._settings,
        }

    async def stop(self) -> None:
        await self._pool.close()
        self._passwords.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request below `/auth/v1/`."""
        resource = request.match_info["resource"].strip("/")
        if request.method in ("GET", "HEAD"):
            if resource == ".well-known/jwks.json":
                headers = {"Cache-Control": "public, max-age=600"}
                return web.json_response(self._keys.jwks(), headers=headers)
            if resource == "health":
                return web.json_response(HEALTH)
        try:
            resolve_apikey(request, self._keys)
            return await self._route(request, resource)
        except (AuthApiError, GatewayRefusal) as error:
            return error.response()
        except web.HTTPException:
            raise
        except Exception as exception:
            return translate(exception).response()

    async def _route(self, request: web.Request, resource: str) -> web.Response:
        handler = self._routes.get((request.method, resource))
        if handler is not None:
            return await handler(request)
        answer = await self._admin.handle(request, resource)
        if answer is not None:
            return answer
        raise AuthApiError(
            501,
            "not_imitated",
            f"Cannot serve {request.method} /auth/v1/{resource}: the local stack does not "
            "imitate it; use a hosted project or `supabase start`",
        )

    async def _sign_up(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        if not self._config.signup_enabled:
            raise AuthApiError(422, "signup_disabled", "Signups not allowed for this instance")
        refuse_phone(body)
        if not body.get("email") and not body.get("password"):
            raise AuthApiError(
                422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled"
            )
        email = email_address(body)
        encrypted = await self._passwords.hash(new_password(body))
        user_id = uuid.uuid4()
        metadata = {**json_object(body, "data"), "sub": str(user_id), "email": email}
        metadata |= {"email_verified": True, "phone_verified": False}
        async with self._pool.transaction(READ_WRITE) as connection:
            try:
                await auth_store.insert_user(
                    connection,
                    user_id=user_id,
                    email=email,
                    encrypted_password=encrypted,
                    confirmed=True,
                    role="authenticated",
                    user_metadata=metadata,
                    app_metadata={},
                )
            except asyncpg.UniqueViolationError:
                raise AuthApiError(422, "user_already_exists", "User already registered") from None
            return await self._start_session(request, connection, user_id)

    async def _token(self, request: web.Request) -> web.Response:
        grant_type = request.rel_url.query.get("grant_type")
        if grant_type not in ("password", "refresh_token"):
            raise AuthApiError(400, "validation_failed", "unsupported_grant_type")
        body = await json_body(request)
        if grant_type == "password":
            return await self._password_grant(request, body)
        return await self._refresh_grant(text(body, "refresh_token"))

    async def _password_grant(self, request: web.Request, body: Mapping[str, Any]) -> web.Response:
        refuse_phone(body)
        email = text(body, "email").strip().lower()
        password = text(body, "password")
        if not email:
            raise AuthApiError(400, "validation_failed", "missing email or phone")
        async with self._pool.transaction(READ_WRITE) as connection:
            user = await auth_store.find_user(connection, email=email)
        if user is None or not await self._passwords.matches(password, user.encrypted_password):
            raise AuthApiError(400, "invalid_credentials", "Invalid login credentials")
        refuse_banned(user)
        if "email_confirmed_at" not in user.shown:
            raise AuthApiError(400, "email_not_confirmed", "Email not confirmed")
        async with self._pool.transaction(READ_WRITE) as connection:
            return await self._start_session(request, connection, user.id)

    async def _refresh_grant(self, token: str) -> web.Response:
        if not token:
            raise AuthApiError(400, "validation_failed", "refresh_token required")
        try:
            async with self._pool.transaction(READ_WRITE) as connection:
                refreshed = await auth_store.refresh(connection, token, datetime.now(UTC))
        except auth_store.RefreshTokenNotFoundError as error:
            raise AuthApiError(400, "refresh_token_not_found", str(error)) from None
        if refreshed is None:
            raise AuthApiError(
                400, "refresh_token_already_used", "Invalid Refresh Token: Already Used"
            )
        refuse_banned(refreshed.user)
        return self._session_response(
            refreshed.user, refreshed.session_id, refreshed.refresh_token, "token_refresh"
        )

    async def _get_user(self, request: web.Request) -> web.Response:
        async with self._pool.transaction(READ_WRITE) as connection:
            user, _ = await self._signed_in(request, connection)
        return web.json_response(dict(user.shown))

    async def _put_user(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        refuse_phone(body)
        changes: dict[str, Any] = {}
        if body.get("email"):
            changes["email"] = email_address(body)
        if "data" in body:
            changes["user_metadata"] = json_object(body, "data")
        password = new_password(body) if body.get("password") else None
        async with self._pool.transaction(READ_WRITE) as connection:
            user, session_id = await self._signed_in(request, connection)
            if password is not None:
                if await self._passwords.matches(password, user.encrypted_password):
                    raise AuthApiError(
                        422,
                        "same_password",
                        "New password should be different from the old password.",
                    )
                changes["encrypted_password"] = await self._passwords.hash(password)
                await auth_store.end_sessions(connection, user.id, session_id, "others")
            return await save_changes(connection, user.id, changes)

    async def _log_out(self, request: web.Request) -> web.Response:
        scope = request.rel_url.query.get("scope", "global")
        if scope not in ("global", "local", "others"):
            raise AuthApiError(400, "validation_failed", f"Unsupported logout scope {scope[:50]}")
        async with self._pool.transaction(READ_WRITE) as connection:
            user, session_id = await self._signed_in(request, connection)
            await auth_store.end_sessions(connection, user.id, session_id, scope)
        return web.Response(status=204)

    async def _settings(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "external": {"email": True, "phone": False, "anonymous_users": False},
                "disable_signup": not self._config.signup_enabled,
                "mailer_autoconfirm": True,
                "phone_autoconfirm": False,
                "sms_provider": "",
                "saml_enabled": False,
            }
        )

    async def _signed_in(
        self, request: web.Request, connection: asyncpg.Connection
    ) -> tuple[auth_store.User, uuid.UUID | None]:
        """Return the user of the bearer token and the session it belongs to."""
        claims = verified_claims(request, self._keys)
        user_id = uuid_or_none(claims.get("sub"))
        if user_id is None:
            raise AuthApiError(403, "bad_jwt", "invalid claim: missing sub claim")
        user = await auth_store.find_user(connection, user_id=user_id)
        if user is None:
            raise AuthApiError(403, "user_not_found", "User from sub claim in JWT does not exist")
        session_id = uuid_or_none(claims.get("session_id"))
        if session_id is not None and not await auth_store.session_exists(connection, session_id):
            raise AuthApiError(
                403,
                "session_not_found",
                "Session from session_id claim in JWT does not exist",
            )
        return user, session_id

    async def _start_session(
        self, request: web.Request, connection: asyncpg.Connection, user_id: uuid.UUID
    ) -> web.Response:
        agent = request.headers.get("User-Agent", "")[:500].encode("utf-8", "replace").decode()
        session_id, refresh_token = await auth_store.start_session(
            connection, user_id, agent, request.remote
        )
        user = await auth_store.find_user(connection, user_id=user_id)
        if user is None:
            raise no_such_user()
        return self._session_response(user, session_id, refresh_token, "password")

    def _session_response(
        self, user: auth_store.User, session_id: uuid.UUID, refresh_token: str, method: str
    ) -> web.Response:
        now = int(datetime.now(UTC).timestamp())
        expires_at = now + self._config.jwt_expiry
        shown = user.shown
        claims = {
            "iss": self._issuer,
            "sub": str(user.id),
            "aud": "authenticated",
            "exp": expires_at,
            "iat": now,
            "email": shown["email"],
            "phone": shown["phone"],
            "app_metadata": shown["app_metadata"],
            "user_metadata": shown["user_metadata"],
            "role": shown["role"],
            "aal": "aal1",
            "amr": [{"method": method, "timestamp": now}],
            "session_id": str(session_id),
            "is_anonymous": False,
        }
        return web.json_response(
            {
                "access_token": self._keys.sign(claims),
                "token_type": "bearer",
                "expires_in": self._config.jwt_expiry,
                "expires_at": expires_at,
                "refresh_token": refresh_token,
                "user": dict(shown),
            }
        )
