"""A scheduler that reads what a pipeline hands to its scheduler.

By then the pipeline has settled every convention of its family: sign, scale of the time, packing, lists, learned
variance. What ``step`` receives is the network's output in the scheduler's own convention.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from diffusers import SCMScheduler
from torch import Tensor


class Done(BaseException):
    """Ends a pipeline's call once it has given what was wanted."""

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.value = value


class Step(NamedTuple):
    """What a scheduler's ``step`` returns, by index and by name."""

    prev_sample: Tensor
    denoised: Tensor


class Probe:
    """Stands in for a pipeline's scheduler, which is not changed.

    Args:
        scheduler: The pipeline's scheduler, for its config and for everything else that a pipeline may ask it.
        timesteps: One entry for each step: numbers ``(steps,)``, or ``(1, n)`` for one step with a time for each row.
        step: Returns the next sample for a network's output, a time and a sample.
        scale: Returns what the network gets for a sample.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(
        self,
        scheduler: Any,
        timesteps: Tensor,
        step: Callable[[Tensor, Tensor, Tensor], Tensor],
        scale: Callable[[Tensor, Tensor], Tensor] = lambda sample, t: sample,  # noqa: ARG005
    ) -> None:
        self._scheduler = scheduler
        self._step = step
        self._scale = scale
        self._unit = 1.0
        if isinstance(scheduler, SCMScheduler):
            # Pipelines multiply the noise by this at first and divide by it at last, and leave the last time out.
            self._unit = scheduler.config.sigma_data
            timesteps = torch.cat([timesteps, torch.zeros_like(timesteps[:1])])
        self.timesteps = timesteps
        self.sigmas = torch.linspace(1, 0, len(timesteps) + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def set_timesteps(
        self, num_inference_steps: Any = None, device: Any = None, timesteps: Any = None, sigmas: Any = None, **_: Any
    ) -> None:
        """Keeps the times that were given; the parameters are those that pipelines look for."""

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Nothing to set."""

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """What the network gets."""
        return self._scale(sample, timestep)

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, *_: Any, **__: Any) -> Step:
        """The next sample."""
        following = self._step(model_output / self._unit, timestep, sample / self._unit) * self._unit
        return Step(following, following)


class Repeated:
    """Stands in for a denoiser in float32: answers every call with one output.

    Args:
        network: The denoiser, which answers for everything but calls.
        output: What it returned once.
    """

    dtype = torch.float32

    def __init__(self, network: Any, output: Any) -> None:
        self._network = network
        self._output = _as(output, torch.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *_: Any, **__: Any) -> Any:
        """The output."""
        return self._output


def _as(tree: Any, dtype: torch.dtype) -> Any:
    """A tensor, a list, a tuple or an output of tensors with its floating-point numbers in a precision."""
    if isinstance(tree, Tensor):
        return tree.to(dtype) if tree.is_floating_point() else tree
    if isinstance(tree, Mapping):
        return type(tree)(**{name: _as(part, dtype) for name, part in tree.items()})
    return type(tree)([_as(part, dtype) for part in tree]) if isinstance(tree, list | tuple) else tree
