"""New images from what a search found."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.noise.gaussian import diagonal, isotropic
from invmm_eval.search.replicate import replicate
from invmm_eval.search.result import Result
from invmm_eval.search.sampling import sample
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import QUICK, SHAPE, Choosing, Mixture, pictures, run

MEMORIZED = pictures(5)
UNSEEN = pictures(1, seed=99)


def test_found_noise_replicates_while_standard_noise_does_not_always(cosine: PixelCosine) -> None:
    model = Mixture(MEMORIZED)
    target = cosine.embed(MEMORIZED[:1].float() / 255)

    def rate(images: Tensor) -> float:
        return (cosine.compare(cosine.embed(images), target) > 0.99).float().mean().item()

    found = run(model, MEMORIZED[:1], cosine)["0"]
    standard = torch.randn((400, *SHAPE), generator=torch.Generator().manual_seed(1))
    plain = sample(model, standard, {}, {}, torch.ones(400), steps=20, micro_batch=400)
    assert 0.05 < rate(plain) < 0.5
    assert rate(replicate(model, found, diagonal(), 400, recipe=QUICK)) > 0.6


def test_a_result_can_be_saved_loaded_and_sampled_from(cosine: PixelCosine, tmp_path: Any) -> None:
    model = Choosing(MEMORIZED)
    found = run(model, UNSEEN, cosine, recipe=replace(QUICK, max_steps=20, guidance=(1.0, 3.0)))["0"]
    found.save(tmp_path / "found.safetensors")
    loaded = Result.load(tmp_path / "found.safetensors")
    assert loaded.record() == found.record()
    drawn = replicate(model, loaded, diagonal(), 16, recipe=QUICK)
    assert torch.equal(drawn, replicate(model, found, diagonal(), 16, recipe=QUICK))
    assert not torch.equal(drawn, replicate(model, found, diagonal(), 16, recipe=QUICK, seed=1))
    with pytest.raises(InvMMError, match="does not fit this model and noise family"):
        replicate(model, loaded, isotropic(), 1, recipe=QUICK)
