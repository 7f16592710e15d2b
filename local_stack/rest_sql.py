"""Turn a parsed query into SQL: identifiers quoted, every value a parameter."""
# ruff: noqa: S608 - writing SQL is what this module is for; tests/stack/test_rest_fuzz.py attacks it

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from local_stack.rest_exchange import CSV, OUTPUT_SQL, Accepted
from local_stack.rest_functions import quote
from local_stack.rest_grammar import COMPARISONS, Field, Filter, Logic, OrderTerm, SelectItem
from local_stack.rest_query import Query
from local_stack.rest_schema import Relation

Parameter = str | int | list[str]
_PATTERNS = {"like", "ilike"}
_TEXT_OPERAND = {"like", "ilike", "match", "imatch"}
_IS_SQL = {
    "null": "is null",
    "not_null": "is not null",
    "true": "is true",
    "false": "is false",
    "unknown": "is unknown",
}
_CSV_BODY = (
    "(select coalesce(string_agg(a.k, ','), '') from (select json_object_keys(r)::text as k from "
    "(select row_to_json(h) as r from source as h limit 1) as s) as a) || e'\\n' || "
    "coalesce(string_agg(substring(_row::text, 2, length(_row::text) - 2), e'\\n'), '')"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Rows to read: a FROM item under a quoted alias, and what is known of its columns."""

    from_sql: str
    alias: str
    columns: Mapping[str, str]
    parameters: tuple[str, ...] = ()
    plain_values: bool = False
    """True if the rows are the values of a function, in one column named `value`."""

    @classmethod
    def of_relation(cls, relation: Relation) -> Source:
        alias = quote(relation.name)
        return cls(f"from {quote(relation.schema)}.{alias}", alias, relation.columns)


@dataclass(slots=True)
class Builder:
    """Collects the parameters of one statement while its text is written."""

    source: Source
    parameters: list[Parameter] = field(default_factory=list)

    def bind(self, value: Parameter) -> str:
        self.parameters.append(value)
        return f"${len(self.parameters)}"

    def where(self, query: Query) -> str:
        if not query.conditions:
            return ""
        return "where " + " and ".join(self._condition(c) for c in query.conditions)

    def select_list(self, items: Sequence[SelectItem]) -> str:
        return ", ".join(self._select_item(item) for item in items)

    def order(self, terms: Sequence[OrderTerm]) -> str:
        if not terms:
            return ""
        return "order by " + ", ".join(self._order_term(term) for term in terms)

    def window(self, query: Query) -> str:
        limit = "" if query.limit is None else f"limit {self.bind(query.limit)}::bigint"
        offset = "" if query.offset == 0 else f"offset {self.bind(query.offset)}::bigint"
        return f"{limit} {offset}"

    def _condition(self, condition: Filter | Logic) -> str:
        if isinstance(condition, Filter):
            sql = self._filter(condition)
        else:
            sql = f" {condition.operator} ".join(map(self._condition, condition.conditions))
            sql = f"({sql})"
        return f"not {sql}" if condition.negated else sql

    def _filter(self, filter_: Filter) -> str:
        column, type_ = self._column(filter_.field)
        match filter_.operator, filter_.value:
            case "is", str(value):
                return f"({column} {_IS_SQL[value]})"
            case "in", tuple(values):
                operand = f"{self.bind(list(values))}::text[]"
                return f"({column} = any ({operand}{_cast(type_, '[]')}))"
            case "isdistinct", str(value):
                return f"({column} is distinct from {self._value(value, type_)})"
            case operator, str(value):
                return self._comparison(column, type_, operator, value, filter_.quantifier)
        raise AssertionError(filter_)

    def _comparison(
        self, column: str, type_: str | None, operator: str, value: str, quantifier: str | None
    ) -> str:
        if operator in _PATTERNS:
            value = value.replace("*", "%")
        if operator in _TEXT_OPERAND:
            type_ = "text"
        symbol = COMPARISONS[operator]
        if quantifier is not None:
            operand = f"{self.bind(value)}::text{_cast(type_ or 'text', '[]')}"
            return f"({column} {symbol} {quantifier} ({operand}))"
        return f"({column} {symbol} {self._value(value, type_)})"

    def _value(self, value: str, type_: str | None) -> str:
        return f"{self.bind(value)}::text{_cast(type_)}"

    def _column(self, field_: Field) -> tuple[str, str | None]:
        """Return the SQL of a column or of a place in it, and its type if that is known."""
        column = f"{self.source.alias}.{quote(field_.name)}"
        type_ = self.source.columns.get(field_.name)
        if not field_.path:
            return column, type_
        if type_ not in ("json", "jsonb"):
            column, type_ = f"to_jsonb({column})", "jsonb"
        for arrow, key in field_.path:
            operand = str(key) if isinstance(key, int) else f"{self.bind(key)}::text"
            column = f"{column} {arrow} {operand}"
        return f"({column})", "text" if field_.path[-1][0] == "->>" else type_

    def _select_item(self, item: SelectItem) -> str:
        if item.field.name == "*":
            return f"{self.source.alias}.*"
        column, _ = self._column(item.field)
        if item.cast is not None:
            column = f"cast({column} as {item.cast})"
        keys = [key for _, key in item.field.path if isinstance(key, str)]
        name = item.alias or (keys[-1] if keys else item.field.name)
        return f"{column} as {quote(name)}"

    def _order_term(self, term: OrderTerm) -> str:
        column, _ = self._column(term.field)
        direction = "desc" if term.descending else "asc"
        nulls = f" nulls {term.nulls}" if term.nulls else ""
        return f"{column} {direction}{nulls}"


@dataclass(frozen=True, slots=True)
class Statement:
    sql: str
    parameters: tuple[Parameter, ...]
    count_sql: str = ""
    """`select … from … where …` of all rows, limit aside, for the query planner's estimate."""
    count_parameters: tuple[Parameter, ...] = ()


def read(
    source: Source, query: Query, accepted: Accepted, count: str | None, max_rows: int
) -> Statement:
    """Write the statement that reads `query` from `source` as one row with the whole body."""
    builder = Builder(source, list(source.parameters))
    rows = f"{source.from_sql} {builder.where(query)}"
    count_parameters = tuple(builder.parameters)
    selected = builder.select_list(query.select)
    order = builder.order(query.order)
    window = builder.window(query)
    match count:
        case "exact":
            total = f"(select count(*) {rows})"
        case "estimated":
            total = f"(select count(*) from (select 1 {rows} limit {max_rows + 1}) as c)"
        case _:
            total = "null::bigint"
    shown = body(accepted, plain_values=source.plain_values)
    sql = (
        f"with source as (select {selected} {rows} {order} {window}) "
        f"select {shown} as body, count(*) as page_total, {total} as total, "
        f"{OUTPUT_SQL} from source as _row"
    )
    return Statement(sql, tuple(builder.parameters), f"select 1 {rows}", count_parameters)


def body(accepted: Accepted, *, plain_values: bool = False) -> str:
    """Return the SQL that makes the response's text of the rows `_row` of `source`."""
    if accepted.media_type == CSV:
        return _CSV_BODY
    rows = "json_agg(_row.value)" if plain_values else "json_agg(_row)"
    if accepted.strip_nulls:
        rows = f"json_strip_nulls({rows})"
    if accepted.single or accepted.one_row:
        return f"coalesce({rows} -> 0, 'null')::text"
    return f"coalesce({rows}, '[]')::text"


def insert(
    relation: Relation,
    columns: Sequence[str],
    payload: str,
    query: Query,
    resolution: str | None,
    returning: Sequence[SelectItem],
    accepted: Accepted,
) -> Statement:
    """Write an insert of the objects in `payload`, a JSON array."""
    builder = Builder(Source.of_relation(relation), [payload])
    alias = builder.source.alias
    if columns:
        listed = ", ".join(map(quote, columns))
        rows = f"({listed}) select {listed} from {_recordset(relation, columns, 'recordset')}"
    else:
        rows = "select from json_array_elements($1::text::json) where false"
    sql = f"insert into {quote(relation.schema)}.{alias} as {alias} {rows}"
    conflict = query.on_conflict or relation.primary_key
    if resolution and conflict:
        sql += (
            f" on conflict ({', '.join(map(quote, conflict))}) {_on_conflict(resolution, columns)}"
        )
    return _mutation(builder, sql, returning, accepted)


def insert_defaults(
    relation: Relation, returning: Sequence[SelectItem], accepted: Accepted
) -> Statement:
    """Write an insert of one row of defaults."""
    builder = Builder(Source.of_relation(relation))
    alias = builder.source.alias
    sql = f"insert into {quote(relation.schema)}.{alias} as {alias} default values"
    return _mutation(builder, sql, returning, accepted)


def update(
    relation: Relation,
    columns: Sequence[str],
    payload: str,
    query: Query,
    returning: Sequence[SelectItem],
    accepted: Accepted,
) -> Statement:
    """Write an update by the object in `payload`."""
    builder = Builder(Source.of_relation(relation), [payload])
    alias = builder.source.alias
    listed = ", ".join(map(quote, columns))
    changes = ", ".join(f"{quote(name)} = _payload.{quote(name)}" for name in columns)
    sql = (
        f"update {quote(relation.schema)}.{alias} as {alias} set {changes} "
        f"from (select {listed} from {_recordset(relation, columns, 'record')}) as _payload "
        f"{builder.where(query)}"
    )
    return _mutation(builder, sql, returning, accepted)


def delete(
    relation: Relation, query: Query, returning: Sequence[SelectItem], accepted: Accepted
) -> Statement:
    builder = Builder(Source.of_relation(relation))
    alias = builder.source.alias
    sql = f"delete from {quote(relation.schema)}.{alias} as {alias} {builder.where(query)}"
    return _mutation(builder, sql, returning, accepted)


def _mutation(
    builder: Builder, sql: str, returning: Sequence[SelectItem], accepted: Accepted
) -> Statement:
    selected = builder.select_list(returning) if returning else "1"
    result = body(accepted) if returning else "null::text"
    statement = (
        f"with source as ({sql} returning {selected}) "
        f"select {result} as body, count(*) as page_total, null::bigint as total, {OUTPUT_SQL} "
        "from source as _row"
    )
    return Statement(statement, tuple(builder.parameters))


def _recordset(relation: Relation, columns: Sequence[str], kind: str) -> str:
    typed = ", ".join(f"{quote(name)} {relation.columns[name]}" for name in columns)
    return f"pg_catalog.json_to_{kind}($1::text::json) as _record ({typed})"


def _on_conflict(resolution: str, columns: Sequence[str]) -> str:
    if resolution == "ignore-duplicates" or not columns:
        return "do nothing"
    changes = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in columns)
    return f"do update set {changes}"


def _cast(type_: str | None, suffix: str = "") -> str:
    return f"::{type_}{suffix}" if type_ is not None else ""
