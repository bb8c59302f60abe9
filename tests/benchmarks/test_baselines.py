"""Other detectors, held against denoisers of which their scores are known in closed form."""

import math
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from benchmarks.baselines import caption_magnitude, loss, pia, sampled, secmi
from benchmarks.common.counting import counted
from invmm_eval.models.condition import Context, FixedPrompt
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.search.engine import invert
from invmm_eval.search.screening.estimates import time_at
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import QUICK, SHAPE, Mixture, flow_schedule, linear_schedule, pictures, targets

PICTURES = pictures(3)
"""The model knows the first."""
IMAGES = PICTURES.float() / 255
DISTANCE = (PICTURES.float() - PICTURES[:1].float()).flatten(1) / 127.5


@pytest.fixture(params=["variance preserving", "flow"])
def memorized(request: pytest.FixtureRequest) -> Mixture:
    """A model of one picture alone: its estimate is that picture, whatever it is given."""
    return Mixture(PICTURES[:1], schedule=linear_schedule() if "variance" in request.param else flow_schedule())


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_loss_is_how_far_the_picture_shows_through_the_noise(memorized: Mixture, share: float) -> None:
    alpha_t, sigma_t = memorized.schedule(time_at(memorized.schedule, share))
    expected = -(alpha_t / sigma_t * DISTANCE).square().mean(dim=1)
    torch.testing.assert_close(loss(memorized, IMAGES, share=share), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_proximal_error_is_the_distance_in_units_of_noise(memorized: Mixture, share: float) -> None:
    alpha_t, sigma_t = memorized.schedule(time_at(memorized.schedule, share))
    expected = -torch.linalg.vector_norm(alpha_t / sigma_t * DISTANCE, ord=4, dim=1)
    torch.testing.assert_close(pia(memorized, IMAGES, share=share), expected, rtol=1e-3, atol=1e-2)


def test_a_straight_path_has_no_step_error(memorized: Mixture) -> None:
    assert (secmi(memorized, IMAGES).abs() < 1e-4).all()


def test_the_step_error_of_a_gaussian() -> None:
    """On data N(p, s^2) a step from t to s multiplies ``x_t - alpha_t p`` by a number, known for both directions."""
    spread, steps, to = 0.5, 20, 4
    model = Mixture(PICTURES[:1], spread=spread)

    def factor(t: Tensor, s: Tensor) -> float:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = ([level.item() for level in model.schedule(time)] for time in (t, s))
        gain = alpha_t * spread**2 / (alpha_t**2 * spread**2 + sigma_t**2)
        return alpha_s * gain + sigma_s * (1 - alpha_t * gain) / sigma_t

    times = model.schedule.grid(steps).flip(0)[1:]
    alpha_first, _ = model.schedule(times[0])
    point = model.points[0].flatten()
    start = (IMAGES * 2 - 1).flatten(1) - alpha_first * point
    reached = start * math.prod(factor(t, s) for t, s in pairwise(times[:to]))
    there, back = factor(times[to - 1], times[to]), factor(times[to], times[to - 1])
    expected = -(reached * (there * back - 1)).square().mean(dim=1)
    assert expected[1:].abs().min() > 1e-4
    torch.testing.assert_close(secmi(model, IMAGES, steps=steps, to=to), expected, rtol=1e-2, atol=1e-6)


def test_plain_samples_find_what_a_mixture_holds(cosine: PixelCosine) -> None:
    model = Mixture(PICTURES[:2], torch.tensor([0.9, 0.1]))
    alike = sampled(model, IMAGES, cosine, samples=1000, steps=20)
    assert alike.shape == (1000, 3)
    shares = (alike >= 0.99).float().mean(dim=0).tolist()
    assert shares == pytest.approx([0.9, 0.1, 0], abs=0.05)
    scores = alike.amax(dim=0).tolist()
    assert scores[:2] == pytest.approx([1, 1], abs=1e-3)
    assert scores[2] < 0.9


class Captioned(Mixture):
    """A model whose estimate is its picture, brighter by the caption's length in hundredths."""

    def condition(self, caption: str | None = None) -> FixedPrompt:
        shift, nothing = torch.full((1,), len(caption or "") / 100), torch.zeros(1)
        return FixedPrompt({"shift": shift}, {"shift": nothing}, caption or "")

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:  # noqa: ARG002
        return self.points[0] + context["shift"].reshape(-1, 1, 1, 1)


def test_the_magnitude_of_a_caption_is_how_far_it_moves_the_noise_estimate() -> None:
    model = Captioned(PICTURES[:1])
    steps = 10
    levels = [model.schedule(t) for t in model.schedule.grid(steps)[:-1]]
    units = sum((alpha_t / sigma_t).item() for alpha_t, sigma_t in levels) / steps
    expected = [0.01 * length * math.sqrt(math.prod(SHAPE)) * units for length in (1, 5)]
    found = caption_magnitude(model, ["a", "abcde"], guidance=3.0, steps=steps)
    assert found.tolist() == pytest.approx(expected, rel=1e-3)


def test_all_rows_of_a_search_are_counted(cosine: PixelCosine) -> None:
    backbone, counter = counted(Mixture(PICTURES[:2]))
    recipe = QUICK.changed(max_steps=20, threshold=2.0)
    (result,) = invert(backbone, targets(PICTURES[2:]), cosine, diagonal(), recipe=recipe)
    checks: Mapping[int, int] = {10: 1, 20: recipe.check_images}  # one failing sample, then all of the last check
    assert result.steps == 20
    assert counter.rows_with == 20 * recipe.draws
    assert counter.rows_without == sum(checks.values()) * recipe.sampler_steps
