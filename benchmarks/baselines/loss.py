"""The loss of training as a membership attack: what the model was trained on, it denoises better.

Carlini et al. 2023, "Extracting Training Data from Diffusion Models", section 5.2; Matsumoto et al. 2023, "Membership
Inference Attacks against Diffusion Models". The loss at one time is ``|noise_hat(alpha_t x_0 + sigma_t n, t) - n|^2``.
"""

import torch
from torch import Tensor

from benchmarks.baselines.counting import estimate, time_at
from invmm_eval.models.backbone import Backbone


def score(backbone: Backbone, images: Tensor, *, share: float, draws: int = 16, seed: int = 0) -> Tensor:
    """The negative loss at one time, averaged over dimensions and over noises that are the same for all images.

    Args:
        backbone: The model.
        images: Float32 ``(n, C, H, W)`` in [0, 1].
        share: The time, in (0, 1] of the way to the noisiest.
        draws: Noises.
        seed: Of the noises.
    """
    with torch.no_grad():
        x_0 = backbone.encode(images.to(backbone.device))
    t = time_at(backbone.schedule, share)
    alpha_t, sigma_t = backbone.schedule(t)
    noises = torch.randn(draws, *x_0.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x_0.device)
    x_t = alpha_t * x_0[:, None] + sigma_t * noises
    _, found = estimate(backbone, x_t.flatten(0, 1), t)
    return -(found.view_as(x_t) - noises).square().flatten(1).mean(dim=1)
