"""Inserts, updates and deletes of tables and views."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote as url_quote

import asyncpg
import msgspec
from aiohttp import web

from local_stack import rest_sql
from local_stack.rest_errors import ApiError, not_implemented
from local_stack.rest_exchange import Accepted, Answer, Exchange
from local_stack.rest_functions import decoded_body, invalid_body
from local_stack.rest_grammar import Field, SelectItem
from local_stack.rest_query import Query
from local_stack.rest_read import content_range, require_single
from local_stack.rest_schema import Relation
from local_stack.rest_sql import Statement

_ROWS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ROW = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEYS = Accepted("application/json")


async def insert(exchange: Exchange, relation: Relation, query: Query) -> web.Response:
    """Answer a POST: insert one object or an array of them."""
    payload, rows = _insert_payload(exchange.body)
    keys = _shared_keys(rows, query)
    columns = _known_columns(relation, query.columns if query.columns is not None else keys)
    if exchange.preferences.missing == "default" and any(set(columns) - row.keys() for row in rows):
        raise not_implemented("Prefer: missing=default for rows that lack a column")
    returning = _returning(exchange, relation, query)
    accepted = _KEYS if exchange.preferences.returns == "headers-only" else exchange.accepted
    if not columns and len(rows) == 1:
        statement = rest_sql.insert_defaults(relation, returning, accepted)
    elif not columns and rows:
        raise not_implemented("inserting several rows of defaults at once")
    else:
        resolution = exchange.preferences.resolution
        statement = rest_sql.insert(
            relation, columns, payload, query, resolution, returning, accepted
        )
    row = await _execute(exchange, statement)
    answer = _answer(exchange, row, 201, 201)
    total = row["page_total"] if exchange.preferences.count == "exact" else None
    answer.headers["Content-Range"] = f"*/{'*' if total is None else total}"
    if exchange.preferences.returns == "headers-only":
        answer.body = None
        _add_location(answer, relation, row["body"])
    return answer.response(exchange.preferences)


async def update(exchange: Exchange, relation: Relation, query: Query) -> web.Response:
    """Answer a PATCH: change the filtered rows."""
    _require_filter(query, "UPDATE")
    try:
        keys = _ROW.decode(exchange.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise invalid_body("the body must be one JSON object") from None
    wanted = query.columns if query.columns is not None else list(keys)
    columns = _known_columns(relation, wanted)
    if not columns:
        raise invalid_body("the body names no column to change")
    payload = decoded_body(exchange.body)
    returning = _returning(exchange, relation, query)
    statement = rest_sql.update(relation, columns, payload, query, returning, exchange.accepted)
    row = await _execute(exchange, statement)
    answer = _answer(exchange, row, 200, 204)
    total = row["page_total"] if exchange.preferences.count == "exact" else None
    answer.headers["Content-Range"] = content_range(0, row["page_total"], total)
    return answer.response(exchange.preferences)


async def delete(exchange: Exchange, relation: Relation, query: Query) -> web.Response:
    """Answer a DELETE of the filtered rows."""
    _require_filter(query, "DELETE")
    returning = _returning(exchange, relation, query)
    statement = rest_sql.delete(relation, query, returning, exchange.accepted)
    row = await _execute(exchange, statement)
    answer = _answer(exchange, row, 200, 204)
    total = row["page_total"] if exchange.preferences.count == "exact" else "*"
    answer.headers["Content-Range"] = f"*/{total}"
    return answer.response(exchange.preferences)


async def _execute(exchange: Exchange, statement: Statement) -> asyncpg.Record:
    begin = exchange.begin(read_only=False)
    async with exchange.pool.transaction(begin) as connection:
        [row] = await connection.fetch(statement.sql, *statement.parameters)
        if exchange.accepted.single and exchange.preferences.returns == "representation":
            require_single(row["page_total"])
    return row


def _answer(exchange: Exchange, row: asyncpg.Record, with_body: int, without: int) -> Answer:
    if exchange.preferences.returns == "representation":
        answer = Answer(with_body, row["body"], exchange.accepted.content_type)
    else:
        answer = Answer(without)
    answer.apply_settings(row)
    return answer


def _returning(exchange: Exchange, relation: Relation, query: Query) -> Sequence[SelectItem]:
    match exchange.preferences.returns:
        case "representation":
            return query.select
        case "headers-only":
            return [SelectItem(Field(name)) for name in relation.primary_key]
    return ()


def _add_location(answer: Answer, relation: Relation, body: str | None) -> None:
    rows = msgspec.json.decode(body) if body else []
    if len(rows) == 1:
        filters = "&".join(
            f"{url_quote(name)}=eq.{url_quote(str(value))}" for name, value in rows[0].items()
        )
        answer.headers["Location"] = f"/{url_quote(relation.name)}?{filters}"


def _insert_payload(body: bytes) -> tuple[str, list[dict[str, msgspec.Raw]]]:
    """Return the body as the text of a JSON array, and the keys of its rows."""
    text = decoded_body(body)
    if text.lstrip()[:1] == "{":
        text = f"[{text}]"
    try:
        return text, _ROWS.decode(text)
    except msgspec.DecodeError as error:
        raise invalid_body(str(error)) from None


def _shared_keys(rows: list[dict[str, msgspec.Raw]], query: Query) -> list[str]:
    if not rows or query.columns is not None:
        return []
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ApiError(400, "PGRST102", "All object keys must match")
    return list(rows[0])


def _known_columns(relation: Relation, names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in relation.columns:
            raise ApiError(
                400,
                "PGRST204",
                f"Could not find the '{name}' column of '{relation.name}' in the schema cache",
            )
    return list(dict.fromkeys(names))


def _require_filter(query: Query, verb: str) -> None:
    """Refuse to touch every row, as hosted's `safeupdate` does."""
    if query.limit is not None or query.offset:
        raise not_implemented(f"limited {verb.lower()}s")
    if not query.conditions:
        raise ApiError(400, "21000", f"{verb} requires a WHERE clause")
