"""`/auth/v1`: sign-up, sessions, refresh tokens and administration by the official client."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

from local_stack.settings import JWT_SECRET
from tests.plugins.stack import RunningStack
from tests.stack.official import official_client
from tests.stack.rest_table import run_sql

PASSWORD = "a password of some length"


def new_email() -> str:
    return f"{uuid.uuid4().hex}@example.com"


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Any]:
    with official_client(stack, stack.publishable_key) as client:
        yield client


@pytest.fixture
def admin(stack: RunningStack) -> Iterator[Any]:
    with official_client(stack, stack.secret_key) as client:
        yield client.auth.admin


@pytest.fixture
def api(stack: RunningStack) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"{stack.api_url}/auth/v1", headers={"apikey": stack.publishable_key}, timeout=20
    ) as client:
        yield client


def sign_up(api: httpx.Client) -> dict[str, Any]:
    answer = api.post("/signup", json={"email": new_email(), "password": PASSWORD})
    session: dict[str, Any] = answer.raise_for_status().json()
    return session


def refresh(api: httpx.Client, token: str) -> httpx.Response:
    return api.post("/token?grant_type=refresh_token", json={"refresh_token": token})


def user_of(api: httpx.Client, session: dict[str, Any]) -> httpx.Response:
    return api.get("/user", headers={"authorization": f"Bearer {session['access_token']}"})


def problem(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["code"] == answer.status_code
    assert body["msg"]
    return answer.status_code, body["error_code"]


def test_a_new_user_is_signed_in_at_once_and_can_sign_in_again(client: Any) -> None:
    email = new_email()
    credentials = {"email": email.upper(), "password": PASSWORD}
    signed_up = client.auth.sign_up({**credentials, "options": {"data": {"plan": "x"}}})
    assert signed_up.session.access_token
    assert signed_up.user.email == email
    assert signed_up.user.user_metadata["plan"] == "x"
    client.auth.sign_out()
    again = client.auth.sign_in_with_password(credentials)
    assert again.user.id == signed_up.user.id
    assert client.auth.get_user().user.id == signed_up.user.id
    assert again.user.identities[0].provider == "email"
    client.auth.sign_out()


def test_a_token_is_signed_with_the_published_key_and_holds_the_usual_claims(
    api: httpx.Client, stack: RunningStack
) -> None:
    session = sign_up(api)
    jwks = jwt.PyJWKSet.from_dict(api.get("/.well-known/jwks.json").json())
    header = jwt.get_unverified_header(session["access_token"])
    claims = jwt.decode(
        session["access_token"],
        jwks[header["kid"]].key,
        algorithms=["ES256"],
        audience="authenticated",
        issuer=f"{stack.api_url}/auth/v1",
    )
    assert claims["role"] == "authenticated"
    assert claims["sub"] == session["user"]["id"]
    assert claims["exp"] == session["expires_at"]
    assert claims["exp"] - claims["iat"] == session["expires_in"] == 3600
    assert uuid.UUID(claims["session_id"])


def test_the_official_client_verifies_a_token_by_the_published_keys(client: Any) -> None:
    client.auth.sign_up({"email": new_email(), "password": PASSWORD})
    claims = client.auth.get_claims()
    assert claims["claims"]["role"] == "authenticated"
    client.auth.sign_out()


def test_a_taken_address_is_refused_whatever_its_case(client: Any) -> None:
    email = new_email()
    client.auth.sign_up({"email": email, "password": PASSWORD})
    with pytest.raises(AuthApiError) as raised:
        client.auth.sign_up({"email": email.title(), "password": PASSWORD})
    assert (raised.value.status, raised.value.code) == (422, "user_already_exists")
    client.auth.sign_out()


def test_a_short_password_is_refused(client: Any) -> None:
    with pytest.raises(AuthWeakPasswordError) as raised:
        client.auth.sign_up({"email": new_email(), "password": "12345"})
    assert list(raised.value.reasons) == ["length"]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/signup", {"email": "x", "password": PASSWORD}, (400, "validation_failed")),
        ("/signup", {"email": "a b@c.d", "password": PASSWORD}, (400, "validation_failed")),
        ("/signup", {"email": "a@b.c", "password": "p" * 73}, (400, "validation_failed")),
        ("/signup", {"email": ["a@b.c"], "password": PASSWORD}, (400, "validation_failed")),
        ("/signup", {}, (422, "anonymous_provider_disabled")),
        ("/signup", {"phone": "1", "password": PASSWORD}, (400, "phone_provider_disabled")),
        ("/signup", [], (400, "bad_json")),
        ("/token?grant_type=password", {"email": "a@b.c"}, (400, "invalid_credentials")),
        ("/token?grant_type=password", {}, (400, "validation_failed")),
        ("/token?grant_type=magic", {}, (400, "validation_failed")),
        ("/token?grant_type=refresh_token", {}, (400, "validation_failed")),
        (
            "/token?grant_type=refresh_token",
            {"refresh_token": "x"},
            (400, "refresh_token_not_found"),
        ),
        ("/otp", {"email": "a@b.c"}, (501, "not_imitated")),
        ("/recover", {"email": "a@b.c"}, (501, "not_imitated")),
    ],
)
def test_a_wrong_request_says_why(
    api: httpx.Client, path: str, body: object, expected: tuple[int, str]
) -> None:
    assert problem(api.post(path, json=body)) == expected


def test_a_wrong_password_says_no_more_than_an_unknown_address(client: Any) -> None:
    email = new_email()
    client.auth.sign_up({"email": email, "password": PASSWORD})
    messages = set()
    for credentials in ((email, "wrong password"), (new_email(), PASSWORD)):
        with pytest.raises(AuthApiError) as raised:
            client.auth.sign_in_with_password({"email": credentials[0], "password": credentials[1]})
        messages.add((raised.value.message, raised.value.code))
    assert messages == {("Invalid login credentials", "invalid_credentials")}


def test_a_refresh_gives_a_new_pair_and_the_session_goes_on(client: Any) -> None:
    first = client.auth.sign_up({"email": new_email(), "password": PASSWORD}).session
    second = client.auth.refresh_session().session
    assert second.refresh_token != first.refresh_token
    sessions = [
        jwt.decode(s.access_token, options={"verify_signature": False})["session_id"]
        for s in (first, second)
    ]
    assert sessions[0] == sessions[1]
    client.auth.sign_out()


def test_a_refresh_whose_answer_was_lost_may_be_repeated(
    api: httpx.Client, stack: RunningStack
) -> None:
    first = sign_up(api)["refresh_token"]
    second = refresh(api, first).json()["refresh_token"]
    age_refresh_token(stack, first)
    assert refresh(api, first).json()["refresh_token"] == second


def test_an_old_refresh_token_is_good_for_the_reuse_interval_only(
    api: httpx.Client, stack: RunningStack
) -> None:
    first = sign_up(api)["refresh_token"]
    second = refresh(api, first).json()["refresh_token"]
    third = refresh(api, second).json()["refresh_token"]
    assert refresh(api, second).json()["refresh_token"] == third
    age_refresh_token(stack, first)
    for stolen in (first, second, third):
        assert problem(refresh(api, stolen)) == (400, "refresh_token_already_used")


def test_a_swapped_refresh_token_still_works_within_the_reuse_interval(api: httpx.Client) -> None:
    first = sign_up(api)["refresh_token"]
    second = refresh(api, first).json()["refresh_token"]
    third = refresh(api, second).json()["refresh_token"]
    fourth = refresh(api, first).json()["refresh_token"]
    assert len({first, second, third, fourth}) == 4


def test_two_refreshes_at_once_give_the_same_token(api: httpx.Client) -> None:
    first = sign_up(api)["refresh_token"]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: refresh(api, first).json(), range(4)))
    assert len({answer["refresh_token"] for answer in answers}) == 1


def age_refresh_token(stack: RunningStack, token: str) -> None:
    """Make it look as if the token was swapped eleven seconds ago."""
    aged = "update auth.refresh_tokens set updated_at = updated_at - interval '11 seconds'"
    run_sql(stack.database_url, f"{aged} where token = '{token}'")


@pytest.mark.parametrize(
    ("scope", "mine_ends", "others_end"),
    [("local", True, False), ("others", False, True), ("global", True, True)],
)
def test_a_sign_out_ends_the_sessions_of_its_scope(
    api: httpx.Client, scope: str, mine_ends: bool, others_end: bool
) -> None:
    mine = sign_up(api)
    credentials = {"email": mine["user"]["email"], "password": PASSWORD}
    other = api.post("/token?grant_type=password", json=credentials).json()
    bearer = {"authorization": f"Bearer {mine['access_token']}"}
    assert api.post(f"/logout?scope={scope}", headers=bearer).status_code == 204
    for session, ended in ((mine, mine_ends), (other, others_end)):
        assert (refresh(api, session["refresh_token"]).status_code == 400) is ended
        answer = user_of(api, session)
        assert answer.status_code == (403 if ended else 200)
        if ended:
            assert problem(answer) == (403, "session_not_found")


def test_a_user_changes_password_and_data_and_other_sessions_end(client: Any) -> None:
    email = new_email()
    client.auth.sign_up(
        {"email": email, "password": PASSWORD, "options": {"data": {"a": 1, "b": 2}}}
    )
    user = client.auth.update_user({"data": {"b": None, "c": 3}}).user
    assert {key: user.user_metadata.get(key) for key in "abc"} == {"a": 1, "b": None, "c": 3}
    with pytest.raises(AuthApiError) as raised:
        client.auth.update_user({"password": PASSWORD})
    assert raised.value.code == "same_password"
    client.auth.update_user({"password": "another password"})
    with pytest.raises(AuthApiError):
        client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    client.auth.sign_in_with_password({"email": email, "password": "another password"})
    client.auth.sign_out()


def test_an_administrator_manages_users(admin: Any, client: Any) -> None:
    email = new_email()
    created = admin.create_user(
        {
            "email": email,
            "password": PASSWORD,
            "email_confirm": True,
            "app_metadata": {"team": "red"},
        }
    ).user
    assert created.app_metadata["team"] == "red"
    assert admin.get_user_by_id(created.id).user.email == email
    assert created.id in {user.id for user in admin.list_users(page=1, per_page=1000)}
    client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    admin.update_user_by_id(created.id, {"ban_duration": "1h"})
    with pytest.raises(AuthApiError) as banned:
        client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    assert banned.value.code == "user_banned"
    admin.delete_user(created.id)
    with pytest.raises(AuthApiError) as gone:
        admin.get_user_by_id(created.id)
    assert gone.value.code == "user_not_found"
    admin.create_user({"email": email, "password": PASSWORD})
    with pytest.raises(AuthApiError) as taken:
        admin.create_user({"email": email, "password": PASSWORD})
    assert taken.value.code == "email_exists"


def test_an_unconfirmed_user_cannot_sign_in(admin: Any, client: Any) -> None:
    email = new_email()
    admin.create_user({"email": email, "password": PASSWORD})
    with pytest.raises(AuthApiError) as raised:
        client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    assert raised.value.code == "email_not_confirmed"


def test_only_administrators_administer(api: httpx.Client) -> None:
    assert problem(api.get("/admin/users")) == (403, "not_admin")
    bearer = {"authorization": f"Bearer {sign_up(api)['access_token']}"}
    assert problem(api.get("/admin/users", headers=bearer)) == (403, "not_admin")
    assert problem(api.post("/admin/users", json={}, headers=bearer)) == (403, "not_admin")


@pytest.mark.parametrize("forgery", ["none", "expired", "unknown user", "no sub", "junk"])
def test_a_token_that_proves_nothing_shows_no_user(api: httpx.Client, forgery: str) -> None:
    claims = {"role": "authenticated", "sub": str(uuid.uuid4()), "exp": int(time.time()) + 60}
    code = "bad_jwt"
    match forgery:
        case "none":
            token = jwt.encode(claims, "", algorithm="none")
        case "expired":
            token = jwt.encode(claims | {"exp": 1}, JWT_SECRET, algorithm="HS256")
        case "unknown user":
            token, code = jwt.encode(claims, JWT_SECRET, algorithm="HS256"), "user_not_found"
        case "no sub":
            del claims["sub"]
            token = jwt.encode(claims, JWT_SECRET, algorithm="HS256")
        case _:
            token = "junk"
    answer = api.get("/user", headers={"authorization": f"Bearer {token}"})
    assert problem(answer) == (403, code)


def test_no_token_shows_no_user(api: httpx.Client) -> None:
    assert problem(api.get("/user")) == (401, "no_authorization")


def test_health_settings_and_keys_are_shown(api: httpx.Client, stack: RunningStack) -> None:
    assert httpx.get(f"{stack.api_url}/auth/v1/health").status_code == 200
    assert api.get("/settings").json()["mailer_autoconfirm"] is True
    [key] = httpx.get(f"{stack.api_url}/auth/v1/.well-known/jwks.json").json()["keys"]
    assert (key["kty"], key["crv"], "d" in key) == ("EC", "P-256", False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["email", "data", "\0"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from(
        ["signup", "token?grant_type=password", "token?grant_type=refresh_token", "user", "x"]
    ),
    method=st.sampled_from(["POST", "PUT", "GET"]),
    body=st.dictionaries(
        st.sampled_from(["email", "password", "refresh_token", "data", "phone"]), JSON, max_size=4
    ),
)
def test_nonsense_is_never_our_fault(
    api: httpx.Client, path: str, method: str, body: dict[str, object]
) -> None:
    answer = api.request(method, f"/{path}", json=body)
    assert answer.status_code < 500 or answer.status_code == 501, answer.text
