"""The table of planted bugs is about the source and the tests as they are."""

from __future__ import annotations

import pytest

from tests.analysis.planted_bugs import BUGS
from tests.client.planted_bugs import PACKAGE, REPOSITORY, PlantedBug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_still_has_its_place_and_its_test(bug: PlantedBug) -> None:
    assert (PACKAGE / bug.file).read_text().count(bug.right) == 1
    path, name = bug.test.split("::")
    assert f"def {name}(" in (REPOSITORY / path).read_text()
