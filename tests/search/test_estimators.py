"""The values of the built-in estimators, where they are known in closed form, and an estimator of a third party."""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe, by_dose, fast
from invmm_eval.search.engine import invert
from invmm_eval.search.estimators import Confirmation, Found
from invmm_eval.search.result import Result, Status, rank
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import QUICK, SHAPE, Choosing, Mixture, pictures, targets

RECIPE = replace(by_dose(QUICK), first_dose=0.25)
TWO = pictures(2, seed=1)
UNSEEN = pictures(1, seed=99)
z = NormalDist().inv_cdf


def run(model: Any, images: Tensor, **options: Any) -> list[Result]:
    cosine = PixelCosine(device=torch.device("cpu"))
    results = invert(model, targets(images), cosine, diagonal(), **{"recipe": RECIPE, **options})
    return sorted(results, key=lambda result: result.index)


@pytest.mark.parametrize("share", [0.3, 0.05, 0.005])
def test_between_two_pictures_the_curve_is_the_least_there_is(share: float) -> None:
    """Plain sampling goes to one of them in a half-space of probability ``share``, and no noise does better there.

    So ``z(r) = z(share) + d`` at the distance d, the equality of :mod:`invmm_eval.statistics.bound`.
    """
    weights = torch.tensor([share, 1 - share])
    [found] = run(Mixture(TWO, weights), TWO[:1], recipe=replace(RECIPE, responses=160, confirm=200))
    assert found.status is Status.REPLICATED
    assert found.response
    assert found.confirmed
    assert found.ed50
    assert found.ed90
    for dose, rate in ((found.ed50, 0.5), (found.ed90, 0.9)):
        least = max(0, z(rate) - z(share)) ** 2 / 2
        assert math.sqrt(2 * dose.nats) == pytest.approx(math.sqrt(2 * least), abs=0.35)
        assert dose.low - 0.1 <= least <= dose.high + 0.1
    assert found.nats == pytest.approx(found.response.dose(RECIPE.rate).nats, rel=1e-4)
    assert found.confirmed.drawn == 200
    assert 0.88 <= found.confirmed.rate <= 0.99
    direction = (TWO[0].float() - TWO[1].float()).flatten()
    cosine = torch.nn.functional.cosine_similarity(found.noise["mu"].flatten(), direction, dim=0)
    assert cosine > 0.97
    assert not found.noise["logvar"].any()


def test_doses_double_until_a_check_is_passed() -> None:
    found = run(Mixture(TWO, torch.tensor([0.01, 0.99])), torch.cat([TWO[:1], UNSEEN]))
    for result in found:
        doses = [point.kl * result.noise["mu"].numel() for point in result.trace]
        assert doses == pytest.approx([0.25 * 2**place for place in range(len(doses))], rel=1e-4)
    assert [result.status for result in found] == [Status.REPLICATED, Status.EXHAUSTED]
    assert found[0].check
    assert found[0].check.passed
    assert len(found[0].trace) < len(found[1].trace) == RECIPE.max_steps // RECIPE.check_every
    assert found[1].response is None
    assert found[1].confirmed is None


def test_a_picture_that_passes_no_check_has_a_curve_where_some_samples_replicate() -> None:
    """Doses end at 2 nats, where by the equality above 64 % of the samples are copies: eight in a row are rare."""
    share = 0.05
    recipe = replace(RECIPE, max_steps=4 * RECIPE.check_every, check_images=16, responses=160, confirm=200)
    partly, never = run(Mixture(TWO, torch.tensor([share, 1 - share])), torch.cat([TWO[:1], UNSEEN]), recipe=recipe)
    assert partly.status is never.status is Status.EXHAUSTED
    assert partly.invmm == math.inf
    assert partly.ed50
    assert partly.ed50.low - 0.1 <= z(share) ** 2 / 2 <= partly.ed50.high + 0.1
    assert partly.check
    assert not partly.check.passed
    [drawn] = partly.check.similarities.values()
    assert 0 < sum(value >= PixelCosine(device=torch.device("cpu")).threshold for value in drawn) < 16
    assert partly.kl in [pytest.approx(p.kl, rel=1e-4) for p in partly.trace if p.score == partly.check.score]
    assert partly.confirmed
    assert partly.kl is not None
    assert z(partly.confirmed.rate) == pytest.approx(z(share) + math.sqrt(2 * partly.kl * math.prod(SHAPE)), abs=0.35)
    assert sorted([never, partly], key=rank) == [partly, never]
    assert never.response is None


def test_rarer_pictures_have_larger_values_in_any_company() -> None:
    images = pictures(6)
    weights = [0.5, 0.3, 0.1, 0.06, 0.03, 0.01]
    model = Mixture(images, torch.tensor(weights))
    alone, together = (run(model, images, batch_size=size) for size in (1, 6))
    untimed = {"seconds_steps": 0, "seconds_checks": 0}
    assert [result.record() | untimed for result in alone] == [result.record() | untimed for result in together]
    halves = [result.ed50.nats for result in alone if result.ed50]
    assert halves[0] < halves[2] < halves[4]
    assert halves[1] < halves[3] < halves[5]


def test_the_prompt_is_searched_along_and_responses_are_drawn_at_the_best_scale() -> None:
    images = pictures(5)
    recipe = replace(RECIPE, guidance=(1.0, 3.0), first_dose=1.0, confirm=32)
    for result in run(Choosing(images), images[:2], recipe=recipe, batch_size=2):
        assert result.prompt == f"picture {result.index}"
        assert result.response
        assert len(result.response.outcomes) == recipe.responses
        assert result.confirmed
        assert result.confirmed.rate > 0.8


@pytest.mark.parametrize("recipe", [RECIPE, replace(fast(RECIPE), estimators=(), plain=0)])
@pytest.mark.parametrize("status", [Status.REPLICATED, Status.EXHAUSTED])
def test_the_curve_takes_the_samples_of_checks_too_where_the_ray_is_the_same(recipe: Recipe, status: Status) -> None:
    """The one-shot search keeps its ray; the search by dose turns it before each check."""
    share = 1e-7
    if status is Status.EXHAUSTED:
        share, recipe = 0.05, replace(recipe, criterion="all-samples", stop=False, check_images=6, responses=18)
        recipe = replace(recipe, first_dose=0.1, growth=1.3, max_steps=4 * recipe.check_every)
    [found] = run(Mixture(TWO, torch.tensor([share, 1 - share])), TWO[:1], recipe=recipe)
    assert found.status is status
    assert len(found.trace) > 1
    assert found.kl != found.trace[-1].kl  # the first of its checks has most copies, or q moved after the last
    checks = len(found.trace) if recipe.optimizer == "one-shot" else 1
    assert found.response
    assert len(found.response.outcomes) == recipe.responses + checks * recipe.check_images


def test_the_value_is_at_most_the_largest_dose() -> None:
    """At the last dose a fifth of the samples are copies, so that nine in ten would need another one."""
    recipe = replace(fast(RECIPE), estimators=(), plain=0, max_steps=1)
    [found] = run(Mixture(TWO, torch.tensor([0.002, 0.998])), TWO[:1], recipe=recipe, seed=3)
    assert found.response
    assert found.response.dose(recipe.rate).nats > recipe.first_dose
    assert found.nats == pytest.approx(recipe.first_dose, rel=1e-4)


def test_without_responses_the_value_is_the_dose_that_passed() -> None:
    [found] = run(Mixture(TWO), TWO[:1], recipe=replace(RECIPE, responses=0))
    assert found.response is None
    assert found.ed50 is None
    assert found.kl == found.trace[-1].kl


def test_no_plain_sample_is_drawn_where_no_estimator_looks_at_them() -> None:
    model, recipe = Mixture(TWO), replace(fast(QUICK), estimators=())
    [found] = run(model, TWO[:1], recipe=recipe)
    assert found.status is Status.REPLICATED
    assert sum(model.rows_seen) < recipe.plain


# The paper's search, confirmed


def test_to_confirm_changes_nothing_else() -> None:
    images = pictures(5)
    plain, confirmed = (run(Mixture(images), images, recipe=replace(QUICK, confirm=n), batch_size=5) for n in (0, 40))
    for before, after in zip(plain, confirmed, strict=True):
        assert before.confirmed is None
        assert after.confirmed
        assert after.confirmed.drawn == 40
        assert 0.5 < after.confirmed.rate <= 1
        assert (before.kl, before.trace) == (after.kl, after.trace)
        assert torch.equal(before.noise["mu"], after.noise["mu"])


# Estimators of others


@pytest.mark.parametrize("micro_batch", [None, 1000])
def test_what_several_images_wait_for_goes_through_the_network_in_one_call(micro_batch: int | None) -> None:
    """Each ends at a check of its own, so that one's new samples go with another's check."""
    images, recipe = torch.cat([TWO, UNSEEN]), replace(fast(QUICK), estimators=(), plain=0, reject=-1.0, confirm=20)
    model = Mixture(TWO, torch.tensor([0.5, 1e-9]))
    alone = run(model, images, recipe=recipe, batch_size=1)
    model.rows_seen.clear()
    together = run(model, images, recipe=recipe, batch_size=3, micro_batch=micro_batch)
    most = max(model.rows_seen)
    checks = [len(result.trace) for result in together]
    assert checks[0] < checks[1]
    assert most == (recipe.check_images + 20 if micro_batch else 20)
    for one, other in zip(alone, together, strict=True):
        assert (one.status, one.steps, one.confirmed) == (other.status, other.steps, other.confirmed)


class MeanSimilarity:
    """The mean similarity of new samples."""

    name = "mean-similarity"
    fields: Mapping[str, str] = {"mean": "mean similarity of new samples", "status": "how the search ended"}

    def __init__(self, samples: int) -> None:
        self.samples = samples

    async def __call__(self, found: Found) -> Mapping[str, Any]:
        drawn = await found.sample(self.samples)
        assert drawn.noise.shape == (self.samples, *SHAPE)
        assert drawn.images.shape == (self.samples, *SHAPE)
        assert drawn.hits == tuple(value >= found.threshold for value in drawn.similarities)
        return {"mean": sum(drawn.similarities) / self.samples, "status": str(found.status)}


def test_an_estimator_of_a_third_party_adds_its_values_and_changes_no_others() -> None:
    images = torch.cat([TWO[:1], UNSEEN])
    plain, estimated = (run(Mixture(TWO), images, recipe=QUICK, estimators=e) for e in ((), (MeanSimilarity(12),)))
    for before, after in zip(plain, estimated, strict=True):
        assert (before.kl, before.trace, before.estimates) == (after.kl, after.trace, {})
        values = after.estimates["mean-similarity"]
        assert values["status"] == after.status
        assert Result.from_record(after.record()).estimates == after.estimates
    assert estimated[0].estimates["mean-similarity"]["mean"] > 0.9 > estimated[1].estimates["mean-similarity"]["mean"]


def test_an_estimator_that_the_settings_switch_on_and_the_recipe_names_runs_once() -> None:
    recipe = replace(QUICK, confirm=8)
    once, named = (run(Mixture(TWO), TWO[:1], recipe=recipe, estimators=e) for e in ((), (Confirmation(),)))
    assert [result.estimates for result in once] == [result.estimates for result in named]


def test_values_that_json_cannot_hold_fail_the_image_in_one_sentence() -> None:
    class Broken(MeanSimilarity):
        async def __call__(self, found: Found) -> Mapping[str, Any]:  # noqa: ARG002
            return {"mean": math.nan}

    [found] = run(Mixture(TWO), TWO[:1], recipe=QUICK, estimators=(Broken(1),))
    assert found.status is Status.FAILED
    assert "estimator 'mean-similarity' returned values that JSON cannot hold" in str(found.error)
