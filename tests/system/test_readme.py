"""The example on the front page works as it stands, for a reader who fills in who they are."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import httpx

from local_stack.settings import REPOSITORY
from signal_persistence import DeliveryReport
from tests.plugins.stack import Account, RunningStack


def test_the_first_example_publishes_a_signal_that_is_accepted(
    stack: RunningStack, account: Account
) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    example = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[0]
    headers = {"apikey": stack.publishable_key, "Authorization": f"Bearer {account.access_token}"}
    trader = httpx.post(
        f"{stack.api_url}/rest/v1/rpc/create_trader", json={"name": "reader"}, headers=headers
    ).json()
    reports: list[DeliveryReport] = []
    reader: dict[str, Any] = {
        "url": stack.api_url,
        "key": stack.publishable_key,
        "password": account.password,
        "trader_id": UUID(trader["trader_id"]),
        "print": reports.append,
    }

    exec(example.replace("me@example.com", account.email), reader)  # noqa: S102

    assert [report.status for report in reports] == ["accepted"]
