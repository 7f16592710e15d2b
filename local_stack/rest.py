"""`/rest/v1`: a stand-in for PostgREST 14, as far as the official clients need it."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import asyncpg
from aiohttp import web

from local_stack import rest_write
from local_stack.keys import Keys
from local_stack.rest_call import call_function
from local_stack.rest_errors import ApiError, from_exception, not_implemented
from local_stack.rest_exchange import Accepted, Exchange
from local_stack.rest_functions import quote
from local_stack.rest_pool import Pool
from local_stack.rest_query import parse
from local_stack.rest_read import read_relation
from local_stack.rest_request import GatewayRefusal, Preferences, authenticate, query_parameters
from local_stack.rest_schema import Relation, SchemaCache
from local_stack.settings import StackSettings

POOL_SIZE = 12
STALE_SCHEMA_CODES = {"42883", "42P01", "42703", "PGRST202", "PGRST204", "PGRST205"}
"""Unknown function, table or column: the catalog may have changed since it was read."""


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """The `[api]` table of `supabase/config.toml`."""

    schemas: tuple[str, ...]
    extra_search_path: tuple[str, ...]
    max_rows: int

    @classmethod
    def load(cls, path: Path) -> ApiConfig:
        api = tomllib.loads(path.read_text()).get("api", {})
        return cls(
            tuple(api.get("schemas", ["public"])),
            tuple(api.get("extra_search_path", ["public", "extensions"])),
            int(api.get("max_rows", 1000)),
        )

    def search_path(self, schema_name: str) -> str:
        names = dict.fromkeys([schema_name, *self.extra_search_path])
        return ", ".join(quote(name) for name in names)


class RestApi:
    """Answer REST requests from the database, each in one transaction as the caller's role."""

    def __init__(self, settings: StackSettings, keys: Keys, config: ApiConfig) -> None:
        dsn = settings.socket_dsn("authenticator")
        self._keys = keys
        self._config = config
        self._pool = Pool(dsn, size=POOL_SIZE)
        self._schema_cache = SchemaCache(self._pool, dsn, config.schemas)
        self._search_paths = {name: config.search_path(name) for name in config.schemas}

    async def start(self) -> None:
        await self._schema_cache.start()

    async def stop(self) -> None:
        await self._schema_cache.stop()
        await self._pool.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request below `/rest/v1/`."""
        role = "anon"
        try:
            caller = authenticate(request, self._keys)
            role = caller.role
            body = await request.read() if request.can_read_body else b""
            schema_name = self._schema_name(request)
            schema = await self._schema_cache.current()
            exchange = Exchange(
                request=request,
                caller=caller,
                schema=schema,
                schema_name=schema_name,
                search_path=self._search_paths[schema_name],
                pool=self._pool,
                max_rows=self._config.max_rows,
                body=body,
                accepted=Accepted.parse(request.headers.get("Accept", "")),
                preferences=Preferences.parse(request.headers.get("Prefer", "")),
            )
            return await self._answer(exchange)
        except GatewayRefusal as refusal:
            return refusal.response()
        except ApiError as error:
            return error.response()
        except web.HTTPException:
            raise
        except Exception as exception:
            translated = from_exception(exception, role)
            if translated is None:
                raise
            return translated.response()

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        try:
            return await _route(exchange)
        except asyncpg.InvalidCachedStatementError:
            schema = exchange.schema
        except (ApiError, asyncpg.PostgresError) as error:
            code = error.body["code"] if isinstance(error, ApiError) else error.sqlstate
            if code not in STALE_SCHEMA_CODES:
                raise
            schema = await self._schema_cache.reload(exchange.schema)
            if schema is exchange.schema:
                raise
        return await _route(dataclasses.replace(exchange, schema=schema))

    def _schema_name(self, request: web.Request) -> str:
        reads = request.method in ("GET", "HEAD")
        name = request.headers.get("Accept-Profile" if reads else "Content-Profile")
        if name is None:
            return self._config.schemas[0]
        if name not in self._config.schemas:
            exposed = ", ".join(self._config.schemas)
            raise ApiError(
                406,
                "PGRST106",
                f"Invalid schema: {name}",
                hint=f"Only the following schemas are exposed: {exposed}",
            )
        return name


async def _route(exchange: Exchange) -> web.StreamResponse:
    resource: str = exchange.request.match_info["resource"]
    if resource.startswith("rpc/"):
        return await call_function(exchange, resource.removeprefix("rpc/"))
    exchange.require_known_media_type()
    if not resource:
        raise not_implemented("the OpenAPI description of /rest/v1/")
    relation = _relation(exchange, resource)
    query = parse(query_parameters(exchange.request))
    match exchange.request.method:
        case "GET" | "HEAD":
            return await read_relation(exchange, relation, query)
        case "POST":
            exchange.require_json()
            return await rest_write.insert(exchange, relation, query)
        case "PATCH":
            exchange.require_json()
            return await rest_write.update(exchange, relation, query)
        case "DELETE":
            return await rest_write.delete(exchange, relation, query)
        case "PUT":
            raise not_implemented("PUT (a single upsert)")
    raise ApiError(405, "PGRST117", f"Unsupported HTTP method: {exchange.request.method}")


def _relation(exchange: Exchange, name: str) -> Relation:
    relation = exchange.schema.relations.get((exchange.schema_name, name))
    if relation is not None:
        return relation
    names = [known for schema, known in exchange.schema.relations if schema == exchange.schema_name]
    close = get_close_matches(name, names, n=1)
    raise ApiError(
        404,
        "PGRST205",
        f"Could not find the table '{exchange.schema_name}.{name}' in the schema cache",
        hint=f"Perhaps you meant the table '{exchange.schema_name}.{close[0]}'" if close else None,
    )
