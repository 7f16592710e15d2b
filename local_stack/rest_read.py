"""Reads of tables, views and function results, and the answers they are given."""

from __future__ import annotations

import json

import asyncpg
from aiohttp import web

from local_stack import rest_sql
from local_stack.rest_errors import ApiError
from local_stack.rest_exchange import Answer, Exchange
from local_stack.rest_pool import Begin
from local_stack.rest_query import Query, with_range
from local_stack.rest_schema import Relation
from local_stack.rest_sql import Source, Statement


async def read_relation(exchange: Exchange, relation: Relation, query: Query) -> web.Response:
    """Answer a GET or HEAD of a table or view."""
    begin = exchange.begin(read_only=True)
    return await read_rows(exchange, Source.of_relation(relation), query, begin)


async def read_rows(exchange: Exchange, source: Source, query: Query, begin: Begin) -> web.Response:
    """Read a window of `source` and answer with its rows, the range they are and the count."""
    header = exchange.request.headers.get("Range")
    reads = exchange.request.method in ("GET", "HEAD")
    query = with_range(query, header if reads else None, exchange.max_rows)
    count = exchange.preferences.count
    statement = rest_sql.read(source, query, exchange.accepted, count, exchange.max_rows)
    async with exchange.pool.transaction(begin) as connection:
        [row] = await connection.fetch(statement.sql, *statement.parameters)
        total = await _total(connection, statement, row, count, exchange.max_rows)
        page_total: int = row["page_total"]
        if exchange.accepted.single:
            require_single(page_total)
    answer = Answer(200, row["body"], exchange.accepted.content_type)
    answer.status = _status(query.offset, page_total, total)
    answer.headers["Content-Range"] = content_range(query.offset, page_total, total)
    answer.apply_settings(row)
    return answer.response(exchange.preferences)


def require_single(rows: int) -> None:
    if rows != 1:
        raise ApiError(
            406,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
            details=f"The result contains {rows} rows",
        )


def content_range(first: int, rows: int, total: int | None) -> str:
    shown = f"{first}-{first + rows - 1}" if rows > 0 and total != 0 else "*"
    return f"{shown}/{'*' if total is None else total}"


def _status(first: int, rows: int, total: int | None) -> int:
    if total is None:
        return 200
    if first > total:
        raise ApiError(
            416,
            "PGRST103",
            "Requested range not satisfiable",
            details=f"An offset of {first} was requested, but there are only {total} rows.",
            headers={"Content-Range": f"*/{total}"},
        )
    return 206 if rows < total else 200


async def _total(
    connection: asyncpg.Connection,
    statement: Statement,
    row: asyncpg.Record,
    count: str | None,
    max_rows: int,
) -> int | None:
    """Return how many rows there are: counted, or as the planner thinks."""
    counted: int | None = row["total"]
    if count == "exact" or count is None:
        return counted
    if count == "estimated" and counted is not None and counted <= max_rows:
        return counted
    explain = f"explain (format json) {statement.count_sql}"
    plan = json.loads(await connection.fetchval(explain, *statement.count_parameters))
    return max(int(plan[0]["Plan"]["Plan Rows"]), counted or 0)
