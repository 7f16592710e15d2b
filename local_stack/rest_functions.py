"""Calls of database functions: which function a request means, and the SQL that calls it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import msgspec

from local_stack.rest_errors import ApiError, not_implemented
from local_stack.rest_schema import Argument, Function, Schema

_KEYS_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNNAMED_TYPES = ("json", "jsonb")


@dataclass(frozen=True, slots=True)
class Call:
    """A chosen function with the text of a FROM item that calls it, and its parameters."""

    function: Function
    from_sql: str
    """Produces the function's value as `t` (plain values: column `value`)."""
    parameters: tuple[str, ...]


def argument_names(body: bytes) -> frozenset[str]:
    """Return the top-level names of a JSON object without building the values."""
    if not body or body.isspace():
        return frozenset()
    try:
        return frozenset(_KEYS_DECODER.decode(body))
    except (msgspec.ValidationError, UnicodeDecodeError):
        pass
    except msgspec.DecodeError as error:
        raise invalid_body(str(error)) from None
    except RecursionError:
        raise invalid_body("it nests too deep") from None
    if body.lstrip()[:1] == b"[":
        raise not_implemented("a function call with an array of argument objects")
    raise invalid_body("the body must be a JSON object of the function's arguments")


def call_with_body(schema: Schema, schema_name: str, name: str, body: bytes) -> Call:
    """Choose the function for a POST: by the names in the body, whose text goes to the database."""
    names = argument_names(body)
    function = find_function(schema, schema_name, name, names, has_body=True)
    text = decoded_body(body)
    if _takes_whole_body(function):
        type_ = function.arguments[0].type
        return Call(function, _from_sql(function, f"($1::text)::{type_}", ""), (text or "{}",))
    return Call(function, _from_record_sql(function, names), (text,) if names else ())


def call_with_parameters(
    schema: Schema, schema_name: str, name: str, pairs: Sequence[tuple[str, str]]
) -> Call:
    """Choose the function for a GET: every argument is a parameter of the query string."""
    values = dict(pairs)
    function = find_function(schema, schema_name, name, values.keys(), has_body=False)
    if any(argument.variadic and argument.name in values for argument in function.arguments):
        raise not_implemented("variadic functions called by GET")
    given = [argument for argument in function.arguments if argument.name in values]
    sql = ", ".join(
        f"{_named(a)} := ${position}::text::{a.type}" for position, a in enumerate(given, 1)
    )
    return Call(function, _from_sql(function, sql, ""), tuple(values[a.name] for a in given))


def decoded_body(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise invalid_body("it is not UTF-8") from None


def find_function(
    schema: Schema, schema_name: str, name: str, names: Collection[str], *, has_body: bool
) -> Function:
    """Return the one function that can be called with exactly these argument names."""
    candidates = schema.functions.get((schema_name, name), ())
    matching = [function for function in candidates if _accepts(function.arguments, names)]
    if not matching and has_body:
        matching = [function for function in candidates if _takes_whole_body(function)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise _ambiguous(schema_name, matching)
    raise _not_found(schema, schema_name, name, names, has_body=has_body)


def quote(identifier: str) -> str:
    """Quote an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def _named(argument: Argument) -> str:
    return f"variadic {quote(argument.name)}" if argument.variadic else quote(argument.name)


def _accepts(arguments: Sequence[Argument], names: Collection[str]) -> bool:
    known = {argument.name for argument in arguments}
    return all(name in known for name in names) and all(
        argument.name in names for argument in arguments if argument.required
    )


def _takes_whole_body(function: Function) -> bool:
    match function.arguments:
        case (Argument(name="", type=type_),):
            return type_ in _UNNAMED_TYPES
    return False


def _from_sql(function: Function, arguments: str, source: str) -> str:
    call = f"{quote(function.schema)}.{quote(function.name)}({arguments})"
    if function.columns is not None:
        return f"from {source}lateral {call} as t"
    return f"from {source}lateral (select {call} as value) as t"


@functools.lru_cache(maxsize=1000)
def _from_record_sql(function: Function, names: frozenset[str]) -> str:
    """Write the call whose arguments are taken out of `$1`, a JSON object, by the database."""
    if not names:
        return _from_sql(function, "", "")
    arguments = [argument for argument in function.arguments if argument.name in names]
    record = ", ".join(f"{quote(a.name)} {a.type}" for a in arguments)
    values = ", ".join(f"{_named(a)} := a.{quote(a.name)}" for a in arguments)
    source = f"pg_catalog.json_to_record($1::text::json) as a ({record}), "
    return _from_sql(function, values, source)


def _signature(function: Function) -> str:
    arguments = ", ".join(f"{a.name} => {a.type}" for a in function.arguments)
    return f"{function.schema}.{function.name}({arguments})"


def invalid_body(reason: str) -> ApiError:
    return ApiError(400, "PGRST102", "Empty or invalid json", details=reason)


def _ambiguous(schema_name: str, matching: Sequence[Function]) -> ApiError:
    choices = ", ".join(_signature(function) for function in matching)
    return ApiError(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {choices}",
        hint="Try renaming the parameters or the function itself in the database so function "
        "overloading can be resolved",
    )


def _not_found(
    schema: Schema, schema_name: str, name: str, names: Collection[str], *, has_body: bool
) -> ApiError:
    full_name = f"{schema_name}.{name}"
    listed = ", ".join(sorted(names))
    called = f"{full_name}({listed})" if names else f"{full_name} without parameters"
    searched = f"with parameters {listed}" if names else "without parameters"
    unnamed = " or with a single unnamed json/jsonb parameter" if has_body else ""
    return ApiError(
        404,
        "PGRST202",
        f"Could not find the function {called} in the schema cache",
        details=f"Searched for the function {full_name} {searched}{unnamed}, but no matches were "
        "found in the schema cache.",
        hint=_suggestion(schema.functions, schema_name, name),
    )


def _suggestion(
    functions: Mapping[tuple[str, str], tuple[Function, ...]], schema_name: str, name: str
) -> str | None:
    same_name = functions.get((schema_name, name))
    if same_name:
        arguments = ", ".join(argument.name for argument in same_name[0].arguments)
        return f"Perhaps you meant to call the function {schema_name}.{name}({arguments})"
    names = [function for schema, function in functions if schema == schema_name]
    close = get_close_matches(name, names, n=1)
    return f"Perhaps you meant to call the function {schema_name}.{close[0]}" if close else None
