"""The times of a pipeline, read from its scheduler: rectified flows, discrete times, and the scales of EDM."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    SCMScheduler,
)
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.few_steps import whole_times
from invmm_eval.models.pipelines import discrete
from invmm_eval.models.schedule import RectifiedFlow, Schedule, broadcast, uniform, x0_from_flow

_FLOWS = ("SanaPipeline",)
"""Pipelines of rectified flows that declare a scheduler which reads other networks too."""
_FLOW_SCHEDULERS = (FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler)


@dataclass(frozen=True)
class Times:
    """How a pipeline's scheduler noises and reads a network.

    Attributes:
        schedule: Times and noise levels.
        scheduler_time: The scheduler's time for a time of the schedule.
        scaled: What the network gets for ``x_t`` at times ``t``.
        x_0: The estimate, from the network's output, ``x_t`` and ``t``.
        clip: See :attr:`invmm_eval.models.backbone.Backbone.clip`.
        own: The times of the schedule that a scheduler has, which is set for a number of steps.
    """

    schedule: Schedule
    scheduler_time: Callable[[Tensor], Tensor]
    x_0: Callable[[Tensor, Tensor, Tensor], Tensor]
    scaled: Callable[[Tensor, Tensor], Tensor] = lambda x_t, t: x_t  # noqa: ARG005
    clip: float | None = None
    own: Callable[[Any], Tensor] = lambda scheduler: scheduler.sigmas[: len(scheduler.timesteps)].float()


def read_times(scheduler: Any, device: torch.device, ready: Callable[[int], Any]) -> Times:
    """Read a scheduler.

    Args:
        scheduler: The pipeline's scheduler.
        device: Device of the times.
        ready: Returns a copy of the scheduler as the pipeline sets it for a number of steps, which notes as ``scaled``
            whether the pipeline let it scale what the network gets.

    Raises:
        InvMMError: Its noise levels or what its network predicts are not known, or the pipeline does not use it as it
            must be used.
    """
    config, name = scheduler.config, type(scheduler).__name__
    own = signature(type(scheduler)).parameters
    if foreign := [key for key in ("beta_start", "shift") if key in config and key not in own]:
        raise InvMMError(
            f"The model's {name} was made from the config of a scheduler of another kind ({foreign[0]}), and does not "
            "say what the network predicts; give the pipeline the scheduler that the model was trained with."
        )
    if getattr(scheduler, "init_noise_sigma", 1) != 1 and not ready(2).scaled:
        raise InvMMError(
            f"The model's {name} must scale what its network gets, which its pipeline does not do; give the pipeline "
            "the scheduler that the model was trained with."
        )
    if isinstance(scheduler, EDMEulerScheduler | EDMDPMSolverMultistepScheduler):
        return _edm(scheduler, device, ready)
    if isinstance(scheduler, CMStochasticIterativeScheduler):
        return _consistency(scheduler, device)
    if isinstance(scheduler, SCMScheduler):
        return _trigonometric(device)
    flow = isinstance(scheduler, _FLOW_SCHEDULERS) or (
        config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas")
    )
    return _flow(scheduler, device, ready) if flow else _discrete(scheduler, device)


def _discrete(scheduler: Any, device: torch.device) -> Times:
    if thresholding := scheduler.config.get("thresholding"):
        scheduler = type(scheduler).from_config(scheduler.config, thresholding=False)
    read = discrete(scheduler, device)
    # Dynamic thresholding clips to a quantile that is at least 1.
    return Times(read.schedule, lambda t: t, read.x_0, clip=1.0 if thresholding else read.clip, own=whole_times)


def _flow(scheduler: Any, device: torch.device, ready: Callable[[int], Any]) -> Times:
    config = scheduler.config
    if config.get("invert_sigmas"):
        raise InvMMError(f"The time of the model's {type(scheduler).__name__} runs from noise to data.")
    train_times = config.num_train_timesteps

    def levels(steps: int) -> Tensor:
        sigmas: Tensor = ready(steps).sigmas
        return sigmas.float()

    # The training levels under the shift with which the pipeline samples.
    evenly = torch.arange(train_times, 0, -1, dtype=torch.float32) / train_times
    own = type(scheduler).from_config(config)
    if not isinstance(own, _FLOW_SCHEDULERS):
        shift = config.get("flow_shift") or 1.0
        sigmas = shift * evenly / (1 + (shift - 1) * evenly)
    elif config.use_dynamic_shifting:
        with np.errstate(invalid="ignore"):  # one step cannot be stretched to a last level
            shift = ready(1).mu
        sigmas = own.time_shift(shift, 1.0, own.sigmas)
    else:
        sigmas = own.sigmas
    return Times(
        RectifiedFlow(sigmas.to(device), levels),
        lambda t: t * train_times,
        lambda output, x_t, t: x0_from_flow(output, x_t, x_t, broadcast(t, x_t)),
    )


def check_kind(kind: Any, scheduler: Any, schedule: Schedule) -> None:
    """A pipeline for rectified flows has the scheduler of one, whatever the scheduler says.

    Raises:
        InvMMError: The pipeline class ``kind`` is for rectified flows, and the scheduler's ``schedule`` is not of one.
    """
    declared = kind._get_signature_types().get("scheduler")
    of_flows = declared == (FlowMatchEulerDiscreteScheduler,) or kind.__name__ in _FLOWS
    if of_flows and not isinstance(schedule, RectifiedFlow):
        raise InvMMError(
            f"The networks of a {kind.__name__} are rectified flows, and its {type(scheduler).__name__} reads this one "
            f"as predicting {scheduler.config.get('prediction_type')!r}; give the pipeline the scheduler that the "
            "model was trained with."
        )


class Exploding:
    """Noise levels ``s`` of ``y = x_0 + s n`` as times, rescaled to unit variance; 0 is clean.

    Args:
        table: The training levels, above 0.
        levels: The sampling levels for a number of steps, falling, without 0.
    """

    def __init__(self, table: Tensor, levels: Callable[[int], Tensor]) -> None:
        self._table = table.cpu()
        self._device = table.device
        self._levels = levels

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``1 / sqrt(1 + s^2)`` and ``s / sqrt(1 + s^2)``."""
        alpha_t = (1 + t**2).rsqrt()
        return alpha_t, t * alpha_t

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Uniform over the table."""
        return uniform(self._table, n, generator)

    def grid(self, steps: int) -> Tensor:
        """The sampling levels, then the clean one."""
        levels = self._levels(steps).to(self._device)
        return torch.cat([levels, levels.new_zeros(1)])


def _scaled(data: float, x_t: Tensor, t: Tensor) -> Tensor:
    """What the network gets, for data of this standard deviation."""
    s = broadcast(t, x_t)
    factor: Tensor = ((1 + s**2) / (s**2 + data**2)).sqrt()
    return x_t * factor


def _of_exploding(data: float, least: float, sign: int, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The estimate of x_0, which is the data at the level ``least``."""
    s = broadcast(t, x_t)
    kept = data**2 / ((s - least) ** 2 + data**2)
    estimate: Tensor = kept * x_t * (1 + s**2).sqrt() + sign * (s - least) * data / (s**2 + data**2).sqrt() * output
    return estimate


def _edm(scheduler: Any, device: torch.device, ready: Callable[[int], Any]) -> Times:
    """Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", table 1."""
    config = scheduler.config
    data: float = config.sigma_data

    def levels(steps: int) -> Tensor:
        sigmas: Tensor = ready(steps).sigmas
        return sigmas[sigmas > 0].float()

    sign = -1 if config.prediction_type == "v_prediction" else 1
    table = type(scheduler).from_config(config).sigmas
    schedule = Exploding(table[table > 0].float().to(device), levels)
    return Times(schedule, lambda t: 0.25 * t.log(), partial(_of_exploding, data, 0.0, sign), partial(_scaled, data))


def _consistency(scheduler: Any, device: torch.device) -> Times:
    """Song et al. 2023, "Consistency Models", appendix C."""
    config = scheduler.config
    data, least = float(config.sigma_data), float(config.sigma_min)

    def levels(steps: int) -> Tensor:
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1)
        return torch.from_numpy(scheduler._convert_to_karras(ramp.numpy())).float()

    table = levels(config.num_train_timesteps).to(device)
    clip = 1.0 if config.clip_denoised else None
    x_0, scaled = partial(_of_exploding, data, least, 1), partial(_scaled, data)
    return Times(Exploding(table, levels), lambda t: 250 * t.log(), x_0, scaled, clip)


class Trigonometric:
    """Angles from 0 to pi / 2 as times, ``alpha_t = cos(t)`` and ``sigma_t = sin(t)``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``cos(t)`` and ``sin(t)``; what rounding leaves of the noisiest is 0."""
        return t.cos().clamp(min=0), t.sin()

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Uniform over the angles."""
        return torch.rand(n, generator=generator, device=generator.device) * torch.pi / 2

    def grid(self, steps: int) -> Tensor:
        """Evenly spaced angles from the noisiest on."""
        return torch.linspace(torch.pi / 2, 0, steps + 1, device=self._device)


def _trigonometric(device: torch.device) -> Times:
    """Lu and Song 2024, "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models", section 4.1."""

    def x_0(output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        t = broadcast(t, x_t)
        return t.cos() * x_t - t.sin() * output

    return Times(Trigonometric(device), lambda t: t, x_0, own=lambda scheduler: scheduler.timesteps[:-1])
