"""`/rest/v1/rpc/<function>`: call a database function and shape what it returns."""

from __future__ import annotations

from aiohttp import web

from local_stack.rest_errors import not_implemented
from local_stack.rest_exchange import OUTPUT_SQL, Answer, Exchange
from local_stack.rest_functions import Call, call_with_body

_SCALAR_SQL: dict[str, str] = {}


async def call_function(exchange: Exchange, name: str) -> web.Response:
    call = call_with_body(exchange.schema, exchange.schema_name, name, exchange.body)
    return await _call_scalar(exchange, call)


async def _call_scalar(exchange: Exchange, call: Call) -> web.Response:
    function = call.function
    if function.columns is not None or function.returns_set:
        raise not_implemented("functions that return rows")
    sql = f"select pg_catalog.to_json(t.value)::text as body, {OUTPUT_SQL} {call.from_sql}"
    begin = exchange.begin(read_only=not function.volatile, function=function)
    async with exchange.pool.transaction(begin) as connection:
        [row] = await connection.fetch(sql, *call.parameters)
    answer = Answer(200, row["body"] or "null", headers={"Content-Range": "0-0/*"})
    if function.returns_void:
        answer.status, answer.body = 204, None
    answer.apply_settings(row)
    return answer.response(exchange.preferences)
