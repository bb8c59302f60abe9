"""A search is for the way round that the model knows, where mirror images count as copies."""

import pytest
import torch

from invmm_eval.search.orientation import encoded
from invmm_eval.search.status import Verdict
from invmm_eval.search.target import Target
from invmm_eval.similarity.near import NearCopies
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers import exact
from tests.helpers.audits import planned

PICTURES = exact.pictures(5, (1, 8, 8))
ITSELF, MIRRORED = Target(PICTURES[0], "itself"), Target(PICTURES[0].flip(-1), "mirrored")


@pytest.mark.parametrize("target", [ITSELF, MIRRORED], ids=lambda target: target.name)
@pytest.mark.parametrize("flip", [True, False])
def test_the_way_round_is_that_of_the_model_only_if_flips_count(
    target: Target, flip: bool, cosine: PixelCosine
) -> None:
    model, pixels = exact.Mixture(PICTURES), target.image[None].float() / 255
    x_0 = encoded(model, NearCopies(cosine, flip=flip, shift=1), target, pixels, seed=0)
    assert torch.equal(x_0, model.points[:1] if flip else model.encode(pixels))
    assert torch.equal(encoded(model, cosine, target, pixels, seed=0), model.encode(pixels))


@pytest.mark.parametrize("target", [ITSELF, MIRRORED], ids=lambda target: target.name)
def test_a_rare_picture_is_found_either_way_round(target: Target) -> None:
    """It has 1 in 2,000 of the weight: too little to be met by chance."""
    weights = torch.tensor([0.0005, *[0.249875] * 4])
    plan = planned(
        exact.Mixture(PICTURES, weights),
        similarity="pixel-cosine",
        similarity_options={"flip": True},
        settings={"plain": 64},
    )
    [result] = plan.measure([target])
    assert result.verdict is Verdict.MEMORIZED
    assert result.plain_share
    assert result.plain_share.rate < 0.005
