"""The families that the page lists are those that are served: some of them here, all in tests/benchmarks."""

import pytest

from tests.helpers.coverage import PAGE, base_families, row
from tests.helpers.families import FAMILIES


@pytest.mark.parametrize("name", ["lumina2", "chroma", "cogview4", "krea2", "if", "EDM", "wan", "ltx"])
def test_a_family_is_served_as_the_page_says(name: str) -> None:
    assert row(name) in PAGE.read_text("utf-8").splitlines()


def test_the_page_has_a_row_for_each_family_and_tells_how_many_are_not_served() -> None:
    rows = [line.split(" | ")[0].strip("| ") for line in PAGE.read_text("utf-8").splitlines() if "Pipeline`" in line]
    assert rows[: len(FAMILIES)] == list(FAMILIES)
    assert len(base_families()) == 36
    assert len(set(base_families()) - set(FAMILIES)) == 6
