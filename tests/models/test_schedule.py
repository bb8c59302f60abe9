from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.schedule import X0_FROM, RectifiedFlow, Schedule, VariancePreserving, broadcast, uniform
from tests.helpers.exact import flow_schedule, linear_schedule

BETA_SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def random_data(n: int) -> tuple[Tensor, Tensor]:
    """Clean samples and noises."""
    x_0, noise = torch.randn((2, n, 3, 4, 4), generator=seeded())
    return x_0, noise


def noised(schedule: Schedule, x_0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    alpha_t, sigma_t = (broadcast(level, x_0) for level in schedule(t))
    return alpha_t * x_0 + sigma_t * noise, alpha_t, sigma_t


# Variance preserving


@pytest.mark.parametrize(
    ("products", "sentence"),
    [
        ([0.9, torch.nan, 0.1], "not finite"),
        ([0.9, 0.5, -0.1], "negative"),
        ([0.9, 0.1, 0.5], "do not rise"),
        ([1.0, 1.0, 0.5], "adds no noise at time 1"),
        ([], r"their shape is \(0,\)"),
        ([[0.9, 0.5], [0.2, 0.1]], r"their shape is \(2, 2\)"),
    ],
)
def test_noise_levels_that_make_no_sense_are_refused(products: list[Any], sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        VariancePreserving(torch.tensor(products))


@pytest.mark.parametrize("sigmas", [[0.5, torch.nan], [0.0, 1.0], [0.5, 1.5], []])
def test_a_flow_has_noise_levels_up_to_one(sigmas: list[float]) -> None:
    with pytest.raises(InvMMError, match=r"not all in \(0, 1\]|shape is \(0,\)"):
        RectifiedFlow(torch.tensor(sigmas))


def test_variance_is_preserved_while_data_gives_way_to_noise() -> None:
    alpha, sigma = linear_schedule()(torch.arange(-1, 1000))
    assert alpha.dtype == sigma.dtype == torch.float32
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1001))
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    assert (alpha[0].item(), sigma[0].item()) == (1, 0), "the time before the first is clean"


@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_levels_are_those_of_diffusers(beta_schedule: str) -> None:
    scheduler = DDIMScheduler(beta_schedule=beta_schedule)
    schedule = VariancePreserving(scheduler.alphas_cumprod)
    t = torch.arange(1000)
    torch.testing.assert_close(schedule(t)[0] ** 2, scheduler.alphas_cumprod)
    x_0, noise = random_data(1000)
    x_t, _, _ = noised(schedule, x_0, noise, t)
    torch.testing.assert_close(x_t, scheduler.add_noise(x_0, noise, t))


@pytest.mark.parametrize("times", [1, 2, 7, 50])
def test_the_grid_falls_from_the_last_time_to_the_clean_one(times: int) -> None:
    for steps in range(1, times + 1):
        grid = linear_schedule(times).grid(steps)
        assert grid.shape == (steps + 1,)
        assert grid[[0, -1]].tolist() == [times - 1, -1]
        assert (grid.diff() < 0).all()
        exact = torch.tensor([times - 1 - times * step / steps for step in range(steps + 1)])
        assert ((grid - exact).abs() <= 0.5 + 1e-5).all()


@pytest.mark.parametrize("steps", [1, 2, 10, 25, 50, 200, 500, 1000])
def test_the_grid_is_the_authors_where_that_is_whole(steps: int) -> None:
    authors = torch.linspace(-1, 999, steps + 1, dtype=torch.float64)
    assert torch.equal(linear_schedule().grid(steps), authors.flip(0).long())


def test_draws_are_uniform_over_all_times() -> None:
    times, n = 20, 20_000
    drawn = linear_schedule(times).draw(n, seeded())
    counts = drawn.bincount(minlength=times)
    assert len(counts) == times
    chi_square = ((counts - n / times) ** 2 / (n / times)).sum()
    assert chi_square < 52  # the 0.9999 quantile at 19 degrees of freedom


def test_each_of_some_times_is_drawn_about_equally_often() -> None:
    times = torch.tensor([3, 7, 900])
    found = uniform(times, 3000, seeded(1))
    assert all(abs((found == t).sum().item() - 1000) < 130 for t in times)


# Rectified flow


def test_the_flow_is_the_straight_path() -> None:
    t = torch.rand(100, generator=seeded())
    alpha, sigma = flow_schedule()(t)
    assert torch.equal(sigma, t)
    assert torch.equal(alpha, 1 - t)
    x_0, noise = random_data(100)
    x_t, _, _ = noised(flow_schedule(), x_0, noise, t)
    torch.testing.assert_close(x_t, torch.lerp(x_0, noise, broadcast(t, x_0)))


def test_the_flow_draws_all_its_sigmas_alike() -> None:
    sigmas, n = torch.tensor([0.9, 0.05, 1.0, 0.4]), 8000
    drawn = RectifiedFlow(sigmas).draw(n, seeded())
    counts = (drawn[:, None] == sigmas).sum(0)
    assert counts.sum() == n
    assert ((counts - n / 4) ** 2 / (n / 4)).sum() < 21  # the 0.9999 quantile at 3 degrees of freedom


def test_the_flows_grid_is_even_or_as_given() -> None:
    assert flow_schedule().grid(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    squared = RectifiedFlow(torch.ones(1), lambda steps: torch.linspace(1, 0, steps + 1) ** 2)
    assert squared.grid(2).tolist() == [1, 0.25, 0]


# Conversions


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_a_perfect_output_gives_the_clean_sample_back(kind: str) -> None:
    """The output of a network that knows both the clean sample and the noise."""
    x_0, noise = random_data(20)
    schedule: Schedule = flow_schedule() if kind == "flow_prediction" else linear_schedule()
    t = torch.linspace(0.01, 0.99, 20) if kind == "flow_prediction" else torch.arange(0, 1000, 50)
    x_t, alpha_t, sigma_t = noised(schedule, x_0, noise, t)
    outputs = {
        "epsilon": noise,
        "v_prediction": alpha_t * noise - sigma_t * x_0,
        "sample": x_0,
        "flow_prediction": noise - x_0,
    }
    torch.testing.assert_close(X0_FROM[kind](outputs[kind], x_t, alpha_t, sigma_t), x_0, atol=2e-4, rtol=0)
