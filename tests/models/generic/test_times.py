"""Times and estimates, compared with diffusers' own schedulers."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Generator

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.times import Times, read_times
from invmm_eval.models.schedule import broadcast

CPU = torch.device("cpu")


def read(scheduler: Any, scaled: bool = True) -> Times:
    def ready(steps: int) -> Any:
        own = type(scheduler).from_config(scheduler.config)
        own.set_timesteps(steps)
        own.mu, own.scaled = None, scaled
        return own

    return read_times(scheduler, CPU, ready)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_edm_scales_inputs_and_outputs_as_its_scheduler_does(prediction_type: str) -> None:
    scheduler = EDMEulerScheduler(prediction_type=prediction_type)
    times = read(scheduler)
    s = times.schedule.grid(5)[:-1]
    x_0, noise, output = torch.randn(3, len(s), 2, generator=Generator().manual_seed(0))
    y = x_0 + s[:, None] * noise
    alpha_t, sigma_t = (broadcast(level, y) for level in times.schedule(s))
    x_t = alpha_t * x_0 + sigma_t * noise
    scheduler.set_timesteps(5)
    assert torch.allclose(times.scheduler_time(s), scheduler.timesteps.float())
    for row, level in enumerate(s):
        expected = scheduler.precondition_inputs(y[row], level)
        torch.testing.assert_close(times.scaled(x_t, s)[row], expected)
        expected = scheduler.precondition_outputs(y[row], output[row], level)
        torch.testing.assert_close(times.x_0(output, x_t, s)[row], expected, atol=1e-4, rtol=1e-4)


def test_the_sampling_levels_of_a_flow_are_the_schedulers() -> None:
    for scheduler in (
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    ):
        times = read(scheduler)
        scheduler.set_timesteps(6)
        assert torch.equal(times.schedule.grid(6), scheduler.sigmas)
        drawn = times.schedule.draw(2000, Generator().manual_seed(0))
        # With the shift 3 half of the levels are above 3 * 0.5 / (1 + 2 * 0.5).
        assert drawn.median() == pytest.approx(0.75, abs=0.02)


def test_dynamic_thresholding_becomes_its_lower_limit() -> None:
    """The quantile that DDPM and DDIM clip to is never below 1."""
    assert read(DDIMScheduler(thresholding=True, sample_max_value=1.5)).clip == 1.0


def test_a_time_from_noise_to_data_is_refused() -> None:
    with pytest.raises(InvMMError, match="runs from noise to data"):
        read(FlowMatchEulerDiscreteScheduler(invert_sigmas=True))


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler(), EDMEulerScheduler()])
def test_a_scheduler_that_must_scale_the_input_needs_a_pipeline_that_lets_it(scheduler: Any) -> None:
    read(scheduler)
    with pytest.raises(InvMMError, match="must scale what its network gets"):
        read(scheduler, scaled=False)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (DDIMScheduler, FlowMatchEulerDiscreteScheduler(shift=3.0)),
        (FlowMatchEulerDiscreteScheduler, DDIMScheduler(beta_start=1e-3)),
        (EDMEulerScheduler, DDIMScheduler(beta_start=1e-3)),
    ],
)
def test_a_scheduler_made_from_a_config_of_another_kind_is_refused(kind: Any, config: Any) -> None:
    """It would predict noise by default, whatever the network predicts."""
    with pytest.raises(InvMMError, match="made from the config of a scheduler of another kind"):
        read(kind.from_config(config.config))


def test_a_flow_without_the_levels_of_flows_is_refused() -> None:
    """The levels of its table are those of a model that is no flow."""
    with pytest.raises(InvMMError, match="predicts 'flow_prediction'"):
        read(DPMSolverMultistepScheduler(prediction_type="flow_prediction"))
