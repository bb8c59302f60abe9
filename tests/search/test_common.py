"""The mean of a model's images and its plain samples, against models where both are known."""

from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from invmm_eval.models.condition import FixedPrompt
from invmm_eval.models.schedule import Schedule
from invmm_eval.recipe import fast
from invmm_eval.search.common import Common
from invmm_eval.search.estimators import Shifted
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.proposals import Spread
from invmm_eval.search.ray import Ray
from invmm_eval.search.sampling import sample
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import QUICK, Chooser, Choosing, Mixture, flow_schedule, linear_schedule, pictures

PICTURES = pictures(4)
WEIGHTS = torch.tensor([0.55, 0.3, 0.1, 0.05])
PLAIN = 200


def common(model: Mixture, cosine: PixelCosine, *, seed: int = 0, micro_batch: int = 64) -> Common:
    return Common(model, cosine, fast(QUICK).changed(plain=PLAIN), seed, MicroBatch(micro_batch))


def plain(shared: Common, model: Mixture, cosine: PixelCosine, index: int) -> Shifted:
    pixels = PICTURES[index : index + 1] / 255
    found = shared.plain(1.0, model.encode(pixels), model.condition(), cosine.embed(pixels), 0.9)
    assert found is not None
    return found


@pytest.mark.parametrize("schedule", [linear_schedule(), flow_schedule()])
def test_the_mean_is_that_of_the_models_images(cosine: PixelCosine, schedule: Schedule) -> None:
    model = Mixture(pictures(6, (3, 16, 16)), torch.tensor([0.3, 0.3, 0.1, 0.1, 0.1, 0.1]), schedule=schedule)
    mean = (model.log_weights.exp().view(-1, 1, 1, 1) * model.points).sum(dim=0)
    found = common(model, cosine).mean(model.points[:1], model.condition())[0]
    assert torch.cosine_similarity(found.flatten(), mean.flatten(), dim=0) > 0.95


def test_the_copies_among_plain_samples_are_those_of_their_noises(cosine: PixelCosine) -> None:
    """Sampled again, the kept noises give the picture, and their number is what the picture's weight predicts."""
    model = Mixture(PICTURES, WEIGHTS)
    shared = common(model, cosine)
    counts = []
    for index in range(4):
        found = plain(shared, model, cosine, index)
        counts.append(len(found.noise))
        assert (found.drawn, found.proposal.mean.any().item()) == (PLAIN, False)
        ones = torch.ones(len(found.noise))
        again = sample(model, found.noise, {}, {}, ones, steps=10, micro_batch=99, sampler="dpm-solver++")
        assert (cosine.compare(cosine.embed(again), cosine.embed(PICTURES[index : index + 1] / 255)) > 0.9).all()
    assert sum(counts) == pytest.approx(PLAIN, abs=10)
    assert all(
        abs(count - PLAIN * w) < 4 * (PLAIN * w) ** 0.5 + 1 for count, w in zip(counts, WEIGHTS.tolist(), strict=True)
    )


def test_they_are_drawn_once_for_all_images_and_depend_on_the_seed_alone(cosine: PixelCosine) -> None:
    model = Mixture(PICTURES, WEIGHTS)
    shared = common(model, cosine)
    first = plain(shared, model, cosine, 0)
    drawn = sum(model.rows_seen)
    assert drawn == PLAIN * 10
    plain(shared, model, cosine, 1)
    assert sum(model.rows_seen) == drawn
    torch.testing.assert_close(plain(common(model, cosine, micro_batch=7), model, cosine, 0).noise, first.noise)
    assert not torch.equal(plain(common(model, cosine, seed=1), model, cosine, 0).noise[:3], first.noise[:3])


def test_where_their_spread_cannot_be_computed_the_next_image_draws_them_again(
    cosine: PixelCosine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Mixture(PICTURES, WEIGHTS)
    shared, x_0 = common(model, cosine), model.points[:1]
    with monkeypatch.context() as patch:
        patch.setattr(Spread, "of", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            plain(shared, model, cosine, 0)
    ray = Ray(torch.zeros_like(x_0[0]))
    means = [
        each.proposals(x_0, ray, plain(each, model, cosine, 0)).at(3.0).mean for each in (shared, common(model, cosine))
    ]
    assert torch.equal(*means)


@pytest.mark.parametrize("text", ["a picture of its own", ""])
def test_an_image_with_a_prompt_of_its_own_has_none(cosine: PixelCosine, text: str) -> None:
    model, x_0 = Mixture(PICTURES), torch.zeros(1, 1, 4, 4)
    prompt = FixedPrompt({}, {}, text)
    found = common(model, cosine).plain(1.0, x_0, prompt, cosine.embed(PICTURES[:1] / 255), 0.9)
    assert (found is None) == bool(text)


def test_an_image_whose_prompt_is_searched_has_those_without_a_prompt_alone(cosine: PixelCosine) -> None:
    features: Tensor = cosine.embed(PICTURES[:1] / 255)
    searched = Chooser(torch.zeros(4), WEIGHTS.log())
    shared, x_0 = common(Choosing(PICTURES), cosine), torch.zeros(1, 1, 4, 4)
    assert shared.plain(1.0, x_0, searched, features, 0.9) is None
    unprompted = shared.plain(0.0, x_0, searched, features, 0.9)
    assert unprompted is not None
    assert len(unprompted.noise) == pytest.approx(PLAIN * 0.55, abs=4 * (PLAIN * 0.55) ** 0.5)


class Latent(Mixture):
    """A mixture of flat latents, which must not be encoded again."""

    def __init__(self) -> None:
        super().__init__(PICTURES, WEIGHTS)
        self.points = self.points.flatten(1)

    def encode(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, x_0: Tensor) -> Tensor:
        return super().decode(x_0).view(-1, *self.image_shape)


def test_the_spread_of_latents_is_that_of_the_samplers_own(cosine: PixelCosine) -> None:
    means = []
    for model in (Mixture(PICTURES, WEIGHTS), Latent()):
        shared, x_0 = common(model, cosine), model.points[:1]
        found = shared.plain(1.0, x_0, model.condition(), cosine.embed(PICTURES[:1] / 255), 0.9)
        means.append(shared.proposals(x_0, Ray(torch.zeros_like(x_0[0])), found).at(3.0).mean.flatten())
    torch.testing.assert_close(*means)
