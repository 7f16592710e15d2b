"""What a client may read from its own access token. Only the service verifies tokens."""

from __future__ import annotations

import base64
import binascii
from uuid import UUID

import msgspec

from signal_persistence.errors import AuthenticationError


class _Claims(msgspec.Struct, frozen=True):
    sub: UUID


def account_of(token: str) -> UUID:
    """Return the account that an access token belongs to.

    Raises AuthenticationError when it is not the token of a signed-in user.
    """
    try:
        payload = token.split(".")[1]
        text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(text, type=_Claims).sub
    except (IndexError, ValueError, binascii.Error, msgspec.DecodeError):
        raise AuthenticationError(
            "Cannot tell whose signals to follow: the access token is not that of a signed-in "
            "user; sign in, or pass a user's token instead of a project key.",
            code="unauthorized",
            status=401,
        ) from None
