"""Tokens are renewed before they end, once for all who ask, and never shown."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
import respx

from signal_persistence import (
    AccessToken,
    ApiKeyCredentials,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    Credentials,
    NewApiKey,
    PasswordCredentials,
    SignalClient,
    UnavailableError,
)
from signal_persistence.credentials import identity_of

URL = "http://service.test"
TOKEN = f"{URL}/auth/v1/token"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials(clock: Clock) -> PasswordCredentials:
    return PasswordCredentials(URL, "key", "a@example.com", "secret", clock=clock)


@pytest.fixture
def sessions(respx_mock: respx.MockRouter) -> respx.Route:
    """Answer every request for a token with a new one that lives an hour."""
    route = respx_mock.post(TOKEN)

    def answer(request: httpx.Request) -> httpx.Response:
        number = route.call_count + 1
        return httpx.Response(
            200,
            json={
                "access_token": f"access {number}",
                "refresh_token": f"refresh {number}",
                "expires_in": 3600,
            },
        )

    route.mock(side_effect=answer)
    return route


def grants(route: respx.Route) -> list[str]:
    return [call.request.url.params["grant_type"] for call in route.calls]


async def test_a_token_is_used_until_shortly_before_its_end_and_then_refreshed(
    credentials: PasswordCredentials, clock: Clock, sessions: respx.Route
) -> None:
    assert await credentials.access_token() == "access 1"
    clock.now = 3539.0
    assert await credentials.access_token() == "access 1"
    clock.now = 3541.0
    assert await credentials.access_token() == "access 2"
    assert grants(sessions) == ["password", "refresh_token"]
    assert b"refresh 1" in sessions.calls.last.request.content


async def test_a_refused_token_is_replaced(
    credentials: PasswordCredentials, sessions: respx.Route
) -> None:
    await credentials.access_token()
    assert await credentials.access_token(refresh=True) == "access 2"


async def test_many_callers_share_one_sign_in(
    credentials: PasswordCredentials, sessions: respx.Route
) -> None:
    tokens = await asyncio.gather(*(credentials.access_token() for _ in range(10)))
    assert set(tokens) == {"access 1"}
    tokens = await asyncio.gather(*(credentials.access_token(refresh=True) for _ in range(10)))
    assert set(tokens) == {"access 2"}
    assert sessions.call_count == 2


async def test_a_refresh_token_that_was_used_up_leads_to_a_new_sign_in(
    credentials: PasswordCredentials, respx_mock: respx.MockRouter
) -> None:
    session = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}
    respx_mock.post(TOKEN, params={"grant_type": "password"}).respond(json=session)
    respx_mock.post(TOKEN, params={"grant_type": "refresh_token"}).respond(400)
    assert await credentials.access_token() == "a"
    assert await credentials.access_token(refresh=True) == "a"


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_refused_sign_in_is_an_authentication_error_whatever_its_status(
    credentials: PasswordCredentials, respx_mock: respx.MockRouter, status: int
) -> None:
    respx_mock.post(TOKEN).respond(
        status, json={"error_code": "invalid_credentials", "msg": "Invalid login credentials"}
    )
    with pytest.raises(AuthenticationError) as caught:
        await credentials.access_token()
    assert caught.value.code == "invalid_credentials"


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_refused_renewal_is_an_authentication_error_so_that_signals_wait_for_a_repair(
    credentials: PasswordCredentials, respx_mock: respx.MockRouter, status: int
) -> None:
    session = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}
    route = respx_mock.post(TOKEN)
    route.side_effect = [httpx.Response(200, json=session)] + [httpx.Response(status)] * 2
    await credentials.access_token()
    with pytest.raises(AuthenticationError):
        await credentials.access_token(refresh=True)
    assert grants(route) == ["password", "refresh_token", "password"]


@pytest.mark.parametrize("status", [404, 408, 429, 500, 503])
async def test_a_renewal_that_auth_cannot_do_now_does_not_use_the_password(
    credentials: PasswordCredentials, respx_mock: respx.MockRouter, status: int
) -> None:
    session = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}
    route = respx_mock.post(TOKEN)
    route.side_effect = [httpx.Response(200, json=session), httpx.Response(status)]
    await credentials.access_token()
    with pytest.raises(UnavailableError):
        await credentials.access_token(refresh=True)
    assert grants(route) == ["password", "refresh_token"]


async def test_an_outage_is_not_mistaken_for_a_wrong_password(
    credentials: PasswordCredentials, respx_mock: respx.MockRouter
) -> None:
    respx_mock.post(TOKEN).respond(503)
    with pytest.raises(UnavailableError):
        await credentials.access_token()
    respx_mock.post(TOKEN).mock(side_effect=httpx.ConnectError("refused"))
    with pytest.raises(ConnectError):
        await credentials.access_token()


async def test_an_access_token_may_be_a_function(clock: Clock) -> None:
    tokens = iter(["one", "two"])
    credentials = AccessToken(lambda: next(tokens))
    assert await credentials.access_token() == "one"
    assert await credentials.access_token(refresh=True) == "two"
    assert isinstance(credentials, Credentials)


def test_credentials_do_not_show_their_secrets(credentials: PasswordCredentials) -> None:
    assert "secret" not in repr(credentials)
    assert "token-text" not in repr(AccessToken("token-text"))


@pytest.mark.parametrize("status", [200, 302, 511])
async def test_an_answer_that_is_not_of_auth_may_pass(
    respx_mock: respx.MockRouter, credentials: PasswordCredentials, status: int
) -> None:
    respx_mock.post(TOKEN).respond(status, html="<h1>Sign in to this network</h1>")
    with pytest.raises((ConnectionLostError, UnavailableError)):
        await credentials.access_token()


API_KEY = "sgk_" + "7e57ab1e000040008000000000000001" + "_" + "0123456789abcdef" * 4
EXCHANGE = f"{URL}/functions/v1/exchange-api-key"


@pytest.fixture
def machine(clock: Clock) -> ApiKeyCredentials:
    return ApiKeyCredentials(URL, "key", API_KEY, clock=clock)


@pytest.fixture
def exchanges(respx_mock: respx.MockRouter) -> respx.Route:
    """Exchange the key for a new token each time, good for a quarter of an hour."""
    route = respx_mock.post(EXCHANGE)

    def answer(_request: httpx.Request) -> httpx.Response:
        token = f"token {route.call_count + 1}"
        return httpx.Response(200, json={"access_token": token, "expires_in": 900})

    route.mock(side_effect=answer)
    return route


async def test_a_key_is_exchanged_again_when_80_percent_of_a_tokens_life_is_over(
    machine: ApiKeyCredentials, clock: Clock, exchanges: respx.Route
) -> None:
    assert await machine.access_token() == "token 1"
    clock.now = 719.0
    assert await machine.access_token() == "token 1"
    clock.now = 720.0
    assert await machine.access_token() == "token 2"
    request = exchanges.calls.last.request
    assert request.headers["apikey"] == "key"
    assert request.content == b'{"api_key":"%s"}' % API_KEY.encode()


async def test_threads_and_event_loops_share_one_exchange(
    machine: ApiKeyCredentials, clock: Clock, exchanges: respx.Route
) -> None:
    def from_a_loop_of_its_own() -> str:
        return asyncio.run(machine.access_token())

    for number, at in ((1, 0.0), (2, 800.0)):
        clock.now = at
        tokens = await asyncio.gather(
            *(asyncio.to_thread(from_a_loop_of_its_own) for _ in range(8)),
            *(machine.access_token() for _ in range(8)),
        )
        assert set(tokens) == {f"token {number}"}
    assert exchanges.call_count == 2


async def test_a_renewal_that_fails_for_now_goes_unnoticed_while_the_token_lives(
    machine: ApiKeyCredentials, clock: Clock, respx_mock: respx.MockRouter
) -> None:
    route = respx_mock.post(EXCHANGE)
    route.side_effect = [
        httpx.Response(200, json={"access_token": "first", "expires_in": 900}),
        httpx.Response(503),
        httpx.ConnectError("refused"),
        httpx.Response(429),
        httpx.Response(200, json={"access_token": "second", "expires_in": 900}),
    ]
    assert await machine.access_token() == "first"
    clock.now = 730.0
    tokens = await asyncio.gather(*(machine.access_token() for _ in range(4)))
    assert tokens == ["first"] * 4
    assert route.call_count == 2, "one of the four tried, the others did not repeat its failure"
    clock.now = 736.0
    assert await machine.access_token() == "first"
    clock.now = 901.0
    with pytest.raises(UnavailableError):
        await machine.access_token()
    assert await machine.access_token() == "second"


async def test_a_refused_token_is_not_used_again_though_its_time_is_not_over(
    machine: ApiKeyCredentials, clock: Clock, respx_mock: respx.MockRouter
) -> None:
    route = respx_mock.post(EXCHANGE)
    route.side_effect = [
        httpx.Response(200, json={"access_token": "first", "expires_in": 900}),
        httpx.Response(503),
    ]
    await machine.access_token()
    with pytest.raises(UnavailableError):
        await machine.access_token(refresh=True)


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_key_that_is_refused_is_an_authentication_error(
    machine: ApiKeyCredentials, respx_mock: respx.MockRouter, status: int
) -> None:
    respx_mock.post(EXCHANGE).respond(status, json={"code": "invalid_api_key", "message": "No."})
    with pytest.raises(AuthenticationError) as caught:
        await machine.access_token()
    assert (caught.value.code, caught.value.status) == ("invalid_api_key", 401)


async def test_a_function_that_is_not_there_may_pass(
    machine: ApiKeyCredentials, respx_mock: respx.MockRouter
) -> None:
    respx_mock.post(EXCHANGE).respond(404, json={"code": "NOT_FOUND"})
    with pytest.raises(UnavailableError):
        await machine.access_token()


@pytest.mark.parametrize(
    "text",
    ["", "sgk_", API_KEY[:-1], API_KEY + "0", API_KEY + "\n", API_KEY.upper(), f" {API_KEY}"],
)
def test_text_that_is_no_key_is_refused_at_once_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ApiKeyCredentials(URL, "key", text)
    assert API_KEY[-60:-1] not in str(caught.value)


def test_an_identity_is_stable_and_tells_no_secret(machine: ApiKeyCredentials) -> None:
    account_id = "7e57ab1e-0000-4000-8000-000000000001"
    assert machine.identity == account_id
    other_key = API_KEY[:-4] + "ffff"
    assert ApiKeyCredentials(URL, "key", other_key).identity == account_id

    password = PasswordCredentials(URL, "key", "A@Example.com", "secret")
    assert password.identity == "user-08168cd80dfd534a"
    assert PasswordCredentials(URL, "key", "a@example.com", "other").identity == password.identity

    claims = base64.urlsafe_b64encode(json.dumps({"sub": account_id}).encode()).decode()
    assert AccessToken(f"e30.{claims}.c2ln").identity == account_id
    assert AccessToken("sb_publishable_key").identity is None
    assert identity_of(AccessToken(lambda: f"e30.{claims}.c2ln")) is None
    assert identity_of(machine) == account_id


class WithoutIdentity:
    async def access_token(self, *, refresh: bool = False) -> str:
        return "token"


def test_credentials_may_have_no_identity() -> None:
    credentials = WithoutIdentity()
    assert isinstance(credentials, Credentials)
    assert identity_of(credentials) is None


def test_a_key_is_in_no_repr(machine: ApiKeyCredentials) -> None:
    assert API_KEY[-64:] not in repr(machine)
    key = NewApiKey(
        uuid4(), "worker", ("signals:write",), "cdef", datetime.now(UTC), None, None, None, API_KEY
    )
    assert API_KEY[-64:] not in f"{key!r} {key}"


def test_a_child_that_was_forked_during_a_renewal_can_renew(
    machine: ApiKeyCredentials, exchanges: respx.Route
) -> None:
    with machine._lock:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                signal.alarm(10)
                os._exit(0 if machine._renew(None, refused=False) == "token 1" else 2)
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_client_from_the_environment_prefers_the_api_key() -> None:
    environment = {
        "SUPABASE_URL": URL,
        "SUPABASE_ANON_KEY": "key",
        "SIGNALS_ACCESS_TOKEN": "token",
        "SIGNAL_API_KEY": API_KEY,
    }
    with SignalClient.from_env(environment) as client:
        assert isinstance(client._credentials, ApiKeyCredentials)
    with SignalClient.from_env(environment | {"SIGNAL_API_KEY": ""}) as client:
        assert isinstance(client._credentials, AccessToken)
