"""The step error (SecMI): a training image is carried to noise and back with less error.

DDIM runs backwards from the image, deterministically, to a time t. The error is the squared distance between the state
at t and the same state after one step towards noise and one step back. Duan et al. 2023, "Are Diffusion Models
Vulnerable to Membership Inference Attacks?", equation 9 (SecMI, statistic).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.screening.estimates import Options, contexts, estimate
from invmm_eval.search.target import Target


@dataclass(frozen=True)
class StepError(Options):
    """The negative step error, averaged over dimensions.

    Attributes:
        steps: Number of steps from clean to noisiest; the paper's are 100 of 10 training times each.
        to: Number of them that lead to t, below ``steps``.
    """

    name = "secmi"

    steps: int = 100
    to: int = 10

    @property
    def rows(self) -> int:
        """One for each step to t, and two for the step beyond and back."""
        return self.to + 1

    def __call__(
        self, backbone: Backbone, x_0: Tensor, targets: Sequence[Target], *, seed: int, micro_batch: int
    ) -> Tensor:
        """Scores ``(n,)``, at most 0."""
        context = contexts(backbone, targets, 1, seed)

        def step(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
            """One deterministic step from time t to time s (Song et al. 2021, equation 12)."""
            estimated, noise = estimate(backbone, x_t, t, context, micro_batch)
            alpha_s, sigma_s = backbone.schedule(s)
            return alpha_s * estimated + sigma_s * noise

        times = backbone.schedule.grid(self.steps).flip(0)[1:]
        x_t = x_0
        for t, s in pairwise(times[: self.to]):
            x_t = step(x_t, t, s)
        reached, beyond = times[self.to - 1], times[self.to]
        back = step(step(x_t, reached, beyond), beyond, reached)
        return -(back - x_t).square().flatten(1).mean(dim=1)
