"""The denoising loss at one time: a memorized image is restored with less error than a new one.

    score = -mean |x0_hat(alpha_t x_0 + sigma_t n, t) - x_0|^2

over dimensions and over noises ``n`` that are the same for all images. Carlini et al. 2023, "Extracting Training Data
from Diffusion Models", section 5.2; Matsumoto et al. 2023, "Membership Inference Attacks against Diffusion Models".
The loss also depends on how simple an image is: flat pictures have a small one in any model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.screening.estimates import Options, contexts, estimate, noises, time_at
from invmm_eval.search.target import Target


@dataclass(frozen=True)
class DenoisingLoss(Options):
    """The negative denoising loss.

    Attributes:
        share: The time, in (0, 1], as a share of the way from clean to noisiest.
        draws: Number of noises, 1 or more.
    """

    name = "denoising-loss"

    share: float = 0.2
    draws: int = 4

    @property
    def rows(self) -> int:
        """One for each noise."""
        return self.draws

    def __call__(
        self, backbone: Backbone, x_0: Tensor, targets: Sequence[Target], *, seed: int, micro_batch: int
    ) -> Tensor:
        """Scores ``(n,)``, at most 0."""
        t = time_at(backbone.schedule, self.share)
        alpha_t, sigma_t = backbone.schedule(t)
        x_t = (alpha_t * x_0[:, None] + sigma_t * noises(x_0, self.draws, seed)).flatten(0, 1)
        context = contexts(backbone, targets, self.draws, seed)
        x0_hat, _ = estimate(backbone, x_t, t, context, micro_batch)
        return -(x0_hat.view(len(x_0), self.draws, *x_0.shape[1:]) - x_0[:, None]).square().flatten(1).mean(dim=1)
