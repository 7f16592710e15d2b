"""Who may join, read and write: tokens, and the row level security of `realtime.messages`.

A private topic is readable when the caller's role, with its claims set, sees a probe row of that
topic in `realtime.messages`, and writable when it may insert one. Nothing is kept: every probe is
rolled back. See https://supabase.com/docs/guides/realtime/authorization.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import jwt

from local_stack.keys import BadSignature, Expired, Keys, KeysError, MissingClaim, VerifiedToken
from local_stack.realtime.limits import Limits

_INSERT_PROBE = """
insert into realtime.messages (id, topic, extension, inserted_at, updated_at)
values ($1, $2, 'broadcast', timezone('utc', now()), timezone('utc', now()))
"""
_ASSUME_IDENTITY = """
select set_config('role', $1, true), set_config('realtime.topic', $2, true),
  set_config('request.jwt.claims', $3, true), set_config('request.jwt.claim.sub', $4, true),
  set_config('request.jwt.claim.role', $1, true), set_config('request.headers', $5, true)
"""
_TROUBLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.CheckViolationError,  # no partition for today
)
"""Errors that say nothing about a permission."""
_SEE_PROBE = "select exists (select from realtime.messages where id = $1)"


class Refusal(Exception):  # noqa: N818
    """Cannot do what the client asks; `str()` is the reason that hosted Realtime gives."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class TokenRefusal(Refusal):
    """Cannot accept a token. `handshake_text` is what a WebSocket handshake answers."""

    def __init__(self, code: str, text: str, handshake_text: str | None = None) -> None:
        super().__init__(code, text)
        self.handshake_text = handshake_text or text


class CheckFailure(Refusal):
    """Cannot check a permission: the database did not answer."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller: its token, what the token says, and the headers of its connection."""

    token: str
    verified: VerifiedToken
    headers_json: str = "{}"


class Authenticator:
    """Turns tokens and API keys into identities."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def identify(self, token: str, headers_json: str = "{}") -> Identity:
        """Verify a JWT. Raise `TokenRefusal` with hosted Realtime's words."""
        try:
            return Identity(token, self._keys.verify_token(token), headers_json)
        except Expired as error:
            seconds = max(0, int(time.time() - _expiry(token)))
            raise TokenRefusal(
                "InvalidJWTToken", expired_text(seconds), "Token has expired"
            ) from error
        except MissingClaim as error:
            text = "Fields `role` and `exp` are required in JWT"
            raise TokenRefusal("InvalidJWTToken", text) from error
        except BadSignature as error:
            raise TokenRefusal("JwtSignatureError", "Failed to validate JWT signature") from error
        except KeysError as error:
            text = "The token provided is not a valid JWT"
            raise TokenRefusal("MalformedJWT", text) from error

    def identify_api_key(self, key: str, headers_json: str = "{}") -> Identity:
        """Accept a publishable, secret or legacy key, or a user's JWT in the place of one."""
        role = self._keys.resolve_apikey(key)
        if role is None:
            return self.identify(key, headers_json)
        keys = self._keys
        token = keys.service_role_key if role == "service_role" else keys.anon_key
        return self.identify(token, headers_json)


class Authorization:
    """Asks the database what an identity may do with a private topic."""

    def __init__(self, dsn: str, limits: Limits) -> None:
        self._dsn = dsn
        self._limits = limits
        self._pool: asyncpg.Pool | None = None

    async def start(self) -> None:
        """Make the pool; connections are opened when they are needed."""
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._limits.database_connections,
            server_settings={"timezone": "UTC", "application_name": "realtime"},
        )

    async def stop(self) -> None:
        """Let the checks that are under way end, but not for longer than their deadline."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(self._limits.database_seconds):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def may_read(self, topic: str, identity: Identity) -> bool:
        """Whether the identity sees rows of this topic. Raise `CheckFailure` without a database."""
        probe = uuid.uuid4()
        async with self.connection() as connection, _rolled_back(connection):
            try:
                await connection.execute(_INSERT_PROBE, probe, topic)
                await _assume(connection, topic, identity)
                return bool(await connection.fetchval(_SEE_PROBE, probe))
            except _TROUBLE:
                raise
            except asyncpg.PostgresError:
                return False  # a policy that fails, or a role that does not exist, permits nothing

    async def may_write(self, topic: str, identity: Identity) -> bool:
        """Whether the identity may insert rows of this topic."""
        async with self.connection() as connection, _rolled_back(connection):
            try:
                await _assume(connection, topic, identity)
                await connection.execute(_INSERT_PROBE, uuid.uuid4(), topic)
            except _TROUBLE:
                raise
            except asyncpg.PostgresError:
                return False
            return True

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        """A connection of the pool, with a deadline; every failure becomes a `CheckFailure`."""
        if self._pool is None:
            raise RuntimeError("Cannot ask the database: start() comes first")
        try:
            async with asyncio.timeout(self._limits.database_seconds), self._pool.acquire() as held:
                yield held
        except TimeoutError as error:
            text = "Please increase your connection pool size"
            raise CheckFailure("IncreaseConnectionPool", text) from error
        except asyncpg.TooManyConnectionsError as error:
            text = "Database can't accept more connections, Realtime won't connect"
            raise CheckFailure("DatabaseLackOfConnections", text) from error
        except asyncpg.CheckViolationError as error:
            text = "Realtime was unable to find the expected messages partition"
            raise CheckFailure("MissingPartition", text) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            text = "Realtime was unable to connect to the project database"
            raise CheckFailure("UnableToConnectToProject", text) from error


def expired_text(seconds: int) -> str:
    """What a client is told when its token has expired."""
    return f"Token has expired {seconds} seconds ago"


@asynccontextmanager
async def _rolled_back(connection: asyncpg.pool.PoolConnectionProxy) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        if not connection.is_closed():
            await transaction.rollback()


async def _assume(
    connection: asyncpg.pool.PoolConnectionProxy, topic: str, identity: Identity
) -> None:
    verified = identity.verified
    subject = verified.claims.get("sub")
    await connection.execute(
        _ASSUME_IDENTITY,
        verified.role,
        topic,
        verified.claims_json,
        subject if isinstance(subject, str) else "",
        identity.headers_json,
    )


def _expiry(token: str) -> float:
    claims = jwt.decode(token, options={"verify_signature": False, "verify_exp": False})
    return float(claims["exp"])
