"""The denoising loss of an image against that of its mirror images, which are as complex and were not trained on.

With ``x_t = alpha_t x_0 + sigma_t n``, the mirrorings ``m``, left to right and upside down, and the loss
``L(m) = mean |x0_hat(m(x_t), t) - m(x_0)|^2`` over dimensions and over noises ``n`` that are the same for all images,

    score = mean over m of log L(m) - log L(identity)

A plain image has small losses in any model (:mod:`invmm_eval.search.screening.denoising_loss`); here its simplicity
cancels. The comparison with neighbours of an example is that of Mattern et al. 2023, "Membership Inference Attacks
against Language Models via Neighbourhood Comparison". A model that was trained on mirrored images too has memorized
both, and a picture that is its own mirror image scores half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.screening.estimates import Options, contexts, estimate, noises, time_at
from invmm_eval.search.target import Target

MIRRORINGS = ((), (-1,), (-2,))
"""Flipped dimensions: none, left to right, upside down."""


@dataclass(frozen=True)
class MirroredLoss(Options):
    """The logarithm of the ratio of both losses.

    Attributes:
        share: The time, in (0, 1], as a share of the way from clean to noisiest.
        draws: Number of noises, 1 or more.
    """

    name = "mirrored-loss"

    share: float = 0.2
    draws: int = 2

    @property
    def rows(self) -> int:
        """Three for each noise: the image and two mirror images."""
        return len(MIRRORINGS) * self.draws

    def __call__(
        self, backbone: Backbone, x_0: Tensor, targets: Sequence[Target], *, seed: int, micro_batch: int
    ) -> Tensor:
        """Scores ``(n,)``, above 0 where the image has a smaller loss than its mirror images."""
        t = time_at(backbone.schedule, self.share)
        alpha_t, sigma_t = backbone.schedule(t)
        x_t = alpha_t * x_0[:, None] + sigma_t * noises(x_0, self.draws, seed)
        context = contexts(backbone, targets, self.draws, seed)

        def log_loss(mirroring: tuple[int, ...]) -> Tensor:
            x0_hat, _ = estimate(backbone, x_t.flip(mirroring).flatten(0, 1), t, context, micro_batch)
            error = x0_hat.view_as(x_t) - x_0[:, None].flip(mirroring)
            return error.square().flatten(1).mean(dim=1).clamp(min=torch.finfo(x_0.dtype).tiny).log()

        itself, *mirrored = map(log_loss, MIRRORINGS)
        return torch.stack(mirrored).mean(dim=0) - itself
