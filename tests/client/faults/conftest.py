"""A desk to publish from: accounts with a trader each, made through the public HTTP API."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.client.faults.desk import Desk, MakeDesk
from tests.plugins.stack import Account, MakeAccount, RunningStack


@pytest.fixture
def make_desk(stack: RunningStack, make_account: MakeAccount, tmp_path: Path) -> MakeDesk:
    """Make a desk with so many accounts of its own; settings are those of all its producers."""

    def make(accounts: int = 1, **settings: Any) -> Desk:
        made = [make_account("elite") for _ in range(accounts)]
        return Desk(
            url=stack.api_url,
            key=stack.publishable_key,
            tokens={account.account_id: account.access_token for account in made},
            traders={account.account_id: _make_trader(stack, account) for account in made},
            start=datetime.now(UTC) - timedelta(hours=1),
            folder=Path(tempfile.mkdtemp(dir=tmp_path)),
            settings=settings,
        )

    return make


def _make_trader(stack: RunningStack, account: Account) -> UUID:
    headers = {"apikey": stack.publishable_key, "authorization": f"Bearer {account.access_token}"}
    answer = httpx.post(
        f"{stack.api_url}/rest/v1/rpc/create_trader",
        headers=headers,
        json={"name": "prober"},
        timeout=10,
    )
    return UUID(answer.raise_for_status().json()["trader_id"])
