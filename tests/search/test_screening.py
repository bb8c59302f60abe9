"""Detectors against denoisers whose scores are known in closed form."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, FixedPrompt
from invmm_eval.models.schedule import Schedule, broadcast
from invmm_eval.search.detectors import Detector
from invmm_eval.search.screening.caption_magnitude import CaptionMagnitude
from invmm_eval.search.screening.denoising_loss import DenoisingLoss
from invmm_eval.search.screening.estimates import time_at
from invmm_eval.search.screening.mirrored_loss import MIRRORINGS, MirroredLoss
from invmm_eval.search.screening.proximal import Proximal
from invmm_eval.search.screening.sharpness import Sharpness
from invmm_eval.search.screening.step_error import StepError
from invmm_eval.search.target import Target
from invmm_eval.testing import check_detector
from tests.helpers.exact import SHAPE, Mixture, flow_schedule, linear_schedule, pictures, targets

PICTURES = pictures(3)
"""The model knows the first."""
DISTANCE = (PICTURES.float() - PICTURES[:1].float()).flatten(1) / 127.5
DETECTORS: list[Callable[[], Detector]] = [DenoisingLoss, MirroredLoss, Proximal, StepError]
ON_CAPTIONS: list[Callable[[], Detector]] = [CaptionMagnitude, Sharpness]


@pytest.fixture(params=["variance preserving", "flow"])
def memorized(request: pytest.FixtureRequest) -> Mixture:
    """A model of one picture alone: its estimate is that picture, whatever the input."""
    return Mixture(PICTURES[:1], schedule=linear_schedule() if "variance" in request.param else flow_schedule())


def scores(detector: Detector, backbone: Backbone, chosen: list[Target], **options: Any) -> Tensor:
    x_0 = backbone.encode(torch.stack([target.image for target in chosen]).float() / 255)
    return detector(backbone, x_0, chosen, **{"seed": 0, "micro_batch": 64, **options})


def test_the_denoising_loss_is_the_distance_to_the_estimate(memorized: Mixture) -> None:
    found = scores(DenoisingLoss(), memorized, targets(PICTURES))
    torch.testing.assert_close(found, -DISTANCE.square().mean(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_proximal_error_is_the_distance_in_units_of_noise(memorized: Mixture, share: float) -> None:
    alpha_t, sigma_t = memorized.schedule(time_at(memorized.schedule, share))
    expected = -torch.linalg.vector_norm(alpha_t / sigma_t * DISTANCE, ord=4, dim=1)
    torch.testing.assert_close(scores(Proximal(share), memorized, targets(PICTURES)), expected, rtol=1e-3, atol=1e-2)


def test_a_straight_path_has_no_step_error(memorized: Mixture) -> None:
    assert (scores(StepError(), memorized, targets(PICTURES)).abs() < 1e-4).all()


def test_the_step_error_of_a_gaussian() -> None:
    """On data N(p, s^2) a step from t to s multiplies ``x_t - alpha_t p`` by a number known for both directions."""
    spread, steps, to = 0.5, 20, 4
    model = Mixture(PICTURES[:1], spread=spread)

    def factor(t: Tensor, s: Tensor) -> float:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = ([level.item() for level in model.schedule(time)] for time in (t, s))
        gain = alpha_t * spread**2 / (alpha_t**2 * spread**2 + sigma_t**2)
        return alpha_s * gain + sigma_s * (1 - alpha_t * gain) / sigma_t

    times = model.schedule.grid(steps).flip(0)[1:]
    alpha_first, _ = model.schedule(times[0])
    start = (PICTURES.float() / 127.5 - 1).flatten(1) - alpha_first * model.points[0].flatten()
    reached = start * math.prod(factor(t, s) for t, s in pairwise(times[:to]))
    towards, back = factor(times[to - 1], times[to]), factor(times[to], times[to - 1])
    expected = -(reached * (towards * back - 1)).square().mean(dim=1)
    assert expected[1:].abs().min() > 1e-4
    torch.testing.assert_close(scores(StepError(steps, to), model, targets(PICTURES)), expected, rtol=1e-2, atol=1e-6)


class Captioned(Mixture):
    """A model whose estimate is its picture, brighter by the caption's length in hundredths."""

    def condition(self, caption: str | None = None) -> FixedPrompt:
        shift, null = torch.full((1,), len(caption or "") / 100), torch.zeros(1)
        return FixedPrompt({"shift": shift}, {"shift": null}, caption or "")

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:  # noqa: ARG002
        return self.points[0] + context["shift"].reshape(-1, 1, 1, 1)


def test_the_caption_magnitude_is_the_shift_of_the_noise_estimate() -> None:
    model, detector = Captioned(PICTURES[:1]), CaptionMagnitude(guidance=3.0, steps=10)
    levels = [model.schedule(t) for t in model.schedule.grid(10)[:-1]]
    units = sum((alpha_t / sigma_t).item() for alpha_t, sigma_t in levels) / 10
    expected = [0.01 * length * math.sqrt(math.prod(SHAPE)) * units for length in (1, 5)]
    chosen = [Target(image, caption=text) for image, text in zip(PICTURES, ("a", "abcde"), strict=False)]
    assert scores(detector, model, chosen).tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("make", ON_CAPTIONS)
def test_detectors_of_captions_refuse_a_model_without_a_prompt(make: Callable[[], Detector]) -> None:
    with pytest.raises(InvMMError, match="needs a text-guided model"):
        scores(make(), Mixture(PICTURES), targets(PICTURES))


class Narrowed(Mixture):
    """A Gaussian around one picture, of spread 1 without a caption and 1 over its length with one."""

    def condition(self, caption: str | None = None) -> FixedPrompt:
        spread, null = torch.full((1,), 1 / max(1, len(caption or ""))), torch.ones(1)
        return FixedPrompt({"spread": spread}, {"spread": null}, caption or "")

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha_t, sigma_t = (broadcast(level, x_t) for level in self.schedule(t))
        variance = context["spread"].reshape(-1, 1, 1, 1) ** 2
        gain = alpha_t * variance / (alpha_t**2 * variance + sigma_t**2)
        return self.points[0] + gain * (x_t - alpha_t * self.points[0])


@pytest.mark.parametrize("schedule", [linear_schedule(), flow_schedule()], ids=["variance preserving", "flow"])
def test_the_sharpness_of_gaussians_is_the_square_of_the_difference_of_their_precisions(schedule: Schedule) -> None:
    model, detector = Narrowed(PICTURES[:1], schedule=schedule), Sharpness(draws=3)
    alpha_t, sigma_t = (level.double() for level in model.schedule(time_at(model.schedule, 0.98)))
    noises = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    distance = torch.linalg.vector_norm((noises - alpha_t * model.points[0]).flatten(1), dim=1).mean()
    precisions = [1 / (alpha_t**2 * spread**2 + sigma_t**2) for spread in (1, 1 / 2, 1 / 5)]
    expected = [(distance * (precisions[0] - other) ** 2).item() for other in precisions]
    chosen = [Target(image, caption=text) for image, text in zip(PICTURES, ("a", "ab", "abcde"), strict=True)]
    assert scores(detector, model, chosen).tolist() == pytest.approx(expected, rel=1e-2)


def test_the_mirrored_loss_compares_the_distances_of_a_picture_and_of_its_mirror_images(memorized: Mixture) -> None:
    point, chosen = memorized.points[0], PICTURES[1:]
    x_0 = memorized.encode(chosen.float() / 255)
    itself, *mirrored = ((x_0.flip(flipped) - point).square().flatten(1).mean(dim=1).log() for flipped in MIRRORINGS)
    expected = sum(mirrored) / 2 - itself
    assert expected.abs().min() > 1e-2
    torch.testing.assert_close(scores(MirroredLoss(), memorized, targets(chosen)), expected, rtol=1e-3, atol=1e-4)


def test_a_picture_of_low_contrast_has_a_small_loss_in_a_model_that_knows_no_picture_but_no_mirrored_loss() -> None:
    model = Mixture(torch.full((1, *SHAPE), 128, dtype=torch.uint8), spread=0.5)
    pair = torch.stack([(128 + contrast * (PICTURES[1] - 127.5)).to(torch.uint8) for contrast in (0.1, 1)])
    plain, full = scores(DenoisingLoss(0.5), model, targets(pair)).tolist()
    assert plain > full / 2
    torch.testing.assert_close(scores(MirroredLoss(0.5), model, targets(pair)), torch.zeros(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", DETECTORS)
def test_the_known_picture_scores_highest(make: Callable[[], Detector]) -> None:
    assert scores(make(), Mixture(PICTURES[:1], spread=0.3), targets(PICTURES)).argmax() == 0


@pytest.mark.parametrize("make", [*DETECTORS, *ON_CAPTIONS])
def test_they_keep_the_promises_of_a_detector(make: Callable[[], Detector]) -> None:
    """Among them: the score of an image does not depend on its batch, and costs what the detector states."""
    model = Narrowed(PICTURES[:1]) if make in ON_CAPTIONS else Mixture(PICTURES[:2], spread=0.3)
    captioned = [Target(image, caption=text) for image, text in zip(PICTURES, ("a", "ab", "abcde"), strict=True)]
    check_detector(make(), model, captioned)
