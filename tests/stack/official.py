"""The official Python client, closed when the test ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
from supabase import ClientOptions, create_client

from tests.plugins.stack import RunningStack


@contextlib.contextmanager
def official_client(stack: RunningStack, key: str) -> Iterator[Any]:
    """Open a `supabase` client. It is typed as anything: its JSON types fit no real answer."""
    with httpx.Client(timeout=20) as http:
        options = ClientOptions(httpx_client=http, auto_refresh_token=False)
        yield create_client(stack.api_url, key, options=options)
