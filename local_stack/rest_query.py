"""Parse the query string and the Range header of a REST request into a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from local_stack import rest_grammar as grammar
from local_stack.rest_errors import ApiError
from local_stack.rest_grammar import Field, Filter, Logic, OrderTerm, SelectItem

MAX_BIGINT = 2**63 - 1
EVERYTHING = (SelectItem(Field("*")),)
_RANGE = re.compile(r"(?:items=)?(\d{1,18})-(\d{1,18})?")


@dataclass(frozen=True, slots=True)
class Query:
    """What a request asks of a table, a view or the rows that a function returns."""

    select: tuple[SelectItem, ...] = EVERYTHING
    conditions: tuple[Filter | Logic, ...] = ()
    order: tuple[OrderTerm, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    """The parameters that are no filters: the arguments of a function called by GET."""


def parse(parameters: Sequence[tuple[str, str]], *, function_arguments: bool = False) -> Query:
    """Parse a request's parameters; a syntax error raises PGRST100.

    With `function_arguments` (a function called by GET), what has no operator is an argument.
    """
    query = Query()
    conditions: list[Filter | Logic] = []
    arguments: list[tuple[str, str]] = []
    for name, value in parameters:
        if name in _RESERVED:
            query = _RESERVED[name](query, value)
        elif name in ("and", "or", "not.and", "not.or"):
            what = f"logic tree ({value})"
            conditions.append(grammar.parse(what, name + value, grammar.logic_tree))
        elif function_arguments and not _is_filter(name, value):
            arguments.append((name, value))
        else:
            conditions.append(_filter(name, value))
    return replace(query, conditions=tuple(conditions), arguments=tuple(arguments))


def with_range(query: Query, header: str | None, max_rows: int | None) -> Query:
    """Narrow the query's window by a Range header and the configured maximum of rows."""
    first, last = query.offset, MAX_BIGINT
    if query.limit is not None:
        last = first + query.limit - 1
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is not None:
        lower, upper = int(found[1]), int(found[2] or MAX_BIGINT)
        if upper < lower:
            raise _bad_range(
                "The lower boundary must be lower than or equal to the upper boundary in the "
                "Range header."
            )
        first, last = max(first, lower), min(last, upper)
    limit = None if last == MAX_BIGINT else max(last - first + 1, 0)
    if max_rows is not None:
        limit = max_rows if limit is None else min(limit, max_rows)
    return replace(query, limit=limit, offset=first)


def _filter(name: str, value: str) -> Filter:
    field = grammar.parse(f"tree path ({name})", name, grammar.filter_path)
    return grammar.parse(f"filter ({value})", value, lambda s: grammar.operation(s, field))


def _is_filter(name: str, value: str) -> bool:
    """Tell filters from arguments as PostgREST does: by the operator before the first dot."""
    if "." in name:
        return True
    first, dot, rest = value.partition(".")
    if first == "not":
        return "." in rest
    operator = first.partition("(")[0]
    known = operator in grammar.COMPARISONS or operator in grammar.FULL_TEXT
    return bool(dot) and (known or operator in ("is", "in", "isdistinct"))


def _select(query: Query, value: str) -> Query:
    if not value.strip():
        return query
    return replace(
        query, select=grammar.parse(f"select parameter ({value})", value, grammar.select)
    )


def _order(query: Query, value: str) -> Query:
    if not value.strip():
        return query
    return replace(query, order=grammar.parse(f"order ({value})", value, grammar.order))


def _limit(query: Query, value: str) -> Query:
    number = _integer(value)
    if number is None:
        return query
    if number < 0:
        raise _bad_range("Limit should be greater than or equal to zero.")
    return replace(query, limit=number)


def _offset(query: Query, value: str) -> Query:
    number = _integer(value)
    return query if number is None else replace(query, offset=max(number, 0))


def _columns(query: Query, value: str) -> Query:
    what = f"columns parameter ({value})"
    return replace(query, columns=grammar.parse(what, value, grammar.names))


def _on_conflict(query: Query, value: str) -> Query:
    what = f"on_conflict parameter ({value})"
    return replace(query, on_conflict=grammar.parse(what, value, grammar.names))


def _integer(value: str) -> int | None:
    if not re.fullmatch(r"-?[0-9]{1,30}", value):
        return None
    return max(min(int(value), MAX_BIGINT // 2), -1)


def _bad_range(details: str) -> ApiError:
    return ApiError(416, "PGRST103", "Requested range not satisfiable", details=details)


_RESERVED: dict[str, Callable[[Query, str], Query]] = {
    "select": _select,
    "order": _order,
    "limit": _limit,
    "offset": _offset,
    "columns": _columns,
    "on_conflict": _on_conflict,
}
