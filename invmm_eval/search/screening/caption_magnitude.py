"""How far the caption moves the noise estimate: a caption that was memorized with its image decides the sample.

Along plain sampling with the caption,

    score = mean |noise_hat(x_t, t, caption) - noise_hat(x_t, t, null)|_2

over the sampling times and over several initial noises. Wen et al. 2024, "Detecting, Explaining, and Mitigating
Memorization in Diffusion Models", equation 3. The score depends on the caption alone, not on the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.screening.estimates import Options, estimate, noises, with_and_without
from invmm_eval.search.target import Target


@dataclass(frozen=True)
class CaptionMagnitude(Options):
    """The magnitude of the guidance.

    Attributes:
        guidance: Scale of classifier-free guidance of the samples.
        steps: Number of sampler steps.
        draws: Number of initial noises, the same for all captions.
    """

    name = "caption-magnitude"

    guidance: float = 7.5
    steps: int = 10
    draws: int = 2

    @property
    def rows(self) -> int:
        """Two for each noise and step: with and without the caption."""
        return 2 * self.draws * self.steps

    def __call__(
        self, backbone: Backbone, x_0: Tensor, targets: Sequence[Target], *, seed: int, micro_batch: int
    ) -> Tensor:
        """Scores ``(n,)``, at least 0.

        Raises:
            InvMMError: The model takes no prompt.
        """
        both = with_and_without(backbone, targets, self.draws, seed, self.name)
        x_t = noises(x_0, self.draws, seed).repeat(len(targets), *[1] * (x_0.ndim - 1))
        magnitudes = []
        for t, s in pairwise(backbone.schedule.grid(self.steps)):
            x0_hat, noise_hat = estimate(backbone, torch.cat([x_t, x_t]), t, both, micro_batch)
            with_caption, without = noise_hat.chunk(2)
            magnitudes.append(torch.linalg.vector_norm((with_caption - without).flatten(1), dim=1))
            conditional, unconditional = x0_hat.chunk(2)
            guided = unconditional + self.guidance * (conditional - unconditional)
            if backbone.clip is not None:
                guided = guided.clamp(-backbone.clip, backbone.clip)
            (alpha_t, sigma_t), (alpha_s, sigma_s) = backbone.schedule(t), backbone.schedule(s)
            x_t = alpha_s * guided + sigma_s * (x_t - alpha_t * guided) / sigma_t
        return torch.stack(magnitudes).mean(dim=0).view(len(targets), self.draws).mean(dim=1)
