"""Variance exploding score models: Song et al. 2021, "Score-Based Generative Modeling through SDEs".

Data ``x_0`` in [0, 1] are noised by ``y_t = x_0 + s_t * n`` with ``s_t = s_min * (s_max / s_min)^t``, and the network
estimates the score of ``y_t``, whose mean over ``x_0`` is ``(x_0 - y_t) / s_t^2``. Divided by the spread that unit data
would have, the same path keeps its variance and ends in the standard normal noise that invmm_eval starts from:

    x_t = alpha_t * y_t = alpha_t * x_0 + sigma_t * n,   alpha_t = 1 / sqrt(1 + s_t^2),   sigma_t = s_t * alpha_t
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from diffusers import ScoreSdeVePipeline
from torch import Generator, Tensor

from invmm_eval.plugin import (
    DDPM,
    Condition,
    Context,
    InvMMError,
    Recipe,
    Unconditional,
    broadcast,
    frozen,
    image_sides,
    load_pipeline,
)


class VarianceExploding:
    """Continuous times in [eps, 1]; the time 0 is clean (``alpha = 1``, ``sigma = 0``).

    Args:
        s_min: What ``s_t`` tends to at the time 0.
        s_max: ``s_t`` at the time 1.
        eps: The least time at which the network is asked, above 0.
        device: Where the sampling times are.
    """

    def __init__(self, s_min: float, s_max: float, eps: float, device: torch.device) -> None:
        self._s_min = s_min
        self._ratio = s_max / s_min
        self._eps = eps
        self._device = device

    def s(self, t: Tensor) -> Tensor:
        """The spread of the noise in ``y_t``, in the shape of ``t``; 0 at the clean time."""
        return torch.where(t > 0, self._s_min * self._ratio**t, 0.0)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``1 / sqrt(1 + s_t^2)`` and ``s_t / sqrt(1 + s_t^2)``."""
        s_t = self.s(t)
        alpha_t = (1 + s_t**2).rsqrt()
        return alpha_t, s_t * alpha_t

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Uniform over [eps, 1]."""
        return self._eps + (1 - self._eps) * torch.rand(n, generator=generator, device=generator.device)

    def grid(self, steps: int) -> Tensor:
        """Evenly spaced from 1 to eps as in the model's own scheduler, then the clean time."""
        times = torch.linspace(1, self._eps, steps, device=self._device)
        return torch.cat([times, times.new_zeros(1)])


class ScoreSDE:
    """A ScoreSdeVePipeline as a backbone.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Where to compute; a loaded pipeline stays where it is.
        dtype: Precision of the network; x_0 is float32 in any case. A loaded pipeline keeps its own.

    Raises:
        InvMMError: The pipeline cannot be loaded, or it is of another class.
    """

    def __init__(
        self,
        model: object,
        *,
        revision: str | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        pipeline = load_pipeline(model, revision=revision, device=device, dtype=dtype)
        if not isinstance(pipeline, ScoreSdeVePipeline):
            raise InvMMError(f"The backbone score-sde-ve takes a ScoreSdeVePipeline, not a {type(pipeline).__name__}.")
        self._unet = frozen(pipeline.unet)
        self.device: torch.device = self._unet.device
        levels = pipeline.scheduler.config
        self.schedule = VarianceExploding(levels.sigma_min, levels.sigma_max, levels.sampling_eps, self.device)
        self.recipe: Recipe = replace(DDPM, name="score-sde-ve")
        self.settings: Mapping[str, str | int | float | None] = {"name": "score-sde-ve", "dtype": str(self._unet.dtype)}
        self.clip: float | None = None
        self.image_shape: tuple[int, int, int] = (self._unet.config.in_channels, *image_sides(self._unet))

    def encode(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images

    def decode(self, x_0: Tensor) -> Tensor:
        """``x_0`` clipped to [0, 1]."""
        return x_0.clamp(0, 1)

    def condition(self, caption: str | None = None) -> Condition:  # noqa: ARG002
        """None is taken."""
        return Unconditional()

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:  # noqa: ARG002
        """``y_t + s_t^2 * score``, the posterior mean by Tweedie's formula."""
        s_t = self.schedule.s(t)
        spread = broadcast(s_t, x_t)
        y_t = x_t * (1 + spread**2).sqrt()
        score: Tensor = self._unet(y_t.to(self._unet.dtype), s_t).sample.float()
        return y_t + spread**2 * score
