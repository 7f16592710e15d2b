"""`/rest/v1/rpc/<function>`: call a database function and shape what it returns."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from local_stack.rest_errors import ApiError, not_implemented
from local_stack.rest_exchange import CSV, OUTPUT_SQL, Answer, Exchange
from local_stack.rest_functions import Call, call_with_body, call_with_parameters, quote
from local_stack.rest_query import EVERYTHING, Query, parse
from local_stack.rest_read import read_rows
from local_stack.rest_request import query_parameters
from local_stack.rest_sql import Source

VALUE = "value"


async def call_function(exchange: Exchange, name: str) -> web.Response:
    """Answer a POST with the arguments in the body, or a GET with them in the query string.

    A GET, and any call of a function that is not volatile, runs in a read-only transaction.
    """
    method = exchange.request.method
    if method == "POST":
        exchange.require_json()
        call = call_with_body(exchange.schema, exchange.schema_name, name, exchange.body)
        query = parse(query_parameters(exchange.request))
    elif method in ("GET", "HEAD"):
        query = parse(query_parameters(exchange.request), function_arguments=True)
        call = call_with_parameters(exchange.schema, exchange.schema_name, name, query.arguments)
    else:
        raise ApiError(
            405, "PGRST101", f"Cannot use the {method} method on RPC", headers={"Allow": "GET,POST"}
        )
    function = call.function
    if function.media_type is not None and function.media_type == exchange.accepted.media_type:
        return await _call_handler(exchange, call)
    exchange.require_known_media_type()
    if function.columns is None and not function.returns_set:
        return await _call_scalar(exchange, call)
    if not function.returns_set and exchange.accepted.media_type != CSV:
        exchange = replace(exchange, accepted=replace(exchange.accepted, one_row=True))
    begin = exchange.begin(read_only=method != "POST" or not function.volatile, function=function)
    return await read_rows(exchange, _rows(call, query), query, begin)


async def _call_handler(exchange: Exchange, call: Call) -> web.Response:
    """Answer with what the function returns as it is: the function made it in the media type."""
    sql = f"select t.value as body, {OUTPUT_SQL} {call.from_sql}"
    read_only = exchange.request.method != "POST" or not call.function.volatile
    begin = exchange.begin(read_only=read_only, function=call.function)
    row = await exchange.pool.run(begin, sql, call.parameters)
    answer = Answer(200, row["body"] or b"", exchange.accepted.media_type)
    answer.headers["Content-Range"] = "0-0/*"
    answer.apply_settings(row)
    return answer.response(exchange.preferences)


async def _call_scalar(exchange: Exchange, call: Call) -> web.Response:
    function = call.function
    if exchange.accepted.media_type == CSV:
        raise not_implemented("CSV of a function that returns one value")
    value = "pg_catalog.to_json(t.value)"
    if exchange.accepted.strip_nulls:
        value = f"pg_catalog.json_strip_nulls({value})"
    sql = f"select {value}::text as body, {OUTPUT_SQL} {call.from_sql}"
    read_only = exchange.request.method != "POST" or not function.volatile
    begin = exchange.begin(read_only=read_only, function=function)
    row = await exchange.pool.run(begin, sql, call.parameters)
    answer = Answer(200, row["body"] or "null", exchange.accepted.content_type)
    answer.headers["Content-Range"] = "0-0/*"
    if function.returns_void:
        answer.status, answer.body = 204, None
    answer.apply_settings(row)
    return answer.response(exchange.preferences)


def _rows(call: Call, query: Query) -> Source:
    """The rows of a function as a source that is evaluated once, even when it is counted too."""
    function = call.function
    columns = function.columns if function.columns is not None else {}
    if function.columns is None and (query.select != EVERYTHING or query.order or query.conditions):
        raise not_implemented("select, filters and order on a function that returns plain values")
    alias = quote(function.name)
    from_sql = f"from (select t.* {call.from_sql} offset 0) as {alias}"
    return Source(from_sql, alias, columns, call.parameters, function.columns is None)
