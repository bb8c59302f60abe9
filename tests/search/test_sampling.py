from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, rows
from invmm_eval.models.schedule import RectifiedFlow, Schedule, VariancePreserving
from invmm_eval.search.sampling import Rejection, chunks, sample
from tests.helpers.exact import SHAPE, Choosing, Mixture, flow_schedule, linear_schedule, pictures

SAMPLERS = ("ddim", "dpm-solver++")
SCHEDULES = [linear_schedule(), flow_schedule()]


class Raw(Mixture):
    """A mixture that shows its samples unscaled and uncut."""

    def decode(self, x_0: Tensor) -> Tensor:
        return x_0


class RawChoosing(Raw, Choosing):
    """The same of a guided mixture."""


def noises(n: int, seed: int = 1) -> Tensor:
    return torch.randn((n, *SHAPE), generator=Generator().manual_seed(seed))


def unguided(backbone: Backbone, noise: Tensor, *, steps: int, **options: Any) -> Tensor:
    return sample(backbone, noise, {}, {}, torch.ones(len(noise)), steps=steps, micro_batch=100, **options)


def chooser(n: int, count: int = 4) -> tuple[Context, Context]:
    """Contexts and null contexts that each prefer other pictures, the null ones less so."""
    logits, null_logits = torch.randn((2, n, count), generator=Generator().manual_seed(2))
    return {"logits": 3 * logits}, {"logits": null_logits}


# The path


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_model_of_one_picture_makes_it_from_any_noise(schedule: Schedule, steps: int, sampler: str) -> None:
    image = pictures(1)
    images = unguided(Mixture(image, schedule=schedule), 3 * noises(8), steps=steps, sampler=sampler)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, (image / 255).expand(8, *SHAPE), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [8, 14, 15, 50])
def test_steps_may_outnumber_the_times(steps: int, sampler: str) -> None:
    images = unguided(Mixture(pictures(3), schedule=linear_schedule(7)), noises(4), steps=steps, sampler=sampler)
    assert images.isfinite().all()


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_it_is_eulers_method_on_the_flow(shift: float, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)])
    schedule = RectifiedFlow(torch.ones(1), lambda _: scheduler.sigmas)
    backbone = Raw(pictures(4), spread=0.5, schedule=schedule)
    by_hand = by_diffusers = noises(6)
    for t, s, timestep in zip(scheduler.sigmas[:-1], scheduler.sigmas[1:], scheduler.timesteps, strict=True):
        flow = (by_hand - backbone.predict_x0(by_hand, t.expand(6), {})) / t
        by_hand = by_hand + (s - t) * flow
        flow = (by_diffusers - backbone.predict_x0(by_diffusers, t.expand(6), {})) / t
        by_diffusers = scheduler.step(flow, timestep, by_diffusers).prev_sample
    images = unguided(backbone, noises(6), steps=steps)
    torch.testing.assert_close(images, by_hand, atol=1e-4, rtol=0)
    torch.testing.assert_close(images, by_diffusers, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("steps", [1, 2, 10, 20])
def test_samplers_are_those_of_diffusers(sampler: str, kind: str, clip: float | None, steps: int) -> None:
    options: dict[str, Any] = {"prediction_type": kind, "timestep_spacing": "trailing"}
    stepping: dict[str, bool] = {}
    scheduler: Any
    if sampler == "ddim":
        scheduler = DDIMScheduler(**options, clip_sample=clip is not None, clip_sample_range=clip or 1.0)
        stepping["use_clipped_model_output"] = clip is not None
    else:
        scheduler = DPMSolverMultistepScheduler(**options, final_sigmas_type="zero", algorithm_type="dpmsolver++")
    scheduler.set_timesteps(steps)
    backbone = Raw(pictures(4), spread=0.5, schedule=VariancePreserving(scheduler.alphas_cumprod))
    x_t = noises(6)
    for t in scheduler.timesteps:
        x_0 = backbone.predict_x0(x_t, t.expand(6), {})
        if clip is not None and sampler != "ddim":  # DPM-Solver++ of diffusers does not clip
            x_0 = x_0.clamp(-clip, clip)
        alpha_t, sigma_t = scheduler.alphas_cumprod[t].sqrt(), (1 - scheduler.alphas_cumprod[t]).sqrt()
        noise = (x_t - alpha_t * x_0) / sigma_t
        output = {"epsilon": noise, "v_prediction": alpha_t * noise - sigma_t * x_0, "sample": x_0}[kind]
        x_t = scheduler.step(output, t, x_t, **stepping).prev_sample
    backbone.clip = clip if clip is not None else 0.8
    images = unguided(backbone, noises(6), steps=steps, sampler=sampler, clip=clip is not None)
    torch.testing.assert_close(images, x_t, atol=1e-3 if sampler == "ddim" else 2e-3, rtol=0)


def analytic(image: Tensor, spread: float, noise: Tensor, schedule: Schedule) -> Tensor:
    """Where the probability flow takes noise for data ``N(m, s^2 I)``.

    Its marginals are ``N(alpha m, (alpha^2 s^2 + sigma^2) I)`` and its equation is linear, so a path keeps the number
    of standard deviations that it is away from the mean.
    """
    alpha, sigma = schedule(schedule.grid(1)[:1])
    mean = image / 127.5 - 1
    return mean + spread * (noise - alpha * mean) / (alpha**2 * spread**2 + sigma**2).sqrt()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spread", [0.1, 0.5, 2.0])
def test_many_steps_follow_the_probability_flow_of_a_gaussian(schedule: Schedule, spread: float) -> None:
    backbone = Raw(pictures(1), spread=spread, schedule=schedule)
    expected = analytic(pictures(1), spread, noises(4), schedule)
    errors = [float((unguided(backbone, noises(4), steps=steps) - expected).abs().max()) for steps in (50, 200, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * max(1, spread)


# Guidance


def test_the_second_order_comes_nearer_to_the_path_and_faster_with_the_steps() -> None:
    """Measured on a Gaussian, whose path is known: twice the steps halve DDIM's error, and the other's by three."""
    image, noise, schedule = pictures(1), noises(8), flow_schedule()
    backbone = Raw(image, spread=2.0, schedule=schedule)
    exact = analytic(image, 2.0, noise, schedule)
    first, second = (
        [(unguided(backbone, noise, steps=n, sampler=sampler) - exact).abs().mean() for n in (40, 80)]
        for sampler in SAMPLERS
    )
    assert 1.8 < first[0] / first[1] < 2.2
    assert 3 < second[0] / second[1] < 4.5
    assert second[0] < first[1] / 4


def guided_by_hand(backbone: Backbone, x_t: Tensor, context: Context, null: Context, g: float, steps: int) -> Tensor:
    for t, s in pairwise(backbone.schedule.grid(steps)):
        times = t.expand(len(x_t))
        conditional = backbone.predict_x0(x_t, times, context)
        unconditional = backbone.predict_x0(x_t, times, null)
        x_0 = unconditional + g * (conditional - unconditional)
        if backbone.clip:
            x_0 = x_0.clip(-backbone.clip, backbone.clip)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = backbone.schedule(t), backbone.schedule(s)
        x_t = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t
    return x_t


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("g", [0.0, 1.0, 1.5, 7.0])
def test_guidance_goes_from_the_null_estimate_through_the_conditional_one(
    schedule: Schedule, clip: float | None, g: float
) -> None:
    backbone = RawChoosing(pictures(4), spread=0.5, schedule=schedule)
    backbone.clip = clip
    context, null = chooser(5)
    expected = guided_by_hand(backbone, noises(5), context, null, g, steps=10)
    images = sample(backbone, noises(5), context, null, torch.full((5,), g), steps=10, micro_batch=5)
    torch.testing.assert_close(images, expected, atol=1e-3, rtol=1e-3)


def test_scales_may_differ_from_row_to_row() -> None:
    backbone = RawChoosing(pictures(4), spread=0.5)
    context, null = chooser(6)
    scales = [3.0, 1.0, 7.0, 1.0, 0.0, 3.0]
    images = sample(backbone, noises(6), context, null, torch.tensor(scales), steps=10, micro_batch=6)
    for row, scale in enumerate(scales):
        one, g = slice(row, row + 1), torch.tensor([scale])
        alone = sample(backbone, noises(6)[one], rows(context, one), rows(null, one), g, steps=10, micro_batch=6)
        torch.testing.assert_close(images[one], alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("scales", "network_rows"),
    [([1.0] * 5, 5), ([3.0] * 5, 10), ([1.0, 2.0, 1.0, 0.0, 1.0], 6), ([2.0], 2), ([0.0], 1)],
)
def test_only_guided_rows_take_both_passes(scales: list[float], network_rows: int) -> None:
    backbone = Choosing(pictures(4))
    context, null = chooser(len(scales))
    sample(backbone, noises(len(scales)), context, null, torch.tensor(scales), steps=3, micro_batch=8)
    assert backbone.rows_seen == [network_rows] * 3


# Batches


@pytest.mark.parametrize("micro_batch", [1, 3, 7, 50])
def test_the_micro_batch_bounds_the_network_and_changes_nothing(micro_batch: int) -> None:
    backbone = RawChoosing(pictures(4), spread=0.5)
    context, null = chooser(7)
    guidance = torch.tensor([1.0, 4.0, 2.0, 1.0, 5.0, 3.0, 2.0])
    expected = sample(backbone, noises(7), context, null, guidance, steps=5, micro_batch=7)
    backbone.rows_seen.clear()
    images = sample(backbone, noises(7), context, null, guidance, steps=5, micro_batch=micro_batch)
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=1e-4)
    assert max(backbone.rows_seen) <= 2 * micro_batch
    assert sum(backbone.rows_seen) == 5 * (7 + 5)


# Rejection


class Watched(RawChoosing):
    """It notes how many rows each call has."""

    def __init__(self, images: Tensor) -> None:
        super().__init__(images, spread=0.3, schedule=linear_schedule())
        self.rows: list[int] = []

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.rows.append(len(x_t))
        return super().predict_x0(x_t, t, context)


def rejection_of(target: Tensor, *steps: int, cosine: float, mean: Tensor | None = None) -> Rejection:
    """At all of these steps by the same cosine."""
    mean = torch.zeros_like(target[:1]) if mean is None else mean
    return Rejection(target, mean, {step: torch.full((len(target),), cosine) for step in steps})


def test_rows_far_from_their_target_are_given_up_half_way() -> None:
    """The others end where they would have; both passes of a guided row end together."""
    backbone, noise, n = Watched(pictures(4)), noises(12), 12
    context, null = chooser(n)
    scales = torch.tensor([1.0, 2.5, 1.0] * 4)
    target = backbone.encode(pictures(4)[:1] / 255).expand(n, *SHAPE)

    def run(**options: Any) -> Tensor:
        return sample(backbone, noise, context, null, scales, steps=10, micro_batch=n, **options)

    whole = run()
    near = torch.tensor([cosine(one, target[0]) for one in whole]) > 0.8
    assert 0 < near.sum() < n
    backbone.rows.clear()
    drawn = run(rejection=rejection_of(target, 5, cosine=0.5))
    kept = (drawn - whole).flatten(1).norm(dim=1) < 1e-4
    assert (kept >= near).all(), "no copy is given up"
    assert backbone.rows == [n + 4] * 6 + [int(kept.sum() + (kept & (scales != 1)).sum())] * 4
    for index in (~kept).nonzero()[:, 0]:
        assert cosine(drawn[index], target[0]) < 0.5


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def test_sampling_stops_half_way_where_no_row_is_left() -> None:
    backbone, n = Watched(pictures(4)), 5
    context, null = chooser(n)
    target = -backbone.encode(pictures(4)[:1] / 255).expand(n, *SHAPE)
    sample(
        backbone,
        noises(n),
        context,
        null,
        torch.ones(n),
        steps=10,
        micro_batch=n,
        rejection=rejection_of(target, 5, cosine=0.9),
    )
    assert backbone.rows == [n] * 6


def test_rows_are_given_up_at_each_step_by_a_bound_of_their_own_in_any_chunks() -> None:
    """What is left after two rejections is what each row alone would leave; a row without a bound is always kept."""
    backbone, n = Watched(pictures(4)), 12
    noise, (context, null), scales = noises(n), chooser(n), torch.tensor([1.0, 2.5, 0.0] * 4)
    target = backbone.encode(pictures(4)[:1] / 255).expand(n, *SHAPE)
    early, late = torch.tensor([0.3, -1.0, 0.4] * 4), torch.tensor([0.5, -1.0, 0.9] * 4)
    mean = backbone.points.mean(dim=0, keepdim=True)

    def run(rejection: Rejection | None, micro_batch: int, cut: slice = slice(None)) -> Tensor:
        one, other = ({key: value[cut] for key, value in some.items()} for some in (context, null))
        return sample(
            backbone, noise[cut], one, other, scales[cut], steps=10, micro_batch=micro_batch, rejection=rejection
        )

    together = run(Rejection(target, mean, {4: early, 7: late}), n)
    rows_together = sum(backbone.rows)
    torch.testing.assert_close(run(Rejection(target, mean, {4: early, 7: late}), 5), together)
    backbone.rows.clear()
    for index in range(n):
        cut = slice(index, index + 1)
        alone = run(Rejection(target[cut], mean, {4: early[cut], 7: late[cut]}), 1, cut)
        torch.testing.assert_close(alone[0], together[index])
    assert rows_together == sum(backbone.rows) < 10 * (n + 4)
    torch.testing.assert_close(together[1::3], run(None, n)[1::3])


def test_a_row_that_agrees_only_in_what_all_images_have_in_common_is_given_up() -> None:
    backbone, n = Watched(pictures(4)), 12
    context, null = chooser(n)
    mean = backbone.points.mean(dim=0, keepdim=True)
    target = mean + 1e-3 * backbone.encode(pictures(4)[:1] / 255).expand(n, *SHAPE)

    def run(mean: Tensor) -> Tensor:
        cut = rejection_of(target, 5, cosine=0.0, mean=mean)
        return sample(backbone, noises(n), context, null, torch.ones(n), steps=10, micro_batch=n, rejection=cut)

    whole = sample(backbone, noises(n), context, null, torch.ones(n), steps=10, micro_batch=n)
    kept, by_mean = ((run(one) - whole).flatten(1).norm(dim=1) < 1e-4 for one in (torch.zeros_like(mean), mean))
    assert by_mean.sum() < kept.sum()


@pytest.mark.parametrize(("length", "size"), [(0, 3), (1, 1), (3, 3), (7, 3), (8, 100)])
def test_chunks_cover_all_rows_once(length: int, size: int) -> None:
    cuts = chunks(length, size)
    assert [row for cut in cuts for row in range(length)[cut]] == list(range(length))
    assert all(0 < len(range(length)[cut]) <= size for cut in cuts)


def test_no_gradient_is_kept() -> None:
    assert not unguided(Mixture(pictures(2)), noises(2).requires_grad_(), steps=2).requires_grad


# Promises


class Unfaithful(Mixture):
    """A mixture whose estimates are bent by a function."""

    def __init__(self, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__(pictures(2))
        self.bend = bend

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.bend(super().predict_x0(x_t, t, context))


@pytest.mark.parametrize(
    ("bend", "found"),
    [
        (Tensor.half, r"torch\.float16 of shape \(3, 1, 4, 4\)"),
        (Tensor.double, r"torch\.float64 of shape"),
        (lambda x_0: x_0[:1], r"\(1, 1, 4, 4\) for x_t of shape \(3, 1, 4, 4\)"),
        (lambda x_0: x_0.repeat(1, 2, 1, 1), r"\(3, 2, 4, 4\)"),
        (lambda x_0: x_0.flatten(1), r"\(3, 16\)"),
    ],
    ids=["half", "double", "rows", "channels", "flat"],
)
def test_an_estimate_of_another_type_or_shape_is_an_error(bend: Callable[[Tensor], Tensor], found: str) -> None:
    with pytest.raises(InvMMError, match=f"{found}.*must return torch.float32 of the same shape"):
        unguided(Unfaithful(bend), noises(3), steps=2)
