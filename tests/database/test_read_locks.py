"""A read that is planned already locks the indexes that it reads, and not all there are of a year.

To plan a query locks every index of every partition. One plan for all calls saves that.
"""

from __future__ import annotations

import pytest

from tests.database.callers import caller, make_signals, new_account, new_trader, operator
from tests.plugins.stack import RunningStack

# No read uses it: it is there for the job that merges.
LOCKS_ON_IDLE_INDEXES = """
select count(*)
from pg_locks as lock
inner join pg_index as index on index.indexrelid = lock.relation
where lock.pid = pg_backend_pid() and pg_get_indexdef(index.indexrelid) like '%NOT merged%'
"""
# So that the reads look into segments.
PACK = """
with announced as (
  update private.accounts set packed_until = now() where account_id = $1 returning account_no
),
moved as (
  delete from private.signals as signal using announced
  where signal.account_no = announced.account_no
  returning signal
)
select private.store_segments(array(select signal from moved))
"""
# Until the connection closes: a page of hours looks into segments for what the job has not come to.
HOLD_UP_ROLLUPS = "select pg_advisory_lock(hashtext('private.rollup_step'))"
READS = (
    "select public.query_signals()",
    "select public.query_signals(sort => 'oldest')",
    "select public.query_signals(after_seq => 0)",
    "select public.query_rollups()",
    "select public.query_rollups(resolution => '1h')",
    "select public.account_usage()",
)


@pytest.mark.parametrize("read", READS)
async def test_a_read_is_planned_once(stack: RunningStack, read: str) -> None:
    async with operator(stack) as database:
        account_id = await new_account(database)
        await database.execute(HOLD_UP_ROLLUPS)
        async with caller(stack, account_id) as reader:
            await reader.ingest(make_signals(await new_trader(reader), 5))
            await database.execute(PACK, account_id)
            async with reader.connection.transaction():
                await reader.ask(read)
                first = await reader.connection.fetchval(LOCKS_ON_IDLE_INDEXES)
            async with reader.connection.transaction():
                await reader.ask(read)
                second = await reader.connection.fetchval(LOCKS_ON_IDLE_INDEXES)
    assert first > 0, "the read does not look into segments at all"
    assert second == 0
