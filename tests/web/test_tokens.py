"""The TypeScript subscriber and its access token: refused, and of no use."""

from __future__ import annotations

from typing import Final

from tests.client.live.faults import LiveFaults
from tests.plugins.stack import MakeAccount, RunningStack
from tests.web.readers import Reader, Readers, readers_process
from tests.web.tokens import token_of

PATIENCE: Final = 30.0
LIVE: Final = ("live", None)


async def until_state(readers: Readers, reader: Reader, state: tuple[str, str | None]) -> None:
    assert await readers.until(lambda: state in reader.states, PATIENCE), reader


async def test_a_token_that_only_realtime_refuses_is_renewed(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    account = make_account()
    topic = f"account:{account.account_id}:signals"
    said = "InvalidJWTToken: Token has expired 12 seconds ago"
    async with LiveFaults(stack, topic) as faults, readers_process(stack) as readers:
        await faults.inject({"kind": "refuse_join", "reason": said, "count": 1})
        reader = await readers.open("refused", account.access_token, after_seq=0)
        await until_state(readers, reader, LIVE)
        assert ("connecting", "access_refused") in reader.states
        assert reader.refreshed == 1
        await readers.close(reader)


async def test_a_token_without_the_scope_ends_it_with_the_error(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    async with readers_process(stack) as readers:
        useless = token_of(stack, make_account(), 600, scope="signals:write")
        reader = await readers.open("useless", useless, after_seq=0)
        await until_state(readers, reader, ("closed", "failed"))
        assert await readers.until(lambda: reader.error is not None, PATIENCE), reader
        assert reader.error is not None
        assert "signals:read" in reader.error
