"""The evidence suite: its parts against independent references, and all of it in small, from training to page."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import families
from benchmarks.common.data import assign, different
from benchmarks.common.measures import auc, quantiles, rank_correlation, resampled, tpr
from benchmarks.common.procedure import Procedure
from benchmarks.evidence import data, models
from benchmarks.evidence.__main__ import CLAIMS, gathered
from benchmarks.evidence.audits import BY_DOSE, SHORT
from benchmarks.evidence.case import Budget
from benchmarks.evidence.claim import Claim, Finding
from benchmarks.evidence.claims.dose import Calibration, factors
from benchmarks.evidence.claims.weights import schedules
from benchmarks.evidence.data import DOSES, Source, digits
from benchmarks.evidence.keep import kept
from benchmarks.evidence.models import Training
from benchmarks.evidence.page import render, write
from benchmarks.evidence.truth import threshold_of
from invmm_eval.recipe import by_dose
from invmm_eval.search.optimizers import AdaptiveWeight
from tests.benchmarks.test_families import known

DOCS = Path(__file__).parents[2] / "docs" / "lab"
TINY = Training((16, 32), 250)
BUDGET = Budget(
    {"even": TINY, "odd": TINY},
    samples=512,
    early=128,
    seeds=2,
    per_dose=1,
    members=2,
    steady=1,
    along=1,
    fresh=8,
    attack=64,
    exact=1,
    guided=1,
)
QUICK = SHORT.changed(max_steps=40, draws=4, check_images=4, sampler_steps=10)
PROCEDURES = Procedure("published", QUICK), replace(BY_DOSE, recipe=by_dose(QUICK).changed(responses=16))


def every_other_digit(first: int) -> NDArray[np.float32]:
    return digits()[first::2]


def test_chosen_images_differ_and_every_other_one_is_like_a_chosen_one() -> None:
    images = digits()[:300]
    chosen = different(images, 0.7)
    alike = np.atleast_2d(np.corrcoef(images.reshape(len(images), -1)))
    assert (alike[np.ix_(chosen, chosen)] - np.eye(len(chosen)) < 0.7).all()
    assert (alike[:, chosen].max(axis=1) > 0.7 - 1e-6).all()


def test_each_dose_gets_as_many_images_as_any_other() -> None:
    copies = assign(100, DOSES, 3, 20, seed=0)
    assert {dose: int((copies == dose).sum()) for dose in (*DOSES, 1, 0)} == dict.fromkeys(DOSES, 3) | {1: 56, 0: 20}


@pytest.mark.parametrize(("reached", "threshold"), [(0.5, 0.9), (0.9, 0.91), (0.934, 0.94), (0.999, 0.99)])
def test_the_threshold_is_above_what_held_out_images_reached(reached: float, threshold: float) -> None:
    assert threshold_of(reached) == threshold


def test_a_finding_is_computed_once_for_a_request(tmp_path: Path) -> None:
    numbers: Iterator[int] = iter(range(10))
    path = tmp_path / "a" / "b.json"
    found = [kept(path, {"seed": seed}, lambda: [next(numbers)]) for seed in (1, 1, 2, 2, 1)]
    assert found == [[0], [0], [1], [1], [2]]


def test_measures_of_scores() -> None:
    labels = [1, 1, 0, 0]
    assert auc([3, 1, 2, -np.inf], labels) == 0.75
    assert tpr([3, 1, 2, -np.inf], labels) == 0.5
    assert rank_correlation([1, 5, np.inf], [256, 16, 2]) == -1
    assert all(np.isnan(value) for value in (auc([1, 2], [1, 1]), rank_correlation([], []), *quantiles([], 0.5)))
    low, high = resampled([[0.5, 0.2, 0.4, 0.1] * 10], [labels * 10])
    assert 0.5 < low < auc([0.5, 0.2, 0.4, 0.1], labels) < high < 1


def test_the_calibration_finds_a_power_law_and_the_factor_by_which_another_set_departs_from_it() -> None:
    nats = np.array([2.0, 5.0, 20.0])
    law, tenfold = (nats, 3 * nats**1.5), (nats, 30 * nats**1.5)
    line = Calibration.fitted([law])
    assert [line.slope, 10**line.level] == pytest.approx([1.5, 3])
    assert factors([law, tenfold]) == pytest.approx(np.full(6, 10))


@pytest.mark.parametrize("average", [1.0, 0.5])
def test_other_weights_change_linearly_whatever_the_loss(average: float) -> None:
    ends: dict[str, tuple[float, float]]
    ends = {"fixed 0.01": (0.01, 0.01), "fixed 10": (10, 10), "rising": (0, 1), "falling": (1, 0)}
    for procedure in schedules(QUICK):
        weight = AdaptiveWeight(procedure.recipe)
        first = weight.value
        for step in range(1, QUICK.max_steps + 1):
            weight.after_check(average) if step % QUICK.check_every == 0 else weight.grow()
        if procedure.name in ends:
            assert [first, weight.value] == pytest.approx(ends[procedure.name], abs=1e-9)


def test_a_claim_holds_if_all_targets_were_reached() -> None:
    yes, no, reported = Finding("a", "1", "1", True), Finding("b", "2", "1", False), Finding("c", "3")
    held = [Claim("n", "t", "m", findings).held for findings in ((yes, reported), (yes, no, reported), (reported,))]
    assert held == [True, False, None]


def test_the_page_is_rendered_from_the_facts() -> None:
    facts = json.loads((DOCS / "evidence" / "evidence.json").read_text())
    assert (DOCS / "evidence.md").read_text() == render(facts)


def test_the_whole_suite_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for position, name in enumerate(BUDGET.trainings):
        monkeypatch.setitem(data.SOURCES, name, Source(partial(every_other_digit, position), 0.7, 8))
    monkeypatch.setattr(families, "data", known)
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    facts = gathered(runs, docs, BUDGET, PROCEDURES)
    most = [image for one in facts["sets"] for image in one["steady"] if image["copies"] == DOSES[0]]
    assert all(image["counted"] > 0 for image in most)
    assert any(value is not None for image in most for value in image["nats"]["published"])
    page = write(facts, docs)
    assert page.read_text().count("\n## ") == len(CLAIMS) + 2
    linked = re.findall(r"\]\((.*\.png)\)", page.read_text())
    assert {docs / link for link in linked} == set((docs / "evidence").glob("*.png"))

    monkeypatch.setattr(models, "network", None)
    made = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert gathered(runs, docs, BUDGET, PROCEDURES) == facts
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == made
