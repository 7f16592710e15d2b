"""The keys of one stack: API keys, the shared JWT secret and the ES256 signing key.

User tokens are signed with ES256; the key is made once per stack and stays in its directory. The
legacy `anon` and `service_role` keys are JWTs signed with the shared secret (HS256), byte for byte
those of `supabase start`. Verified tokens are remembered until they expire, because verifying an
ES256 signature on every request would cost more than the rest of the gateway's work.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from local_stack.settings import JWT_SECRET, PUBLISHABLE_KEY, SECRET_KEY, StackSettings

SIGNING_KEY_FILE = "signing_key.json"
MAX_TOKEN_CHARACTERS = 16_384
MAX_REMEMBERED_TOKENS = 10_000
LEGACY_KEY_EXPIRY = 1983812996  # the `exp` of the keys that `supabase start` prints


class KeysError(Exception):
    """Cannot accept the token."""


class Malformed(KeysError):  # noqa: N818
    """Cannot accept the token: it is not a JWT of three base64 parts with a JSON header."""


class MissingClaim(Malformed):
    """Cannot accept the token: a claim that every token must carry is absent or no string."""


class BadSignature(KeysError):  # noqa: N818
    """Cannot accept the token: its signature does not match the key it names."""


class UnknownKey(BadSignature):
    """Cannot accept the token: no key of this stack has its key id."""


class UnacceptedAlgorithm(BadSignature):
    """Cannot accept the token: only ES256 and HS256 signatures are accepted."""


class Expired(KeysError):  # noqa: N818
    """Cannot accept the token: it has expired."""


class NotYetValid(KeysError):  # noqa: N818
    """Cannot accept the token: it is not valid yet."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """The claims of a token whose signature and times were checked."""

    claims: Mapping[str, Any]
    role: str
    expires_at: float
    claims_json: str
    """The claims as they are given to the database in `request.jwt.claims`."""


class Keys:
    """Sign and verify this stack's tokens, and tell which role an API key stands for."""

    def __init__(
        self,
        signing_key: ec.EllipticCurvePrivateKey,
        key_id: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signing_key = signing_key
        self._public_key = signing_key.public_key()
        self._key_id = key_id
        self._clock = clock
        self._verified: OrderedDict[str, VerifiedToken] = OrderedDict()
        self.anon_key = _legacy_key("anon")
        self.service_role_key = _legacy_key("service_role")
        self._roles = {
            PUBLISHABLE_KEY: "anon",
            SECRET_KEY: "service_role",
            self.anon_key: "anon",
            self.service_role_key: "service_role",
        }

    @classmethod
    def load(cls, settings: StackSettings) -> Keys:
        """Read the stack's signing key, making it first if this is a new stack."""
        path = settings.directory / SIGNING_KEY_FILE
        if not path.exists():
            _create_signing_key(path)
        jwk = json.loads(path.read_text())
        key = ECAlgorithm.from_jwk(jwk)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(
                f"Cannot load the signing key: {path} holds no private key; "
                "delete the file to make a new one"
            )
        return cls(key, jwk["kid"])

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Sign `claims` (which must hold `exp` and `role`) with the ES256 key."""
        headers = {"kid": self._key_id}
        return jwt.encode(dict(claims), self._signing_key, algorithm="ES256", headers=headers)

    def verify(self, token: str) -> Mapping[str, Any]:
        """Return the claims of `token`. Raise a `KeysError` that says what is wrong with it."""
        return self.verify_token(token).claims

    def verify_token(self, token: str) -> VerifiedToken:
        """As `verify`, with what the gateway needs of a token on every request."""
        verified = self._verified.get(token)
        if verified is not None:
            if verified.expires_at > self._clock():
                self._verified.move_to_end(token)
                return verified
            del self._verified[token]
            raise Expired(Expired.__doc__)
        verified = self._verify_now(token)
        self._verified[token] = verified
        if len(self._verified) > MAX_REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
        return verified

    def resolve_apikey(self, key: str) -> str | None:
        """Return the role that an API key stands for, or None if the key is not of this stack."""
        return self._roles.get(key)

    def jwks(self) -> dict[str, Any]:
        """Return the public half of the signing key as a JSON Web Key Set."""
        return {"keys": [_public_jwk(self._public_key, self._key_id)]}

    def signing_jwk(self) -> str:
        """Return the private signing key as JSON, as `supabase gen signing-key` prints one.

        On hosted it is the key that a project has imported, so that a function can sign too.
        """
        return json.dumps(_private_jwk(self._signing_key, self._key_id))

    def _verify_now(self, token: str) -> VerifiedToken:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Malformed(f"Cannot accept the token: longer than {MAX_TOKEN_CHARACTERS} bytes")
        try:
            algorithm, key = self._key_for(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                options={
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return self._check_claims(claims)
        except jwt.InvalidSignatureError:
            raise BadSignature(BadSignature.__doc__) from None
        except jwt.InvalidTokenError as error:
            raise Malformed(f"Cannot accept the token: {error}") from None
        except (ValueError, TypeError, RecursionError):
            raise Malformed(Malformed.__doc__) from None

    def _key_for(self, header: Mapping[str, Any]) -> tuple[str, Any]:
        """Choose the key by the algorithm; the token never chooses which kind of key is used."""
        match header.get("alg"):
            case "HS256":
                return "HS256", JWT_SECRET
            case "ES256":
                if header.get("kid", self._key_id) != self._key_id:
                    raise UnknownKey(UnknownKey.__doc__)
                return "ES256", self._public_key
        raise UnacceptedAlgorithm(UnacceptedAlgorithm.__doc__)

    def _check_claims(self, claims: dict[str, Any]) -> VerifiedToken:
        expires_at = _time_claim(claims, "exp")
        if expires_at is None:
            raise MissingClaim("Cannot accept the token: it has no claim exp")
        role = claims.get("role")
        if not isinstance(role, str) or not role or "\0" in role:
            raise MissingClaim("Cannot accept the token: it has no claim role")
        now = self._clock()
        if expires_at <= now:
            raise Expired(Expired.__doc__)
        not_before = _time_claim(claims, "nbf")
        if not_before is not None and not_before > now:
            raise NotYetValid(NotYetValid.__doc__)
        claims_json = json.dumps(claims, separators=(",", ":"), allow_nan=False)
        return VerifiedToken(claims, role, expires_at, claims_json)


def _time_claim(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
        raise Malformed(f"Cannot accept the token: its claim {name} is no time")
    return float(value)


def _legacy_key(role: str) -> str:
    claims = {"iss": "supabase-demo", "role": role, "exp": LEGACY_KEY_EXPIRY}
    return jwt.encode(claims, JWT_SECRET, algorithm="HS256")


def _public_jwk(key: ec.EllipticCurvePublicKey, key_id: str) -> dict[str, Any]:
    numbers: dict[str, Any] = ECAlgorithm.to_jwk(key, as_dict=True)
    return {**numbers, "kid": key_id, "alg": "ES256", "use": "sig", "key_ops": ["verify"]}


def _private_jwk(key: ec.EllipticCurvePrivateKey, key_id: str) -> dict[str, Any]:
    numbers: dict[str, Any] = ECAlgorithm.to_jwk(key, as_dict=True)
    return {**numbers, "kid": key_id, "alg": "ES256", "use": "sig"}


def _create_signing_key(path: Path) -> None:
    """Write a new key, unless another process of this stack was first: then keep that one."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = _private_jwk(key, str(uuid.uuid4()))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(jwk, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
