"""Everything for one account in one place: its traders, producers, subscribers and queries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack
from uuid import UUID

import msgspec

from signal_persistence.advance import (
    AdvanceVerdict,
    AsyncSignalLifecycle,
    SignalChange,
    SignalEvent,
)
from signal_persistence.async_subscriber import AsyncSubscriber, SubscriberOptions
from signal_persistence.cache import AsyncSignalCache, CacheOptions, SignalCache
from signal_persistence.caller import Caller
from signal_persistence.credentials import (
    AccessToken,
    ApiKeyCredentials,
    Credentials,
    PasswordCredentials,
)
from signal_persistence.errors import ConfigurationError
from signal_persistence.loop_thread import LoopThread
from signal_persistence.producer import AsyncProducer, Producer
from signal_persistence.query import AsyncSignalQuery, SignalQuery
from signal_persistence.reader import Route
from signal_persistence.subscriber import Subscriber

T = TypeVar("T")
_RPC: Final = "/rest/v1/rpc/"


class Trader(msgspec.Struct, frozen=True):
    """An AI trader of the account. With `own_channel` its signals have a channel of their own."""

    trader_id: UUID
    name: str
    own_channel: bool
    created_at: datetime
    archived_at: datetime | None


class Allowance(msgspec.Struct, frozen=True):
    """How many signals were stored in a day (UTC) or minute; a limit of None is unlimited."""

    used: int
    limit: int | None


class Account(msgspec.Struct, frozen=True):
    """The account: its tier, how far its seq has come, and what it may still store."""

    account_id: UUID
    tier: str
    last_seq: int
    day: Allowance
    minute: Allowance


class ApiKey(msgspec.Struct, frozen=True):
    """A key of the account, without the key itself; `hint` is its last four characters.

    `last_used_at` is when it was last exchanged for a token; a token lives 15 minutes at most.
    """

    key_id: UUID
    name: str
    scopes: tuple[str, ...]
    hint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewApiKey(ApiKey, frozen=True):
    """A key that was just made. `api_key` is the key itself, which nobody can show again."""

    api_key: str

    def __repr__(self) -> str:
        return f"NewApiKey(key_id={self.key_id!r}, name={self.name!r}, hint={self.hint!r}, …)"


class SignalClient:
    """Manage the traders of one account, and make the producers and readers of their signals.

    Producers, subscribers and queries that it makes are closed by whoever asked for them.
    Calls raise TransportError or ApiError after a few attempts. It may be used from any thread.
    """

    def __init__(
        self,
        url: str,
        key: str,
        credentials: Credentials,
        *,
        timeout: float = 10.0,
        read_url: str | None = None,
    ) -> None:
        """`url` is the project's URL, `key` its publishable key, `timeout` is in seconds.

        `read_url` is the API URL of a read replica, which queries then ask first.
        """
        self._url = url
        self._read_url = read_url
        self._key = key
        self._credentials = credentials
        self._timeout = timeout
        self._caller = Caller(url, key, credentials, timeout=timeout)
        self._lifecycle = AsyncSignalLifecycle(url, key, credentials, caller=self._caller)
        self._loop = LoopThread("signal-client")

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Make a client from environment variables, those of `.env.example`.

        SUPABASE_URL; SUPABASE_PUBLISHABLE_KEY or SUPABASE_ANON_KEY; and the first that is set of
        SIGNAL_API_KEY, SIGNALS_ACCESS_TOKEN, and SIGNALS_EMAIL with SIGNALS_PASSWORD. With a read
        replica, SUPABASE_READ_URL. Raises ConfigurationError for what is missing.
        """
        url, key = project_from(environment)
        credentials = credentials_from(environment, url, key)
        return cls(url, key, credentials, read_url=environment.get("SUPABASE_READ_URL") or None)

    def create_trader(self, name: str, *, own_channel: bool = False) -> Trader:
        """Return the active trader of this name, creating it if there is none."""
        return self._rpc("create_trader", Trader, name=name, own_channel=own_channel)

    def list_traders(self, *, include_archived: bool = False) -> list[Trader]:
        """Return the traders of the account."""
        return self._rpc("list_traders", list[Trader], include_archived=include_archived)

    def rename_trader(self, trader_id: UUID, name: str) -> Trader:
        """Give a trader another name; its id and its signals stay."""
        return self._rpc("rename_trader", Trader, trader_id=trader_id, name=name)

    def archive_trader(self, trader_id: UUID) -> Trader:
        """End a trader: its signals stay readable, new ones are refused. No API key may do it."""
        return self._rpc("archive_trader", Trader, trader_id=trader_id)

    def account(self) -> Account:
        """Return the tier, last seq and allowances of the account."""
        return self._rpc("my_account", Account)

    def create_api_key(
        self, name: str, scopes: Iterable[str], *, expires_at: datetime | None = None
    ) -> NewApiKey:
        """Make a key for a process without a person; needs the credentials of a signed-in user.

        `scopes` is one or both of "signals:read" and "signals:write". It is asked for only once:
        after a TransportError or UnavailableError that is in doubt, list_api_keys() shows whether
        a key was made, which is then to be revoked, because nobody has seen it.
        """
        if expires_at is not None and expires_at.tzinfo is None:
            raise ConfigurationError("Cannot make the key: expires_at needs a time zone.")
        caller = Caller(self._url, self._key, self._credentials, timeout=self._timeout, attempts=1)
        try:
            return self._rpc(
                "create_api_key",
                NewApiKey,
                caller,
                name=name,
                scopes=list(scopes),
                expires_at=expires_at,
            )
        finally:
            self._loop.run(caller.aclose())

    def list_api_keys(self, *, include_dead: bool = False) -> list[ApiKey]:
        """Return the keys of the account, oldest first.

        With `include_dead` also those that were revoked or expired in the last 90 days.
        """
        return self._rpc("list_api_keys", list[ApiKey], include_dead=include_dead)

    def revoke_api_key(self, key_id: UUID) -> ApiKey:
        """End a key and every token that was made of it; live channels end within 15 minutes."""
        return self._rpc("revoke_api_key", ApiKey, key_id=key_id)

    def advance(
        self, changes: Iterable[SignalChange], *, request_id: UUID | None = None
    ) -> AdvanceVerdict:
        """Report what became of signals; see AsyncSignalLifecycle.advance."""
        return self._loop.run(self._lifecycle.advance(changes, request_id=request_id))

    def events(self, after_seq: int = 0) -> Iterator[SignalEvent]:
        """Iterate over the lifecycle events that follow `after_seq`, in order, up to the newest."""
        while True:
            page = self._loop.run(self._lifecycle.event_page(after_seq))
            yield from page.events
            if not page.events or page.events[-1].seq >= page.last_seq:
                return
            after_seq = page.events[-1].seq

    def producer(self, **options: Any) -> Producer:
        """Make a producer; the options are those of Producer."""
        return Producer(self._url, self._key, self._credentials, **options)

    def async_producer(self, **options: Any) -> AsyncProducer:
        """Make a producer for asyncio; the options are those of AsyncProducer."""
        return AsyncProducer(self._url, self._key, self._credentials, **options)

    def subscriber(self, **options: Unpack[SubscriberOptions]) -> Subscriber:
        """Make a subscriber; the options are those of Subscriber."""
        return Subscriber(self._url, self._key, self._credentials, **options)

    def async_subscriber(self, **options: Unpack[SubscriberOptions]) -> AsyncSubscriber:
        """Make a subscriber for asyncio; the options are those of AsyncSubscriber."""
        return AsyncSubscriber(self._url, self._key, self._credentials, **options)

    def query(self, *, transport: Route = "edge", replica: bool = True) -> SignalQuery:
        """Make a query object; without `replica` it asks the primary alone."""
        return SignalQuery(
            self._url,
            self._key,
            self._credentials,
            transport=transport,
            timeout=self._timeout,
            read_url=self._read_url if replica else None,
        )

    def async_query(self, *, transport: Route = "edge", replica: bool = True) -> AsyncSignalQuery:
        """Make a query object for asyncio; without `replica` it asks the primary alone."""
        return AsyncSignalQuery(
            self._url,
            self._key,
            self._credentials,
            transport=transport,
            timeout=self._timeout,
            read_url=self._read_url if replica else None,
        )

    def cache(self, **options: Unpack[CacheOptions]) -> SignalCache:
        """Make a cache; the options are those of AsyncSignalCache."""
        return SignalCache(self._url, self._key, self._credentials, **options)

    def async_cache(self, **options: Unpack[CacheOptions]) -> AsyncSignalCache:
        """Make a cache for asyncio; the options are those of AsyncSignalCache."""
        return AsyncSignalCache(self._url, self._key, self._credentials, **options)

    def async_lifecycle(self) -> AsyncSignalLifecycle:
        """Make an object for asyncio that records and reads what becomes of signals."""
        return AsyncSignalLifecycle(self._url, self._key, self._credentials)

    def close(self) -> None:
        """Close the connections and end the background thread."""
        self._loop.run(self._caller.aclose())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _rpc(
        self, function: str, answer: type[T], caller: Caller | None = None, /, **parameters: Any
    ) -> T:
        decode = msgspec.json.Decoder(answer).decode
        return self._loop.run((caller or self._caller).call(_RPC + function, parameters, decode))


def project_from(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the project's URL and its publishable key. Raises ConfigurationError."""
    url = _variable(environment, "SUPABASE_URL")
    return url, _variable(environment, "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_ANON_KEY")


def credentials_from(environment: Mapping[str, str], url: str, key: str) -> Credentials:
    """Return the credentials that the environment names. Raises ConfigurationError."""
    if api_key := environment.get("SIGNAL_API_KEY"):
        return ApiKeyCredentials(url, key, api_key)
    if token := environment.get("SIGNALS_ACCESS_TOKEN"):
        return AccessToken(token)
    email, password = environment.get("SIGNALS_EMAIL"), environment.get("SIGNALS_PASSWORD")
    if email and password:
        return PasswordCredentials(url, key, email, password)
    raise _not_set("SIGNAL_API_KEY, SIGNALS_ACCESS_TOKEN, or SIGNALS_EMAIL with SIGNALS_PASSWORD,")


def _variable(environment: Mapping[str, str], *names: str) -> str:
    for name in names:
        if environment.get(name):
            return environment[name]
    raise _not_set(" or ".join(names))


def _not_set(names: str) -> ConfigurationError:
    return ConfigurationError(
        f"Cannot make a client from the environment: {names} is not set; see .env.example."
    )
