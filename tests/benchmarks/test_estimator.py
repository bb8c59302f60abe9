"""The comparison of both estimates: what it counts, and the ratios of the counts."""

import pytest
import torch

from benchmarks.common.procedure import Run
from benchmarks.estimator import Case, Found, compared, exact_model, row, search
from invmm_eval.recipe import by_dose
from invmm_eval.search.result import Result, Status
from invmm_eval.search.target import Target
from invmm_eval.statistics.importance import PlainShare

PIXELS = torch.zeros(1, 8, 8, dtype=torch.uint8)


class Stub(Result):
    """A result whose expected share of plain samples is given."""

    share: PlainShare | None = None

    @property
    def plain_share(self) -> PlainShare | None:
        return self.share


def found(
    nats: float | None, recipe: str = "paper", name: str = "a", truth: float = 1.0, share: PlainShare | None = None
) -> Found:
    status = Status.EXHAUSTED if nats is None else Status.REPLICATED
    result = Stub(0, name, "", status, kl=(nats or 0) / 64, dimensions=64)
    object.__setattr__(result, "share", share)
    rate = None if nats is None else 0.9
    return Found(Case(name, Target(PIXELS), truth, 0.1), recipe, 0, Run([result], [rate], 60, 40))


def test_both_recipes_on_the_exact_model() -> None:
    backbone, cases, paper = exact_model()
    searches = [search(backbone, cases[2], recipe, 0) for recipe in (paper, by_dose(paper))]
    for one in searches:
        assert 1.5 < one.value < 12
        assert (one.run.fresh[0] or 0) > 0.7
    published, ours = searches
    assert published.record()["ed50"] is None
    assert ours.result.ed50 is not None
    assert ours.result.ed90 is not None
    assert ours.result.ed50.nats < ours.result.ed90.nats < ours.value
    assert ours.record()["ed50"] == ours.result.ed50.nats
    assert published.run.rows_with % (paper.draws * paper.check_every) == 0
    assert published.run.rows_without >= paper.check_images * paper.sampler_steps
    assert ours.run.rows_without >= (64 + 8) * 50


def test_ratios_are_over_pictures_and_leave_out_what_was_not_always_replicated() -> None:
    values: dict[str, list[tuple[str, float, list[float | None]]]] = {
        "paper": [("a", 256, [10.0, 20.0, 30.0]), ("b", 0, [None, 90.0, 80.0])],
        "dose": [("a", 256, [4.0, 5.0, 6.0]), ("b", 0, [None, None, None])],
    }
    searches = [
        found(nats, recipe, name, truth)
        for recipe, groups in values.items()
        for name, truth, group in groups
        for nats in group
    ]
    facts = compared(searches, "paper", "dose")
    assert facts["median ratio"] == pytest.approx(5 / 20)
    assert facts["range ratio"] == pytest.approx(1 / 10)
    assert facts["evaluations ratio"] == 1
    assert facts["confirmed"] == 1.0
    assert facts["auc paper"] == facts["auc dose"] == 1.0
    assert -1 < (facts["spearman dose"] or 0) < -0.9


def test_the_table_has_medians_and_ranges() -> None:
    searches = [found(nats) for nats in (1.0, 2.0, 3.0, None)]
    assert row(searches) == ["a", "paper", "3 of 4", "2.0 (1.0)", "0.90", "-", "0.1", "40", "60"]


def test_expected_shares_are_held_against_known_ones() -> None:
    shares = [PlainShare(0.2, 0.15, 0.3), PlainShare(0.05, 0.02, 0.2), None]
    ours = [found(10.0, "dose", share=share) for share in shares]
    facts = compared([found(10.0), found(12.0), *ours], "paper", "dose")
    assert facts["expected share ratio"] == pytest.approx(1)
    assert facts["expected share factor"] == pytest.approx(2)
    assert facts["intervals that hold the share"] == 0.5
    assert row(ours)[5] == "0.05 to 0.2"
