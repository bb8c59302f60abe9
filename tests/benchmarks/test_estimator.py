"""The comparison of both estimates: what it counts, and what it makes of the counts."""

from dataclasses import replace

import pytest

from benchmarks import estimator
from benchmarks.estimator import Found, compared, exact_model, search
from invmm_eval.recipe import by_dose
from invmm_eval.statistics.response import Share

ONE = Found("a", 1.0, 0.1, "paper", 0, 10.0, None, None, None, 0.9, forward=60, with_gradient=40, seconds=1.0)


def test_both_recipes_on_the_exact_model() -> None:
    backbone, cases, paper = exact_model()
    found = [search(backbone, cases[2], recipe, 0) for recipe in (paper, by_dose(paper))]
    for one in found:
        assert one.nats is not None
        assert one.rate is not None
        assert 1.5 < one.nats < 12
        assert one.rate > 0.7
    published, ours = found
    assert published.ed50 is None
    assert ours.ed50 is not None
    assert ours.ed90 is not None
    assert ours.ed50 < ours.ed90 < ours.value
    assert published.with_gradient % (paper.draws * paper.check_every) == 0
    assert published.forward >= paper.check_images * paper.sampler_steps
    assert ours.forward >= (64 + 8) * 50


def test_ratios_are_over_pictures_and_leave_out_what_was_not_always_replicated() -> None:
    def group(recipe: str, case: str, truth: float, values: list[float | None]) -> list[Found]:
        return [
            replace(ONE, recipe=recipe, case=case, truth=truth, seed=seed, nats=value, forward=len(recipe))
            for seed, value in enumerate(values)
        ]

    found = group("paper", "a", 256, [10.0, 20.0, 30.0]) + group("dose", "a", 256, [4.0, 5.0, 6.0])
    found += group("paper", "b", 0, [None, 90.0, 80.0]) + group("dose", "b", 0, [None, None, None])
    told = compared(found, "paper", "dose")
    assert told["median ratio"] == 5 / 20
    assert told["range ratio"] == pytest.approx(1 / 10)
    assert told["evaluations ratio"] == pytest.approx(44 / 45)
    assert told["confirmed"] == 1.0
    assert told["auc paper"] == told["auc dose"] == 1.0
    assert -1 < (told["spearman dose"] or 0) < -0.9


def test_the_table_tells_medians_and_ranges() -> None:
    found = [replace(ONE, nats=value) for value in (1.0, 2.0, 3.0, None)]
    assert estimator.row(found) == ["a", "paper", "3 of 4", "2.0 (1.0)", "0.90", "-", "0.1", "40", "60"]


def test_expected_shares_are_held_against_known_ones() -> None:
    shares = [Share(0.2, 0.15, 0.3), Share(0.05, 0.02, 0.2), None]
    found = [replace(ONE, recipe="dose", expected=share) for share in shares]
    told = compared([ONE, replace(ONE, nats=12.0), *found], "paper", "dose")
    assert told["expected share ratio"] == pytest.approx(1)
    assert told["expected share factor"] == pytest.approx(2)
    assert told["intervals that hold the share"] == 0.5
    assert estimator.row(found)[5] == "0.05 to 0.2"
