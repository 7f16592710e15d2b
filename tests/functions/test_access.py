"""Who may call the functions: only the bearer of a valid token of a user, with the scope."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from local_stack.keys import Keys
from tests.functions.worker import Worker, batch

Forge = Callable[[Worker], str | None]


def claims(worker: Worker, **changes: object) -> dict[str, object]:
    now = int(time.time())
    return {
        "sub": str(worker.account.account_id),
        "role": "authenticated",
        "aud": "authenticated",
        "iat": now,
        "exp": now + 600,
        **changes,
    }


def signed(worker: Worker, **changes: object) -> str:
    return Keys.load(worker.stack.settings).sign(claims(worker, **changes))


def expired(worker: Worker) -> str:
    return signed(worker, iat=int(time.time()) - 7200, exp=int(time.time()) - 3600)


def of_algorithm_none(worker: Worker) -> str:
    """Unsigned, with something in the place of the signature."""
    return without_signature(worker) + "c2lnbmF0dXJl"


def without_signature(worker: Worker) -> str:
    return jwt.encode(claims(worker), "", algorithm="none")


def of_another_key_with_the_right_kid(worker: Worker) -> str:
    [key] = Keys.load(worker.stack.settings).jwks()["keys"]
    stranger = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims(worker), stranger, algorithm="ES256", headers={"kid": key["kid"]})


def of_another_account_with_the_old_signature(worker: Worker) -> str:
    header, _, signature = signed(worker).split(".")
    changed = claims(worker, sub="00000000-0000-4000-8000-000000000000")
    payload = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    return f"{header}.{payload}.{signature}"


def of_no_user(worker: Worker) -> str:
    token = claims(worker)
    del token["sub"]
    return Keys.load(worker.stack.settings).sign(token)


def missing(_worker: Worker) -> None:
    return None


def anon_key(worker: Worker) -> str:
    return worker.stack.anon_key


def service_role_key(worker: Worker) -> str:
    return worker.stack.service_role_key


def publishable_key(worker: Worker) -> str:
    return worker.stack.publishable_key


def secret_key(worker: Worker) -> str:
    return worker.stack.secret_key


FORGERIES: list[Forge] = [
    missing,
    expired,
    of_algorithm_none,
    without_signature,
    of_another_key_with_the_right_kid,
    of_another_account_with_the_old_signature,
    of_no_user,
    anon_key,
    service_role_key,
    publishable_key,
    secret_key,
]


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    assert set(answer.json()) == {"code", "message", "request_id"}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_token_that_is_no_valid_token_of_a_user_is_unauthorized(
    worker: Worker, forge: Forge
) -> None:
    token = forge(worker)
    sent = batch([worker.signal()])
    assert_refused(worker.ingest(sent, token=token), 401, "unauthorized")
    assert_refused(worker.query(token=token), 401, "unauthorized")
    assert worker.stored() == []


def test_a_token_signed_by_the_stack_is_accepted(worker: Worker) -> None:
    answer = worker.ingest(batch([worker.signal()]), token=signed(worker))
    assert answer.status_code == 200, answer.text
    assert worker.query(token=signed(worker)).status_code == 200


def test_a_scope_allows_only_what_it_names(worker: Worker) -> None:
    reader = signed(worker, scope="signals:read")
    writer = signed(worker, scope="signals:write")
    sent = batch([worker.signal()])
    assert_refused(worker.ingest(sent, token=reader), 403, "insufficient_scope")
    assert_refused(worker.query(token=writer), 403, "insufficient_scope")
    assert worker.ingest(sent, token=writer).status_code == 200
    assert len(worker.query(token=reader).json()["signals"]) == 1
    both = signed(worker, scope="signals:read signals:write")
    assert worker.ingest(sent, token=both).status_code == 200
    assert worker.query(token=both).status_code == 200


def test_one_account_never_sees_the_signals_of_another(
    worker: Worker, elite_worker: Worker
) -> None:
    assert worker.ingest(batch(worker.signals(3))).json()["accepted"] == 3
    assert elite_worker.stored() == []
    assert elite_worker.query(traders=worker.trader_id).json()["signals"] == []
    stolen = elite_worker.signal(trader_id=worker.trader_id)
    [item] = elite_worker.ingest(batch([stolen])).json()["items"]
    assert item["code"] == "unknown_trader"
