"""The share of copies among plain samples, against models whose samples have known shares."""

import asyncio
import math

import pytest
import torch

from invmm_eval.noise import Noise, NoiseFamily
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe, fast
from invmm_eval.search.engine import invert
from invmm_eval.search.estimators import Found, Samples, Shifted
from invmm_eval.search.plain_share import PlainShare
from invmm_eval.search.proposals import Proposal, Proposals
from invmm_eval.search.result import Check, Result, Status
from invmm_eval.search.sentence import sentence
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.testing import check_estimator
from tests.helpers.exact import Choosing, Mixture, pictures, targets

PICTURES = pictures(4)
RECIPE = Recipe(
    name="ray", optimizer="dose", max_steps=160, check_every=16, draws=16, first_weight=0.0, delta=0.0, first_dose=2.0,
    sampler_steps=20, threshold=0.9,
)  # fmt: skip


def measured(cosine: PixelCosine, share: float, *, seed: int, noise: NoiseFamily | None = None) -> Result:
    """The search for a picture that a model of known pictures gives with a known probability."""
    others = [(1 - share) / 3] * 3
    model = Mixture(PICTURES, torch.tensor([share, *others]))
    (result,) = invert(
        model, targets(PICTURES[:1]), cosine, noise or diagonal(), recipe=RECIPE, estimators=[PlainShare()], seed=seed
    )
    assert result.status is Status.REPLICATED
    return result


@pytest.mark.parametrize("share", [0.2, 0.02, 1e-3])
def test_the_share_is_that_of_plain_samples(cosine: PixelCosine, share: float) -> None:
    estimates = [measured(cosine, share, seed=seed).estimates["plain-share"] for seed in range(8)]
    factors = [math.log(values["share"] / share) for values in estimates]
    assert math.sqrt(sum(factor**2 for factor in factors) / 8) < math.log(1.6)
    assert sum(values["low"] > share for values in estimates) <= 2
    for values in estimates:
        assert (values["high"], values["plain_samples"]) == (1, 0)
        assert 0 < values["copies"] < values["samples"]


@pytest.mark.parametrize("share", [0.2, 0.02, 2e-3])
def test_the_one_shot_search_tells_the_share_between_its_limits(cosine: PixelCosine, share: float) -> None:
    model = Mixture(PICTURES, torch.tensor([share, *[(1 - share) / 3] * 3]))
    recipe = fast(RECIPE).changed(threshold=0.9)
    estimates = []
    for seed in range(3, 11):
        (found,) = invert(
            model, targets(PICTURES[:1]), cosine, diagonal(), recipe=recipe, estimators=[PlainShare()], seed=seed
        )
        assert found.status is Status.REPLICATED
        estimates.append(found.estimates["plain-share"])
    factors = [math.log(values["share"] / share) for values in estimates]
    assert math.sqrt(sum(factor**2 for factor in factors) / 8) < math.log(1.5)
    assert sum(not values["low"] <= share <= values["high"] for values in estimates) <= 1
    assert all(values["relative_error"] <= 0.25 and values["plain_samples"] == 512 for values in estimates)


def test_a_common_picture_takes_fewer_samples_than_a_rare_one_and_so_does_one_that_is_not_memorized(
    cosine: PixelCosine,
) -> None:
    rows = []
    for share in (0.3, 0.03, 1e-3, 1e-7):
        model = Mixture(PICTURES, torch.tensor([share, *[(1 - share) / 3] * 3]))
        recipe = fast(RECIPE).changed(threshold=0.9)
        (found,) = invert(model, targets(PICTURES[:1]), cosine, diagonal(), recipe=recipe, estimators=[PlainShare()])
        assert found.rows is not None
        rows.append(found.rows)
    *known, never = rows
    assert known == sorted(set(known))
    assert never < known[-1]


@pytest.mark.parametrize(("nats", "rounds"), [(18.0, 4), (60.0, 1)])
def test_few_samples_without_a_copy_do_not_show_that_a_picture_is_not_memorized(nats: float, rounds: int) -> None:
    """The search's only copies weigh little; a share of 1e-8 could still be one of 0.001, one of 1e-26 could not.

    Samples are drawn where copies of an image of 1 in 10,000 are likely, however small the share seems.
    """
    proposals = Proposals(torch.ones(8))
    far = proposals.at(nats)
    samples = [Shifted(1.0, far, 10, far.mean[None])]
    calls = []

    async def sample(n: int, *drawn: Proposal) -> Samples:
        calls.append([float(one.mean.square().sum() / 2) for one in drawn])
        samples.extend(Shifted(1.0, one, n, torch.zeros(0, 8)) for one in drawn)
        return Samples(torch.zeros(0, 8), (), (), torch.zeros(0))

    found = Found(
        Status.REPLICATED, RECIPE, 0.9, Check(True, {1.0: (1.0,)}, {}), diagonal()(torch.zeros(8)), None, sample,
        shifted=lambda: samples, propose=lambda _: proposals,
    )  # fmt: skip
    values = asyncio.run(PlainShare()(found))
    assert values is not None
    assert 0 < values["share"] < 1e-7
    likely = [part * math.log(1 / 1e-4) for part in (0.2, 0.3, 0.4, 0.5)]
    assert calls == [pytest.approx(likely, rel=0.01)] * rounds


def test_the_one_shot_search_of_a_new_picture_ends_at_its_largest_dose_with_an_upper_limit(cosine: PixelCosine) -> None:
    recipe = fast(RECIPE).changed(threshold=0.9)
    new = 255 - PICTURES[:1]
    (found,) = invert(Mixture(PICTURES), targets(new), cosine, diagonal(), recipe=recipe, estimators=[PlainShare()])
    assert found.status is Status.EXHAUSTED
    values = found.estimates["plain-share"]
    assert (values["share"], values["low"], values["copies"], values["relative_error"]) == (0, 0, 0, None)
    assert values["high"] == pytest.approx(1 - 0.025 ** (1 / 512))
    assert found.rows is not None
    assert found.rows <= 4 * recipe.check_images * recipe.sampler_steps


GUIDED = fast(RECIPE.changed(guidance=(1.0, 2.0, 3.0))).changed(threshold=0.9)
EQUAL, RARE = torch.tensor([0.1, 0.3, 0.3, 0.3]), torch.tensor([1e-12, 0.3, 0.3, 0.4])


def test_a_picture_that_no_prompt_gives_is_found_without_one(cosine: PixelCosine) -> None:
    model = Choosing(PICTURES, RARE, EQUAL)
    (found,) = invert(model, targets(PICTURES[:1]), cosine, diagonal(), recipe=GUIDED, estimators=[PlainShare()])
    assert found.status is Status.REPLICATED
    assert found.check is not None
    assert set(found.check.similarities) == {0.0}
    values = found.estimates["plain-share"]
    assert (values["plain_guidance"], values["plain_samples"]) == (0, 512)
    assert values["low"] <= 0.1 <= values["high"]
    assert "plain samples without a prompt is a copy" in sentence(found)


def test_a_picture_that_only_a_prompt_gives_has_a_share_with_it(cosine: PixelCosine) -> None:
    model = Choosing(PICTURES, EQUAL, RARE)
    (found,) = invert(model, targets(PICTURES[:1]), cosine, diagonal(), recipe=GUIDED, estimators=[PlainShare()])
    assert found.status is Status.REPLICATED
    values = found.estimates["plain-share"]
    assert (values["plain_guidance"], values["plain_samples"], values["high"]) == (1, 0, 1)
    assert values["low"] > 0
    assert "plain samples with a searched prompt at guidance 1 " in sentence(found)


def test_a_new_picture_costs_a_guided_model_one_gradient_and_the_samples_of_one_check_at_each_dose(
    cosine: PixelCosine,
) -> None:
    new = targets(255 - PICTURES[:1])
    (found,) = invert(Choosing(PICTURES), new, cosine, diagonal(), recipe=GUIDED, estimators=[PlainShare()])
    assert found.status is Status.EXHAUSTED
    assert found.check is not None
    assert {scale: len(values) for scale, values in found.check.similarities.items()} == {0.0: 2, 1.0: 2, 3.0: 2}
    assert found.rows is not None
    assert found.rows <= 3 * GUIDED.draws + 4 * (3 + 3 + 2 * 3) * GUIDED.sampler_steps
    assert found.rows >= 3 * GUIDED.draws + 4 * (3 + 3 + 2 * 3) * GUIDED.sampler_steps // 2
    assert sentence(found) == "no copy in 512 plain samples without a prompt (95 % confidence: fewer than 1 in 130)"


def test_a_family_that_is_not_a_shifted_standard_normal_has_no_share(cosine: PixelCosine) -> None:
    def narrow(like: torch.Tensor) -> Noise:
        q = diagonal()(like)
        q.parameters()["logvar"].data.fill_(-0.5)
        return q

    assert "plain-share" not in measured(cosine, 0.2, seed=0, noise=narrow).estimates


def test_it_keeps_the_promises_of_an_estimator() -> None:
    check_estimator(PlainShare())
