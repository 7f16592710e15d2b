"""The real Supabase CLI finds nothing of ours to warn about in the migrated database.

The advisor that this CLI carries knows the lints up to 0024. For 0028 and 0029 (a SECURITY DEFINER
function that a client role may execute in an exposed schema) there is a test below; 0025 is about
storage buckets and 0026 and 0027 about pg_graphql, which this project does not use.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import asyncpg

from local_stack.settings import REPOSITORY
from tests.plugins.stack import RunningStack

SUPABASE = REPOSITORY / "node_modules" / ".bin" / "supabase"
EXPOSED_DEFINER_FUNCTIONS = """
select routine.oid::regprocedure::text
from pg_proc as routine
inner join pg_namespace as schema on schema.oid = routine.pronamespace
where schema.nspname = 'public'
  and routine.prosecdef
  and (has_function_privilege('anon', routine.oid, 'execute')
    or has_function_privilege('authenticated', routine.oid, 'execute'))
"""


def _findings(stack: RunningStack, *command: str) -> list[dict[str, Any]]:
    """Return what a lint command of the CLI reports, as its JSON rows."""
    answer = subprocess.run(
        [str(SUPABASE), *command, f"--remote={stack.database_url}", "--output-format", "json"],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "SUPABASE_TELEMETRY_DISABLED": "1"},
    )
    assert answer.returncode == 0, answer.stderr + answer.stdout
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["results"]
    return rows


def test_db_lint_finds_no_warning_in_any_function(stack: RunningStack) -> None:
    schemas = "public,private"
    assert _findings(stack, "db", "lint", "--schema", schemas, "--level", "warning") == []


def test_db_advisors_find_no_warning(stack: RunningStack) -> None:
    assert _findings(stack, "db", "advisors", "--type", "all", "--level", "warn") == []


async def test_no_client_role_may_execute_a_definer_function_of_the_exposed_schema(
    stack: RunningStack,
) -> None:
    connection = await asyncpg.connect(stack.database_url)
    try:
        assert await connection.fetch(EXPOSED_DEFINER_FUNCTIONS) == []
    finally:
        await connection.close()
