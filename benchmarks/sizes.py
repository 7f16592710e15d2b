"""How much of the disk tables take, partitions, indexes and out-of-line values included."""

from __future__ import annotations

import asyncpg

BYTES = """
select coalesce(sum(pg_total_relation_size(tree.relid)), 0)::bigint
from pg_partition_tree($1::text::regclass) as tree where tree.isleaf
"""


async def table_bytes(connection: asyncpg.Connection, table: str) -> int:
    """Return the bytes of the table and of all its partitions."""
    size: int = await connection.fetchval(BYTES, table)
    return size
