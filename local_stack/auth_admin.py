"""`/auth/v1/admin`: what the service role may do with users, and how passwords are kept."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import bcrypt
from aiohttp import web

from local_stack import auth_store
from local_stack.auth_request import (
    MAX_PASSWORD_BYTES,
    AuthApiError,
    ban_seconds,
    email_address,
    email_exists,
    json_body,
    json_object,
    new_password,
    no_such_user,
    path_user_id,
    positive,
    refuse_phone,
    text,
    user_id_of,
    verified_claims,
)
from local_stack.keys import Keys
from local_stack.rest_pool import Begin, Pool
from local_stack.rest_request import bearer_token, resolve_apikey

MAX_USERS_PER_PAGE = 1000
ADMIN_ROLES = {"service_role", "supabase_admin"}
READ_WRITE = Begin(read_only=False, settings={})


class Passwords:
    """bcrypt in threads of its own: a hash takes far too long for the event loop."""

    def __init__(self, *, cost: int) -> None:
        self._cost = cost
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="bcrypt")

    async def hash(self, password: str) -> str:
        loop = asyncio.get_running_loop()
        salt = bcrypt.gensalt(self._cost)
        hashed = await loop.run_in_executor(self._threads, bcrypt.hashpw, password.encode(), salt)
        return hashed.decode()

    async def matches(self, password: str, encrypted: str | None) -> bool:
        data = password.encode("utf-8", "replace")
        if not encrypted or len(data) > MAX_PASSWORD_BYTES:
            return False
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._threads, bcrypt.checkpw, data, encrypted.encode()
            )
        except ValueError:
            return False

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class AuthAdmin:
    """Create, show, change and delete any user, for callers with an administrator's role."""

    def __init__(self, keys: Keys, pool: Pool, passwords: Passwords) -> None:
        self._keys = keys
        self._pool = pool
        self._passwords = passwords

    async def handle(self, request: web.Request, resource: str) -> web.Response | None:
        """Answer a request below `admin/users`, or return None if there is no such thing."""
        one_user = resource.startswith("admin/users/") and resource.count("/") == 2
        if not one_user and resource != "admin/users":
            return None
        self._require_admin(request)
        match request.method, one_user:
            case "GET", False:
                return await self._list(request)
            case "POST", False:
                return await self._create(request)
            case "GET", True:
                return await self._get(request)
            case "PUT", True:
                return await self._update(request)
            case "DELETE", True:
                return await self._delete(request)
        return None

    def _require_admin(self, request: web.Request) -> None:
        token = bearer_token(request)
        apikey_role = resolve_apikey(request, self._keys)
        if not token or (token.startswith("sb_") and token == request.headers.get("apikey")):
            role = apikey_role
        else:
            role = str(verified_claims(request, self._keys).get("role"))
        if role not in ADMIN_ROLES:
            raise AuthApiError(403, "not_admin", "User not allowed")

    async def _list(self, request: web.Request) -> web.Response:
        page = positive(request, "page", 1, 1_000_000)
        per_page = positive(request, "per_page", 50, MAX_USERS_PER_PAGE)
        async with self._pool.transaction(READ_WRITE) as connection:
            users, total = await auth_store.list_users(connection, page=page, per_page=per_page)
        shown = [dict(user.shown) for user in users]
        last = max(1, -(-total // per_page))
        links = [f'<{request.path}?page={last}&per_page={per_page}>; rel="last"']
        if page < last:
            links.insert(0, f'<{request.path}?page={page + 1}&per_page={per_page}>; rel="next"')
        headers = {"X-Total-Count": str(total), "Link": ", ".join(links)}
        body = {"users": shown, "aud": "authenticated"}
        return web.json_response(body, headers=headers)

    async def _create(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        refuse_phone(body)
        email = email_address(body)
        password = new_password(body) if body.get("password") else uuid.uuid4().hex
        encrypted = await self._passwords.hash(password)
        user_id = user_id_of(body)
        async with self._pool.transaction(READ_WRITE) as connection:
            try:
                await auth_store.insert_user(
                    connection,
                    user_id=user_id,
                    email=email,
                    encrypted_password=encrypted,
                    confirmed=body.get("email_confirm") is True,
                    role=text(body, "role") or "authenticated",
                    user_metadata=json_object(body, "user_metadata"),
                    app_metadata=json_object(body, "app_metadata"),
                )
            except asyncpg.UniqueViolationError:
                raise email_exists() from None
            return await save_changes(connection, user_id, ban_seconds(body))

    async def _get(self, request: web.Request) -> web.Response:
        async with self._pool.transaction(READ_WRITE) as connection:
            user = await auth_store.find_user(connection, user_id=path_user_id(request))
        if user is None:
            raise no_such_user()
        return web.json_response(dict(user.shown))

    async def _update(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        refuse_phone(body)
        changes = ban_seconds(body)
        if body.get("email"):
            changes["email"] = email_address(body)
        if body.get("password"):
            changes["encrypted_password"] = await self._passwords.hash(new_password(body))
        for name in ("user_metadata", "app_metadata"):
            if name in body:
                changes[name] = json_object(body, name)
        changes["role"] = text(body, "role") or None
        changes["email_confirm"] = body.get("email_confirm") is True
        async with self._pool.transaction(READ_WRITE) as connection:
            return await save_changes(connection, path_user_id(request), changes)

    async def _delete(self, request: web.Request) -> web.Response:
        body = await json_body(request) if request.can_read_body else {}
        if body.get("should_soft_delete"):
            raise AuthApiError(501, "not_imitated", "Cannot soft-delete: not imitated here")
        async with self._pool.transaction(READ_WRITE) as connection:
            if not await auth_store.delete_user(connection, path_user_id(request)):
                raise no_such_user()
        return web.json_response({})


async def save_changes(
    connection: asyncpg.Connection, user_id: uuid.UUID, changes: Mapping[str, Any]
) -> web.Response:
    """Change a user and answer with what it is then."""
    if changes:
        try:
            await auth_store.update_user(connection, user_id, changes)
        except asyncpg.UniqueViolationError:
            raise email_exists() from None
    user = await auth_store.find_user(connection, user_id=user_id)
    if user is None:
        raise no_such_user()
    return web.json_response(dict(user.shown))
