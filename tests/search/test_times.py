"""The informative times, against the model whose best denoiser is known."""

import pytest
import torch
from torch import Generator

from invmm_eval.models.schedule import Schedule
from invmm_eval.search.times import CLEAREST, DECIDED, FAINTEST, FORESEEN, faintest, informative, least_cosines
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
    assert faintest(linear_schedule(), 1e6) == 999


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_samples_are_given_up_once_the_image_stands_out_and_two_steps_later(schedule: Schedule) -> None:
    alpha_t, sigma_t = schedule(schedule.grid(10))
    for distance in (0.5, 4.0, 8.0, 1000.0):
        signal = distance * alpha_t / sigma_t
        least = least_cosines(schedule, distance, 10, 0.6)
        assert least == pytest.approx({step: 0.6 * min(1.0, float(signal[step]) / DECIDED) for step in least})
        assert all(signal[step] >= FORESEEN for step in least)
        first = min(least, default=9)
        assert first == 4 or signal[min(first, 9) - 1] < FORESEEN
        assert list(least) == [step for step in (first, first + 2) if step < 9]
    assert least_cosines(schedule, 1000.0, 10, 0.6) == {4: 0.6, 6: 0.6}


@pytest.mark.parametrize(("steps", "expected"), [(1, []), (2, []), (3, []), (4, [2]), (5, [2]), (50, [20, 22])])
def test_no_sample_is_given_up_at_the_last_step(steps: int, expected: list[int]) -> None:
    assert list(least_cosines(linear_schedule(), 1000.0, steps, 0.6)) == expected
