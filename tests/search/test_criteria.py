"""When a search ends; which samples a check draws is tested with the checks."""

import pytest

from invmm_eval.recipe import Recipe
from invmm_eval.search.criteria import AllSamples, AnySample
from invmm_eval.search.result import Check, Judged, Point, Status

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
    assert criterion.status([Point(step, 0.1, 0.2, 1.0, 0.3)], passed=passed, last=step == 20) is status


# Any sample


ANY = AnySample(RECIPE, 0.5)


@pytest.mark.parametrize(
    ("drawn", "request_"),
    [
        ({1.0: []}, {1.0: 4}),
        ({0.0: [], 1.0: [], 7.0: []}, {0.0: 2, 1.0: 2, 7.0: 2}),
        ({0.0: [0.1, 0.2], 1.0: [], 7.0: []}, {1.0: 2, 7.0: 2}),
        ({0.0: [0.1, 0.2], 1.0: [0.1, 0.6], 7.0: []}, {}),
        ({1.0: [0.1, 0.2, 0.3, 0.4]}, {}),
        ({1.0: [0.1, 0.2, 0.3, 0.5]}, {}),
        ({1.0: [0.2, 0.2], 3.0: [0.6, 0.2]}, {}),
        ({1.0: [0.2, 0.2], 3.0: [0.3, 0.4]}, {}),
    ],
)
def test_one_sample_is_enough(drawn: dict[float, list[float]], request_: dict[float, int]) -> None:
    assert ANY.request(drawn) == request_
    assert ANY.passed(drawn) == any(value >= 0.5 for values in drawn.values() for value in values)


def test_its_check_is_judged_by_the_greatest_similarity() -> None:
    similarities: dict[float, tuple[float, ...]] = {1.0: (0.4, 0.45), 3.0: (0.1, 0.7)}
    check = Check(True, similarities, {}, ANY.judged_by)
    assert (check.best_scale, check.score) == (3.0, 0.7)
    assert Check(True, similarities, {}, Judged.LEAST).best_scale == 1.0


def test_it_describes_itself() -> None:
    assert ANY.description == "one of 4 samples reaches a similarity of 0.5"
    assert ANY.status([Point(20, 0.1, 0.2, 1.0, 0.3)], passed=False, last=True) is Status.EXHAUSTED
