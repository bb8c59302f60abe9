"""The threshold from held-out images: the rate it keeps, what it rests upon, and where it may be used."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invmm_eval.audits.calibration import FILE, Calibration, allowed
from invmm_eval.audits.held_out import calibrate
from invmm_eval.audits.images import Source
from invmm_eval.audits.plan import Plan
from invmm_eval.audits.run import audit
from invmm_eval.errors import InvMMError
from invmm_eval.reports.findings import find
from invmm_eval.search.result import Status
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.binomial import most
from tests.helpers import audits
from tests.helpers.command import SET, Invoke
from tests.helpers.exact import Mixture, pictures, serving

MEMORIZED = pictures(3)
HELD_OUT = [Source(str(index), image) for index, image in enumerate(pictures(12, seed=99))]
SHORT: dict[str, Any] = {"max_steps": 160, "check_every": 10, "draws": 8}


def planned(**choices: Any) -> Plan:
    """An audit of a model that knows three pictures and nothing else."""
    return audits.planned(Mixture(MEMORIZED, spread=1.5), **{"recipe": "paper", "settings": SHORT, **choices})


def exact() -> AbstractContextManager[None]:
    """The model of :func:`planned` as a backbone."""
    return serving(lambda *_, **__: Mixture(MEMORIZED, spread=1.5))


def calibrated(held_out: Sequence[Source], **options: Any) -> Calibration:
    with exact():
        return calibrate("exact", held_out, backbone="exact", **{"recipe": "paper", "settings": SHORT, **options})


@pytest.fixture(scope="module")
def found() -> Calibration:
    return calibrated(HELD_OUT, rate=0.25)


def test_a_run_replicates_as_many_held_out_images_as_the_rate_allows(found: Calibration) -> None:
    assert allowed(0.25, 12) == found.reached == 2
    assert found.between is not None
    assert found.copies is not None
    assert found.threshold > found.between
    assert found.between < found.copies < 1, "a noised copy is more like its image than others are"
    results = list(audits.run_plan(planned(calibration=found), HELD_OUT))
    assert sum(result.status is Status.REPLICATED for result in results) == 2
    lower = {**SHORT, "threshold": found.threshold - 0.001}
    results = list(audits.run_plan(planned(settings=lower), HELD_OUT))
    assert sum(result.status is Status.REPLICATED for result in results) == 3


def test_searches_go_to_the_end_and_the_threshold_does_not_move_the_scores_that_it_is_set_by() -> None:
    settings = {**SHORT, "max_steps": 40}
    [stopped] = audits.run_plan(planned(settings={**settings, "threshold": -1.0}), HELD_OUT[:1])
    low, high = (
        list(audits.run_plan(planned(settings={**settings, "threshold": threshold, "stop": False}), HELD_OUT[:3]))
        for threshold in (-1.0, 1.0)
    )
    assert (stopped.steps, low[0].steps) == (10, 40)
    assert [point.step for point in low[0].trace] == [10, 20, 30, 40]
    assert low[0].trace[0] == pytest.approx(stopped.trace[0], rel=1e-6)
    assert [[point.score for point in result.trace] for result in low] == [
        [point.score for point in result.trace] for result in high
    ], "the least of all samples counts, however early one fails"
    assert low[0].check is not None
    assert {len(values) for values in low[0].check.similarities.values()} == {8}
    assert (low[0].status, high[0].status) == (Status.REPLICATED, Status.EXHAUSTED)


@pytest.mark.parametrize(
    ("rate", "count", "told"),
    [(0.05, 18, r"0\.053 .* give 19 or more"), (0.3, 2, r"0\.33 .* give 3"), (0.4, 1, "0.5 .* give 2")],
)
def test_a_rate_that_the_images_cannot_promise_is_refused_before_the_search(rate: float, count: int, told: str) -> None:
    with pytest.raises(InvMMError, match=f"With {count} held-out image{'s' * (count > 1)} no rate below {told}"):
        calibrated([HELD_OUT[0]] * count, rate=rate, on_step=lambda _: pytest.fail("searched"))
    assert allowed(rate, count + 1) == 0


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_is_between_0_and_1(rate: float) -> None:
    with pytest.raises(InvMMError, match="must be between 0 and 1"):
        allowed(rate, 1000)


def test_the_rate_is_kept_on_average_and_its_limit_is_exact() -> None:
    """By simulation: thresholds set on 39 scores, and how many more of their kind reach them."""
    draws = np.sort(np.random.default_rng(0).random((20_000, 39)), axis=1)
    count = allowed(0.1, 39)
    shares = 1 - draws[:, -1 - count]
    assert count == 3
    assert shares.mean() == pytest.approx(0.1, abs=0.002)
    assert np.mean(shares <= most(count, 39)) == pytest.approx(0.95, abs=0.005)


def test_images_that_fail_are_not_counted() -> None:
    found = calibrated([*HELD_OUT[:3], Source("torn", b"no image")], rate=0.25)
    assert found.images == 3
    with pytest.raises(InvMMError, match="With 2 held-out images"):
        calibrated([*HELD_OUT[:2], Source("torn", b"no image")], rate=0.25)


def test_a_threshold_that_searches_leave_low_lies_half_way_from_other_images_to_copies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the search gets nowhere, its scores would put the threshold below what any two images have in common."""
    pixels = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).repeat(1, 1, 4, 4)
    pixels[:, 0, 0, 0] = 255
    same = [Source(str(index), image) for index, image in enumerate(pixels)]
    settings = {**SHORT, "learning_rate": 1e-6}
    found = calibrated(same, rate=0.25, settings=settings)
    images = pixels.float() / 255
    flat = (images - images.mean(dim=(1, 2, 3), keepdim=True)).flatten(1)
    pairs = torch.corrcoef(flat)[torch.ones(3, 3).triu(1).bool()]
    assert found.between is not None
    assert found.copies is not None
    assert found.between == pytest.approx(pairs.max().item(), abs=2e-3)
    assert found.copies < 1
    assert max(found.scores) < found.threshold == pytest.approx((found.between + found.copies) / 2, abs=1e-3)
    assert "half-way from different images" in caplog.text


def test_it_is_read_as_it_was_written(found: Calibration, tmp_path: Path) -> None:
    found.save(tmp_path / FILE)
    told = json.loads((tmp_path / FILE).read_text())
    assert (told["images"], told["reached"]) == (12, 2)
    assert told["limit"] == most(2, 12)
    read = Calibration.load(tmp_path / FILE)
    assert (read.threshold, read.scores, read.rate) == (found.threshold, found.scores, found.rate)
    assert planned(calibration=read).config == planned(calibration=found).config
    assert planned(calibration=read, seed=5).threshold == found.threshold


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"threshold": 3, "scores": 1}'])
def test_what_is_no_calibration_is_told(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / FILE).write_text(content)
    with pytest.raises(InvMMError, match="is no calibration that can be read; invmm-eval calibrate writes one"):
        Calibration.load(tmp_path / FILE)


def test_an_audit_tells_where_its_threshold_is_from(found: Calibration, tmp_path: Path) -> None:
    plan = planned(calibration=found)
    assert plan.threshold == found.threshold
    assert plan.config["calibration"] == {"rate": 0.25, "images": 12, "reached": 2, "limit": found.limit}
    list(audits.run_plan(plan, HELD_OUT[:1], out=tmp_path))
    told = find(tmp_path)
    assert told.settings["Threshold"].startswith(
        "set for a rate of 0.25 of false replicas on held-out images: 2 of 12 reach it; of other images of this kind"
    )
    assert f"--set threshold={found.threshold}" in told.command.replace(" \\\n ", "")


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"settings": {**SHORT, "max_steps": 50}}, "differs from this audit in max_steps;"),
        ({"similarity": "ssim"}, "differs from this audit in similarity.name, similarity.threshold;"),
        ({"noise": "isotropic-gaussian"}, "differs from this audit in noise.name;"),
        ({"settings": {**SHORT, "threshold": 0.5}}, "The calibration sets the threshold; leave it out"),
    ],
)
def test_it_serves_no_audit_of_another_kind(choices: dict[str, Any], told: str, found: Calibration) -> None:
    with pytest.raises(InvMMError, match=told):
        planned(calibration=found, **choices)


def test_it_serves_audit(found: Calibration) -> None:
    other = replace(found, config={**found.config, "weights": "a"})
    how: dict[str, Any] = {"backbone": "exact", "recipe": "paper", "settings": SHORT}
    with exact():
        with pytest.raises(InvMMError, match="differs from this audit in weights"):
            audit("exact", MEMORIZED[0], calibration=other, **how)
        [result] = audit("exact", MEMORIZED[0], calibration=found, **how)
    assert result.status is Status.REPLICATED


def test_the_command(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    command = ["calibrate", "--model", tiny_folder, "--held-out", images, "--out", tmp_path / "held-out", *SET]
    code, _, err = invoke(*command)
    assert (code, "With 2 held-out images no rate below 0.33" in err) == (1, True)
    out = invoke.out(*command, "--rate", "0.4")
    first, _ = out.splitlines()
    assert "0 of 2 held-out images reach it; of further images like them at most 78 % do" in first
    file = tmp_path / "held-out" / FILE
    run = ["run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", *SET, "--calibration", file]
    invoke.out(*run)
    assert find(tmp_path / "out").threshold == Calibration.load(file).threshold
    assert not find(tmp_path / "out").of(Verdict.REPLICABLE)
    code, _, err = invoke(*run, "--set", "draws=3")
    assert (code, "differs from this audit in draws" in err) == (1, True)
