"""How data is noised, and how a network's output is converted to an estimate of x_0.

All families of models noise by ``x_t = alpha_t * x_0 + sigma_t * n`` with standard normal ``n``. Variance
preserving models (DDPM, LDM, Stable Diffusion 1, 2 and XL) have ``alpha_t^2 + sigma_t^2 = 1`` on discrete times
(Ho et al. 2020, "Denoising Diffusion Probabilistic Models", equation 4); rectified flows (Stable Diffusion 3, Flux)
have ``alpha_t = 1 - t`` and ``sigma_t = t`` (Liu et al. 2022, "Flow Straight and Fast").
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from invmm_eval.device import to_device
from invmm_eval.errors import InvMMError


class Schedule(Protocol):
    """The times of a model and their noise levels."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha_t`` and ``sigma_t``, float32, in the shape and on the device of ``t``."""
        ...

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Draw ``n`` training times, shape ``(n,)``, on the generator's device."""
        ...

    def grid(self, steps: int) -> Tensor:
        """Distinct sampling times from the noisiest to the clean one: ``steps + 1``, or all if there are fewer."""
        ...


class VariancePreserving:
    """Discrete times from ``0`` to ``T - 1``; the time -1 is clean (``alpha = 1``, ``sigma = 0``).

    Args:
        alphas_cumprod: Products of ``1 - beta``, shape ``(T,)``, in [0, 1), falling.

    Raises:
        InvMMError: They are not, so that there is no time, one without noise, or one that cannot be computed.
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        _check_table(alphas_cumprod)
        if not alphas_cumprod.isfinite().all() or (alphas_cumprod < 0).any() or (alphas_cumprod.diff() > 0).any():
            raise InvMMError(
                "The noise levels of the model's scheduler are not finite, negative, or do not rise; give the pipeline "
                "the scheduler that the model was trained with."
            )
        if (alphas_cumprod >= 1).any():
            raise InvMMError(
                f"The model's scheduler adds no noise at time {int((alphas_cumprod >= 1).sum()) - 1} (its betas are 0 "
                "until there); give the pipeline the scheduler that the model was trained with."
            )
        products = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod]).double()
        self._alpha = products.sqrt().float()
        self._sigma = (1 - products).sqrt().float()

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``sqrt`` of the product and of one minus it, at integer times in [-1, T-1]."""
        # take, since brackets read an index of no dimensions on the host, which waits for the device.
        return self._alpha.take(t + 1), self._sigma.take(t + 1)

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Uniform over the T training times."""
        return torch.randint(len(self._alpha) - 1, (n,), generator=generator, device=generator.device)

    def grid(self, steps: int) -> Tensor:
        """Evenly spaced from T-1 down to the clean time -1, rounded to integers; T steps at most, one for each time."""
        last = len(self._alpha) - 2
        steps = min(steps, last + 1)
        times = torch.linspace(last, -1, steps + 1, dtype=torch.float64).round().long()
        return to_device(times, self._alpha.device)


class RectifiedFlow:
    """The straight path from data (``t = 0``) to noise (``t = 1``).

    Args:
        sigmas: The model's training noise levels in (0, 1], in any order, with the scheduler's shift applied.
        levels: Returns the ``steps + 1`` sampling noise levels for a number of steps, falling from 1 to 0; None takes
            evenly spaced ones.

    Raises:
        InvMMError: There is no training noise level, or one is out of range.
    """

    def __init__(self, sigmas: Tensor, levels: Callable[[int], Tensor] | None = None) -> None:
        _check_table(sigmas)
        if not (sigmas.isfinite().all() and (sigmas > 0).all() and (sigmas <= 1).all()):
            raise InvMMError(
                "The noise levels of the model's scheduler are not all in (0, 1]; check its shift, and give the "
                "pipeline the scheduler that the model was trained with."
            )
        self._sigmas = sigmas.float().cpu()
        self._device = sigmas.device
        self._levels = levels or (lambda steps: torch.linspace(1, 0, steps + 1))

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``1 - t`` and ``t``."""
        return 1 - t, t

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Uniform over the training noise levels."""
        return uniform(self._sigmas, n, generator)

    def grid(self, steps: int) -> Tensor:
        """The sampling noise levels."""
        return to_device(self._levels(steps), self._device)


def uniform(times: Tensor, n: int, generator: Generator) -> Tensor:
    """``n`` of the times, each equally likely, on the generator's device.

    Args:
        times: On the CPU, where most generators are, so that no step of a search waits for the device.
        n: How many.
        generator: The random numbers.
    """
    index = torch.randint(len(times), (n,), generator=generator, device=generator.device)
    return times.to(generator.device)[index]


def _check_table(levels: Tensor) -> None:
    """Check that a table of noise levels is a row of numbers."""
    if levels.ndim != 1 or not len(levels):
        raise InvMMError(
            f"The noise levels of the model's scheduler are no list of numbers, one for each time: their shape is "
            f"{tuple(levels.shape)}; give the pipeline the scheduler that the model was trained with."
        )


Conversion = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(output, x_t, alpha_t, sigma_t) -> x_0`` with the two levels broadcastable to ``x_t``."""


def x0_from_noise(output: Tensor, x_t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Tensor:
    """``(x_t - sigma_t * n) / alpha_t`` for a network that predicts the noise ``n``."""
    return (x_t - sigma_t * output) / alpha_t


def x0_from_velocity(output: Tensor, x_t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Tensor:
    """``alpha_t * x_t - sigma_t * v`` (Salimans and Ho 2022, "Progressive Distillation", appendix D)."""
    return alpha_t * x_t - sigma_t * output


def x0_from_sample(output: Tensor, x_t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Tensor:  # noqa: ARG001
    """The output itself, for a network that predicts the clean sample."""
    return output


def x0_from_flow(output: Tensor, x_t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Tensor:  # noqa: ARG001
    """``x_t - sigma_t * u`` for a network that predicts the flow ``u = n - x_0``."""
    return x_t - sigma_t * output


X0_FROM: dict[str, Conversion] = {
    "epsilon": x0_from_noise,
    "v_prediction": x0_from_velocity,
    "sample": x0_from_sample,
    "flow_prediction": x0_from_flow,
}
"""The conversions, by the prediction types of diffusers' schedulers."""


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """``values`` of shape ``(n,)`` reshaped to ``(n, 1, ..., 1)`` with as many dimensions as ``like``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Discrete:
    """The properties of a model that a diffusers scheduler with discrete times defines.

    Attributes:
        schedule: Its times and noise levels.
        x0_from: Converts the network's output to x_0.
        clip: See :attr:`Backbone.clip`.
    """

    schedule: VariancePreserving
    x0_from: Conversion
    clip: float | None

    def x_0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The estimate, from the network's output, ``x_t`` and its times ``(n,)``."""
        alpha_t, sigma_t = (broadcast(level, x_t) for level in self.schedule(t))
        return self.x0_from(output, x_t, alpha_t, sigma_t)
