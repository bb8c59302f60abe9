"""The backbone, held against scores that are known in closed form and against diffusers' own scheduler."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from invmm_score_sde.backbone import ScoreSDE, VarianceExploding
from torch import Tensor

from invmm_eval import InvMMError
from invmm_eval.plugin import Backbone, Schedule
from invmm_eval.testing import check_backbone

S_MIN, S_MAX = 0.02, 50.0
EPS = 1e-5
SHAPE = (3, 8, 8)
CPU = torch.device("cpu")

Score = Callable[[Tensor, Tensor], Tensor]
"""``(y, s) -> score`` of the data with noise of spread ``s``."""


class Known(UNet2DModel):  # type: ignore[misc]
    """A network whose score is written down, not learned."""

    score: Score

    def forward(self, sample: Tensor, timestep: Tensor) -> UNet2DOutput:
        return UNet2DOutput(sample=self.score(sample, timestep.reshape(-1, 1, 1, 1)))


def network(kind: type[UNet2DModel] = UNet2DModel) -> UNet2DModel:
    torch.manual_seed(0)
    return kind(
        sample_size=SHAPE[1],
        time_embedding_type="fourier",
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )


def pipeline(unet: UNet2DModel, s_min: float = S_MIN) -> ScoreSdeVePipeline:
    return ScoreSdeVePipeline(unet, ScoreSdeVeScheduler(sigma_min=s_min, sigma_max=S_MAX, sampling_eps=EPS))


def backbone(model: object) -> ScoreSDE:
    return ScoreSDE(model, revision=None, device=CPU, dtype=torch.float32)


def knowing(score: Score) -> ScoreSDE:
    unet = network(Known)
    unet.score = score
    return backbone(pipeline(unet))


def schedule() -> VarianceExploding:
    return VarianceExploding(S_MIN, S_MAX, EPS, CPU)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TIMES = torch.tensor([EPS, 0.1, 0.4, 0.7, 1.0])


def column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_keeps_the_promises(dtype: torch.dtype) -> None:
    check_backbone(backbone(pipeline(network()).to(dtype)))


def test_it_is_an_unconditional_pixel_model() -> None:
    model: Backbone = backbone(pipeline(network()))
    levels: Schedule = model.schedule
    assert model.image_shape == SHAPE
    assert model.clip is None
    assert model.recipe.name == "score-sde-ve"
    assert model.condition("a caption").parameters() == {}
    assert levels.grid(5).shape == (6,)


def test_the_path_keeps_its_variance() -> None:
    alpha_t, sigma_t = schedule()(torch.linspace(0, 1, 101))
    torch.testing.assert_close(alpha_t**2 + sigma_t**2, torch.ones(101))
    assert alpha_t.dtype == sigma_t.dtype == torch.float32


def test_the_path_is_the_exploding_one_but_for_scale() -> None:
    alpha_t, sigma_t = schedule()(TIMES)
    torch.testing.assert_close(sigma_t / alpha_t, torch.tensor([S_MIN * (S_MAX / S_MIN) ** t for t in TIMES.tolist()]))


def test_the_time_0_is_clean() -> None:
    alpha_0, sigma_0 = schedule()(torch.tensor(0.0))
    assert (alpha_0.item(), sigma_0.item()) == (1, 0)
    assert alpha_0.shape == ()


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_the_grid_falls_from_noise_to_the_clean_time(steps: int) -> None:
    times = schedule().grid(steps)
    assert times.shape == (steps + 1,)
    assert (times[0].item(), times[-1].item()) == (1, 0)
    assert (times.diff() < 0).all()
    assert (schedule()(times)[1].diff() < 0).all()


def test_times_and_levels_are_those_of_the_scheduler() -> None:
    scheduler = pipeline(network()).scheduler
    scheduler.set_timesteps(20)
    scheduler.set_sigmas(20)
    torch.testing.assert_close(schedule().grid(20)[:-1], scheduler.timesteps)
    torch.testing.assert_close(schedule().s(scheduler.timesteps), scheduler.sigmas)


def test_training_times_are_uniform_and_repeatable() -> None:
    first, again = (schedule().draw(4000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.min() >= EPS
    assert first.max() <= 1
    sorted_times = first.sort().values
    assert (sorted_times - torch.linspace(0, 1, 4000)).abs().max() < 0.04, "Kolmogorov-Smirnov, far above the 1 % level"


def test_the_score_of_one_picture_gives_the_picture() -> None:
    x_0, n = random(*SHAPE).sigmoid(), random(5, *SHAPE, seed=1)
    fed: list[tuple[Tensor, Tensor]] = []

    def score(y: Tensor, s: Tensor) -> Tensor:
        fed.append((y, s))
        return -(y - x_0) / s**2

    model = knowing(score)
    alpha_t, sigma_t = map(column, model.schedule(TIMES))
    estimate = model.predict_x0(alpha_t * x_0 + sigma_t * n, TIMES, {})
    torch.testing.assert_close(estimate, x_0.expand(5, *SHAPE), atol=1e-4, rtol=0)
    [(y, s)] = fed
    torch.testing.assert_close(s.flatten(), S_MIN * (S_MAX / S_MIN) ** TIMES)
    torch.testing.assert_close(y, x_0 + s * n, atol=1e-4, rtol=1e-4)


MEAN, VARIANCE = 0.4, 0.09


def gaussian() -> ScoreSDE:
    """Data whose pixels are independent normal ones."""
    return knowing(lambda y, s: (MEAN - y) / (VARIANCE + s**2))


def test_the_score_of_a_gaussian_gives_the_posterior_mean() -> None:
    model = gaussian()
    x_t = random(5, *SHAPE)
    alpha_t, sigma_t = map(column, model.schedule(TIMES))
    gain = alpha_t * VARIANCE / (alpha_t**2 * VARIANCE + sigma_t**2)
    expected = MEAN + gain * (x_t - alpha_t * MEAN)
    torch.testing.assert_close(model.predict_x0(x_t, TIMES, {}), expected, atol=1e-4, rtol=1e-4)


def test_deterministic_sampling_follows_the_probability_flow() -> None:
    """For normal data the flow maps each noise to one sample: ``(y - mean) / sqrt(variance + s^2)`` stays the same."""
    model = gaussian()
    n = random(2, *SHAPE)
    x_t = n
    for t, s in pairwise(model.schedule.grid(1000)):
        x_0 = model.predict_x0(x_t, t.expand(2), {})
        (alpha_t, sigma_t), (alpha_s, sigma_s) = model.schedule(t), model.schedule(s)
        x_t = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t
    y_1 = n * (1 + S_MAX**2) ** 0.5
    torch.testing.assert_close(x_t, MEAN + (y_1 - MEAN) * (VARIANCE / (VARIANCE + S_MAX**2)) ** 0.5, atol=0.01, rtol=0)


def test_the_estimate_is_the_mean_of_the_last_step_of_the_scheduler() -> None:
    stock = pipeline(network(), s_min=0.5)
    stock.scheduler.set_timesteps(10)
    stock.scheduler.set_sigmas(10)
    last = stock.scheduler.timesteps[-1]
    y = random(2, *SHAPE)
    with torch.no_grad():
        output = stock.unet(y, stock.scheduler.sigmas[-1].expand(2)).sample
        expected = stock.scheduler.step_pred(output, last, y).prev_sample_mean
        model = backbone(stock)
        alpha_t, _ = model.schedule(last)
        estimate = model.predict_x0(alpha_t * y, last.expand(2), {})
    assert (expected - y).abs().max() > 0.1
    torch.testing.assert_close(estimate, expected, atol=1e-3, rtol=0)


def test_the_gradient_reaches_the_noised_image() -> None:
    x_t = random(5, *SHAPE).requires_grad_()
    estimate = backbone(pipeline(network())).predict_x0(x_t, TIMES, {})
    [gradient] = torch.autograd.grad(estimate.square().sum(), x_t)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_estimate_is_float32_whatever_the_network_is(dtype: torch.dtype) -> None:
    model = backbone(pipeline(network()).to(dtype))
    estimate = model.predict_x0(random(5, *SHAPE), TIMES, {})
    assert estimate.dtype == torch.float32
    assert estimate.shape == (5, *SHAPE)


def test_images_are_data_and_samples_are_clipped_as_the_pipeline_does() -> None:
    model = backbone(pipeline(network()))
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.decode(model.encode(images)), images)
    assert torch.equal(model.decode(torch.tensor([-0.5, 0.25, 1.5])), torch.tensor([0, 0.25, 1]))


def test_a_pipeline_of_another_class_is_refused() -> None:
    with pytest.raises(InvMMError, match="takes a ScoreSdeVePipeline, not a DDPMPipeline"):
        backbone(DDPMPipeline(network(), DDPMScheduler()))
