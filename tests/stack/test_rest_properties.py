"""Random filters against the same predicate in Python, and hostile requests of every kind."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_stack.rest_errors import ApiError
from local_stack.rest_query import parse
from tests.plugins.stack import RunningStack
from tests.stack.rest_table import ITEMS, Item, rest_schema

Truth = bool | None
SETTINGS = settings(
    max_examples=80,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def api(stack: RunningStack) -> Iterator[httpx.Client]:
    with (
        rest_schema(stack.database_url),
        httpx.Client(
            base_url=f"{stack.api_url}/rest/v1", headers={"apikey": stack.secret_key}, timeout=20
        ) as client,
    ):
        yield client


@dataclass(frozen=True)
class Condition:
    """A filter as text (`column.operator.value`, or a tree) and what it means in SQL's logic."""

    text: str
    holds: Callable[[Item], Truth]


def negated(condition: Condition) -> Condition:
    def holds(item: Item) -> Truth:
        truth = condition.holds(item)
        return None if truth is None else not truth

    column, _, rest = condition.text.partition(".")
    tree = condition.text.startswith(("and(", "or("))
    return Condition(f"not.{condition.text}" if tree else f"{column}.not.{rest}", holds)


def joined(word: str, conditions: list[Condition]) -> Condition:
    def holds(item: Item) -> Truth:
        truths = [condition.holds(item) for condition in conditions]
        decisive = word == "or"
        if decisive in truths:
            return decisive
        return None if None in truths else not decisive

    return Condition(f"{word}({','.join(c.text for c in conditions)})", holds)


COMPARE: dict[str, Callable[[int, int], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def number_condition(column: str, name: str, value: int) -> Condition:
    def holds(item: Item) -> Truth:
        actual: int | None = getattr(item, column)
        return None if actual is None else COMPARE[name](actual, value)

    return Condition(f"{column}.{name}.{value}", holds)


def list_condition(column: str, values: list[int]) -> Condition:
    def holds(item: Item) -> Truth:
        actual: int | None = getattr(item, column)
        return None if actual is None else actual in values

    return Condition(f"{column}.in.({','.join(map(str, values))})", holds)


def name_condition(values: list[str]) -> Condition:
    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    return Condition(f"name.in.({','.join(map(quoted, values))})", lambda item: item.name in values)


def is_condition(column: str, value: str) -> Condition:
    wanted = {"null": None, "true": True, "false": False}[value]
    return Condition(f"{column}.is.{value}", lambda item: getattr(item, column) is wanted)


NUMBERS = st.integers(-3, 45)
LEAVES = st.one_of(
    st.builds(
        number_condition, st.sampled_from(["id", "n"]), st.sampled_from(list(COMPARE)), NUMBERS
    ),
    st.builds(
        list_condition, st.sampled_from(["id", "n"]), st.lists(NUMBERS, min_size=1, max_size=5)
    ),
    st.builds(
        name_condition,
        st.lists(
            st.sampled_from([item.name or "" for item in ITEMS])
            | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8),
            min_size=1,
            max_size=4,
        ),
    ),
    st.builds(is_condition, st.just("ok"), st.sampled_from(["null", "true", "false"])),
    st.builds(is_condition, st.just("n"), st.just("null")),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        inner.map(negated).filter(lambda c: ".not.not." not in c.text and "not.not." not in c.text)
        | st.builds(joined, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=8,
)


@SETTINGS
@given(condition=CONDITIONS)
def test_a_filter_selects_exactly_the_rows_for_which_it_holds(
    api: httpx.Client, condition: Condition
) -> None:
    query = urlencode({"select": "id", "order": "id", "and": f"({condition.text})"})
    answer = api.get(f"/rest_items?{query}")
    assert answer.status_code == 200, answer.text
    expected = [item.id for item in ITEMS if condition.holds(item) is True]
    assert [row["id"] for row in answer.json()] == expected


@SETTINGS
@given(first=st.integers(0, 45), size=st.integers(0, 45), descending=st.booleans())
def test_a_window_is_a_slice(api: httpx.Client, first: int, size: int, descending: bool) -> None:
    order = "id.desc" if descending else "id"
    answer = api.get(f"/rest_items?select=id&order={order}&limit={size}&offset={first}")
    ids = sorted((item.id for item in ITEMS), reverse=descending)
    assert [row["id"] for row in answer.json()] == ids[first : first + size]


HOSTILE = st.sampled_from(
    [
        "'; drop table public.rest_items; --",
        '"; select pg_sleep(9); --',
        "1) or (1=1",
        "$1",
        "\\",
        "id::text",
        "id::text); drop table rest_items; --",
        "id::int[][]",
        "data->'a'; --",
        '"a""b"',
        "((((((",
        "eq.1",
        "in.(",
        "is.null",
        "not.",
        "*",
        "id.eq.(1)",
        "%00",
        "-1",
        "9" * 40,
        "data->-9999999999",
        "and(",
        "or(id.eq.1," * 30,
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ]
)
VALUES = (
    HOSTILE | st.text(max_size=30) | st.from_regex(r"[a-z]{0,8}[.(]{1,3}\S{0,9}", fullmatch=True)
)
NAMES = (
    st.sampled_from(
        [
            "select",
            "order",
            "limit",
            "offset",
            "and",
            "or",
            "not.and",
            "id",
            "columns",
            "on_conflict",
            "data->a",
            "data->>'a'",
            "name",
            "at",
            "tags",
            "price",
            "ok",
        ]
    )
    | VALUES
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "prefer": st.sampled_from(
            [
                "count=exact",
                "count=planned",
                "return=representation",
                "x=y;z",
                ",,=,",
                "resolution=merge-duplicates",
                "missing=default",
            ]
        ),
        "range": st.sampled_from(["0-0", "5-1", "x", "-5", "99999999999999999999-1"]),
        "accept": st.sampled_from(["*/*", "text/csv", ";;;", "application/vnd.pgrst.object+json"]),
        "accept-profile": st.sampled_from(["public", "auth", '"', "pg_catalog"]),
    },
)
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "n", "nope", "data"]) | st.text(max_size=3),
                inner,
                max_size=3,
            )
        ),
        max_leaves=5,
    ).map(lambda value: json.dumps(value).encode()),
)


def percent_encoded(pairs: list[tuple[str, str]]) -> str:
    def encoded(text: str) -> str:
        return quote(text.encode("utf-8", "surrogatepass"))

    return "&".join(f"{encoded(name)}={encoded(value)}" for name, value in pairs)


@settings(SETTINGS, max_examples=200)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "TRACE"]),
    path=st.sampled_from(
        ["rest_items", "rpc/rest_add", "rpc/rest_from", "rpc/rest_sum", "rpc/", "rpc/%22", "x%00y"]
    ),
    pairs=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    headers=HEADERS,
    body=BODIES,
)
def test_nonsense_is_never_our_fault(
    api: httpx.Client,
    method: str,
    path: str,
    pairs: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes | None,
) -> None:
    # Writes carry a filter that holds for no row, so that the table stays as it is.
    filters = [*pairs, ("id", "eq.-1")] if method in ("PATCH", "DELETE") else pairs
    url = f"/{path}?{percent_encoded(filters)}"
    sent = headers | ({"content-type": "application/json"} if body is not None else {})
    content = None if method == "POST" and path == "rest_items" else body
    answer = api.request(method, url, headers=sent, content=content)
    assert answer.status_code < 500 or answer.status_code == 501, (url, answer.text)
    assert len(api.get("/rest_items?select=id").json()) == len(ITEMS)


@given(pairs=st.lists(st.tuples(NAMES, VALUES), max_size=5), arguments=st.booleans())
def test_the_parser_answers_or_refuses(pairs: list[tuple[str, str]], arguments: bool) -> None:
    status = 200
    try:
        parse(pairs, function_arguments=arguments)
    except ApiError as error:
        status = error.status
    assert status in (200, 400, 416, 501)
