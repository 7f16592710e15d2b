"""What is wrong in the output of a pgTAP file: a pure reading of the Test Anything Protocol."""

from __future__ import annotations

import re

RESULT = re.compile(r"^(not )?ok (\d+)(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)$")
DIRECTIVE = re.compile(r"# (?:skip|todo)\b", re.IGNORECASE)


def problems(output: str, source: str) -> list[str]:
    """Return a line for each thing wrong; none when every planned assertion ran and held.

    A failing assertion comes with its diagnostics. A file that plans nothing, asserts nothing,
    skips an assertion, or keeps what it did, has failed.
    """
    found = [
        f"Cannot trust the file: it lacks `{words}`"
        for words in ("begin;", "select * from finish();", "rollback;")
        if words not in source.splitlines()
    ]
    planned: list[int] = []
    numbers: list[int] = []
    failing = False
    for line in output.splitlines():
        if plan := PLAN.match(line):
            planned.append(int(plan[1]))
        elif result := RESULT.match(line):
            numbers.append(int(result[2]))
            failing = bool(result[1]) or bool(DIRECTIVE.search(result[3]))
            found += [line] if failing else []
        elif failing and line.startswith("#"):
            found.append(line)
    if len(planned) != 1:
        found.append(f"Cannot judge the file: it printed {len(planned)} plans instead of one")
    elif planned[0] == 0 or numbers != list(range(1, planned[0] + 1)):
        found.append(f"Cannot trust the file: {planned[0]} planned, these ran: {numbers}")
    return found
