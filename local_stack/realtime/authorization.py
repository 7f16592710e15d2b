"""Who may join, read and write: tokens, and the row level security of `realtime.messages`.

A private topic is readable when the caller's role, with its claims set, sees a probe row of that
topic in `realtime.messages`, and writable when it may insert one. Nothing is kept: every probe is
rolled back. See https://supabase.com/docs/guides/realtime/authorization.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import jwt

from local_stack.keys import BadSignature, Expired, Keys, KeysError, MissingClaim, VerifiedToken
from local_stack.realtime.limits import Limits

BROADCAST = "broadcast"
PRESENCE = "presence"
# One round trip, as hosted's realtime.authorize: a join of thousands of sockets at once is bounded
# by these. It belongs to the session, so that a running stack needs no change of its database.
_CREATE_PROBE = """
create or replace function pg_temp.probe_permissions(
  asked_topic text, asked_role text, claims text, subject text, headers text,
  to_read text[], to_write text[], out may_read text[], out may_write text[]
)
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamp := timezone('utc', now());
  v_probes uuid[];
  v_extension text;
begin
  with probe as (
    insert into realtime.messages (id, topic, extension, inserted_at, updated_at)
    select gen_random_uuid(), asked_topic, wanted, v_now, v_now from unnest(to_read) as wanted
    returning id
  )
  select array_agg(id) into v_probes from probe;
  perform
    set_config('role', asked_role, true), set_config('realtime.topic', asked_topic, true),
    set_config('request.jwt.claims', claims, true),
    set_config('request.jwt.claim.sub', subject, true),
    set_config('request.jwt.claim.role', asked_role, true),
    set_config('request.headers', headers, true);
  select array_agg(message.extension) into may_read
  from realtime.messages as message
  where message.id = any(v_probes) and message.inserted_at = v_now;
  foreach v_extension in array to_write loop
    begin
      insert into realtime.messages (id, topic, extension, inserted_at, updated_at)
      values (gen_random_uuid(), asked_topic, v_extension, v_now, v_now);
      may_write := may_write || v_extension;
    exception when insufficient_privilege then null;
    end;
  end loop;
  raise sqlstate 'RTA01';  -- takes back the probes and the identity
exception
  when sqlstate 'RTA01' then null;
  -- These say nothing about a permission; the first is a partition that is missing.
  when check_violation or insufficient_resources or operator_intervention then raise;
  -- A policy that fails, or a role that does not exist, permits nothing.
  when others then may_read := null; may_write := null;
end
$$
"""
_PROBE = "select * from pg_temp.probe_permissions($1, $2, $3, $4, $5, $6, $7)"


class Refusal(Exception):  # noqa: N818
    """Cannot do what the client asks; `str()` is the reason that hosted Realtime gives."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}" if text else code)
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
            server_settings={
                "timezone": "UTC",
                "application_name": "realtime",
                "synchronous_commit": "off",  # there is nothing to lose: probes are rolled back
            },
            init=_create_probe,
            reset=_keep_as_it_is,
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

    async def readable(
        self, topic: str, identity: Identity, extensions: Sequence[str] = (BROADCAST,)
    ) -> frozenset[str]:
        """Of which extensions the identity sees rows. Raise `CheckFailure` without a database."""
        return frozenset((await self._probe(topic, identity, to_read=extensions))["may_read"] or ())

    async def may_write(self, topic: str, identity: Identity, extension: str = BROADCAST) -> bool:
        """Whether the identity may insert rows of this topic."""
        probed = await self._probe(topic, identity, to_write=(extension,))
        return extension in (probed["may_write"] or ())

    async def _probe(
        self,
        topic: str,
        identity: Identity,
        *,
        to_read: Sequence[str] = (),
        to_write: Sequence[str] = (),
    ) -> asyncpg.Record:
        verified = identity.verified
        subject = verified.claims.get("sub")
        async with self.connection() as connection:
            return await connection.fetchrow(
                _PROBE,
                topic,
                verified.role,
                verified.claims_json,
                subject if isinstance(subject, str) else "",
                identity.headers_json,
                to_read,
                to_write,
            )

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


async def _create_probe(connection: asyncpg.Connection) -> None:
    await connection.execute(_CREATE_PROBE)


async def _keep_as_it_is(_connection: asyncpg.Connection) -> None:
    """Nothing outlives its transaction, so a connection goes back without another round trip."""


def _expiry(token: str) -> float:
    claims = jwt.decode(token, options={"verify_signature": False, "verify_exp": False})
    return float(claims["exp"])
