"""The fixtures that every other test stands on: accounts made through the public HTTP API."""

from __future__ import annotations

import httpx
import pytest

from tests.plugins.stack import Account, MakeAccount, RunningStack


def call(stack: RunningStack, account: Account, function: str) -> httpx.Response:
    with httpx.Client(base_url=stack.api_url, timeout=10) as client:
        return client.post(
            f"/rest/v1/rpc/{function}",
            headers={
                "apikey": stack.publishable_key,
                "authorization": f"Bearer {account.access_token}",
            },
            json={},
        )


@pytest.mark.parametrize("tier", ["free", "pro", "elite"])
def test_an_account_has_the_tier_it_was_made_with(
    stack: RunningStack, make_account: MakeAccount, tier: str
) -> None:
    account = make_account(tier)

    answer = call(stack, account, "my_account")

    assert answer.status_code == 200, answer.text
    assert answer.json()["account_id"] == str(account.account_id)
    assert answer.json()["tier"] == tier


def test_two_accounts_are_two_users(make_account: MakeAccount) -> None:
    first, second = make_account(), make_account()

    assert first.account_id != second.account_id
    assert first.email != second.email
