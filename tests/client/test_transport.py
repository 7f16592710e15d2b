"""HTTP answers and failures become responses and errors with the right doubt."""

from __future__ import annotations

import httpx
import pytest
import respx

from signal_persistence import (
    ApiError,
    AuthenticationError,
    BatchTooLargeError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PermissionDeniedError,
    RequestTimeoutError,
    TransportError,
    UnavailableError,
)
from signal_persistence.transport import HttpTransport, Response

URL = "http://service.test"


async def test_a_request_carries_the_key_the_token_and_json(respx_mock: respx.MockRouter) -> None:
    route = respx_mock.post(f"{URL}/rest/v1/rpc/f").respond(200, content=b"{}")
    async with HttpTransport(f"{URL}/", "the-key") as transport:
        answer = await transport.post("/rest/v1/rpc/f", b'{"a":1}', "the-token", {"x-a": "b"})
    sent = route.calls.last.request
    assert sent.headers["apikey"] == "the-key"
    assert sent.headers["authorization"] == "Bearer the-token"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-a"] == "b"
    assert sent.content == b'{"a":1}'
    assert (answer.status, answer.body) == (200, b"{}")


async def test_get_sends_the_query_string(respx_mock: respx.MockRouter) -> None:
    route = respx_mock.get(f"{URL}/functions/v1/q", params={"a": "1"}).respond(204)
    async with HttpTransport(URL, "k") as transport:
        assert (await transport.get("/functions/v1/q?a=1", "t")).status == 204
    assert route.called


@pytest.mark.parametrize(
    ("failure", "kind", "in_doubt"),
    [
        (httpx.ConnectError("refused"), ConnectError, False),
        (httpx.ConnectTimeout("slow"), ConnectError, False),
        (httpx.PoolTimeout("busy"), ConnectError, False),
        (httpx.ReadTimeout("slow"), RequestTimeoutError, True),
        (httpx.WriteTimeout("slow"), RequestTimeoutError, True),
        (httpx.ReadError("reset"), ConnectionLostError, True),
        (httpx.WriteError("reset"), ConnectionLostError, True),
        (httpx.RemoteProtocolError("cut"), ConnectionLostError, True),
        (httpx.DecodingError("not gzip"), ConnectionLostError, True),
    ],
)
async def test_a_failure_is_in_doubt_unless_nothing_was_sent(
    respx_mock: respx.MockRouter,
    failure: httpx.HTTPError,
    kind: type[TransportError],
    in_doubt: bool,
) -> None:
    respx_mock.post(f"{URL}/p").mock(side_effect=failure)
    async with HttpTransport(URL, "secret-key") as transport:
        with pytest.raises(kind) as caught:
            await transport.post("/p", b"", "secret-token")
    assert caught.value.in_doubt is in_doubt
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, ApiError, "internal"),
        (401, AuthenticationError, "unauthorized"),
        (403, PermissionDeniedError, "internal"),
        (413, BatchTooLargeError, "batch_too_large"),
        (429, UnavailableError, "unavailable"),
        (500, UnavailableError, "internal"),
        (501, ApiError, "internal"),
        (503, UnavailableError, "unavailable"),
        (520, UnavailableError, "unavailable"),
    ],
)
def test_a_status_alone_names_an_error(status: int, kind: type[ApiError], code: str) -> None:
    error = Response(status, {}, b"<html>").error()
    assert type(error) is kind
    assert (error.status, error.code) == (status, code)


def test_the_error_of_an_edge_function_is_read() -> None:
    body = b'{"code":"request_id_reused","message":"Used.","request_id":"r1"}'
    error = Response(409, {}, body).error()
    assert (error.code, str(error), error.request_id) == ("request_id_reused", "Used.", "r1")


def test_the_error_of_the_rest_api_is_read() -> None:
    body = b'{"code":"PT403","message":"No.","details":"insufficient_scope","hint":"Ask."}'
    error = Response(403, {}, body).error()
    assert (error.code, error.hint, type(error)) == (
        "insufficient_scope",
        "Ask.",
        PermissionDeniedError,
    )


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:27:00 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            0.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert Response(503, headers, b"").retry_after() == seconds


@pytest.mark.parametrize("url", ["", "service.test", "ftp://service.test", "http://"])
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Cannot use this url"):
        HttpTransport(url, "k")
