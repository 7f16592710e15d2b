"""HTTP answers and failures become responses and errors with the right doubt."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from signal_persistence import (
    ApiError,
    AuthenticationError,
    BatchTooLargeError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PermissionDeniedError,
    RequestTimeoutError,
    TransportError,
    UnavailableError,
)
from signal_persistence.transport import HttpTransport, Response
from tests.client.loopback_service import (
    CLOSE,
    RESET,
    STALL,
    LoopbackService,
    Step,
    answer,
)

LARGE = b"x" * 1_000_000


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    with LoopbackService() as service:
        yield service


async def test_a_request_carries_the_key_the_token_and_json(service: LoopbackService) -> None:
    service.script = [answer(200, b"{}", x_b="c")]
    async with HttpTransport(f"{service.url}/", "the-key") as transport:
        response = await transport.post("/rest/v1/rpc/f", b'{"a":1}', "the-token", {"x-a": "b"})
    [sent] = service.received
    assert (sent.method, sent.target, sent.body) == ("POST", "/rest/v1/rpc/f", b'{"a":1}')
    assert sent.headers["apikey"] == "the-key"
    assert sent.headers["authorization"] == "Bearer the-token"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-a"] == "b"
    assert (response.status, response.body, response.headers["x-b"]) == (200, b"{}", "c")


async def test_get_sends_the_query_string(service: LoopbackService) -> None:
    service.script = [answer(204)]
    async with HttpTransport(service.url, "k") as transport:
        assert (await transport.get("/functions/v1/q?a=1&b=x%2By", "t")).status == 204
    assert service.received[0].target == "/functions/v1/q?a=1&b=x%2By"


async def test_an_empty_body_a_packed_answer_and_a_redirect_are_taken_as_they_are(
    service: LoopbackService,
) -> None:
    packed = answer(200, gzip.compress(b'{"a":1}'), content_encoding="gzip")
    service.script = [packed, answer(302, location="/elsewhere")]
    async with HttpTransport(service.url, "k") as transport:
        assert (await transport.post("/p", b"", "t")).body == b'{"a":1}'
        assert (await transport.post("/p", b"", "t")).status == 302
    assert [request.target for request in service.received] == ["/p", "/p"]
    assert service.connections == 1


async def test_an_answer_that_comes_before_the_whole_body_is_taken_is_read(
    service: LoopbackService,
) -> None:
    refusal = answer(413, b"too large", connection="close")
    service.script = [Step(refusal.data, then="close", early=True)]
    async with HttpTransport(service.url, "k") as transport:
        assert (await transport.post("/p", LARGE, "t")).status == 413


TRUNCATED = Step(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", then="close")
BAD_CHUNK = Step(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", then="close")
CUT_CHUNK = Step(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{", then="close")


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (STALL, RequestTimeoutError),
        (Step(b"HTTP/1.1 200 OK\r\n", then="stall"), RequestTimeoutError),
        (Step(TRUNCATED.data, then="stall"), RequestTimeoutError),
        (Step(then="stall", early=True), RequestTimeoutError),
        (CLOSE, ConnectionLostError),
        (RESET, ConnectionLostError),
        (Step(then="reset", early=True), ConnectionLostError),
        (Step(then="close", early=True), ConnectionLostError),
        (TRUNCATED, ConnectionLostError),
        (Step(TRUNCATED.data, then="reset"), ConnectionLostError),
        (BAD_CHUNK, ConnectionLostError),
        (CUT_CHUNK, ConnectionLostError),
        (Step(b"SSH-2.0-OpenSSH_9.2\r\n", then="close"), ConnectionLostError),
        (Step(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, then="close"), ConnectionLostError),
        (answer(200, b"not packed at all", content_encoding="gzip"), ConnectionLostError),
        (answer(200, content_length="-1"), ConnectionLostError),
    ],
    ids=str,
)
async def test_a_failure_after_the_request_may_have_left_is_in_doubt_and_not_repeated(
    service: LoopbackService, method: str, step: Step, kind: type[TransportError]
) -> None:
    async with HttpTransport(service.url, "secret-key", timeout=0.3) as transport:
        assert (await transport.post("/before", b"", "t")).status == 200
        service.script = [step]
        send = (
            transport.post("/p", LARGE, "secret-token")
            if method == "POST"
            else transport.get("/p", "secret-token")
        )
        with pytest.raises(kind) as caught:
            await send
        assert caught.value.in_doubt
        assert "secret" not in str(caught.value)
        assert len(service.received) == (1 if step.early else 2), "it was sent again"
        assert (await transport.post("/after", b"", "t")).status == 200
    assert service.received[-1].target == "/after"


async def test_a_refused_connection_was_not_sent() -> None:
    with LoopbackService(refusing=True) as service:
        async with HttpTransport(service.url, "secret-key") as transport:
            with pytest.raises(ConnectError, match=r"Cannot connect to 127.0.0.1: .*Connect") as e:
                await transport.post("/p", b"", "secret-token")
    assert not e.value.in_doubt
    assert "secret" not in str(e.value)


async def test_a_name_that_does_not_exist_was_not_sent() -> None:
    async with HttpTransport("http://service.invalid", "k") as transport:
        with pytest.raises(ConnectError, match=r"Cannot connect to service.invalid: .+;"):
            await transport.post("/p", b"", "t")


async def test_a_connection_that_is_not_made_in_time_was_not_sent() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # Nobody accepts, so after these the kernel answers no further attempt.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with HttpTransport(url, "k", timeout=0.4) as transport:
            with pytest.raises(ConnectError, match="no connection in time"):
                await transport.post("/p", b"", "t")


async def test_tls_that_is_not_agreed_in_time_was_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        async with HttpTransport(url, "k", timeout=0.4) as transport:
            with pytest.raises(ConnectError, match="no connection in time"):
                await transport.post("/p", b"", "t")


async def test_a_connection_that_never_becomes_free_was_not_sent(service: LoopbackService) -> None:
    service.script = [STALL] * 3
    async with HttpTransport(service.url, "k", timeout=0.2, max_connections=1) as transport:
        errors = await asyncio.gather(
            *(transport.post(f"/{number}", b"", "t") for number in range(3)),
            return_exceptions=True,
        )
        assert isinstance(errors[0], RequestTimeoutError)
        assert isinstance(errors[2], ConnectError)
        assert "/2" not in {request.target for request in service.received}
        service.script = []
        assert (await transport.post("/p", b"", "t")).status == 200, (
            "a connection was lost count of"
        )


async def test_at_most_max_connections_are_open_at_once(service: LoopbackService) -> None:
    async with HttpTransport(service.url, "k", max_connections=2) as transport:
        await asyncio.gather(*(transport.post("/p", b"", "t") for _ in range(20)))
    assert len(service.received) == 20
    assert service.connections == 2


async def test_a_cancelled_request_passes_on_and_leaves_no_broken_connection(
    service: LoopbackService,
) -> None:
    service.script = [STALL, Step(TRUNCATED.data, then="stall")]
    async with HttpTransport(service.url, "k", max_connections=1) as transport:
        for count in (1, 2):
            request = asyncio.create_task(transport.post("/cancelled", b"", "t"))
            await asyncio.to_thread(service.wait_until_received, count)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        assert (await transport.post("/p", b"", "t")).status == 200
    assert service.received[-1].target == "/p"


async def test_a_closed_transport_says_so(service: LoopbackService) -> None:
    transport = HttpTransport(service.url, "k")
    await transport.post("/p", b"", "t")
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ClosedError):
        await transport.post("/p", b"", "t")


async def test_a_request_under_way_when_the_transport_is_closed_is_in_doubt(
    service: LoopbackService,
) -> None:
    service.script = [STALL]
    async with HttpTransport(service.url, "k") as transport:
        request = asyncio.create_task(transport.post("/p", b"", "t"))
        await asyncio.to_thread(service.wait_until_received, 1)
    with pytest.raises(ConnectionLostError):
        await request


def test_a_transport_belongs_to_one_event_loop(service: LoopbackService) -> None:
    transport = HttpTransport(service.url, "k")
    with asyncio.Runner() as first:
        first.run(transport.post("/p", b"", "t"))
        with pytest.raises(ConfigurationError, match="second event loop"):
            asyncio.run(transport.post("/p", b"", "t"))
        first.run(transport.aclose())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_that_drops_its_copy_leaves_the_connections_to_its_parent(
    service: LoopbackService,
) -> None:
    held = [HttpTransport(service.url, "k", timeout=2)]
    await held[0].post("/p", b"", "t")
    child = os.fork()
    if child == 0:
        try:
            held.clear()
            gc.collect()
        finally:
            os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    assert (await held[0].post("/p", b"", "t")).status == 200
    await held[0].aclose()
    assert service.connections == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_service(certificate: Path) -> Iterator[LoopbackService]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with LoopbackService(tls=context) as service:
        yield service


async def test_a_certificate_that_nobody_vouches_for_is_refused_before_anything_is_sent(
    tls_service: LoopbackService,
) -> None:
    async with HttpTransport(tls_service.url, "k") as transport:
        with pytest.raises(ConnectError, match="certificate verify failed"):
            await transport.post("/p", b"", "t")
    assert not tls_service.received


async def test_certificates_of_ssl_cert_file_are_trusted(
    tls_service: LoopbackService, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with HttpTransport(tls_service.url, "k") as transport:
        assert (await transport.post("/p", b"", "t")).status == 200
        tls_service.script = [RESET]
        with pytest.raises(ConnectionLostError):
            await transport.post("/p", b"", "t")


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
async def test_a_request_goes_through_the_proxy_of_the_environment(
    service: LoopbackService, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://me:pass@127.0.0.1:{service.port}")
    async with HttpTransport("http://service.test", "k") as transport:
        assert (await transport.post("/p", b"{}", "t")).status == 200
    [sent] = service.received
    assert sent.target == "http://service.test/p"
    assert sent.headers["proxy-authorization"] == "Basic bWU6cGFzcw=="
    assert sent.headers["authorization"] == "Bearer t"


async def test_no_proxy_names_hosts_that_are_reached_directly(
    service: LoopbackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")
    async with HttpTransport(service.url, "k") as transport:
        with pytest.raises(ConnectError):
            await transport.post("/p", b"", "t")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    async with HttpTransport(service.url, "k") as transport:
        assert (await transport.post("/p", b"", "t")).status == 200


async def test_a_proxy_that_does_not_lead_to_the_service_proves_that_nothing_was_sent(
    service: LoopbackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{service.port}")
    service.script = [answer(403)]
    async with HttpTransport("https://service.test", "k") as transport:
        with pytest.raises(ConnectError, match="the proxy answered with HTTP status 403") as caught:
            await transport.post("/p", b"", "t")
    assert "secret" not in str(caught.value)
    [sent] = service.received
    assert (sent.method, sent.target) == ("CONNECT", "service.test:443")
    assert "authorization" not in sent.headers


def test_a_proxy_that_does_not_speak_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="Cannot use the proxy") as caught:
        HttpTransport("http://service.test", "k")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, ApiError, "internal"),
        (401, AuthenticationError, "unauthorized"),
        (403, PermissionDeniedError, "internal"),
        (404, UnavailableError, "unavailable"),
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
    "body",
    [
        b"",
        b"<html>404 page not found</html>",
        b'{"code":"NOT_FOUND","message":"Requested function was not found"}',
        b'{"code":"PGRST202","message":"Could not find the function in the schema cache"}',
    ],
)
def test_a_404_that_the_service_did_not_write_may_pass(body: bytes) -> None:
    assert type(Response(404, {}, body).error()) is UnavailableError


@pytest.mark.parametrize(
    "body", [b'{"code":"not_found"}', b'{"code":"PT404","message":"No.","details":"not_found"}']
)
def test_a_404_of_the_service_is_definite(body: bytes) -> None:
    error = Response(404, {}, body).error()
    assert (type(error), error.code) == (ApiError, "not_found")


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


@pytest.mark.parametrize(
    "url",
    [
        "",
        "service.test",
        "ftp://service.test",
        "http://",
        "http://service.test:99999",
        "http://[::1",
        "http://me:secret@service.test",
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Cannot use this url"):
        HttpTransport(url, "k")
