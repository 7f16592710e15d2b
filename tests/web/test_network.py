"""The TypeScript subscriber when nothing of the project can be reached."""

from __future__ import annotations

from typing import Final

from tests.client.cuttable_proxy import CuttableProxy
from tests.client.publisher import Publisher
from tests.plugins.stack import MakeAccount, RunningStack
from tests.web.readers import readers_process

PATIENCE: Final = 30.0


async def test_what_is_stored_while_the_network_is_away_is_handed_out_when_it_is_back(
    stack: RunningStack, make_account: MakeAccount
) -> None:
    publisher = Publisher(stack, make_account())
    proxy = CuttableProxy(stack.settings.api_port)
    async with proxy, readers_process(stack, proxy.url) as readers:
        reader = await readers.open("away", publisher.account.access_token, after_seq=0)
        assert await readers.until(lambda: reader.state == ("live", None), PATIENCE), reader
        proxy.block()
        await readers.until(lambda: reader.state == ("stale", "connection_lost"), PATIENCE)
        await publisher.publish(30)
        asked_in_vain = "Cannot get /rest/v1/rpc/account_head"
        assert await readers.until(
            lambda: any(asked_in_vain in problem for problem in reader.problems), PATIENCE
        ), reader
        assert reader.state == ("stale", "connection_lost")
        proxy.unblock()
        assert await readers.until(
            lambda: reader.state == ("live", None) and len(reader.observed) == 30, PATIENCE
        ), reader
        assert [signal.seq for signal in reader.observed] == list(range(1, 31))
        await readers.close(reader)
