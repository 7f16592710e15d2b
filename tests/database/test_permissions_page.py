"""docs/permissions.md says what the database's catalogue says."""

from __future__ import annotations

import re

import asyncpg

from local_stack.settings import REPOSITORY
from tests.plugins.stack import RunningStack

PAGE = (REPOSITORY / "docs" / "permissions.md").read_text()
ROLES = ("anon", "authenticated", "service_role")
FUNCTIONS = """
select routine.proname as name,
  array(select has_function_privilege(role, routine.oid, 'execute') from unnest($1::text[]) as role)
    as allowed
from pg_proc as routine
where routine.pronamespace = 'public'::regnamespace
"""
VIEWS = """
select relation.relname as name, role.name as role,
  coalesce(
    (select string_agg(verb, ', ' order by verb)
      from unnest(array['select', 'insert', 'update', 'delete']) as verb
      where has_table_privilege(role.name, relation.oid, verb)),
    'no') as allowed
from pg_class as relation
cross join unnest($1::text[]) with ordinality as role (name, place)
where relation.relnamespace = 'public'::regnamespace and relation.relkind in ('r', 'v', 'm', 'p')
order by relation.relname, role.place
"""


def _table(heading: str) -> dict[str, list[str]]:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")][:3] for name, cells in rows}


async def test_the_page_lists_every_function_of_the_api_with_who_may_execute_it(
    stack: RunningStack,
) -> None:
    connection = await asyncpg.connect(stack.database_url)
    try:
        rows = await connection.fetch(FUNCTIONS, list(ROLES))
    finally:
        await connection.close()
    actual = {row["name"]: ["yes" if may else "no" for may in row["allowed"]] for row in rows}
    assert _table("Functions of the API") == actual


async def test_the_page_lists_every_view_of_the_api_with_what_each_role_may_do(
    stack: RunningStack,
) -> None:
    connection = await asyncpg.connect(stack.database_url)
    try:
        rows = await connection.fetch(VIEWS, list(ROLES))
    finally:
        await connection.close()
    actual: dict[str, list[str]] = {}
    for row in rows:
        actual.setdefault(row["name"], []).append(row["allowed"])
    assert _table("Views of the API") == actual
