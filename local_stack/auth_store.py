"""The SQL of the Auth stand-in: users, sessions and refresh tokens in the real `auth` tables."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

REFRESH_TOKEN_REUSE_INTERVAL = timedelta(seconds=10)
REFRESH_TOKEN_LENGTH = 22
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_NO_INSTANCE = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class User:
    """A row of `auth.users`: what the API shows of it, and what it does not."""

    id: uuid.UUID
    shown: Mapping[str, Any]
    encrypted_password: str | None
    banned: bool


@dataclass(frozen=True, slots=True)
class Refreshed:
    user: User
    session_id: uuid.UUID
    refresh_token: str


class RefreshTokenNotFoundError(Exception):
    """Invalid Refresh Token: Refresh Token Not Found"""


class RefreshTokenReusedError(Exception):
    """Invalid Refresh Token: Already Used"""


async def find_user(
    connection: asyncpg.Connection, *, user_id: uuid.UUID | None = None, email: str | None = None
) -> User | None:
    row = await connection.fetchrow(
        f"{_USER_SQL} where u.deleted_at is null and (u.id = $1 or u.email = $2)", user_id, email
    )
    return _user(row) if row else None


async def list_users(
    connection: asyncpg.Connection, *, page: int, per_page: int
) -> tuple[list[User], int]:
    rows = await connection.fetch(
        f"{_USER_SQL} where u.deleted_at is null order by u.created_at desc, u.id "
        "limit $1 offset $2",
        per_page,
        (page - 1) * per_page,
    )
    total = await connection.fetchval("select count(*) from auth.users where deleted_at is null")
    return [_user(row) for row in rows], total


async def insert_user(
    connection: asyncpg.Connection,
    *,
    user_id: uuid.UUID,
    email: str,
    encrypted_password: str,
    confirmed: bool,
    role: str,
    user_metadata: Mapping[str, Any],
    app_metadata: Mapping[str, Any],
) -> None:
    """Add a user with an e-mail identity. Raise `UniqueViolationError` if the address is taken."""
    await connection.execute(
        """
        insert into auth.users (
          instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,
          raw_app_meta_data, raw_user_meta_data, created_at, updated_at
        ) values (
          $1, $2, 'authenticated', $3, $4, $5, case when $6 then now() end,
          $7::text::jsonb, $8::text::jsonb, now(), now()
        )
        """,
        _NO_INSTANCE,
        user_id,
        role,
        email,
        encrypted_password,
        confirmed,
        json.dumps({"provider": "email", "providers": ["email"], **app_metadata}),
        json.dumps(dict(user_metadata)),
    )
    identity = {
        "sub": str(user_id),
        "email": email,
        "email_verified": False,
        "phone_verified": False,
        **user_metadata,
    }
    await connection.execute(
        """
        insert into auth.identities (
          provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at
        ) values ($1::text, $2, $3::text::jsonb, 'email', now(), now(), now())
        """,
        str(user_id),
        user_id,
        json.dumps(identity),
    )


async def update_user(
    connection: asyncpg.Connection, user_id: uuid.UUID, changes: Mapping[str, Any]
) -> None:
    """Set the named columns; metadata is merged, and a null there removes its key."""
    await connection.execute(
        """
        update auth.users set
          email = coalesce($2, email),
          encrypted_password = coalesce($3, encrypted_password),
          raw_user_meta_data = jsonb_strip_nulls(
            coalesce(raw_user_meta_data, '{}') || coalesce($4::text::jsonb, '{}')),
          raw_app_meta_data = jsonb_strip_nulls(
            coalesce(raw_app_meta_data, '{}') || coalesce($5::text::jsonb, '{}')),
          role = coalesce($6, role),
          email_confirmed_at = case when $7 then coalesce(email_confirmed_at, now())
            else email_confirmed_at end,
          banned_until = case when $8::float8 is null then banned_until
            when $8 = 0 then null else now() + make_interval(secs => $8) end,
          updated_at = now()
        where id = $1
        """,
        user_id,
        changes.get("email"),
        changes.get("encrypted_password"),
        _json_or_none(changes.get("user_metadata")),
        _json_or_none(changes.get("app_metadata")),
        changes.get("role"),
        changes.get("email_confirm") is True,
        changes.get("ban_seconds"),
    )
    if changes.get("email") is not None:
        await connection.execute(
            """
            update auth.identities
            set identity_data = identity_data || jsonb_build_object('email', $2::text)
            where user_id = $1 and provider = 'email'
            """,
            user_id,
            changes["email"],
        )


async def delete_user(connection: asyncpg.Connection, user_id: uuid.UUID) -> bool:
    result = await connection.execute("delete from auth.users where id = $1", user_id)
    await connection.execute("delete from auth.refresh_tokens where user_id = $1", str(user_id))
    return bool(result == "DELETE 1")


async def start_session(
    connection: asyncpg.Connection, user_id: uuid.UUID, user_agent: str, address: str | None
) -> tuple[uuid.UUID, str]:
    """Open a session and return its id and its first refresh token."""
    session_id = uuid.uuid4()
    await connection.execute(
        """
        insert into auth.sessions (id, user_id, created_at, updated_at, aal, user_agent, ip)
        values ($1, $2, now(), now(), 'aal1', $3, $4::text::inet)
        """,
        session_id,
        user_id,
        user_agent,
        address,
    )
    await connection.execute("update auth.users set last_sign_in_at = now() where id = $1", user_id)
    return session_id, await _insert_refresh_token(connection, user_id, session_id, None)


async def session_exists(connection: asyncpg.Connection, session_id: uuid.UUID) -> bool:
    found = await connection.fetchval("select true from auth.sessions where id = $1", session_id)
    return found is True


async def end_sessions(
    connection: asyncpg.Connection, user_id: uuid.UUID, session_id: uuid.UUID | None, scope: str
) -> None:
    """End this session (`local`), all but this one (`others`), or every one (`global`)."""
    await connection.execute(
        """
        delete from auth.sessions where user_id = $1 and case $3
          when 'local' then id = $2 when 'others' then id is distinct from $2 else true end
        """,
        user_id,
        session_id,
        scope,
    )


async def refresh(connection: asyncpg.Connection, token: str, now: datetime) -> Refreshed | None:
    """Swap a refresh token for a new one. Return None if it was used before: that is abuse.

    As Supabase Auth: a token that was swapped already may be used again when its successor is
    the newest (the answer was lost; the same successor is returned) or within the reuse interval.
    Otherwise every token of the session is revoked; the caller must commit that.
    """
    row = await connection.fetchrow(
        """
        select r.token, r.user_id, r.revoked, r.updated_at, r.session_id
        from auth.refresh_tokens as r
        where r.token = $1
        """,
        token,
    )
    if row is None or row["session_id"] is None:
        raise RefreshTokenNotFoundError(RefreshTokenNotFoundError.__doc__)
    session_id: uuid.UUID = row["session_id"]
    # One refresh of a session at a time; and the row is read again under that lock.
    await connection.execute("select from auth.sessions where id = $1 for update", session_id)
    row = await connection.fetchrow(
        "select revoked, user_id, updated_at from auth.refresh_tokens where token = $1", token
    )
    user = await find_user(connection, user_id=uuid.UUID(row["user_id"])) if row else None
    if row is None or user is None:
        raise RefreshTokenNotFoundError(RefreshTokenNotFoundError.__doc__)
    if row["revoked"]:
        active = await connection.fetchrow(
            """
            select token, parent from auth.refresh_tokens
            where session_id = $1 and not revoked order by id desc limit 1
            """,
            session_id,
        )
        if active is not None and active["parent"] == token:
            return Refreshed(user, session_id, active["token"])
        if now > row["updated_at"] + REFRESH_TOKEN_REUSE_INTERVAL:
            # Long ago, so that none of them is within its reuse interval.
            await connection.execute(
                """
                update auth.refresh_tokens set revoked = true, updated_at = 'epoch'
                where session_id = $1
                """,
                session_id,
            )
            return None
    await connection.execute(
        "update auth.refresh_tokens set revoked = true, updated_at = now() "
        "where token = $1 and not revoked",
        token,
    )
    new_token = await _insert_refresh_token(connection, user.id, session_id, token)
    await connection.execute(
        "update auth.sessions set refreshed_at = now() at time zone 'utc', updated_at = now() "
        "where id = $1",
        session_id,
    )
    return Refreshed(user, session_id, new_token)


async def _insert_refresh_token(
    connection: asyncpg.Connection, user_id: uuid.UUID, session_id: uuid.UUID, parent: str | None
) -> str:
    token = "".join(secrets.choice(_ALPHABET) for _ in range(REFRESH_TOKEN_LENGTH))
    await connection.execute(
        """
        insert into auth.refresh_tokens (
          instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id
        ) values ($1, $2, $3, false, now(), now(), $4, $5)
        """,
        _NO_INSTANCE,
        token,
        str(user_id),
        parent,
        session_id,
    )
    return token


def _json_or_none(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _user(row: asyncpg.Record) -> User:
    banned_until: datetime | None = row["banned_until"]
    return User(
        id=row["id"],
        shown=json.loads(row["shown"]),
        encrypted_password=row["encrypted_password"],
        banned=banned_until is not None and banned_until > datetime.now(UTC),
    )


_USER_SQL = """
select
  u.id,
  u.encrypted_password,
  u.banned_until,
  jsonb_strip_nulls(jsonb_build_object(
    'email_confirmed_at', u.email_confirmed_at,
    'confirmed_at', u.confirmed_at,
    'last_sign_in_at', u.last_sign_in_at,
    'banned_until', u.banned_until
  )) || jsonb_build_object(
    'id', u.id,
    'aud', u.aud,
    'role', u.role,
    'email', coalesce(u.email, ''),
    'phone', coalesce(u.phone, ''),
    'app_metadata', coalesce(u.raw_app_meta_data, '{}'),
    'user_metadata', coalesce(u.raw_user_meta_data, '{}'),
    'identities', coalesce((
      select jsonb_agg(jsonb_build_object(
        'identity_id', i.id,
        'id', i.provider_id,
        'user_id', i.user_id,
        'identity_data', i.identity_data,
        'provider', i.provider,
        'last_sign_in_at', i.last_sign_in_at,
        'created_at', i.created_at,
        'updated_at', i.updated_at,
        'email', i.email
      ) order by i.created_at)
      from auth.identities as i where i.user_id = u.id
    ), '[]'),
    'created_at', u.created_at,
    'updated_at', u.updated_at,
    'is_anonymous', u.is_anonymous
  ) as shown
from auth.users as u
"""
