"""An API key buys a short token that may do what the key may, for as long as the key lives."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import pytest

from local_stack import ports
from local_stack.functions_runner import function_service
from local_stack.keys import Keys
from local_stack.settings import JWT_SECRET
from tests.functions.worker import TIMEOUT_SECONDS, Worker, batch
from tests.plugins.stack import PASSWORD, RunningStack

Json = dict[str, Any]
FUNCTION = "exchange-api-key"
URL = f"/functions/v1/{FUNCTION}"
SECRET = "SIGNAL_JWT_SIGNING_KEY"
START_SECONDS = 30


def rpc(
    worker: Worker, name: str, parameters: Mapping[str, object], *, token: str = ""
) -> httpx.Response:
    headers = {
        "apikey": worker.stack.publishable_key,
        "authorization": f"Bearer {token or worker.account.access_token}",
    }
    return worker.http.post(f"/rest/v1/rpc/{name}", headers=headers, json=dict(parameters))


def create_key(worker: Worker, *scopes: str) -> Json:
    answer = rpc(worker, "create_api_key", {"name": "worker", "scopes": scopes})
    answer.raise_for_status()
    created: Json = answer.json()
    return created


def exchange(worker: Worker, api_key: object) -> httpx.Response:
    headers = {"apikey": worker.stack.publishable_key}
    return worker.http.post(URL, headers=headers, json={"api_key": api_key})


def token_of(worker: Worker, *scopes: str) -> str:
    answer = exchange(worker, create_key(worker, *scopes)["api_key"])
    answer.raise_for_status()
    token: str = answer.json()["access_token"]
    return token


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert code in (body["code"], body.get("details"))


def test_a_token_is_signed_by_a_key_that_the_project_publishes(worker: Worker) -> None:
    key = create_key(worker, "signals:read")
    answer = exchange(worker, key["api_key"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    granted = answer.json()
    token = granted.pop("access_token")

    published = worker.http.get("/auth/v1/.well-known/jwks.json").json()
    signed_by = jwt.get_unverified_header(token)["kid"]
    [public] = [each for each in jwt.PyJWKSet.from_dict(published).keys if each.key_id == signed_by]
    claims = jwt.decode(token, public, algorithms=["ES256"], audience="authenticated")

    assert claims["sub"] == granted["account_id"] == str(worker.account.account_id)
    assert claims["role"] == "authenticated"
    assert claims["scope"] == granted["scope"] == "signals:read"
    assert claims["api_key_id"] == granted["api_key_id"] == key["key_id"]
    assert claims["exp"] - claims["iat"] == granted["expires_in"] == 900
    assert granted["expires_at"] == claims["exp"]
    assert abs(claims["iat"] - time.time()) < 30


def test_a_token_may_do_what_its_key_may(worker: Worker) -> None:
    writer, reader = token_of(worker, "signals:write"), token_of(worker, "signals:read")
    sent = batch([worker.signal()])
    assert_refused(worker.ingest(sent, token=reader), 403, "insufficient_scope")
    assert worker.ingest(sent, token=writer).json()["accepted"] == 1
    assert_refused(worker.query(token=writer), 403, "insufficient_scope")
    assert len(worker.query(token=reader).json()["signals"]) == 1


def test_a_token_can_neither_manage_keys_nor_end_a_trader(worker: Worker) -> None:
    token = token_of(worker, "signals:read", "signals:write")
    calls: dict[str, Json] = {
        "create_api_key": {"name": "more", "scopes": ["signals:read"]},
        "list_api_keys": {},
        "revoke_api_key": {"key_id": str(uuid.uuid4())},
        "archive_trader": {"trader_id": worker.trader_id},
    }
    for name, parameters in calls.items():
        assert_refused(rpc(worker, name, parameters, token=token), 403, "insufficient_scope")


def test_whoever_has_signed_out_makes_no_key_with_the_token_that_is_left(worker: Worker) -> None:
    headers = {
        "apikey": worker.stack.publishable_key,
        "authorization": f"Bearer {worker.account.access_token}",
    }
    worker.http.post("/auth/v1/logout", headers=headers).raise_for_status()
    assert worker.query().status_code == 200, "the token itself is good until it ends"
    answer = rpc(worker, "create_api_key", {"name": "worker", "scopes": ["signals:read"]})
    assert_refused(answer, 401, "unauthorized")


def test_a_token_cannot_change_the_user(worker: Worker) -> None:
    headers = {
        "apikey": worker.stack.publishable_key,
        "authorization": f"Bearer {token_of(worker, 'signals:read', 'signals:write')}",
    }
    assert worker.http.get("/auth/v1/user", headers=headers).status_code == 403
    changed = worker.http.put("/auth/v1/user", headers=headers, json={"password": "x" * 12})
    assert changed.status_code == 403
    session = worker.http.post(
        "/auth/v1/token?grant_type=password",
        headers={"apikey": worker.stack.publishable_key},
        json={"email": worker.account.email, "password": PASSWORD},
    )
    assert session.status_code == 200, "the password is what it was"


def test_a_revoked_key_and_its_tokens_end_at_once(worker: Worker) -> None:
    key = create_key(worker, "signals:write")
    token = exchange(worker, key["api_key"]).json()["access_token"]
    sent = batch([worker.signal()])
    assert worker.ingest(sent, token=token).status_code == 200

    rpc(worker, "revoke_api_key", {"key_id": key["key_id"]}).raise_for_status()
    assert_refused(worker.ingest(sent, token=token), 401, "unauthorized")
    assert_refused(exchange(worker, key["api_key"]), 401, "invalid_api_key")
    assert worker.ingest(sent).status_code == 200, "the user's own token goes on"


def test_an_exchange_is_written_down(worker: Worker) -> None:
    key = create_key(worker, "signals:read")
    assert rpc(worker, "list_api_keys", {}).json()[0]["last_used_at"] is None
    exchange(worker, key["api_key"])
    [listed] = rpc(worker, "list_api_keys", {}).json()
    assert listed["last_used_at"] >= key["created_at"]
    assert "api_key" not in listed


async def test_a_key_that_is_exchanged_too_often_has_to_wait(worker: Worker) -> None:
    key = create_key(worker, "signals:read")
    connection = await asyncpg.connect(worker.stack.database_url)
    try:
        await connection.execute(
            "update private.api_keys set exchanges_paid_until = now() + interval '1 minute' "
            "where key_id = $1",
            uuid.UUID(key["key_id"]),
        )
    finally:
        await connection.close()
    answer = exchange(worker, key["api_key"])
    assert_refused(answer, 429, "too_many_requests")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("api_key", ["", "sgk_", None, "sgk_" + "0" * 32 + "_" + "0" * 64])
def test_what_is_no_key_buys_nothing(worker: Worker, api_key: object) -> None:
    answer = exchange(worker, api_key)
    if isinstance(api_key, str):
        assert_refused(answer, 401, "invalid_api_key")
    else:
        assert_refused(answer, 400, "invalid_request")
    assert set(answer.json()) == {"code", "message", "request_id"}


def logs_with(text: str, stack: RunningStack) -> str:
    """Return all logs of the stack as soon as the text is in one: functions write theirs behind."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        folder = stack.settings.log_directory
        logs = "".join(path.read_text(errors="replace") for path in folder.glob("*"))
        if text in logs:
            return logs
        assert time.monotonic() < deadline, f"{text} is in no log"
        time.sleep(0.05)


def test_no_log_of_the_stack_has_a_key_or_its_token(worker: Worker) -> None:
    key = create_key(worker, "signals:read")["api_key"]
    token = exchange(worker, key).json()["access_token"]
    mistaken = {"api_key": key, "scope": "signals:read"}
    headers = {"apikey": worker.stack.publishable_key, "x-correlation-id": "look-for-me"}
    assert worker.http.post(URL, headers=headers, json=mistaken).status_code == 400
    logs = logs_with("look-for-me", worker.stack)
    assert key[-60:] not in logs
    assert token.rpartition(".")[2] not in logs


@contextmanager
def started_with(stack: RunningStack, secret: str | None, folder: Path) -> Iterator[httpx.Client]:
    """Run the function's worker apart from the stack's own, with another secret."""
    [port] = ports.choose(1)
    settings = replace(stack.settings, function_ports={FUNCTION: port})
    spec = function_service(settings, Keys.load(stack.settings), FUNCTION)
    environment = {**spec.environment, SECRET: secret or ""}
    output = folder / "worker.log"
    with output.open("w") as log:
        worker = subprocess.Popen(spec.command, env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_SECONDS) as client:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(client):
                if worker.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(output.read_text())
                time.sleep(0.05)
            yield client
    finally:
        worker.kill()
        worker.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.request("OPTIONS", "/").status_code == 204
    except httpx.TransportError:
        return False


def test_the_legacy_secret_signs_tokens_that_the_project_accepts(
    worker: Worker, tmp_path: Path
) -> None:
    key = create_key(worker, "signals:write")
    with started_with(worker.stack, JWT_SECRET, tmp_path) as client:
        answer = client.post("/", json={"api_key": key["api_key"]})
    token = answer.raise_for_status().json()["access_token"]
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert worker.ingest(batch([worker.signal()]), token=token).json()["accepted"] == 1


def test_a_token_of_another_projects_key_is_refused(worker: Worker, tmp_path: Path) -> None:
    key = create_key(worker, "signals:write")
    own = json.loads(Keys.load(worker.stack.settings).signing_jwk())
    stranger = {**own, "kid": str(uuid.uuid4())}
    with started_with(worker.stack, json.dumps(stranger), tmp_path) as client:
        answer = client.post("/", json={"api_key": key["api_key"]})
    token = answer.raise_for_status().json()["access_token"]
    assert_refused(worker.ingest(batch([worker.signal()]), token=token), 401, "unauthorized")


@pytest.mark.parametrize("secret", [None, "too short", '{"kty": "EC"}'])
def test_without_a_secret_that_can_sign_the_function_does_not_start(
    stack: RunningStack, tmp_path: Path, secret: str | None
) -> None:
    with pytest.raises(RuntimeError, match=SECRET), started_with(stack, secret, tmp_path):
        pass
    assert secret is None or secret not in (tmp_path / "worker.log").read_text()
