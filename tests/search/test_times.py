"""The informative times, against the model whose best denoiser is known."""

import pytest
import torch
from torch import Generator

from invmm_eval.models.schedule import Schedule
from invmm_eval.search.times import CLEAREST, DECIDED, FAINTEST, drawn, faintest, first_decided, informative
from tests.helpers.exact import Mixture, flow_schedule, linear_schedule, pictures

SCHEDULES = [linear_schedule(), flow_schedule()]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("distance", [2.0, 30.0])
def test_they_are_those_where_the_image_stands_out_by_the_given_factors(schedule: Schedule, distance: float) -> None:
    times = informative(schedule, distance)
    alpha_t, sigma_t = schedule(schedule.grid(1000)[:-1])
    signal = distance * alpha_t / sigma_t
    assert len(times) == ((signal >= FAINTEST) & (signal <= CLEAREST)).sum() > 100
    assert faintest(schedule, distance) == times[0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_nearly_all_of_the_gradient_lies_there(schedule: Schedule) -> None:
    """At other times the estimate does not depend on the noise: it is the mean of all pictures, or the picture."""
    images = pictures(8, shape=(3, 8, 8))
    model = Mixture(images, schedule=schedule)
    x_0 = model.points[:1]
    distance = (x_0 - model.points.mean(dim=0, keepdim=True)).norm().item()
    times = schedule.grid(1000)[:-1]
    n = torch.randn((len(times), *x_0.shape[1:]), generator=Generator().manual_seed(0)).requires_grad_()
    alpha_t, sigma_t = (level.view(-1, 1, 1, 1) for level in schedule(times))
    loss = (model.predict_x0(alpha_t * x_0 + sigma_t * n, times, {}) - x_0).square().sum()
    (gradient,) = torch.autograd.grad(loss, n)
    size = gradient.flatten(1).square().sum(dim=1)
    inside = torch.isin(times, informative(schedule, distance))
    assert size[inside].sum() / size.sum() > 0.98
    assert inside.float().mean() < 0.8


def test_where_none_is_informative_the_noisiest_is_taken() -> None:
    assert informative(linear_schedule(), 1e6).tolist() == [999]
    assert faintest(linear_schedule(), 1e-9) == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_samples_are_decided_half_way_at_the_earliest_and_once_the_image_stands_out(schedule: Schedule) -> None:
    times = schedule.grid(10)
    for distance in (0.5, 4.0, 8.0, 1000.0):
        step = first_decided(schedule, distance, 10)
        assert 5 <= step <= 10
        alpha_t, sigma_t = schedule(times)
        signal = distance * alpha_t / sigma_t
        assert step == 10 or signal[step] >= DECIDED
        assert step == 5 or signal[step - 1] < DECIDED
    assert first_decided(schedule, 0.5, 10) > first_decided(schedule, 1000.0, 10) == 5


def test_each_time_is_drawn_about_equally_often() -> None:
    times = torch.tensor([3, 7, 900])
    found = drawn(times, 3000, Generator().manual_seed(1))
    assert all(abs((found == t).sum().item() - 1000) < 130 for t in times)
