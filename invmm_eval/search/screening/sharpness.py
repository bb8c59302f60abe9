"""How sharply the caption bends the log-density at pure noise: a memorized caption leads all noise to one sample.

With the scores ``s = (alpha_t x0_hat - x_t) / sigma_t^2`` close to the noisiest time, the difference ``d = s(caption) -
s(null)`` of those with and without the caption, and its Jacobian ``H`` (the difference of the log-densities' Hessians),

    score = mean |H(x_T) d(x_T)|_2

over several noises ``x_T``. Jeon et al. 2025, "Understanding and Mitigating Memorization in Generative Models via
Sharpness of Probability Landscapes", section 4. Here the product is a difference quotient, which needs two further
forward passes and no gradient. The score depends on the caption alone, not on the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.screening.estimates import Options, estimate, noises, time_at, with_and_without
from invmm_eval.search.target import Target

SHARE = 0.98
"""The time, as a share of the way to the noisiest: the first of 50 sampler steps of the authors' script. At the very
noisiest time of a rectified flow the caption changes nothing."""
STEP = 0.02
"""Length of the difference quotient's step, relative to the length of the noise."""


@dataclass(frozen=True)
class Sharpness(Options):
    """The length of the Hessian difference times the score difference.

    Attributes:
        draws: Number of noises, the same for all captions.
    """

    name = "sharpness"

    draws: int = 4

    @property
    def settings(self) -> Mapping[str, str | int | float | None]:
        """The number of noises, and the step of the difference quotient."""
        return {**super().settings, "step": STEP}

    @property
    def rows(self) -> int:
        """Four for each noise: with and without the caption, at two points."""
        return 4 * self.draws

    def __call__(
        self, backbone: Backbone, x_0: Tensor, targets: Sequence[Target], *, seed: int, micro_batch: int
    ) -> Tensor:
        """Scores ``(n,)``, at least 0.

        Raises:
            InvMMError: The model takes no prompt.
        """
        both = with_and_without(backbone, targets, self.draws, seed, self.name)
        t = time_at(backbone.schedule, SHARE)
        alpha_t, sigma_t = backbone.schedule(t)

        def difference(x_t: Tensor) -> Tensor:
            x0_hat, _ = estimate(backbone, torch.cat([x_t, x_t]), t, both, micro_batch)
            with_caption, without = x0_hat.chunk(2)
            moved: Tensor = alpha_t / sigma_t**2 * (with_caption - without)
            return moved

        x_t = noises(x_0, self.draws, seed).repeat(len(targets), *[1] * (x_0.ndim - 1))
        d = difference(x_t)
        length = torch.linalg.vector_norm(d.flatten(1), dim=1).view(-1, *[1] * (x_0.ndim - 1))
        step = STEP * torch.linalg.vector_norm(x_t.flatten(1), dim=1).view_as(length)
        product = (difference(x_t + step * d / length.clamp(min=torch.finfo(d.dtype).tiny)) - d) * length / step
        lengths: Tensor = torch.linalg.vector_norm(product.flatten(1), dim=1)
        return lengths.view(len(targets), self.draws).mean(dim=1)
