"""Which tokens and API keys a stack accepts, and what it says of those it refuses."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from local_stack import keys as keys_module
from local_stack.keys import (
    BadSignature,
    Expired,
    Keys,
    KeysError,
    Malformed,
    MissingClaim,
    NotYetValid,
    UnacceptedAlgorithm,
    UnknownKey,
)
from local_stack.settings import JWT_SECRET, PUBLISHABLE_KEY, SECRET_KEY, StackSettings

NOW = 1_800_000_000.0
KEYS = Keys(ec.generate_private_key(ec.SECP256R1()), "key-1", clock=lambda: NOW)


def claims(**changes: Any) -> dict[str, Any]:
    all_claims = {"sub": "someone", "role": "authenticated", "exp": NOW + 60} | changes
    return {name: value for name, value in all_claims.items() if value is not ...}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(map(base64url, parts))


def test_a_token_signed_by_the_stack_is_accepted_again_and_again() -> None:
    token = KEYS.sign(claims())
    assert KEYS.verify(token) == claims()
    assert KEYS.verify_token(token).claims_json == json.dumps(claims(), separators=(",", ":"))


def test_a_token_signed_with_the_shared_secret_is_accepted() -> None:
    assert KEYS.verify(jwt.encode(claims(), JWT_SECRET, algorithm="HS256")) == claims()


def test_a_function_can_sign_with_the_stacks_key_as_the_stack_does() -> None:
    jwk = json.loads(KEYS.signing_jwk())
    token = jwt.encode(claims(), jwt.PyJWK(jwk), headers={"kid": jwk["kid"]})
    assert KEYS.verify(token) == claims()
    [published] = KEYS.jwks()["keys"]
    assert published["kid"] == jwk["kid"]
    assert "d" not in published


def test_the_legacy_keys_are_those_of_supabase_start() -> None:
    assert KEYS.anon_key.endswith(".CRXP1A7WOeoJeXxjNni43kdQwgnWNReilDMblYTn_I0")
    assert KEYS.service_role_key.endswith(".EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0YpN81IU")


@pytest.mark.parametrize(
    ("key", "role"),
    [
        (PUBLISHABLE_KEY, "anon"),
        (SECRET_KEY, "service_role"),
        (KEYS.anon_key, "anon"),
        (KEYS.service_role_key, "service_role"),
        ("sb_secret_another", None),
        ("", None),
    ],
)
def test_an_api_key_stands_for_a_role(key: str, role: str | None) -> None:
    assert KEYS.resolve_apikey(key) == role


def test_a_remembered_token_expires_on_time() -> None:
    now = [NOW]
    keys = Keys(ec.generate_private_key(ec.SECP256R1()), "key-1", clock=lambda: now[0])
    token = keys.sign(claims(exp=NOW + 10))
    keys.verify(token)
    now[0] = NOW + 10
    for _ in range(2):
        with pytest.raises(Expired):
            keys.verify(token)


def test_remembered_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "MAX_REMEMBERED_TOKENS", 3)
    keys = Keys(ec.generate_private_key(ec.SECP256R1()), "key-1", clock=lambda: NOW)
    for number in range(10):
        keys.verify(keys.sign(claims(sub=str(number))))
    assert len(keys._verified) == 3


def test_no_signature_is_refused() -> None:
    for alg in ("none", "None", "NONE", "", None):
        with pytest.raises(UnacceptedAlgorithm):
            KEYS.verify(unsigned({"alg": alg, "typ": "JWT"}, claims()))


def test_another_key_under_our_key_id_is_refused() -> None:
    forger = Keys(ec.generate_private_key(ec.SECP256R1()), "key-1")
    with pytest.raises(BadSignature):
        KEYS.verify(forger.sign(claims()))


def test_an_unknown_key_id_is_refused() -> None:
    forger = Keys(ec.generate_private_key(ec.SECP256R1()), "key-2")
    with pytest.raises(UnknownKey):
        KEYS.verify(forger.sign(claims()))


@pytest.mark.parametrize("form", ["pem", "jwk"])
def test_the_public_key_is_no_shared_secret(form: str) -> None:
    public = ECAlgorithm.from_jwk(KEYS.jwks()["keys"][0])
    assert isinstance(public, ec.EllipticCurvePublicKey)
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secret = pem if form == "pem" else json.dumps(KEYS.jwks()["keys"][0]).encode()
    signer = hmac.HMAC(secret, hashes.SHA256())
    header = {"alg": "HS256", "typ": "JWT", "kid": "key-1"}
    signer.update(unsigned(header, claims()).rsplit(".", 1)[0].encode())
    with pytest.raises(BadSignature):
        KEYS.verify(unsigned(header, claims(), signer.finalize()))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_is_refused_even_with_the_right_secret(algorithm: str) -> None:
    with pytest.raises(UnacceptedAlgorithm):
        KEYS.verify(jwt.encode(claims(), JWT_SECRET + "-" * 64, algorithm=algorithm))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"exp": NOW - 1}, Expired, "expired"),
        ({"exp": NOW}, Expired, "expired"),
        ({"exp": ...}, MissingClaim, "no claim exp"),
        ({"role": ...}, MissingClaim, "no claim role"),
        ({"role": ""}, MissingClaim, "no claim role"),
        ({"role": 7}, MissingClaim, "no claim role"),
        ({"exp": "tomorrow"}, Malformed, "exp is no time"),
        ({"exp": True}, Malformed, "exp is no time"),
        ({"exp": 1e300}, Malformed, "exp is no time"),
        ({"nbf": NOW + 60}, NotYetValid, "not valid yet"),
    ],
)
def test_a_signed_token_with_wrong_claims_is_refused(
    changes: dict[str, Any], error: type[KeysError], words: str
) -> None:
    with pytest.raises(error, match=words):
        KEYS.verify(KEYS.sign(claims(**changes)))


@given(st.text() | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}", fullmatch=True))
def test_nonsense_is_refused_and_never_crashes(token: str) -> None:
    with pytest.raises(KeysError):
        KEYS.verify(token)


def test_a_deeply_nested_header_is_refused() -> None:
    header = base64url(b'{"alg":' + b"[" * 5000 + b"]" * 5000 + b"}")
    with pytest.raises(Malformed):
        KEYS.verify(f"{header}.e30.e30")


def test_the_signing_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    settings = StackSettings(name="keys", state_root=str(tmp_path))
    first, second = Keys.load(settings), Keys.load(settings)
    assert second.verify(first.sign({"role": "anon", "exp": 4_000_000_000}))["role"] == "anon"
    file = settings.directory / "signing_key.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in settings.directory.iterdir()] == [file.name]
    assert "d" not in first.jwks()["keys"][0]
