"""Proximal initialization (PIA): a training image is denoised consistently along its own noise.

With ``n_0`` the noise that the model sees in the clean image,

    score = -|noise_hat(alpha_t x_0 + sigma_t n_0, t) - n_0|_4

Kong et al. 2024, "An Efficient Membership Inference Attack for the Diffusion Model by Proximal Initialization",
equation 9.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.screening.estimates import Options, contexts, estimate, time_at
from invmm_eval.search.target import Target


@dataclass(frozen=True)
class Proximal(Options):
    """The negative proximal error, in the 4-norm over dimensions.

    Attributes:
        share: The time, in (0, 1], as a share of the way from clean to noisiest; the paper's is 0.2.
    """

    name = "pia"
    rows = 2

    share: float = 0.2

    def __call__(
        self, backbone: Backbone, x_0: Tensor, targets: Sequence[Target], *, seed: int, micro_batch: int
    ) -> Tensor:
        """Scores ``(n,)``, at most 0."""
        context = contexts(backbone, targets, 1, seed)
        _, n_0 = estimate(backbone, x_0, backbone.schedule.grid(1000)[-2], context, micro_batch)
        t = time_at(backbone.schedule, self.share)
        alpha_t, sigma_t = backbone.schedule(t)
        _, n_t = estimate(backbone, alpha_t * x_0 + sigma_t * n_0, t, context, micro_batch)
        error: Tensor = torch.linalg.vector_norm((n_t - n_0).flatten(1), ord=4, dim=1)
        return -error
