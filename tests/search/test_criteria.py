"""When a search ends; which samples a check draws is tested with the checks."""

import pytest

from invmm_eval.recipe import Recipe
from invmm_eval.search.criteria import AllSamples
from invmm_eval.search.result import Point, Status

RECIPE = Recipe(max_steps=20, check_every=10, check_images=4)


@pytest.mark.parametrize(
    ("step", "passed", "stop", "status"),
    [
        (10, True, True, Status.REPLICATED),
        (10, True, False, None),
        (10, False, True, None),
        (20, True, False, Status.REPLICATED),
        (20, False, True, Status.EXHAUSTED),
    ],
)
def test_a_search_ends_at_a_passed_check_or_after_all_steps(
    step: int, passed: bool, stop: bool, status: Status | None
) -> None:
    criterion = AllSamples(RECIPE.changed(stop=stop), 0.5)
    assert criterion.status([Point(step, 0.1, 0.2, 1.0, 0.3)], passed=passed) is status


def test_it_describes_itself() -> None:
    assert AllSamples(RECIPE, 0.5).description == "all 4 samples at one guidance scale reach a similarity of 0.5"
