"""REST as the official Python client uses it, unmodified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from postgrest import CountMethod
from postgrest.exceptions import APIError

from tests.plugins.stack import MakeAccount, RunningStack
from tests.stack.official import official_client
from tests.stack.rest_table import ITEMS, Item, rest_schema

# supabase-py 2.34 warns of what it does itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*' parameter is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def client(stack: RunningStack) -> Iterator[Any]:
    with rest_schema(stack.database_url), official_client(stack, stack.secret_key) as client:
        yield client


def items(client: Any, *columns: str) -> Any:
    return client.table("rest_items").select(*columns or ("id",))


FILTERS: list[tuple[str, Callable[[Any], Any], Callable[[Item], object]]] = [
    ("eq", lambda q: q.eq("n", 3), lambda i: i.n == 3),
    ("neq", lambda q: q.neq("n", 3), lambda i: i.n is not None and i.n != 3),
    ("gt", lambda q: q.gt("id", 30), lambda i: i.id > 30),
    ("gte", lambda q: q.gte("id", 30), lambda i: i.id >= 30),
    ("lt", lambda q: q.lt("id", 4), lambda i: i.id < 4),
    ("lte", lambda q: q.lte("id", 4), lambda i: i.id <= 4),
    ("in", lambda q: q.in_("name", ["item 1", "item 2", "a,b"]), lambda i: i.id in (1, 2)),
    ("is null", lambda q: q.is_("n", "null"), lambda i: i.n is None),
    ("is true", lambda q: q.is_("ok", "true"), lambda i: i.ok is True),
    ("not is null", lambda q: q.not_.is_("ok", "null"), lambda i: i.ok is not None),
    ("not in", lambda q: q.not_.in_("id", [1, 2, 3]), lambda i: i.id > 3),
    ("like", lambda q: q.like("name", "item 1%"), lambda i: str(i.id).startswith("1")),
    ("ilike", lambda q: q.ilike("name", "ITEM 1_"), lambda i: 10 <= i.id <= 19),
    ("not like", lambda q: q.not_.like("name", "%2%"), lambda i: "2" not in str(i.id)),
    ("like any", lambda q: q.like_any_of("name", "%9,%8"), lambda i: i.id % 10 in (8, 9)),
    ("like all", lambda q: q.like_all_of("name", "%3%,%2"), lambda i: i.id == 32),
    ("contains", lambda q: q.contains("tags", ["t1", "all"]), lambda i: i.id % 4 == 1),
    ("contained", lambda q: q.contained_by("tags", ["t1", "all", "x"]), lambda i: i.id % 4 == 1),
    ("overlaps", lambda q: q.overlaps("tags", ["t1", "t2"]), lambda i: i.id % 4 in (1, 2)),
    ("json text", lambda q: q.eq("data->>a", "7"), lambda i: i.id == 7),
    ("json value", lambda q: q.eq("data->a", 7), lambda i: i.id == 7),
    ("json contains", lambda q: q.contains("data", {"a": 7}), lambda i: i.id == 7),
    ("regex", lambda q: q.filter("name", "match", "^item [12]$"), lambda i: i.id < 3),
    ("time", lambda q: q.lt("at", "2026-01-01T03:00:00Z"), lambda i: i.id < 3),
    ("or", lambda q: q.or_("id.eq.1,and(id.gt.38,n.not.is.null)"), lambda i: i.id in (1, 39, 40)),
    ("match", lambda q: q.match({"n": 3, "ok": "true"}), lambda i: i.n == 3 and i.ok is True),
]


@pytest.mark.parametrize(
    ("apply", "predicate"), [case[1:] for case in FILTERS], ids=[case[0] for case in FILTERS]
)
def test_every_filter_selects_what_it_says(
    client: Any, apply: Callable[[Any], Any], predicate: Callable[[Item], object]
) -> None:
    expected = [item.id for item in ITEMS if predicate(item)]
    assert expected, "a filter that matches nothing proves nothing"
    rows = apply(items(client)).order("id").execute().data
    assert [row["id"] for row in rows] == expected


def test_columns_may_be_renamed_cast_and_taken_out_of_json(client: Any) -> None:
    selected = items(client, "title:name", "price::text", "data->b->>0", "second:data->b->1")
    assert selected.eq("id", 2).execute().data == [
        {"title": "item 2", "price": "3.00", "b": "z", "second": 2}
    ]
    quoted = items(client, 'v:data->>"c d"').eq("id", 2).execute().data
    assert quoted == [{"v": 'x,"y"'}]


def test_rows_come_in_the_order_that_was_asked_for(client: Any) -> None:
    query = items(client, "id", "n").order("n", desc=True, nullsfirst=False).order("id", desc=True)
    expected = [i.id for i in sorted(ITEMS, key=lambda i: (i.n is None, -(i.n or 0), -i.id))]
    assert [row["id"] for row in query.execute().data] == expected


def test_pages_joined_are_the_whole(client: Any) -> None:
    pages = [
        items(client).order("id").range(first, first + 14).execute().data
        for first in range(0, 60, 15)
    ]
    assert [row["id"] for page in pages for row in page] == [item.id for item in ITEMS]


def test_rows_are_counted_without_being_sent(client: Any) -> None:
    answer = client.table("rest_items").select("*", count=CountMethod.exact, head=True)
    result = answer.gt("id", 10).execute()
    assert (result.count, result.data) == (30, [])


def test_single_refuses_none_and_many(client: Any) -> None:
    assert items(client).eq("id", 7).single().execute().data == {"id": 7}
    for query in (items(client).eq("id", -7), items(client)):
        with pytest.raises(APIError) as raised:
            query.single().execute()
        assert raised.value.code == "PGRST116"
    assert items(client).eq("id", -7).maybe_single().execute() is None


def test_csv_is_text(client: Any) -> None:
    data = items(client, "id", "name").lt("id", 3).order("id").csv().execute().data
    assert data == 'id,name\n1,"item 1"\n2,"item 2"'


def test_rows_are_inserted_changed_and_deleted(client: Any) -> None:
    table = client.table("rest_items")
    row = {"id": 100, "name": 'q"uo,te', "tags": ["a"], "data": {"k": [1]}}
    assert table.insert(row).execute().data[0]["data"] == {"k": [1]}
    assert table.insert([{"id": 101}, {"id": 102, "n": 1}]).execute().data[1]["n"] == 1
    found = items(client).eq("name", 'q"uo,te').execute().data
    assert found == [{"id": 100}]
    changed = table.update({"n": 77}).gte("id", 100).execute().data
    assert [entry["n"] for entry in changed] == [77, 77, 77]
    assert len(table.delete().gte("id", 100).execute().data) == 3
    assert items(client).gte("id", 100).execute().data == []


def test_an_upsert_changes_what_is_there_and_adds_what_is_not(client: Any) -> None:
    table = client.table("rest_items")
    table.upsert([{"id": 200, "n": 1}, {"id": 201, "n": 1}]).execute()
    table.upsert([{"id": 201, "n": 2}, {"id": 202, "n": 2}]).execute()
    table.upsert({"id": 200, "n": 9}, ignore_duplicates=True).execute()
    table.upsert({"id": 200, "name": "item 5"}, on_conflict="id", ignore_duplicates=True).execute()
    rows = items(client, "id", "n").gte("id", 200).order("id").execute().data
    assert rows == [{"id": 200, "n": 1}, {"id": 201, "n": 2}, {"id": 202, "n": 2}]
    table.delete().gte("id", 200).execute()


def test_functions_are_called_by_post_and_get(client: Any) -> None:
    assert client.rpc("rest_add", {"a": 1, "b": 2}).execute().data == 3
    assert client.rpc("rest_add", {"a": 1}, get=True).execute().data == 11
    rows = client.rpc("rest_from", {"low": 39}).select("id").execute().data
    assert rows == [{"id": 39}, {"id": 40}]


def test_row_level_security_decides_for_the_signed_in_user(
    client: Any, stack: RunningStack, make_account: MakeAccount
) -> None:
    account = make_account()
    with official_client(stack, stack.publishable_key) as user:
        user.auth.sign_in_with_password({"email": account.email, "password": account.password})
        assert len(items(user).execute().data) == len(ITEMS)
        assert user.rpc("rest_whoami").execute().data["uid"] == str(account.account_id)
        with pytest.raises(APIError) as raised:
            user.table("rest_private").select("*").execute()
        assert raised.value.code == "42501"
        user.auth.sign_out()
