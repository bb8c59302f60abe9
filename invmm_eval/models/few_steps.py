"""Models that are made for few steps, which sample by their own scheduler.

Estimates of a distilled network (consistency models, LCM, Turbo, Lightning, schnell) are good at the few times that it
was made for, and it is used with a scheduler that goes from one of them to the next. Where that scheduler keeps nothing
between its steps, the next sample is linear in the estimate of x_0, the sample and, where it is stochastic, new noise:

    x_s = alpha * x_0 + sigma * (x_t - alpha_t * x_0) / sigma_t + fresh * z,   z ~ N(0, I)

DDIM has alpha = alpha_s, sigma = sigma_s and fresh = 0, LCM has sigma = 0 and fresh = sigma_s, and ancestral samplers
lie between. The three numbers are read off the scheduler itself, so that no scheduler is known by name.
"""

import copy
import logging
import math
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from diffusers import SCMScheduler
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.pipelines import first_line
from invmm_eval.models.schedule import Schedule, uniform
from invmm_eval.recipe import Recipe

_log = logging.getLogger(__name__)

_STEPS = 4
_MOST = 8
"""The default of a pipeline's steps up to which it is one for few steps."""
_SCHEDULERS = (
    "LCMScheduler",
    "TCDScheduler",
    "FlowMatchLCMScheduler",
    "CMStochasticIterativeScheduler",
    "SCMScheduler",
)
_DISTILLED = {"Flux2KleinPipeline": 4, "Krea2Pipeline": 8}
"""Steps of pipelines whose config tells the distilled model from the other (``is_distilled``)."""
_EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
_SAME = 1e-3


class OwnStep(NamedTuple):
    """One step of a model's own scheduler, see above.

    Attributes:
        t: The time from which it goes, of the backbone's schedule.
        alpha: How much of the estimate of x_0 is kept.
        sigma: How much of the noise that the estimate implies.
        fresh: How much new noise is added.
    """

    t: float
    alpha: float
    sigma: float
    fresh: float


class OwnPath(NamedTuple):
    """How a model's own scheduler samples: ``x_t = start * n`` at first, then these steps."""

    start: float
    steps: tuple[OwnStep, ...]


class FewTimes:
    """The times of a model that is made for few: it is asked at no others.

    Args:
        schedule: The noise levels.
        times: From the noisiest on, without the clean one.
    """

    def __init__(self, schedule: Schedule, times: Sequence[float]) -> None:
        clean = schedule.grid(1)[-1:]
        self._schedule = schedule
        self._grid = torch.cat([clean.new_tensor(times), clean])
        self._times = self._grid[:-1].cpu()

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the schedule."""
        return self._schedule(t)

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Uniform over the times."""
        return uniform(self._times, n, generator)

    def grid(self, steps: int) -> Tensor:  # noqa: ARG002
        """All times, then the clean one."""
        return self._grid


def few_steps_of(pipeline: Any, given: int | None, default: int | None = None) -> int:
    """In how many steps a model samples that is made for few; 0 for others.

    Schedulers that are set as those of Turbo and Lightning give a warning: nothing else marks these models.

    Args:
        pipeline: The pipeline.
        given: What the user says; None leaves it to the pipeline's scheduler and config.
        default: What the family of the pipeline says.

    Raises:
        InvMMError: What is given is no number of steps.
    """
    if given is not None:
        if type(given) is not int or given < 0:
            raise InvMMError(f"few_steps is {given!r}; give a number of steps, or 0 for a model of many.")
        return given
    scheduler, config = pipeline.scheduler, pipeline.scheduler.config
    if default or pipeline.config.get("is_distilled"):
        return default or _DISTILLED.get(type(pipeline).__name__, _STEPS)
    if type(scheduler).__name__ in _SCHEDULERS or config.get("stochastic_sampling"):
        steps: int = signature(type(pipeline).__call__).parameters["num_inference_steps"].default
        return steps if steps <= _MOST else _STEPS
    if type(scheduler).__name__ in _EULER and config.timestep_spacing == "trailing":
        _log.warning(
            "The model's %s has trailing times, as those of models that are made for few steps (Turbo, Lightning, "
            "Hyper); if it is one, say in how many steps it samples, by the backbone option few_steps=4, or 0 if not.",
            type(scheduler).__name__,
        )
    return 0


def by_itself(recipe: Recipe, steps: int, guidance: tuple[float, ...]) -> Recipe:
    """A recipe whose samples the model's own scheduler makes."""
    return recipe.changed(sampler="own", sampler_steps=steps, guidance=guidance, clip="model")


def whole_times(scheduler: Any) -> Tensor:
    """The times of a scheduler with discrete ones, which is set for a number of steps.

    Raises:
        InvMMError: They are not all whole numbers.
    """
    times: Tensor = scheduler.timesteps
    if not torch.equal(times, times.round()):
        raise InvMMError(
            f"The model's {type(scheduler).__name__} samples at times between those of its training "
            f"({scheduler.config.get('timestep_spacing')}); give it timestep_spacing='trailing'."
        )
    return times.long()


class OwnSampler:
    """How a pipeline samples by its own scheduler, which is read once for each number of steps.

    Args:
        pipeline: The pipeline.
        ready: Returns a copy of its scheduler as it sets it for a number of steps.
        times: The times of the schedule that such a scheduler has.
        schedule: The noise levels.
        x_0: The estimate, from the network's output, x_t and the time.
        device: Device of the times.
    """

    def __init__(
        self,
        pipeline: Any,
        ready: Callable[[int], Any],
        times: Callable[[Any], Tensor],
        schedule: Schedule,
        x_0: Callable[[Tensor, Tensor, Tensor], Tensor],
        device: torch.device,
    ) -> None:
        self._name = type(pipeline).__name__
        self._ready = ready
        self._times = times
        self._schedule = schedule
        self._x_0 = x_0
        self._takes = signature(type(pipeline).__call__).parameters
        self._device = device
        self._paths: dict[int, OwnPath] = {}

    def __call__(self, steps: int) -> OwnPath:
        """The path of a number of steps.

        Raises:
            InvMMError: The scheduler keeps earlier estimates, samples at times between those of its training, or not in
                so many steps.
        """
        if steps not in self._paths:
            try:
                scheduler = self._ready(steps)
            except ValueError as error:
                raise InvMMError(f"This {self._name} does not sample in {steps} steps: {first_line(error)}.") from error
            times = self._times(scheduler).to(self._device)
            self._paths[steps] = _read_path(scheduler, times, self._schedule, self._x_0, self._takes)
        return self._paths[steps]


def _read_path(
    scheduler: Any,
    times: Tensor,
    schedule: Schedule,
    x_0: Callable[[Tensor, Tensor, Tensor], Tensor],
    takes: Container[str],
) -> OwnPath:
    """Read the steps of a scheduler off the scheduler.

    Args:
        scheduler: A copy, as the pipeline sets it for a number of steps.
        times: The times of its steps in the schedule, ``(steps,)``.
        schedule: The noise levels.
        x_0: The estimate, from the network's output, x_t and the time.
        takes: Parameters of the pipeline's call. Where ``eta`` is one, which steps take, its default is 0.

    Raises:
        InvMMError: The scheduler keeps something between its steps, or is not linear.
    """
    given = {"eta": 0.0} if "eta" in takes and "eta" in signature(scheduler.step).parameters else {}
    # Clipping is the sampler's, by the backbone.
    scheduler.register_to_config(clip_sample=False, thresholding=False, clip_denoised=False)
    levels = [(alpha.item(), sigma.item()) for alpha, sigma in zip(*schedule(times), strict=True)]
    start, units = _units(scheduler, [alpha for alpha, _ in levels])
    one, zero = torch.ones(1, device=times.device), torch.zeros(1, device=times.device)
    z = torch.randn(1, generator=Generator().manual_seed(0)).item()
    used = copy.deepcopy(scheduler)
    steps = []
    for index, (t, (alpha_t, sigma_t)) in enumerate(zip(times, levels, strict=True)):
        step = partial(_step, time=scheduler.timesteps[index], unit=units[index], given=given)
        of_output, of_sample, of_both = (
            step(copy.deepcopy(scheduler), *each) for each in ((one, zero), (zero, one), (one, one))
        )
        # This one sees zeros, the other ones.
        of_noise, other = step(scheduler, zero, zero), step(used, one, one)
        sum_of_parts = of_output + of_sample - of_noise
        if not all(math.isclose(of_both, same, rel_tol=_SAME, abs_tol=_SAME) for same in (sum_of_parts, other)):
            raise InvMMError(
                f"The model's {type(scheduler).__name__} keeps earlier estimates between its steps, so these cannot be "
                "read; give the pipeline the scheduler with which models of few steps are used (LCM, TCD, Euler, DDIM)."
            )
        from_x_t, from_output = (x_0(*each, t[None]).item() for each in ((zero, one), (one, zero)))
        of_x_0 = (of_output - of_noise) / from_output
        of_x_t = of_sample - of_noise - of_x_0 * from_x_t
        following = ((of_x_0 + of_x_t * alpha_t), of_x_t * sigma_t, of_noise / z)
        steps.append(OwnStep(t.item(), *(level / units[index + 1] for level in following)))
    return OwnPath(start, tuple(steps))


def _units(scheduler: Any, alphas: list[float]) -> tuple[float, list[float]]:
    """What the scheduler's noise is multiplied by at first, and its samples by at each time and at the end."""
    if isinstance(scheduler, SCMScheduler):
        return 1.0, [float(scheduler.config.sigma_data)] * (len(alphas) + 1)
    first = float(getattr(scheduler, "init_noise_sigma", 1))
    if first == 1:
        return 1.0, [1.0] * (len(alphas) + 1)
    return first * alphas[0], [*(1 / alpha for alpha in alphas), 1.0]  # its samples are x_0 + s n


def _step(scheduler: Any, output: Tensor, x_t: Tensor, *, time: Tensor, unit: float, given: Mapping[str, Any]) -> float:
    """The next sample by a scheduler, for single numbers and always the same new noise."""
    sample = (x_t * unit).reshape(1, 1, 1, 1)
    output = (output * unit if isinstance(scheduler, SCMScheduler) else output).reshape(1, 1, 1, 1)
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(sample, time)
    if "generator" in signature(scheduler.step).parameters:
        given = {**given, "generator": Generator().manual_seed(0)}
    return float(scheduler.step(output, time, sample, **given)[0])
