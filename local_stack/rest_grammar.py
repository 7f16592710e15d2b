"""The grammar of PostgREST's parameters: columns, filters, logic trees, order and select."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from local_stack.rest_errors import ApiError, not_implemented

COMPARISONS = {
    "eq": "=",
    "neq": "<>",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
    "cs": "@>",
    "cd": "<@",
    "ov": "&&",
    "sl": "<<",
    "sr": ">>",
    "nxr": "&<",
    "nxl": "&>",
    "adj": "-|-",
}
QUANTIFIED = {"eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"}
FULL_TEXT = {"fts", "plfts", "phfts", "wfts"}
IS_VALUES = {"null", "not_null", "true", "false", "unknown"}
MAX_DEPTH = 20
MAX_ITEMS = 1000


@dataclass(frozen=True, slots=True)
class Field:
    """A column, and the way into it when it is JSON: `data->items->>0`."""

    name: str
    path: tuple[tuple[str, str | int], ...] = ()


@dataclass(frozen=True, slots=True)
class SelectItem:
    field: Field
    alias: str | None = None
    cast: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    field: Field
    operator: str
    value: str | tuple[str, ...]
    negated: bool = False
    quantifier: str | None = None


@dataclass(frozen=True, slots=True)
class Logic:
    """`and`/`or` of conditions, or the negation of that."""

    operator: str
    conditions: tuple[Filter | Logic, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class OrderTerm:
    field: Field
    descending: bool = False
    nulls: str | None = None


class Scanner:
    """A cursor over the text of one parameter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.items = 0

    def match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def skip(self, literal: str) -> bool:
        if not self.text.startswith(literal, self.position):
            return False
        self.position += len(literal)
        return True

    def expect(self, literal: str) -> None:
        if not self.skip(literal):
            self.fail(f'expecting "{literal}"')

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def rest(self) -> str:
        rest, self.position = self.text[self.position :], len(self.text)
        return rest

    def count_item(self) -> None:
        self.items += 1
        if self.items > MAX_ITEMS:
            self.fail(f"more than {MAX_ITEMS} items")

    def fail(self, expected: str) -> NoReturn:
        found = f'unexpected "{self.peek()}"' if self.peek() else "unexpected end of input"
        raise QuerySyntaxError(self.position + 1, f"{found} {expected}")


class QuerySyntaxError(Exception):
    """Cannot parse a parameter of the query string."""

    def __init__(self, column: int, details: str) -> None:
        super().__init__(details)
        self.column = column
        self.details = details


Result = TypeVar("Result")
_NAME = re.compile(r"[\w $]+(?:-(?!>)[\w $]+)*|-?[\w $]+")
_NAME_END = re.compile(r"\s*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)
_INTEGER = re.compile(r"-?\d{1,9}(?![\w])")
_CAST = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?: [A-Za-z0-9_]+)*(?:\[\])?")
_OPERATOR = re.compile(r"[a-z]+")
_LOGIC_VALUE = re.compile(r"[^,)]*")
_ARRAY = re.compile(r"\{[^{}]*\}")
_SPACES = re.compile(r"[ \t]*")
_LANGUAGE = re.compile(r"\([^)]*\)")


def parse(what: str, text: str, rule: Callable[[Scanner], Result]) -> Result:
    """Parse all of `text` with `rule`, or raise PGRST100."""
    scanner = Scanner(text)
    try:
        result = rule(scanner)
        if scanner.peek():
            scanner.fail("expecting end of input")
    except QuerySyntaxError as error:
        raise ApiError(
            400,
            "PGRST100",
            f'"failed to parse {what}" (line 1, column {error.column})',
            details=error.details,
        ) from None
    return result


def filter_path(scanner: Scanner) -> Field:
    """`column`, `column->key`; a dot means a column of an embedded resource."""
    name = _name(scanner)
    if scanner.skip("."):
        raise ApiError(
            400,
            "PGRST108",
            f"'{name}' is not an embedded resource in this request",
            hint=f"Verify that '{name}' is included in the 'select' query parameter.",
        )
    return Field(name, _json_path(scanner))


def operation(scanner: Scanner, field: Field) -> Filter:
    """`eq.5`, `not.in.(1,2)`, `is.null`: the whole rest is the value."""
    return _operation(scanner, field, lambda s: s.rest())


def logic_tree(scanner: Scanner) -> Logic:
    """`and(a.eq.1,not.or(b.gt.2,c.is.null))`."""
    return _logic(scanner, 0)


def names(scanner: Scanner) -> tuple[str, ...]:
    """Column names, separated by commas."""
    return tuple(_separated(scanner, _name))


def order(scanner: Scanner) -> tuple[OrderTerm, ...]:
    """`a.desc.nullslast,b->c.asc`."""
    return tuple(_separated(scanner, _order_term))


def select(scanner: Scanner) -> tuple[SelectItem, ...]:
    """`*`, `alias:column::text`, `data->>key`."""
    return tuple(_separated(scanner, _select_item))


def _separated(scanner: Scanner, rule: Callable[[Scanner], Result]) -> list[Result]:
    results = []
    while True:
        scanner.match(_SPACES)
        scanner.count_item()
        results.append(rule(scanner))
        scanner.match(_SPACES)
        if not scanner.skip(","):
            return results


def _name(scanner: Scanner) -> str:
    quoted = _quoted(scanner)
    if quoted is not None:
        return quoted
    if scanner.skip("*"):
        return "*"
    name = (scanner.match(_NAME) or "").strip()
    if not name:
        scanner.fail("expecting field name (* or [a..z0..9_$])")
    return name


def _quoted(scanner: Scanner) -> str | None:
    if scanner.peek() != '"':
        return None
    text = scanner.match(_QUOTED)
    if text is None:
        scanner.fail('expecting a closing "')
    return _UNESCAPE.sub(r"\1", text[1:-1])


def _json_path(scanner: Scanner) -> tuple[tuple[str, str | int], ...]:
    path: list[tuple[str, str | int]] = []
    while scanner.text.startswith("->", scanner.position):
        arrow = "->>" if scanner.skip("->>") else "->"
        if arrow == "->":
            scanner.skip("->")
        scanner.count_item()
        index = scanner.match(_INTEGER)
        path.append((arrow, int(index) if index is not None else _name(scanner)))
    return tuple(path)


def _operation(scanner: Scanner, field: Field, single_value: Callable[[Scanner], str]) -> Filter:
    negated = scanner.skip("not.")
    operator = scanner.match(_OPERATOR) or ""
    quantifier = None
    if operator in FULL_TEXT:
        scanner.match(_LANGUAGE)
        raise not_implemented(f"full-text search filters ({operator})")
    if operator in QUANTIFIED:
        quantifier = "any" if scanner.skip("(any)") else "all" if scanner.skip("(all)") else None
    elif operator not in COMPARISONS and operator not in ("is", "in", "isdistinct"):
        scanner.position -= len(operator)
        scanner.fail("expecting operator (eq, gt, ...)")
    scanner.expect(".")
    if operator == "in":
        return Filter(field, "in", _list_value(scanner), negated)
    value = single_value(scanner)
    if operator == "is":
        value = value.lower()
        if value not in IS_VALUES:
            scanner.position -= len(value)
            scanner.fail("expecting null, not_null, true, false or unknown")
    return Filter(field, operator, value, negated, quantifier)


def _list_value(scanner: Scanner) -> tuple[str, ...]:
    scanner.match(_SPACES)
    scanner.expect("(")
    values = []
    while True:
        scanner.count_item()
        values.append(_list_element(scanner))
        if not scanner.skip(","):
            break
    scanner.expect(")")
    scanner.match(_SPACES)
    return () if values == [""] else tuple(values)


def _list_element(scanner: Scanner) -> str:
    """A quoted value, or everything up to the next comma or bracket."""
    start = scanner.position
    if scanner.peek() == '"' and scanner.match(_QUOTED) is not None:
        if scanner.peek() in (",", ")", ""):
            return _UNESCAPE.sub(r"\1", scanner.text[start + 1 : scanner.position - 1])
        scanner.position = start
    return scanner.match(_LOGIC_VALUE) or ""


def _logic(scanner: Scanner, depth: int) -> Logic:
    if depth > MAX_DEPTH:
        scanner.fail(f"expecting at most {MAX_DEPTH} levels")
    negated = scanner.skip("not.")
    operator = "and" if scanner.skip("and") else "or" if scanner.skip("or") else ""
    if not operator:
        scanner.fail("expecting logic operator (and, or)")
    scanner.match(_SPACES)
    scanner.expect("(")
    conditions = _separated(scanner, lambda s: _logic_condition(s, depth + 1))
    scanner.expect(")")
    return Logic(operator, tuple(conditions), negated)


_LOGIC_START = re.compile(r"(?:not\.)?(?:and|or)[ \t]*\(")


def _logic_condition(scanner: Scanner, depth: int) -> Filter | Logic:
    if _LOGIC_START.match(scanner.text, scanner.position):
        return _logic(scanner, depth)
    name = _name(scanner)
    field = Field(name, _json_path(scanner))
    scanner.expect(".")
    return _operation(scanner, field, _logic_value)


def _logic_value(scanner: Scanner) -> str:
    """In a tree a value ends at a comma or bracket, unless quoted or an array literal."""
    array = scanner.match(_ARRAY)
    return array if array is not None else _list_element(scanner)


def _order_term(scanner: Scanner) -> OrderTerm:
    field = Field(_name(scanner), _json_path(scanner))
    if scanner.peek() == "(":
        raise not_implemented("ordering by an embedded resource")
    descending = False
    if scanner.skip(".desc"):
        descending = True
    else:
        scanner.skip(".asc")
    nulls = None
    if scanner.skip(".nullsfirst"):
        nulls = "first"
    elif scanner.skip(".nullslast"):
        nulls = "last"
    if scanner.peek() == ".":
        scanner.fail("expecting asc, desc, nullsfirst or nullslast")
    return OrderTerm(field, descending, nulls)


def _select_item(scanner: Scanner) -> SelectItem:
    if scanner.skip("..."):
        raise not_implemented("resource embedding (spread)")
    name = _name(scanner)
    alias = None
    if scanner.peek() == ":" and not scanner.text.startswith("::", scanner.position):
        scanner.skip(":")
        alias, name = name, _name(scanner)
    if scanner.peek() in ("(", "!"):
        if name == "count" and scanner.text.startswith("()", scanner.position):
            raise _no_aggregates()
        raise not_implemented(f"resource embedding ({name})")
    path = _json_path(scanner)
    cast = None
    if scanner.skip("::"):
        cast = scanner.match(_CAST)
        if cast is None:
            scanner.fail("expecting a type")
    if scanner.peek() == ".":
        raise _no_aggregates()
    return SelectItem(Field(name, path), alias, cast)


def _no_aggregates() -> ApiError:
    return ApiError(400, "PGRST123", "Use of aggregate functions is not allowed")
