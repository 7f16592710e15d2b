"""Tokens are renewed before they end, once for all who ask, and never shown."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import respx

from signal_persistence import (
    AccessToken,
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    Credentials,
    PasswordCredentials,
    UnavailableError,
)

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
