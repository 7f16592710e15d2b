"""`/rest/v1` over plain HTTP: what clients do not show of statuses, headers and errors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest

from local_stack.settings import JWT_SECRET
from tests.plugins.stack import MakeAccount, RunningStack
from tests.stack.rest_table import rest_schema, run_sql

Headers = dict[str, str]


@pytest.fixture(scope="module")
def api(stack: RunningStack) -> Iterator[httpx.Client]:
    """A client with the secret key, that is role service_role."""
    with (
        rest_schema(stack.database_url),
        httpx.Client(
            base_url=f"{stack.api_url}/rest/v1", headers={"apikey": stack.secret_key}, timeout=20
        ) as client,
    ):
        yield client


def problem(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body.keys() == {"code", "message", "details", "hint"}, body
    return answer.status_code, body["code"]


def test_a_request_without_an_api_key_is_refused(stack: RunningStack) -> None:
    answer = httpx.get(f"{stack.api_url}/rest/v1/rest_items")
    assert (answer.status_code, answer.json()["message"]) == (401, "No API key found in request")


def test_a_request_with_an_unknown_api_key_is_refused(stack: RunningStack) -> None:
    answer = httpx.get(f"{stack.api_url}/rest/v1/rest_items", headers={"apikey": "sb_secret_no"})
    assert (answer.status_code, answer.json()["message"]) == (401, "Invalid API key")


def test_an_api_key_in_the_query_string_is_accepted(api: httpx.Client, stack: RunningStack) -> None:
    url = f"{stack.api_url}/rest/v1/rest_items?apikey={stack.secret_key}&id=eq.1&select=id"
    assert httpx.get(url).json() == [{"id": 1}]


@pytest.mark.parametrize("token", ["x", "a.b.c", "sb_secret_another"])
def test_a_wrong_token_is_never_taken_as_anonymous(api: httpx.Client, token: str) -> None:
    answer = api.get("/rest_items", headers={"authorization": f"Bearer {token}"})
    assert problem(answer) == (401, "PGRST301")
    assert answer.headers["www-authenticate"].startswith("Bearer error=")


def test_an_expired_token_says_so(api: httpx.Client) -> None:
    claims = {"role": "authenticated", "exp": int(time.time()) - 5}
    token = jwt.encode(claims, JWT_SECRET, algorithm="HS256")
    answer = api.get("/rest_items", headers={"authorization": f"Bearer {token}"})
    assert problem(answer) == (401, "PGRST303")
    assert answer.json()["message"] == "JWT expired"


def test_a_token_decides_the_role_and_the_api_key_only_without_one(
    api: httpx.Client, stack: RunningStack, make_account: MakeAccount
) -> None:
    account = make_account()
    assert api.post("/rpc/rest_whoami").json()["role"] == "service_role"
    bearer = {"authorization": f"Bearer {account.access_token}"}
    answer = api.post("/rpc/rest_whoami", headers=bearer).json()
    assert (answer["role"], answer["uid"]) == ("authenticated", str(account.account_id))
    publishable = {"apikey": stack.publishable_key}
    assert api.post("/rpc/rest_whoami", headers=publishable).json()["role"] == "anon"
    both = publishable | {"authorization": f"Bearer {stack.publishable_key}"}
    assert api.post("/rpc/rest_whoami", headers=both).json()["role"] == "anon"
    legacy = {"authorization": f"Bearer {stack.service_role_key}"} | publishable
    assert api.post("/rpc/rest_whoami", headers=legacy).json()["role"] == "service_role"


@pytest.mark.parametrize("role", ["supabase_admin", "postgres", "no such role", 'x"; select 1'])
def test_a_token_cannot_name_a_role_beyond_the_three(api: httpx.Client, role: str) -> None:
    claims = {"role": role, "exp": int(time.time()) + 60}
    token = jwt.encode(claims, JWT_SECRET, algorithm="HS256")
    answer = api.get("/rest_items", headers={"authorization": f"Bearer {token}"})
    assert 400 <= answer.status_code < 500, answer.text


def test_the_database_is_told_about_the_request(api: httpx.Client) -> None:
    answer = api.get("/rpc/rest_whoami", headers={b"X-Custom": "né".encode()}).json()
    assert answer["header"] == "né"
    assert answer["method"] == "GET"
    assert answer["path"] == "/rpc/rest_whoami"
    assert answer["read_only"] == "on"


def test_a_header_that_is_no_utf8_does_no_harm(api: httpx.Client) -> None:
    assert api.get("/rpc/rest_whoami", headers={b"X-Custom": b"\xff\xfe"}).status_code == 200


def test_each_role_has_its_own_statement_timeout(api: httpx.Client, stack: RunningStack) -> None:
    def timeout(key: str) -> Any:
        return api.post("/rpc/rest_whoami", headers={"apikey": key}).json()["timeout"]

    # Twice, because connections are shared and a setting must not outlive its request.
    for _ in range(2):
        assert timeout(stack.publishable_key) == "3s"
        assert timeout(stack.secret_key) == "8s"  # service_role has none: the authenticator's


def test_a_statement_that_takes_too_long_is_cancelled(
    api: httpx.Client, stack: RunningStack
) -> None:
    headers = {"apikey": stack.publishable_key}
    answer = api.post("/rpc/rest_sleep", json={"seconds": 10}, headers=headers)
    assert problem(answer) == (500, "57014")


def test_a_database_that_goes_away_is_503_with_retry_after(
    api: httpx.Client, stack: RunningStack
) -> None:
    kill = """
    do $$
    begin
      loop
        perform pg_terminate_backend(pid) from pg_stat_activity
        where usename = 'authenticator' and query like '%"rest_sleep"%' and state = 'active';
        exit when found;
        perform pg_sleep(0.02), pg_stat_clear_snapshot();
      end loop;
    end
    $$
    """
    with ThreadPoolExecutor(1) as thread:
        killed = thread.submit(run_sql, stack.database_url, kill)
        answer = api.post("/rpc/rest_sleep", json={"seconds": 7})
        killed.result(timeout=10)
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "1"
    assert api.post("/rpc/rest_add", json={"a": 1}).json() == 11


def test_a_function_with_side_effects_is_refused_by_get(api: httpx.Client) -> None:
    assert problem(api.get("/rpc/rest_write")) == (405, "25006")


@pytest.mark.parametrize(
    ("arguments", "value"), [({"a": 1}, 11), ({"a": 1, "b": 2}, 3), ({"b": 2, "a": None}, None)]
)
def test_arguments_with_defaults_may_be_left_out(
    api: httpx.Client, arguments: dict[str, int | None], value: int | None
) -> None:
    assert api.post("/rpc/rest_add", json=arguments).json() == value


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/rpc/rest_nope", {}, (404, "PGRST202")),
        ("/rpc/rest_add", {}, (404, "PGRST202")),
        ("/rpc/rest_add", {"a": 1, "c": 1}, (404, "PGRST202")),
        ("/rpc/rest_add", {"a": "x"}, (400, "22P02")),
        ("/rpc/rest_add", {"a": [1]}, (400, "22P02")),
        ("/rpc/rest_twice", {"a": 1}, (300, "PGRST203")),
        ("/rpc/rest_add", "text", (400, "PGRST102")),
        ("/rpc/rest_add", [1], (501, "LOCAL501")),
    ],
)
def test_a_call_that_fits_no_function_is_refused(
    api: httpx.Client, path: str, body: object, expected: tuple[int, str]
) -> None:
    assert problem(api.post(path, json=body)) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a":}',
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"\x00"}',
        b"\xff",
    ],
)
def test_a_body_that_is_no_json_is_refused(api: httpx.Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = api.post("/rpc/rest_add", content=body, headers=headers)
    assert answer.status_code == 400, answer.text


def test_functions_answer_in_the_shape_of_their_type(api: httpx.Client) -> None:
    assert api.post("/rpc/rest_nothing").status_code == 204
    assert api.post("/rpc/rest_whole", json={"any": [1, {"b": None}]}).json() == {
        "any": [1, {"b": None}]
    }
    assert api.post("/rpc/rest_sum", json={"numbers": [1, 2, 3]}).json() == 6
    assert api.get("/rpc/rest_numbers?upto=3").json() == [1, 2, 3]
    assert api.get("/rpc/rest_one?wanted=3&select=id,name").json() == {"id": 3, "name": "item 3"}
    rows = api.get("/rpc/rest_from?low=38&select=id&n=not.is.null&order=id.desc&limit=2").json()
    assert rows == [{"id": 40}, {"id": 39}]
    counted = api.post(
        "/rpc/rest_from?select=id&limit=1", json={"low": 30}, headers={"prefer": "count=exact"}
    )
    assert counted.headers["content-range"] == "0-0/11"


def test_sql_may_set_the_status_and_headers(api: httpx.Client) -> None:
    answer = api.post("/rpc/rest_teapot")
    assert (answer.status_code, answer.headers["x-made-by"]) == (418, "sql")
    assert answer.json() == "short and stout"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("PT402", 402),
        ("PT429", 429),
        ("PT999", 500),
        ("P0001", 400),
        ("23505", 409),
        ("23503", 409),
        ("42501", 403),
        ("40001", 500),
        ("53300", 503),
        ("22023", 400),
    ],
)
def test_an_error_of_the_database_becomes_its_status(
    api: httpx.Client, code: str, status: int
) -> None:
    answer = api.post("/rpc/rest_fail", json={"code": code})
    assert answer.status_code == status
    expected = {"code": code, "message": "made to fail", "details": "why", "hint": "how"}
    assert answer.json() == expected
    assert ("retry-after" in answer.headers) == (status == 503)


def test_no_privilege_is_401_for_the_anonymous_and_403_for_others(
    api: httpx.Client, stack: RunningStack
) -> None:
    anonymous = {"apikey": stack.publishable_key}
    assert problem(api.get("/rest_private", headers=anonymous)) == (401, "42501")
    assert problem(api.get("/rest_private")) == (403, "42501")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/rest_nope", (404, "PGRST205")),
        ("/rest_items?select=nope", (400, "42703")),
        ("/rest_items?nope=eq.1", (400, "42703")),
        ("/rest_items?order=nope", (400, "42703")),
        ("/rest_items?id=1", (400, "PGRST100")),
        ("/rest_items?id=eq", (400, "PGRST100")),
        ("/rest_items?id=noop.1", (400, "PGRST100")),
        ("/rest_items?id=in.1", (400, "PGRST100")),
        ("/rest_items?id=is.maybe", (400, "PGRST100")),
        ("/rest_items?or=(id.eq.1", (400, "PGRST100")),
        ("/rest_items?select=id,", (400, "PGRST100")),
        ("/rest_items?order=id.up", (400, "PGRST100")),
        ("/rest_items?other.id=eq.1", (400, "PGRST108")),
        ("/rest_items?id=eq.x", (400, "22P02")),
        ("/rest_items?at=gt.never", (400, "22007")),
        ("/rest_items?limit=-1", (416, "PGRST103")),
        ("/rest_items?select=count()", (400, "PGRST123")),
        ("/rest_items?select=id,others(*)", (501, "LOCAL501")),
        ("/rest_items?name=fts.word", (501, "LOCAL501")),
        ("/", (501, "LOCAL501")),
    ],
)
def test_a_read_that_makes_no_sense_says_why(
    api: httpx.Client, path: str, expected: tuple[int, str]
) -> None:
    assert problem(api.get(path)) == expected


def test_only_exposed_schemas_are_served(api: httpx.Client) -> None:
    answer = api.get("/users", headers={"accept-profile": "auth"})
    assert problem(answer) == (406, "PGRST106")


@pytest.mark.parametrize(
    ("path", "header", "status", "content_range", "rows"),
    [
        ("/rest_items?select=id", "0-9", 206, "0-9/40", 10),
        ("/rest_items?select=id", "35-", 206, "35-39/40", 5),
        ("/rest_items?select=id&limit=5&offset=2", None, 206, "2-6/40", 5),
        ("/rest_items?select=id", None, 200, "0-39/40", 40),
        ("/rest_items?select=id&id=gt.100", None, 200, "*/0", 0),
        ("/rest_items?select=id&limit=0", None, 206, "*/40", 0),
    ],
)
def test_a_page_says_which_part_of_the_whole_it_is(
    api: httpx.Client,
    path: str,
    header: str | None,
    status: int,
    content_range: str,
    rows: int,
) -> None:
    headers = {"prefer": "count=exact"} | ({"range": header} if header else {})
    answer = api.get(path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-range"] == content_range
    assert len(answer.json()) == rows


@pytest.mark.parametrize("header", ["100-200", "5-2"])
def test_a_range_beyond_the_rows_is_refused(api: httpx.Client, header: str) -> None:
    headers = {"prefer": "count=exact", "range": header}
    assert problem(api.get("/rest_items", headers=headers)) == (416, "PGRST103")


@pytest.mark.parametrize("kind", ["planned", "estimated"])
def test_a_count_may_be_the_planners(api: httpx.Client, kind: str) -> None:
    answer = api.head("/rest_items?select=id&id=gt.5&limit=1", headers={"prefer": f"count={kind}"})
    assert answer.content == b""
    assert int(answer.headers["content-range"].rpartition("/")[2]) > 0


def test_csv_has_a_line_of_names_and_a_line_per_row(api: httpx.Client) -> None:
    answer = api.get("/rest_items?select=id,name&limit=2&order=id", headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text == 'id,name\n1,"item 1"\n2,"item 2"'


def test_nulls_may_be_stripped(api: httpx.Client) -> None:
    accept = {"accept": "application/vnd.pgrst.array+json;nulls=stripped"}
    rows = api.get("/rest_items?select=id,n&id=in.(6,7)&order=id", headers=accept).json()
    assert rows == [{"id": 6, "n": 6}, {"id": 7}]


def test_an_unknown_media_type_is_refused(api: httpx.Client) -> None:
    assert problem(api.get("/rest_items", headers={"accept": "image/png"})) == (406, "PGRST107")
    answer = api.post("/rest_items", content=b"x", headers={"content-type": "image/png"})
    assert problem(answer) == (415, "PGRST107")


def test_a_write_of_every_row_needs_a_filter(api: httpx.Client) -> None:
    assert problem(api.patch("/rest_items", json={"n": 1})) == (400, "21000")
    assert problem(api.delete("/rest_items")) == (400, "21000")


def test_a_write_that_asks_for_one_row_and_touches_more_is_undone(api: httpx.Client) -> None:
    headers = {"accept": "application/vnd.pgrst.object+json", "prefer": "return=representation"}
    answer = api.patch("/rest_items?id=lt.3", json={"n": 5000}, headers=headers)
    assert problem(answer) == (406, "PGRST116")
    assert api.get("/rest_items?n=eq.5000").json() == []


def test_headers_only_tells_where_the_new_row_is(api: httpx.Client) -> None:
    answer = api.post("/rest_items", json={"id": 501}, headers={"prefer": "return=headers-only"})
    assert (answer.status_code, answer.headers["location"]) == (201, "/rest_items?id=eq.501")
    assert api.delete("/rest_items?id=eq.501").status_code == 204


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"nope": 1}, (400, "PGRST204")),
        ([{"id": 601}, {"id": 602, "n": 1}], (400, "PGRST102")),
        ([1], (400, "PGRST102")),
        ({"id": None}, (400, "23502")),
        ({"id": 1}, (409, "23505")),
        ({"id": 603, "n": "x"}, (400, "22P02")),
    ],
)
def test_an_insert_that_cannot_be_done_says_why(
    api: httpx.Client, body: object, expected: tuple[int, str]
) -> None:
    assert problem(api.post("/rest_items", json=body)) == expected


def test_a_new_table_is_found_without_a_restart(api: httpx.Client, stack: RunningStack) -> None:
    name = f"rest_{uuid.uuid4().hex}"
    assert api.get(f"/{name}").status_code == 404
    create = f"create table public.{name} (id int); grant select on public.{name} to service_role"
    run_sql(stack.database_url, create)
    try:
        deadline = time.monotonic() + 5
        while (answer := api.get(f"/{name}")).status_code == 404:
            assert time.monotonic() < deadline
        assert answer.json() == []
        run_sql(stack.database_url, f"alter table public.{name} add column later text")
        assert api.get(f"/{name}?later=eq.x").json() == []
    finally:
        run_sql(stack.database_url, f"drop table public.{name}")


def test_a_browser_of_any_origin_may_ask(stack: RunningStack) -> None:
    headers = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "apikey,authorization,content-type",
    }
    answer = httpx.options(f"{stack.api_url}/rest/v1/rpc/rest_add", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "authorization" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("path", ["/storage/v1/object/x", "/graphql/v1", "/pg/tables", "/", "/x"])
def test_what_is_not_imitated_is_named(stack: RunningStack, path: str) -> None:
    answer = httpx.post(f"{stack.api_url}{path}", headers={"apikey": stack.secret_key})
    assert problem(answer) == (501, "LOCAL501")
