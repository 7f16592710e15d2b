"""Access tokens as a test wants them."""

from __future__ import annotations

import time
from typing import Any

from local_stack.keys import Keys
from tests.plugins.stack import Account, RunningStack


def token_of(stack: RunningStack, account: Account, lifetime: float, **claims: Any) -> str:
    """Return a token of the account that ends after `lifetime` seconds."""
    base = {"sub": str(account.account_id), "role": "authenticated", "aud": "authenticated"}
    return Keys.load(stack.settings).sign({**base, "exp": int(time.time() + lifetime), **claims})
