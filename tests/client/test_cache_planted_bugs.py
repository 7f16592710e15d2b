"""The tables of bugs planted in the cache and in queries are about the source as it is."""

from __future__ import annotations

import pytest

from tests.client import planted_cache_bugs, planted_query_bugs
from tests.client.planted_bugs import PACKAGE, REPOSITORY, PlantedBug

BUGS = [*planted_cache_bugs.BUGS, *planted_query_bugs.BUGS]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_still_has_its_place_and_its_test(bug: PlantedBug) -> None:
    assert (PACKAGE / bug.file).read_text().count(bug.right) == 1
    path, name = bug.test.split("::")
    assert f"def {name}(" in (REPOSITORY / path).read_text()
